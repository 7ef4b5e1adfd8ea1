"""Polygons across the 180th meridian, around a pole, or with longitudes from 0 to 360.

A turn is 360 degrees, expressed in the unit of the CRS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

# Fraction of a turn; intervals that overlap by less only touch.
_TOUCHING = 1e-9
Bounds = tuple[float, float, float, float]
"""Minimum x, minimum y, maximum x, maximum y."""


def turns_between(first: Any, second: Any, turn: float) -> tuple[Any, Any]:
    """The range of whole turns by which intervals can be shifted to overlap another interval.

    Args:
        first: minimum and maximum of the shifted intervals, numbers or arrays.
        second: minimum and maximum of the other interval.
        turn: length of a turn.

    Returns:
        fewest, most: whole numbers of turns as floats; where fewest > most, no shift leads to an
        overlap.
    """
    (low, high), (left, right) = first, second
    fewest = np.ceil((left - high) / turn + _TOUCHING)
    most = np.floor((right - low) / turn - _TOUCHING)
    return fewest, most


def turned_into(polygons: NDArray[Any], interval: tuple[float, float], turn: float) -> NDArray[Any]:
    """Shift polygons by whole turns so that they overlap an interval of longitudes.

    A polygon that overlaps it after more than one shift becomes the union of the shifted copies;
    one that overlaps it after none is unchanged.
    """
    bounds = shapely.bounds(polygons)
    with np.errstate(invalid="ignore"):  # NaN where a polygon is empty
        fewest, most = turns_between((bounds[:, 0], bounds[:, 2]), interval, turn)
        moves = (fewest <= most) & ((fewest != 0) | (most != 0))
    turned = polygons.copy()
    for index in np.flatnonzero(moves).tolist():
        steps = np.arange(fewest[index], most[index] + 1) * turn
        turned[index] = shapely.union_all([_moved(polygons[index], step) for step in steps])
    return turned


def unwrapped(polygons: NDArray[Any], turn: float, pole: float) -> NDArray[Any]:
    """Make the longitudes of polygons continuous across the 180th meridian.

    A polygon around a pole is extended to the latitude of the pole.

    Args:
        polygons: in longitude and latitude, with edges shorter than half a turn.
        turn: length of a turn.
        pole: latitude of the north pole, a quarter of a turn.
    """
    coordinates, feature = shapely.get_coordinates(polygons, return_index=True)
    steps = np.abs(np.diff(coordinates[:, 0]))
    jumps = (steps > turn / 2) & (np.diff(feature) == 0)
    unwound = polygons.copy()
    for index in np.unique(feature[1:][jumps]).tolist():
        parts = [_unwrapped_part(part, turn, pole) for part in shapely.get_parts(polygons[index])]
        unwound[index] = shapely.union_all(shapely.make_valid(parts))
    return unwound


def nearest_turn(x: Any, near: Any, turn: float) -> Any:
    """Shift longitudes by whole turns to within half a turn of `near`; infinite ones are kept."""
    with np.errstate(invalid="ignore"):
        moved = x - turn * np.floor((x - near) / turn + 0.5)
    return np.where(np.isfinite(moved), moved, x)


def _moved(polygon: shapely.Geometry, step: float) -> shapely.Geometry:
    if step == 0:
        return polygon
    return shapely.transform(polygon, lambda points: points + np.array([step, 0.0]))


def _unwrapped_part(part: shapely.Polygon, turn: float, pole: float) -> shapely.Polygon:
    outline, *holes = (
        _unwrapped_ring(shapely.get_coordinates(ring), turn, pole)
        for ring in shapely.get_rings(part)
    )
    middle = float(outline[:, 0].min() + outline[:, 0].max()) / 2
    near = []
    for hole in holes:
        center = float(hole[:, 0].min() + hole[:, 0].max()) / 2
        step = float(nearest_turn(center, middle, turn)) - center
        near.append(hole + np.array([step, 0.0]))
    return shapely.Polygon(outline, near)


def _unwrapped_ring(points: NDArray[np.float64], turn: float, pole: float) -> NDArray[np.float64]:
    x, y = np.unwrap(points[:, 0], period=turn), points[:, 1]
    if abs(x[-1] - x[0]) < turn / 2:
        return np.column_stack([x, y])
    # The ring goes around a pole: close it along the latitude of the nearer one.
    end = pole if y.mean() > 0 else -pole
    closed_x, closed_y = [*x, x[-1], x[0], x[0]], [*y, end, end, y[0]]
    return np.column_stack([closed_x, closed_y])
