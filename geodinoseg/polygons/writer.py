"""The writer of polygon files: the format by the suffix, streamed, with a style for QGIS.

A file appears under its name only when it is complete. A GeoPackage contains its style, the other
formats have a `.qml` file of the same stem.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyogrio
import pyogrio.raw
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio.crs import CRS

from geodinoseg.errors import OutputError, OutputExistsError, one_line
from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.legend import Legend
from geodinoseg.polygons.formats import (
    check_shapefile_names,
    within_shapefile_limits,
    write_geoparquet,
)
from geodinoseg.qgis.geopackage import add_layer_style, check_layer_name
from geodinoseg.qgis.styles import vector_qml

GEOJSON_CRS = CRS.from_epsg(4326)
"""The only CRS of GeoJSON (RFC 7946)."""
WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError)
"""Raised by pyogrio when a file cannot be written."""
_VECTOR_STYLE = b"<renderer-v2"
"""In every `.qml` of a vector layer, and in none of a raster."""
_LARGEST_INDEX_BYTES = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFormat:
    """A file format and GDAL's options for writing it."""

    driver: str
    """GDAL's name; pyarrow writes Parquet."""
    layer_options: dict[str, str]
    """GDAL's layer creation options."""
    dataset_options: dict[str, str] = field(default_factory=dict)
    """Its dataset creation options."""
    sidecars: tuple[str, ...] = ()
    """Endings of further files that readers treat as part of it; other programs make some."""


