"""Checks before any work that polygons can be written to a path.

They cover the file name, the classes, and the CRS, which not every format can store. Files beside
the output are checked in `sidecars`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pyproj
from rasterio.crs import CRS

from geodinoseg.errors import OutputError, TransformationError, one_line
from geodinoseg.files.atomic import PathLike, check_output
from geodinoseg.files.misread_names import check_vector_name
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.polygons.formats import check_shapefile_names
from geodinoseg.polygons.lonlat import GEOJSON_CRS
from geodinoseg.polygons.sidecars import check_sidecars, check_style_file
from geodinoseg.polygons.table import polygon_schema
from geodinoseg.polygons.writer import (
    FLATGEOBUF,
    GEOPACKAGE,
    PARQUET,
    SHAPEFILE,
    VECTOR_FORMATS,
    WRITE_ERRORS,
    PolygonLayer,
    format_of,
    is_lonlat,
    write_layer,
)
from geodinoseg.qgis.geopackage import check_layer_name
from geodinoseg.transformations import find_transformation, same_place

_PLACES = 33
"""Points along each side of a raster at which longitude and latitude are computed."""
_LARGE_PX = 10**9
"""The polygons of a raster with at least this many pixels may take gigabytes."""
_PROBE_ERRORS = (OutputError, *WRITE_ERRORS, ValueError, RuntimeError, OSError)
_log = logging.getLogger(__name__)


def check_vector_output(
    path: PathLike,
    *,
    geobox: GeoBox,
    legend: Legend,
    overwrite: bool,
    inputs: Iterable[PathLike],
) -> Path:
    """Check before any work whether polygons of a raster can be written to a path.

    Args:
        path: the file; its suffix selects the format.
        geobox: grid of the raster.
        legend: classes of the raster.
        overwrite: whether existing files may be replaced.
        inputs: files that must not be replaced.

    Raises:
        OutputExistsError: the file or one of its sidecars exists.
        OutputError: it cannot be written, or its format cannot store the classes or the CRS.
    """
    target = check_output(path, overwrite=overwrite, suffixes=tuple(VECTOR_FORMATS), inputs=inputs)
    kind = format_of(target)
    if kind is not PARQUET:
        check_vector_name(target)
    if not overwrite:
        check_sidecars(target, kind.sidecars)
    if kind is GEOPACKAGE:
        check_layer_name(target)
    else:
        check_style_file(target, legend, overwrite=overwrite)
    if kind is SHAPEFILE:
        check_shapefile_names(target, legend)
    check_crs(target, geobox)
    if kind is FLATGEOBUF and geobox.width * geobox.height >= _LARGE_PX:
        _log.warning(
            "%s: writing a FlatGeobuf takes twice its size on disk, as its features are sorted "
            "at the end; a .gpkg does not.",
            path,
        )
    return target


def check_crs(path: PathLike, geobox: GeoBox) -> None:
    """Refuse a format in which polygons would lose their position on the earth.

    Raises:
        OutputError: the format cannot store the raster's CRS, or stores only longitude and
            latitude and no transformation to them exists.
    """
    if is_lonlat(path):
        _check_lonlat(path, geobox)
    elif geobox.crs is not None:
        suffix = Path(path).suffix.lower()
        fault = _crs_fault(suffix, geobox.crs.to_wkt())
        if fault:
            name = pyproj.CRS.from_user_input(geobox.crs).name
            raise OutputError(
                f"{path}: a {suffix} file cannot store the raster's CRS, {name!r}, which {fault}; "
                f"{_way_out(path)}."
            )


def _way_out(path: PathLike) -> str:
    if format_of(path) is GEOPACKAGE:
        return "warp the raster to a common CRS first"
    return "write a .gpkg, or warp the raster to a common CRS first"


def _check_lonlat(path: PathLike, geobox: GeoBox) -> None:
    if geobox.crs is None:
        raise OutputError(
            f"{path}: GeoJSON is in longitude and latitude, and the raster has no CRS to transform "
            f"from; write a .gpkg, or assign the raster's CRS."
        )
    try:
        transformation = find_transformation(geobox.crs, GEOJSON_CRS)
    except TransformationError as error:
        raise OutputError(
            f"{path}: GeoJSON is in longitude and latitude on the earth, and {error}; write a "
            f".gpkg, which keeps the raster's own CRS."
        ) from error
    steps = np.linspace(0.0, 1.0, _PLACES)
    cols, rows = np.meshgrid(steps * geobox.width, steps * geobox.height)
    lon, lat = transformation.transform(*(geobox.transform @ (cols.ravel(), rows.ravel())))
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        raise OutputError(
            f"{path}: GeoJSON is in longitude and latitude, which no part of the raster has; "
            f"correct its CRS, or write a .gpkg."
        )
    if not known.all():
        _log.warning(
            "%s: parts of the raster have no longitude and latitude, which GeoJSON requires; if "
            "they hold data, writing fails. A .gpkg keeps the raster's own CRS.",
            path,
        )


@lru_cache(maxsize=64)
def _crs_fault(suffix: str, wkt: str) -> str:
    """Why a format cannot store a CRS, found by writing a small file; empty if it can."""
    crs = CRS.from_wkt(wkt)
    try:
        found = _read_back(suffix, crs)
    except _PROBE_ERRORS as error:
        return f"cannot be written ({one_line(error)})" if _can_probe(suffix) else ""
    if found is None:
        return "would be lost"
    same = same_place(crs, found)
    return "" if same else f"would be read as another one, {found.name!r}"


def _read_back(suffix: str, crs: CRS) -> pyproj.CRS | None:
    """The CRS that is read back from a small file written with a CRS."""
    schema = polygon_schema(has_confidence=False)
    layer = PolygonLayer(
        crs=crs, legend=Legend.of_names({0: "none"}), schema=schema, geometry_type="Polygon"
    )
    with tempfile.TemporaryDirectory(prefix="geodinoseg-") as folder:
        path = Path(folder, f"probe{suffix}")
        write_layer(iter(()), path, path, layer=layer)
        return _crs_of(path)


def _can_probe(suffix: str) -> bool:
    """Whether a file with a common CRS can be written, so that a failure is due to the CRS."""
    try:
        return _read_back(suffix, GEOJSON_CRS) is not None
    except _PROBE_ERRORS:
        return False


def _crs_of(path: Path) -> pyproj.CRS | None:
    """The CRS read from a file of ours; None if it has none."""
    if format_of(path) is PARQUET:
        geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
        return pyproj.CRS.from_json_dict(geo["columns"][geo["primary_column"]]["crs"])
    text = pyogrio.read_info(path, layer=path.stem)["crs"]
    return pyproj.CRS.from_user_input(text) if text else None
