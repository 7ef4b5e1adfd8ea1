"""Areas and lengths on the ground of what was traced in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox

# Sums of weights over a whole raster stay below 2^60, so no order of adding overflows.
_WHOLE_RASTER_WEIGHT = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaWeights:
    """The area of a pixel in each row as a whole number, so that sums are exact in any order."""

    unit_m2: float
    """Area of weight 1."""
    above: NDArray[np.int64]
    """(height + 1,) weights of the rows above each lattice row, summed."""


def check_place(path: PathLike, geobox: GeoBox) -> None:
    """Refuse a raster whose pixels have no place or no area, so that no polygon has one either.

    Raises:
        SceneError: it has no transform, or all of it lies past the poles.
    """
    if geobox.transform == Affine.identity():
        raise SceneError(
            f"{path}: does not say where it lies, so polygons of it cannot; give it a "
            f"georeference, for instance with gdal_translate -a_srs -a_ullr."
        )
    if not geobox.row_areas_m2.any():
        raise SceneError(
            f"{path}: lies past the poles, its coordinates are no degrees though its CRS says "
            f"so; correct the CRS, for instance with gdal_edit -a_srs."
        )


def area_weights(geobox: GeoBox) -> AreaWeights:
    """Weigh the rows of a raster: 1 each where all pixels are of one size.

    Elsewhere (degrees) the rounding is 2^-60 of the raster's area for a pixel.
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

    In a projected CRS the length on the map. In a geographic CRS that on the ellipsoid, with the
    radii of curvature at the segment's middle latitude (Snyder 1987, eq. 4-18 to 4-21).

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