GEOPACKAGE = VectorFormat(
    driver="GPKG",
    layer_options={"GEOMETRY_NAME": "geom"},
    # No later feature is used, and GDAL before 3.7 (QGIS 3.22 on Debian 12) warns of 1.4.
    dataset_options={"VERSION": "1.2"},
    # Left over from a crash; SQLite would replay the old file's into the new one.
    sidecars=(".gpkg-wal", ".gpkg-shm", ".gpkg-journal"),
)
_SHAPEFILE = VectorFormat(
    driver="ESRI Shapefile",
    # The header holds a date; without a fixed one the same map gives other bytes every day.
    layer_options={"ENCODING": "UTF-8", "DBF_DATE_LAST_UPDATE": "1970-01-01"},
    # Among them indexes of old features (.qix, .sbn, .idm), by which readers would miss new ones.
    sidecars=(".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".idm", ".ind", ".shp.xml"),
)
_PARQUET = VectorFormat(driver="Parquet", layer_options={})
_GEOJSON = VectorFormat(
    driver="GeoJSON",
    # 1e-9 of a degree is 0.1 mm: the default of 7 decimals would move a drone's pixels by half.
    layer_options={"RFC7946": "YES", "COORDINATE_PRECISION": "9"},
)
VECTOR_FORMATS = {
    ".gpkg": GEOPACKAGE,
    ".shp": _SHAPEFILE,
    ".fgb": VectorFormat(driver="FlatGeobuf", layer_options={}),
    ".geojson": _GEOJSON,
    ".json": _GEOJSON,
    ".parquet": _PARQUET,
    ".geoparquet": _PARQUET,
}
"""The formats by suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonLayer:
    """A polygon file's metadata."""

    crs: CRS | None
    """Of the coordinates."""
    legend: Legend
    """Names and colours of the style, by `class_name`."""
    schema: pa.Schema
    """Of the batches; the last column is WKB."""
    geometry_type: str
    """Polygon or MultiPolygon."""


def find_sidecars(target: Path, endings: Iterable[str]) -> list[Path]:
    """The files beside a target that have its stem and one of these endings.

    Args:
        target: the main file; need not exist.
        endings: what follows the stem, lower case, such as `.dbf` or `.gpkg-wal`; files match in
            any case.
    """
    stem, wanted = target.stem, set(endings)
    return [
        entry
        for entry in target.parent.iterdir()
        if entry.name.startswith(stem) and entry.name[len(stem) :].lower() in wanted
    ]


def check_sidecars(target: Path, endings: Iterable[str]) -> None:
    """Refuse to replace a sidecar without --overwrite: an `x.dbf` when writing `x.shp`."""
    for sidecar in find_sidecars(target, endings):
        raise OutputExistsError(
            f"{target}: {sidecar.name} exists already and would be replaced; give another name, "
            f"or --overwrite."
        )


def _check_style_file(target: Path) -> None:
    """Refuse to replace a raster's style: QGIS reads the style of every layer from `<stem>.qml`."""
    style = target.with_suffix(".qml")
    if style.exists() and not (style.is_file() and _VECTOR_STYLE in style.read_bytes()):
        raise OutputError(
            f"{target}: its style would replace {style.name}, which is not the style of a vector "
            f"layer; give another name, or write a .gpkg, which contains its style."
        )


def format_of(path: PathLike) -> VectorFormat:
    """The format of a path's suffix; `check_vector_output` refuses others."""
    return VECTOR_FORMATS[Path(path).suffix.lower()]


def crs_in_file(path: PathLike, crs: CRS | None) -> CRS | None:
    """The CRS of the coordinates in a file of this format."""
    if format_of(path) is not _GEOJSON:
        return crs
    if crs is None:
        raise OutputError(
            f"{path}: GeoJSON is in longitude and latitude, and the raster has no CRS to transform "
            f"from; write a .gpkg, or assign the raster's CRS."
        )
    return GEOJSON_CRS


def check_vector_output(
    path: PathLike, *, legend: Legend, overwrite: bool, inputs: Iterable[PathLike]
) -> Path:
    """Check before any work whether polygons of these classes can be written to a path."""
    target = check_output(path, overwrite=overwrite, suffixes=tuple(VECTOR_FORMATS), inputs=inputs)
    kind = format_of(target)
    if not overwrite:
        check_sidecars(target, kind.sidecars)
    if kind is GEOPACKAGE:
        check_layer_name(target)
    else:
        _check_style_file(target)
    if kind is _SHAPEFILE:
        check_shapefile_names(target, legend)
    return target


def write_batches(batches: Iterator[pa.RecordBatch], target: Path, *, layer: PolygonLayer) -> Path:
    """Write features as they arrive; the target was checked by `check_vector_output`."""
    kind = format_of(target)
    with atomic_file(target, stale_sidecars=find_sidecars(target, kind.sidecars)) as path:
        if kind is _SHAPEFILE:
            batches = within_shapefile_limits(batches, target, layer.legend)
        if kind is _PARQUET:
            write_geoparquet(
                batches, path, schema=layer.schema, crs=layer.crs, kind=layer.geometry_type
            )
        else:
            _write_with_gdal(batches, path, target, kind, layer)
        qml = vector_qml(layer.legend)
        if kind is GEOPACKAGE:
            add_layer_style(path, qml, target=target)
        else:
            path.with_suffix(".qml").write_text(qml, encoding="utf-8")
    return target


def _write_with_gdal(
    batches: Iterator[pa.RecordBatch],
    path: Path,
    target: Path,
    kind: VectorFormat,
    layer: PolygonLayer,
) -> None:
    source = _Source(batches)
    # GDAL always writes a Shapefile's suffix in lower case.
    written = path.with_suffix(path.suffix.lower())
    try:
        with warnings.catch_warnings(), _spatial_index_on_disk():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write_arrow(
                pa.RecordBatchReader.from_batches(layer.schema, source),
                os.fspath(written),
                layer=path.stem,
                driver=kind.driver,
                geometry_type=layer.geometry_type,
                geometry_name=layer.schema.names[-1],
                crs=None if layer.crs is None else layer.crs.to_wkt(),
                dataset_options=kind.dataset_options,
                layer_options=kind.layer_options,
            )
        written.replace(path)
    except (*WRITE_ERRORS, RuntimeError, OSError) as error:
        if source.error is not None:
            raise source.error from error
        raise OutputError(
            f"{target}: could not be written; is the disk full? ({one_line(error)})."
        ) from error


@contextmanager
def _spatial_index_on_disk() -> Iterator[None]:
    """Let GDAL build a GeoPackage's index in pieces: at once it takes 40 MB per million polygons.

    Set for the GDAL of pyogrio, which is not that of rasterio.
    """
    name = "OGR_GPKG_MAX_RAM_USAGE_RTREE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: _LARGEST_INDEX_BYTES})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})


class _Source:
    """Batches on their way through Arrow's C interface, which turns exceptions into text."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self.error: BaseException | None = None
        """Raised while a batch was made."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except BaseException as error:
            self.error = error
            raise
