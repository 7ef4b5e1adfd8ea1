"""Areas and lengths on the ground of pixels and their outlines."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox
from geodinoseg.polygons.coverage.simplify import Tolerance
from geodinoseg.transformations import degrees_per_unit

# Sums of weights over a whole raster stay below 2^60, so that no order of summation overflows.
_WHOLE_RASTER_WEIGHT = 1 << 60
# Difference between areas on the map and on the ground above which a warning is logged.
_TOLERATED_STRETCH = 0.01
_NO_UNIT = "unknown"
_IN_PIXELS = ", or give --simplify in pixels"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaWeights:
    """Pixel areas by row as integers, so that sums are exact in any order."""

    unit_m2: float
    """Area of weight 1."""
    above: NDArray[np.int64]
    """(height + 1,) sum of the weights of the rows above each lattice row."""


def check_place(path: PathLike, geobox: GeoBox) -> None:
    """Refuse a raster whose pixels have no location or no area."""
    if geobox.transform == Affine.identity():
        raise SceneError(
            f"{path}: is not georeferenced, so its polygons would not be either; {geobox.advice}."
        )
    if not geobox.row_areas_m2.any():
        raise SceneError(
            f"{path}: lies beyond the poles, its coordinates are not degrees although its CRS says "
            f"so; correct the CRS, for instance with gdal_edit -a_srs."
        )


def metres_fault(geobox: GeoBox) -> str:
    """Why lengths and areas on the ground are unknown, as a clause; empty if they are known."""
    if geobox.crs is None:
        return "has no CRS"
    crs = pyproj.CRS.from_user_input(geobox.crs)
    unit = crs.axis_info[0].unit_name.lower() if crs.axis_info else _NO_UNIT
    if crs.is_geocentric or _NO_UNIT in unit:
        return f"has a CRS whose coordinates are not lengths on the ground ({crs.name})"
    return ""


def check_metres(path: PathLike, geobox: GeoBox, **sizes: float | None) -> None:
    """Refuse sizes in metres if lengths on the ground are unknown.

    Args:
        path: the raster.
        geobox: grid of the raster.
        sizes: values of options in metres or square metres, by name; 0 or None if not given.
    """
    fault = metres_fault(geobox)
    if not fault:
        return
    for name, size in sizes.items():
        if size:
            option = f"--{name.removesuffix('_m2').removesuffix('_m').replace('_', '-')}"
            raise SceneError(
                f"{path}: {fault}, so {option} cannot be applied in metres; assign its CRS first, "
                f"for instance with gdal_edit -a_srs{_IN_PIXELS if name == 'simplify_m' else ''}."
            )


def warn_of_areas(path: PathLike, geobox: GeoBox) -> None:
    """Log a warning if polygons get no areas, or areas that differ from those on the ground."""
    fault = metres_fault(geobox)
    if fault:
        _log.warning(
            "%s: %s, so its polygons get no area_m2 and perim_m; to get them, assign its CRS "
            "first, for instance with gdal_edit -a_srs.",
            path,
            fault,
        )
    warn_of_stretched_areas(path, geobox)


def warn_of_stretched_areas(path: PathLike, geobox: GeoBox) -> None:
    """Log a warning where the projection distorts areas by more than 1%."""
    stretch = 1.0 if metres_fault(geobox) else geobox.areal_scale
    if abs(stretch - 1) > _TOLERATED_STRETCH:
        _log.warning(
            "%s: areas are in map units, %.2f times those on the ground; for true areas, warp the "
            "raster to an equal-area or local CRS first.",
            path,
            stretch,
        )


def area_weights(geobox: GeoBox) -> AreaWeights:
    """The weight of each row: 1 where all pixels have the same size.

    Elsewhere (degrees) a pixel's area is rounded to 2^-60 of the raster's.
    """
    areas = geobox.row_areas_m2
    if (areas == areas[0]).all():
        counts = np.arange(len(areas) + 1, dtype=np.int64)
        return AreaWeights(unit_m2=float(areas[0]), above=counts)
    unit = float(areas.sum()) * geobox.width / _WHOLE_RASTER_WEIGHT
    above = np.zeros(len(areas) + 1, dtype=np.int64)
    np.cumsum(np.rint(areas / unit).astype(np.int64), out=above[1:])
    return AreaWeights(unit_m2=unit, above=above)


def segment_lengths_m(
    geobox: GeoBox,
    cols: NDArray[np.int32],
    rows: NDArray[np.int32],
    following: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Length of the segments from each lattice point to another.

    In a projected CRS, the length on the map. In a geographic CRS, the length on the ellipsoid,
    with the radii of curvature at the segment's mid-latitude (Snyder 1987, eq. 4-18 to 4-21).

    Args:
        geobox: the raster's place.
        cols: (points,) lattice columns.
        rows: (points,) lattice rows.
        following: (points,) the point at the other end.

    Returns:
        (points,) lengths, metres.
    """
    transform = geobox.transform
    col_steps, row_steps = cols[following] - cols, rows[following] - rows
    x_steps = transform.a * col_steps + transform.b * row_steps
    y_steps = transform.d * col_steps + transform.e * row_steps
    middle_y = transform.d * cols + transform.e * rows + transform.f + y_steps / 2
    east_m, north_m = _metres_in_a_unit(geobox, middle_y)
    return np.asarray(np.hypot(x_steps * east_m, y_steps * north_m), dtype=np.float64)


def outline_tolerance(geobox: GeoBox, distance_m: float, *, first_row: int, end: int) -> Tolerance:
    """Convert a tolerance in metres to one for the pixels of some rows.

    In a projected CRS, metres are map units. In a geographic CRS, a degree counts as the largest
    number of metres that it has in these rows, so that no outline moves farther than the tolerance.

    Args:
        geobox: grid of the raster.
        distance_m: largest distance by which outlines may move.
        first_row: first of the rows.
        end: the row after the last one.
    """
    transform = geobox.transform
    corners = [transform @ (col, row) for col in (0, geobox.width) for row in (first_row, end)]
    ys = np.array([y for _, y in corners], dtype=np.float64)
    if ys.min() < 0 < ys.max():
        ys = np.append(ys, 0.0)  # a degree of longitude is longest at the equator
    east_m, north_m = (float(np.max(metres)) for metres in _metres_in_a_unit(geobox, ys))
    return Tolerance.of(
        distance_m,
        col_step=(transform.a * east_m, transform.d * north_m),
        row_step=(transform.b * east_m, transform.e * north_m),
    )


def _metres_in_a_unit(
    geobox: GeoBox, ys: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres to the east and to the north per unit of the CRS, at these y."""
    if not geobox.is_geographic:
        unit_m = np.full_like(ys, geobox.crs_unit_m)
        return unit_m, unit_m
    crs = pyproj.CRS.from_user_input(geobox.crs)
    radians = math.radians(degrees_per_unit(crs))
    latitude = np.clip(ys * radians, -math.pi / 2, math.pi / 2)
    geod = crs.get_geod()
    semi_major, squared = (geod.a, geod.es) if geod else (6_378_137.0, 0.0)
    flattened = 1 - squared * np.sin(latitude) ** 2
    east = semi_major * np.cos(latitude) / np.sqrt(flattened)
    north = semi_major * (1 - squared) / flattened**1.5
    return east * radians, north * radians
