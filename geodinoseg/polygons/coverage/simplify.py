"""Simplification that keeps a coverage: which vertices of a band may be removed.

An arc (boundary between two fixed points: a vertex where three or more edges meet, a corner of the
raster, or a crossing with a cut) is simplified by the algorithm of Douglas and Peucker, on both
sides at once, as both sides have the same vertices. A chord may replace a stretch of an arc only if

1. no vertex of the stretch is farther from the chord than the tolerance, or beyond its ends, both
   in pixels and on the ground (pixels may be not square);
2. the convex hull of the stretch contains no other boundary, except at the chord's ends.

The second rule keeps the coverage valid for any tolerance: if two chords crossed, one of their
stretches would have to pass through the other's hull. It applies to the boundaries as traced, so
chords do not depend on each other or on the order of processing.

Two stretches with the same two ends would coincide. Only whole arcs and the halves of a closed
boundary can be such, so these keep a vertex between their ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.arcs import (
    Arcs,
    SideBounds,
    Stretches,
    chords,
    find_arcs,
    inner_points,
    side_bounds,
)
from geodinoseg.polygons.coverage.chains import offsets_of, ragged_range
from geodinoseg.polygons.coverage.lattice import Edges, Lattice

_EQUAL = 1e-9
"""Relative difference of numbers that are the same but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest distance by which an outline may move, for pixels of any shape."""

    distance: float
    """The distance, in pixels with the default steps, else in the unit of the steps."""
    col_step: tuple[float, float] = (1.0, 0.0)
    """Vector of one column to the right, in the plane in which the distance is measured."""
    row_step: tuple[float, float] = (0.0, 1.0)
    """Vector of one row down, in the same plane."""

    @classmethod
    def of(
        cls, distance: float, col_step: tuple[float, float], row_step: tuple[float, float]
    ) -> Tolerance:
        """A tolerance for pixels with these steps; if they are square, in pixels."""
        exact = cls(distance=distance, col_step=col_step, row_step=row_step)
        side = math.sqrt(exact._metric[0])
        # Rounded, since 0.3 / 0.1 is slightly less than 3.
        in_px = float(f"{distance / side:.12g}")
        return cls(distance=in_px) if exact.has_square_pixels else exact

    @property
    def has_square_pixels(self) -> bool:
        """Whether pixels are squares in any orientation, so that the lattice preserves angles."""
        across, mixed, down = self._metric
        return math.isclose(across, down, rel_tol=_EQUAL) and abs(mixed) <= _EQUAL * across

    @property
    def pixel_area(self) -> float:
        """Area of a pixel, in the square of the unit."""
        (ax, ay), (bx, by) = self.col_step, self.row_step
        return abs(ax * by - ay * bx)

    @property
    def shorter_side(self) -> float:
        """The shorter side of a pixel."""
        across, _, down = self._metric
        return math.sqrt(min(across, down))

    def product(
        self, first: tuple[NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Scalar products of steps, each as columns and rows, in the square of the unit."""
        across, mixed, down = self._metric
        (u, v), (x, y) = first, second
        return np.asarray(across * (u * x) + mixed * (u * y + v * x) + down * (v * y))

    def is_within(
        self,
        twice_triangle_px: NDArray[np.int64],
        base: tuple[NDArray[np.int64], NDArray[np.int64]],
        distance: float | None = None,
    ) -> NDArray[np.bool_]:
        """Whether the apexes of triangles are at most a distance from the line of their base.

        Args:
            twice_triangle_px: twice the area of the triangles, in pixels.
            base: columns and rows from one end of each base to the other.
            distance: the distance; by default that of the tolerance.
        """
        reach = self.distance if distance is None else distance
        length = np.sqrt(self.product(base, base))
        return np.asarray(self.pixel_area * twice_triangle_px <= reach * length)

    @cached_property
    def _metric(self) -> tuple[float, float, float]:
        """Squared length of a column step, product of both steps, squared length of a row step."""
        (ax, ay), (bx, by) = self.col_step, self.row_step
        return ax * ax + ay * ay, ax * bx + ay * by, bx * bx + by * by


