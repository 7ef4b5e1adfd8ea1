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

# Sums of weights over a whole raster stay below 2^60, so that no order of summation overflows.
_WHOLE_RASTER_WEIGHT = 1 << 60
# Difference between areas on the map and on the ground above which a warning is logged.
_TOLERATED_STRETCH = 0.01
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


def warn_of_stretched_areas(path: PathLike, geobox: GeoBox) -> None:
    """Log a warning where the projection distorts areas by more than 1%."""
    stretch = geobox.areal_scale
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
        (points,) metres; map units where there is no CRS.
    """
    transform = geobox.transform
    col_steps, row_steps = cols[following] - cols, rows[following] - rows
    x_steps = transform.a * col_steps + transform.b * row_steps
    y_steps = transform.d * col_steps + transform.e * row_steps
    if not geobox.is_geographic:
        return np.asarray(np.hypot(x_steps, y_steps) * geobox.crs_unit_m, dtype=np.float64)
    middle_y = transform.d * cols + transform.e * rows + transform.f + y_steps / 2
    east_m, north_m = _metres_in_a_degree(geobox, np.radians(middle_y))
    return np.asarray(np.hypot(x_steps * east_m, y_steps * north_m), dtype=np.float64)


def _metres_in_a_degree(
    geobox: GeoBox, latitude: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Along the parallel and along the meridian, at latitudes in radians."""
    geod = pyproj.CRS.from_user_input(geobox.crs).get_geod()
    semi_major, squared = (geod.a, geod.es) if geod else (6_378_137.0, 0.0)
    flattened = 1 - squared * np.sin(latitude) ** 2
    east = semi_major * np.cos(latitude) / np.sqrt(flattened)
    north = semi_major * (1 - squared) / flattened**1.5
    return east * math.pi / 180, north * math.pi / 180
