"""The writer of polygon files: the format by the suffix, streamed, with a style for QGIS.

A file appears under its name only when it is complete. A GeoPackage contains its style, the other
formats have a `.qml` file of the same stem.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyogrio
import pyogrio.raw
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio.crs import CRS

from geodinoseg.errors import OutputError, one_line
from geodinoseg.files.atomic import PathLike, atomic_file
from geodinoseg.legend import Legend
from geodinoseg.polygons.edited_style import keep_edited_styles, write_style
from geodinoseg.polygons.feature_boxes import FeatureBoxes
from geodinoseg.polygons.flatgeobuf import write_indexed
from geodinoseg.polygons.formats import within_shapefile_limits, write_geoparquet
from geodinoseg.polygons.geopackage_index import add_spatial_index, has_rtree
from geodinoseg.polygons.sidecars import check_in_place, find_sidecars
from geodinoseg.qgis.geopackage import (
    add_further_styles,
    add_layer_style,
    read_layer_styles,
)
from geodinoseg.qgis.styles import vector_qml

WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError)
"""Raised by pyogrio when a file cannot be written."""
# QGIS's title and description of a layer, which would be applied to the new file.
_METADATA = ".qmd"
# GDAL cannot be interrupted while it writes a batch, which takes up to 50 us per polygon.
_ROWS_AT_ONCE = 20_000
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
    """Endings, as in `find_sidecars`, of further files that readers treat as part of it.

    Some are written by other programs. Styles (`.qml`) are not included, as several files may share
    one.
    """


GEOPACKAGE = VectorFormat(
    driver="GPKG",
    layer_options={"GEOMETRY_NAME": "geom"},
    # No later feature is used, and GDAL before 3.7 (QGIS 3.22 on Debian 12) warns of 1.4.
    dataset_options={"VERSION": "1.2"},
    # Left over from a crash; SQLite would replay the old file's into the new one.
    sidecars=(".gpkg-wal", ".gpkg-shm", ".gpkg-journal"),
)
SHAPEFILE = VectorFormat(
    driver="ESRI Shapefile",
    # The header holds a date; without a fixed one the same map gives other bytes every day.
    layer_options={"ENCODING": "UTF-8", "DBF_DATE_LAST_UPDATE": "1970-01-01"},
    # They include indexes of old features, with which readers would miss new ones.
    sidecars=(
        *(".shx", ".dbf", ".prj", ".qpj", ".cpg", ".shp.xml", _METADATA),
        *(".qix", ".sbn", ".sbx", ".fbn", ".fbx", ".ain", ".aih", ".ixs", ".mxs", ".idm", ".ind"),
        ".*.atx",  # ArcGIS's attribute indexes, one per column
    ),
)
FLATGEOBUF = VectorFormat(
    driver="FlatGeobuf",
    layer_options={"SPATIAL_INDEX": "NO"},  # see `flatgeobuf`
    sidecars=(_METADATA,),
)
PARQUET = VectorFormat(driver="Parquet", layer_options={}, sidecars=(_METADATA,))
GEOJSON = VectorFormat(
    driver="GeoJSON",
    # 1e-9 of a degree is 0.1 mm: the default of 7 decimals would move a drone's pixels by half.
    layer_options={"RFC7946": "YES", "COORDINATE_PRECISION": "9"},
    sidecars=(_METADATA,),
)
VECTOR_FORMATS = {
    ".gpkg": GEOPACKAGE,
    ".shp": SHAPEFILE,
    ".fgb": FLATGEOBUF,
    ".geojson": GEOJSON,
    ".json": GEOJSON,
    ".parquet": PARQUET,
    ".geoparquet": PARQUET,
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


def format_of(path: PathLike) -> VectorFormat:
    """The format of a path's suffix; `check_vector_output` refuses others."""
    return VECTOR_FORMATS[Path(path).suffix.lower()]


def is_lonlat(path: PathLike) -> bool:
    """Whether a file of this name holds longitude and latitude for any CRS of the raster."""
    return format_of(path) is GEOJSON


def write_batches(batches: Iterator[pa.RecordBatch], target: Path, *, layer: PolygonLayer) -> Path:
    """Write features as they arrive; the target was checked by `check_vector_output`."""
    kind = format_of(target)
    # Before its sidecars are listed: SQLite leaves one where there is a journal.
    old_styles = read_layer_styles(target, target.stem) if kind is GEOPACKAGE else []
    with atomic_file(target, stale_sidecars=find_sidecars(target, kind.sidecars)) as path:
        if kind is SHAPEFILE:
            batches = within_shapefile_limits(batches, target, layer.legend)
        write_layer(batches, path, target, layer=layer)
        qml = vector_qml(layer.legend)
        if kind is GEOPACKAGE:
            qml, edited = keep_edited_styles(old_styles, target, layer.legend, qml)
            add_layer_style(path, qml, target=target)
            if edited:
                add_further_styles(path, edited, target=target)
        else:
            write_style(path.parent, target, layer.legend, qml)
        written = [entry.name for entry in path.parent.iterdir()]
    if kind is not GEOPACKAGE:  # programs that open one create further files beside it
        check_in_place(target, kind.sidecars, written=written)
    return target


def write_layer(
    batches: Iterator[pa.RecordBatch], path: Path, target: Path, *, layer: PolygonLayer
) -> None:
    """Write features without a style.

    Args:
        batches: the features.
        path: the file to write, in a folder of its own.
        target: the path named in errors; its suffix selects the format.
        layer: CRS, legend, columns and geometry type of the file.
    """
    kind = format_of(target)
    if kind is PARQUET:
        write_geoparquet(
            batches, path, schema=layer.schema, crs=layer.crs, kind=layer.geometry_type
        )
    elif kind is FLATGEOBUF:
        with closing(FeatureBoxes.beside(path)) as boxes:
            plain = path.with_name(f"{path.stem}.plain.fgb")
            _write_with_gdal(boxes.watch(batches), plain, target, kind, layer)
            write_indexed(plain, path, boxes)
            plain.unlink()
    elif kind is GEOPACKAGE and has_rtree():
        _write_geopackage(batches, path, target, layer)
    else:
        _write_with_gdal(batches, path, target, kind, layer)


def _write_geopackage(
    batches: Iterator[pa.RecordBatch], path: Path, target: Path, layer: PolygonLayer
) -> None:
    empty = path.with_name(f"{path.stem}.empty.gpkg")
    _write_with_gdal(iter(()), empty, target, GEOPACKAGE, layer)
    plain = replace(GEOPACKAGE, layer_options={**GEOPACKAGE.layer_options, "SPATIAL_INDEX": "NO"})
    with closing(FeatureBoxes.beside(path)) as boxes:
        _write_with_gdal(boxes.watch(batches), path, target, plain, layer)
        try:
            add_spatial_index(path, empty, target.stem, boxes)
        except sqlite3.Error as error:
            raise OutputError(
                f"{target}: could not be written; is the disk full? ({one_line(error)})."
            ) from error
    empty.unlink()


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
            # A GeoPackage keeps the definition as it is given.
            warnings.filterwarnings("ignore", message="Passed SRS uses")
            pyogrio.raw.write_arrow(
                pa.RecordBatchReader.from_batches(layer.schema, source),
                os.fspath(written),
                layer=target.stem,
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
            for batch in self._batches:
                for first in range(0, len(batch), _ROWS_AT_ONCE):
                    yield batch.slice(first, _ROWS_AT_ONCE)
        except BaseException as error:
            self.error = error
            raise