def kept_vertices(
    lattice: Lattice,
    edges: Edges,
    network: NDArray[np.bool_],
    *,
    frame_rows: Sequence[int],
    tolerance: Tolerance,
) -> NDArray[np.bool_]:
    """Which vertices of a band the simplified coverage keeps.

    Args:
        lattice: the vertices.
        edges: the directed edges between them.
        network: (lattice rows, width + 1) True = a boundary passes the lattice point.
        frame_rows: lattice rows that are the raster's upper or lower edge.
        tolerance: largest distance of a vertex to the simplified boundary.

    Returns:
        (vertices,) True = stays; ports stay.
    """
    # Each raster keeps its four corners, so that maps of adjacent rasters meet without a gap.
    is_side = (lattice.cols == 0) | (lattice.cols == network.shape[1] - 1)
    keep = _is_fixed(lattice)
    keep |= is_side & np.isin(lattice.rows, frame_rows)
    arcs, closed = find_arcs(lattice, edges, keep)
    keep[arcs.vertices[arcs.offsets[:-1]]] = True
    passed = np.zeros((network.shape[0], network.shape[1] + 1), dtype=np.int32)
    np.cumsum(network, axis=1, out=passed[:, 1:])
    is_port = lattice.is_port[arcs.vertices]
    first, last = arcs.offsets[:-1], arcs.offsets[1:] - 1
    twins = closed | ~(is_port[first] | is_port[last])
    stretches = Stretches(first=first, last=last, may_have_twin=twins)
    stretches = stretches.take(last - first >= 2)
    while len(stretches):
        bounds = side_bounds(arcs, stretches)
        # Only the next band knows what is on the lower cut between two of its ports.
        hangs = arcs.rows[stretches.first] + arcs.rows[stretches.last] == 2 * len(network)
        straight = np.flatnonzero(~hangs & _is_near(arcs, stretches, bounds, tolerance))
        alone = holds_no_other(arcs, stretches.take(straight), bounds.take(straight), passed)
        split = np.ones(len(stretches), dtype=bool)
        split[straight[alone]] = False
        keep[arcs.vertices[bounds.farthest[split]]] = True
        stretches = _halves(arcs, stretches.take(split), bounds.farthest[split])
    return keep


def _is_fixed(lattice: Lattice) -> NDArray[np.bool_]:
    """Ports, and vertices where three or more edges meet."""
    edge_count = np.bitwise_count(lattice.pattern)
    return lattice.is_port | (edge_count > 2)


def _is_near(
    arcs: Arcs, stretches: Stretches, bounds: SideBounds, tolerance: Tolerance
) -> NDArray[np.bool_]:
    """Rule 1, for stretches without a twin."""
    dx, dy = chords(arcs, stretches)
    squared = dx * dx + dy * dy
    within = (squared > 0) & (bounds.along_min >= 0) & (bounds.along_max <= squared)
    farthest = np.maximum(-bounds.side_min, bounds.side_max)
    near = within & ~stretches.may_have_twin & tolerance.is_within(farthest, (dx, dy))
    if not tolerance.has_square_pixels:
        candidates = np.flatnonzero(near)
        near[candidates] = _lie_between_ends(arcs, stretches.take(candidates), tolerance)
    return near


def _lie_between_ends(arcs: Arcs, stretches: Stretches, tolerance: Tolerance) -> NDArray[np.bool_]:
    """Whether all points project between the ends of the chord, for pixels that are not square."""
    if not len(stretches):
        return np.zeros(0, dtype=bool)
    points, starts, of_stretch = inner_points(stretches)
    chord = chords(arcs, stretches)
    from_first = (
        arcs.cols[points] - arcs.cols[stretches.first][of_stretch],
        arcs.rows[points] - arcs.rows[stretches.first][of_stretch],
    )
    along = tolerance.product((chord[0][of_stretch], chord[1][of_stretch]), from_first)
    squared = tolerance.product(chord, chord)
    least, most = np.minimum.reduceat(along, starts), np.maximum.reduceat(along, starts)
    slack = _EQUAL * squared
    return np.asarray((least >= -slack) & (most <= squared + slack), dtype=bool)


def _halves(arcs: Arcs, stretches: Stretches, at: NDArray[np.int64]) -> Stretches:
    """Both parts of split stretches, if they have a vertex inside."""
    dx, dy = chords(arcs, stretches)
    closed = (dx == 0) & (dy == 0)
    halves = Stretches(
        first=np.concatenate([stretches.first, at]),
        last=np.concatenate([at, stretches.last]),
        may_have_twin=np.concatenate([closed, closed]),
    )
    return halves.take(halves.last - halves.first >= 2)


