"""Whether polygons can be written to a path, found out before any work.

The name, the classes, and the CRS, which not every format holds; files beside it: `sidecars`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

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
from geodinoseg.transformations import find_transformation

_PLACES = 33
"""Places of a raster along each side at which longitude and latitude are looked up."""
_LARGE_PX = 10**9
"""Polygons of so large a raster may take gigabytes."""
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
        geobox: the raster's place.
        legend: the raster's classes.
        overwrite: whether existing files may be replaced.
        inputs: files that must not be replaced.

    Raises:
        OutputExistsError: the file or one that belongs to it exists.
        OutputError: it cannot be written, or its format cannot hold the classes or the CRS.
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
            "%s: a FlatGeobuf takes twice its size on the disk while it is written, as its "
            "features are put in order at the end; a .gpkg does not.",
            path,
        )
    return target


def check_crs(path: PathLike, geobox: GeoBox) -> None:
    """Refuse a format in which polygons would lose their place on the earth.

    Raises:
        OutputError: the format cannot hold the raster's CRS, or holds longitude and latitude
            alone, to which no transformation leads.
    """
    if is_lonlat(path):
        _check_lonlat(path, geobox)
    elif geobox.crs is not None:
        suffix = Path(path).suffix.lower()
        fault = _crs_fault(suffix, geobox.crs.to_wkt())
        if fault:
            name = pyproj.CRS.from_user_input(geobox.crs).name
            raise OutputError(
                f"{path}: a {suffix} file cannot hold the raster's CRS, {name!r}, which {fault}; "
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
            f"{path}: GeoJSON is in longitude and latitude, which no place of the raster has; "
            f"correct its CRS, or write a .gpkg."
        )
    if not known.all():
        _log.warning(
            "%s: parts of the raster have no longitude and latitude, as GeoJSON needs; if they "
            "hold data, no polygons are written; a .gpkg keeps the raster's own CRS.",
            path,
        )


@lru_cache(maxsize=64)
def _crs_fault(suffix: str, wkt: str) -> str:
    """Why a format cannot hold a CRS, found out by trial; empty where it can."""
    crs = CRS.from_wkt(wkt)
    try:
        found = _read_back(suffix, crs)
    except _PROBE_ERRORS as error:
        return f"cannot be written ({one_line(error)})" if _can_probe(suffix) else ""
    if found is None:
        return "would be lost"
    same = _same_place(pyproj.CRS.from_user_input(crs), found)
    return "" if same else f"would be read as {found.name!r}, another one"


def _read_back(suffix: str, crs: CRS) -> pyproj.CRS | None:
    """The CRS that a reader finds in a small file with a CRS."""
    schema = polygon_schema(has_confidence=False)
    layer = PolygonLayer(
        crs=crs, legend=Legend.of_names({0: "none"}), schema=schema, geometry_type="Polygon"
    )
    with tempfile.TemporaryDirectory(prefix="geodinoseg-") as folder:
        path = Path(folder, f"probe{suffix}")
        write_layer(iter(()), path, path, layer=layer)
        return _crs_of(path)


def _can_probe(suffix: str) -> bool:
    """Whether a file with a common CRS can be written, so that a fault is that of another CRS."""
    try:
        return _read_back(suffix, GEOJSON_CRS) is not None
    except _PROBE_ERRORS:
        return False


def _crs_of(path: Path) -> pyproj.CRS | None:
    """The CRS that a reader finds in a file of ours."""
    if format_of(path) is PARQUET:
        geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
        return pyproj.CRS.from_json_dict(geo["columns"][geo["primary_column"]]["crs"])
    text = pyogrio.read_info(path, layer=path.stem)["crs"]
    return pyproj.CRS.from_user_input(text) if text else None


def _same_place(first: pyproj.CRS, second: pyproj.CRS) -> bool:
    """Whether coordinates in two CRSs are those of one place; heights do not matter."""
    first, second = _horizontal(first), _horizontal(second)
    if first.equals(second, ignore_axis_order=True):
        return True
    # GDAL's comparison knows equal parameters of projections by their values.
    if CRS.from_user_input(first) == CRS.from_user_input(second):
        return True
    facts = _facts(first)
    return facts is not None and facts == _facts(second)


def _facts(crs: pyproj.CRS) -> tuple[Any, ...] | None:
    """What places coordinates on the earth, apart from names; a Shapefile has names of its own."""
    base = crs.geodetic_crs
    if base is None or base.datum is None or base.ellipsoid is None or crs.is_bound:
        return None
    datum = "".join(filter(str.isalnum, base.datum.name.lower().removeprefix("d_")))
    meridian = base.prime_meridian.longitude if base.prime_meridian else 0.0
    axes = base.ellipsoid.semi_major_metre, base.ellipsoid.semi_minor_metre
    unit = f"{crs.axis_info[0].unit_conversion_factor:.10g}"
    operation = crs.coordinate_operation
    if operation is None:
        return datum, meridian, axes, unit
    values = [
        (p.name, f"{float(p.value) * p.unit_conversion_factor:.10g}") for p in operation.params
    ]
    return datum, meridian, axes, unit, operation.method_name, sorted(values)


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """A CRS without heights, and without a shift to WGS 84 that is none."""
    if crs.is_bound and crs.coordinate_operation is not None and crs.source_crs is not None:
        shift = crs.coordinate_operation.towgs84
        if shift and not any(shift):
            crs = crs.source_crs
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.to_2d()
