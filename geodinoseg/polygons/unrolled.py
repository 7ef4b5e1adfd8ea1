"""Polygons across the 180th meridian and around the poles, cut to longitudes of -180 to 180."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geodinoseg.polygons.wkb import RaggedPolygons

TURN = 360.0
"""A full turn around the earth, degrees."""
_AT_POLE = 90 - 1e-9
_EQUAL = 1e-12
"""Fraction of a turn that counts as rounding."""
_DECIMALS = 9
"""Decimals of degrees (0.1 mm), so that edges that meet after a cut are exactly equal."""


def cut_polygons(
    polygons: RaggedPolygons, chosen: NDArray[np.int64]
) -> Iterator[list[shapely.Polygon]]:
    """The parts of chosen polygons within longitudes of -180 to 180, counter-clockwise.

    Args:
        polygons: in longitude and latitude, with a vertex wherever an edge crosses the 180th
            meridian, exteriors counter-clockwise; longitudes may jump by a turn there.
        chosen: indexes of the polygons to cut.
    """
    for index in chosen.tolist():
        first, last = polygons.polygon_offsets[index : index + 2]
        rings = [
            slice(polygons.ring_offsets[ring], polygons.ring_offsets[ring + 1])
            for ring in range(first, last)
        ]
        outline, *holes = [
            _unrolled(polygons.xs[ring], polygons.ys[ring], is_hole=number > 0)
            for number, ring in enumerate(rings)
        ]
        yield _cut(_flat_polygon(outline, holes))


def _unrolled(
    lon: NDArray[np.float64], lat: NDArray[np.float64], *, is_hole: bool
) -> NDArray[np.float64]:
    """A ring as the outline of the area inside it, counter-clockwise, in continuous longitudes.

    Where it passes through a pole, or goes around one, it follows the latitude of the pole.

    Returns:
        (points, 2) longitude and latitude.
    """
    if is_hole:
        lon, lat = lon[::-1], lat[::-1]
    at_pole = np.abs(lat) >= _AT_POLE
    # A ring around a pole is opened where it crosses the 180th meridian.
    starts = np.flatnonzero(~at_pole & (np.abs(lon) == TURN / 2))
    start = int(starts[0] if len(starts) else np.argmin(at_pole))
    order = np.append(np.roll(np.arange(len(lon), dtype=np.int64), -start), start)
    lon, lat, at_pole = lon[order], lat[order], at_pole[order]
    points = (
        _running(lon, lat, at_pole)
        if at_pole.any()
        else np.column_stack([np.unwrap(lon, period=TURN), lat])
    )
    turn = round((points[-1, 0] - points[0, 0]) / TURN)
    if not turn:
        return points
    pole = np.copysign(90.0, turn)
    return np.vstack([points, [points[-1, 0], pole], [points[0, 0], pole]])


def _running(
    lon: NDArray[np.float64], lat: NDArray[np.float64], at_pole: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Continuous longitudes of a ring that passes through a pole, where longitude is undefined.

    The polygon is on the left, so the ring goes west along the north pole, and east along the
    south pole.
    """
    points = [(lon[0], lat[0])]
    passed = 0.0
    for x, y, is_pole in zip(lon[1:], lat[1:], at_pole[1:], strict=True):
        if is_pole:
            passed = float(np.copysign(90.0, y))
            continue
        before = points[-1][0]
        if passed:
            step = (x - before) % TURN if passed < 0 else -((before - x) % TURN)
            points += [(before, passed), (before + step, passed)]
        else:
            step = (x - before + TURN / 2) % TURN - TURN / 2
        points.append((before + step, y))
        passed = 0.0
    return np.array(points, dtype=np.float64)


def _flat_polygon(outline: NDArray[np.float64], holes: list[NDArray[np.float64]]) -> Any:
    """A polygon of unrolled rings, each hole shifted by whole turns into the outline."""
    west, east = outline[:, 0].min(), outline[:, 0].max()
    inside, across = [], []
    for hole in holes:
        left, right = hole[:, 0].min(), hole[:, 0].max()
        fewest = int(np.ceil((west - left) / TURN - _EQUAL))
        is_polar = np.abs(hole[:, 1]).max() >= _AT_POLE  # it shares an edge with the outline
        if right + fewest * TURN <= east + _EQUAL * TURN and not is_polar:
            inside.append(_moved(hole, fewest))
            continue
        most = int(np.floor((east - left) / TURN))
        across += [_moved(hole, turns) for turns in range(fewest - 1, most + 1)]
    polygon = shapely.make_valid(shapely.Polygon(outline, inside))
    if not across:
        return polygon
    return polygon.difference(
        shapely.union_all(shapely.make_valid(list(map(shapely.Polygon, across))))
    )


def _moved(points: NDArray[np.float64], turns: int) -> NDArray[np.float64]:
    return np.asarray(points + np.array([turns * TURN, 0.0]), dtype=np.float64)


def _cut(polygon: Any) -> list[shapely.Polygon]:
    """The parts of a polygon, each shifted to longitudes of -180 to 180."""
    west, _, east, _ = polygon.bounds
    first, last = (int(np.floor((x + TURN / 2) / TURN)) for x in (west, east))
    pieces = []
    for turns in range(first, last + 1):
        middle = turns * TURN
        box = shapely.box(middle - TURN / 2, -90, middle + TURN / 2, 90)
        piece = shapely.intersection(polygon, box)
        pieces.append(shapely.transform(piece, partial(_in_first_turn, turns=turns)))
    whole = shapely.orient_polygons(shapely.make_valid(shapely.union_all(pieces)))
    parts = shapely.get_parts(whole)
    kinds = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    return list(parts[kinds])


def _in_first_turn(points: NDArray[np.float64], *, turns: int) -> NDArray[np.float64]:
    return np.asarray(np.round(_moved(points, -turns), _DECIMALS), dtype=np.float64)