def holds_no_other(
    arcs: Arcs, stretches: Stretches, bounds: SideBounds, passed: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Rule 2: a box along the chord, around the hull, holds only the stretch's own points.

    It suffices that no lattice point of another boundary is in the hull: an edge that crossed the
    hull between two lattice points would have one of them in it, as the stretch passes its column
    (or row) at a lattice point too.

    Args:
        arcs: the points.
        stretches: those that satisfy rule 1.
        bounds: of these stretches.
        passed: (lattice rows, width + 2) number of boundary points left of each, in its row.
    """
    if not len(stretches):
        return np.zeros(0, dtype=bool)
    boxes = _boxes(arcs, stretches)
    # The lower cut's row belongs to the next band; the hull meets it in at most a port.
    heights = np.minimum(boxes.row_max, passed.shape[0] - 1) - boxes.row_min + 1
    rows, low, high = _columns_in_boxes(arcs, stretches, bounds, boxes, heights)
    high = np.maximum(high, low - 1)
    inside = passed[rows, high + 1] - passed[rows, low]
    found = np.add.reduceat(inside, offsets_of(heights)[:-1])
    own = arcs.way_px[stretches.last] - arcs.way_px[stretches.first] + 1
    own -= (arcs.rows[stretches.last] == passed.shape[0]).astype(np.int64)
    own -= (arcs.rows[stretches.first] == passed.shape[0]).astype(np.int64)
    return np.asarray(found == own, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boxes:
    """Lattice rows and columns of stretches, ends included; (stretches,) each."""

    row_min: NDArray[np.int64]
    row_max: NDArray[np.int64]
    col_min: NDArray[np.int64]
    col_max: NDArray[np.int64]


def _boxes(arcs: Arcs, stretches: Stretches) -> _Boxes:
    lengths = stretches.last - stretches.first + 1
    points = ragged_range(stretches.first, lengths)
    starts = offsets_of(lengths)[:-1]
    rows, cols = arcs.rows[points], arcs.cols[points]
    return _Boxes(
        row_min=np.minimum.reduceat(rows, starts),
        row_max=np.maximum.reduceat(rows, starts),
        col_min=np.minimum.reduceat(cols, starts),
        col_max=np.maximum.reduceat(cols, starts),
    )


def _columns_in_boxes(
    arcs: Arcs,
    stretches: Stretches,
    bounds: SideBounds,
    boxes: _Boxes,
    heights: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The lattice rows of each box, and the first and last column in its rectangle along the chord.

    The rectangle spans the chord's length and the stretch's extents to both sides. A last column
    before the first one means that it does not meet the row.
    """
    of_stretch = np.repeat(np.arange(len(stretches), dtype=np.int64), heights)
    rows = ragged_range(boxes.row_min, heights)
    dx, dy = chords(arcs, stretches)
    squared = (dx * dx + dy * dy)[of_stretch]
    first_col = arcs.cols[stretches.first][of_stretch]
    v = rows - arcs.rows[stretches.first][of_stretch]
    side_min = np.minimum(bounds.side_min, 0)[of_stretch]
    side_max = np.maximum(bounds.side_max, 0)[of_stretch]
    dx, dy = dx[of_stretch], dy[of_stretch]
    low, high = boxes.col_min[of_stretch], boxes.col_max[of_stretch]
    # side = dx v - dy u, along = dx u + dy v, with u columns from the first point.
    for factor, least, most in (
        (dy, dx * v - side_max, dx * v - side_min),
        (dx, -dy * v, squared - dy * v),
    ):
        bound_low, bound_high = _quotients(factor, least, most)
        low = np.where(factor == 0, low, np.maximum(low, first_col + bound_low))
        high = np.where(factor == 0, high, np.minimum(high, first_col + bound_high))
    return rows, low, high


def _quotients(
    factor: NDArray[np.int64], least: NDArray[np.int64], most: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The smallest and largest integer u with least <= factor u <= most; any where factor is 0."""
    size = np.maximum(np.abs(factor), 1)
    low, high = np.where(factor < 0, -most, least), np.where(factor < 0, -least, most)
    return -(-low // size), high // size
