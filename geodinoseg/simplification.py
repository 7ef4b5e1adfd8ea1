"""Boundaries with fewer vertices, and still a coverage: which vertices of a band may go.

An arc (boundary between two fixed points: a vertex where three or more edges meet, or a place
where a cut is crossed) is simplified as Douglas and Peucker do, on both sides at once, since both
sides have the same vertices. A chord may replace a stretch of an arc only where

1. no vertex of the stretch is farther from the chord than the tolerance, nor beyond its ends;
2. the convex hull of the stretch holds no other boundary, but at the chord's ends.

The second rule keeps the coverage valid whatever the tolerance: if two chords crossed, one of
their stretches would have to pass through the other's hull. It looks at the boundaries as they
were traced, so no chord depends on another, and no order of work matters.

Two stretches with the same two ends would fall on each other. Only whole arcs and the halves of a
closed boundary can be such; they become one chord only if they bulge to the left of it, seen from
their upper end. Of two that do, one lies in the other's hull.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.chains import END, Chains, follow, offsets_of, ragged_range
from geodinoseg.lattice import Edges, Lattice
from geodinoseg.paths import CUT_POINT, Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arcs:
    """Arcs, each once, as points one after the other, both ends counted."""

    vertices: NDArray[np.int32]
    """(points,) vertex of the lattice."""
    cols: NDArray[np.int64]
    """(points,) lattice columns."""
    rows: NDArray[np.int64]
    """(points,) lattice rows within the band; a port's is the cut's."""
    offsets: NDArray[np.int64]
    """(arcs + 1,): arc i has the points offsets[i] to offsets[i + 1]."""
    way_px: NDArray[np.int64]
    """(points,) length of the boundary from the first point of all to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretches:
    """Parts of arcs that a chord might replace."""

    first: NDArray[np.int64]
    """(stretches,) point where the chord begins."""
    last: NDArray[np.int64]
    """(stretches,) point where it ends; at least two further on."""
    may_have_twin: NDArray[np.bool_]
    """(stretches,) True = another stretch may have the same two ends."""

    def __len__(self) -> int:
        return len(self.first)

    def take(self, chosen: NDArray[Any]) -> _Stretches:
        return _Stretches(
            first=self.first[chosen],
            last=self.last[chosen],
            may_have_twin=self.may_have_twin[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """How far the points of each stretch lie to the side of its chord and along it.

    In units of the chord's length: products of integers, exact.
    """

    side_min: NDArray[np.int64]
    side_max: NDArray[np.int64]
    along_min: NDArray[np.int64]
    along_max: NDArray[np.int64]
    farthest: NDArray[np.int64]
    """(stretches,) the point farthest to the side; from the end, where the chord has no length."""


def kept_vertices(
    lattice: Lattice, edges: Edges, network: NDArray[np.bool_], *, tolerance_px: float
) -> NDArray[np.bool_]:
    """Which vertices of a band a simplified coverage keeps.

    Args:
        lattice: the vertices.
        edges: the directed edges between them.
        network: (lattice rows, width + 1) True = a boundary passes the lattice point.
        tolerance_px: distance to the simplified boundary that no vertex exceeds.

    Returns:
        (vertices,) True = stays; ports stay.
    """
    keep = _is_fixed(lattice)
    arcs, closed = _arcs(lattice, edges, keep)
    keep[arcs.vertices[arcs.offsets[:-1]]] = True
    passed = np.zeros((network.shape[0], network.shape[1] + 1), dtype=np.int32)
    np.cumsum(network, axis=1, out=passed[:, 1:])
    is_port = lattice.is_port[arcs.vertices]
    first, last = arcs.offsets[:-1], arcs.offsets[1:] - 1
    twins = closed | ~(is_port[first] | is_port[last])
    stretches = _Stretches(first=first, last=last, may_have_twin=twins)
    stretches = stretches.take(last - first >= 2)
    while len(stretches):
        bounds = _bounds(arcs, stretches)
        # What lies on the lower cut between two of its ports, only the next band knows.
        hangs = arcs.rows[stretches.first] + arcs.rows[stretches.last] == 2 * len(network)
        straight = np.flatnonzero(~hangs & _is_near(arcs, stretches, bounds, tolerance_px))
        alone = _holds_no_other(arcs, stretches.take(straight), _of(bounds, straight), passed)
        split = np.ones(len(stretches), dtype=bool)
        split[straight[alone]] = False
        keep[arcs.vertices[bounds.farthest[split]]] = True
        stretches = _halves(arcs, stretches.take(split), bounds.farthest[split])
    return keep


def straighten_cut_points(rings: Paths) -> Paths:
    """Leave out the points that are in rings only because a cut ran through them.

    Such a point goes where the boundary passes within half a pixel of it without it, and no other
    lattice point comes to lie on another side. Both neighbours see the same three points, so they
    decide alike.
    """
    is_cut = (rings.flags & CUT_POINT) != 0
    if not is_cut.any():
        return rings
    for step in (1, -1):
        # A chain's end and the next one's start, or a vertex that lies on the cut itself.
        beside = _neighbours(rings, step)
        same = (rings.cols == rings.cols[beside]) & (rings.rows == rings.rows[beside])
        rings = rings.without(same & ((rings.flags & CUT_POINT) != 0))
    is_cut = (rings.flags & CUT_POINT) != 0
    before, after = _neighbours(rings, -1), _neighbours(rings, 1)
    points = np.flatnonzero(is_cut & ~is_cut[before] & ~is_cut[after])
    goes = np.zeros(len(is_cut), dtype=bool)
    goes[points] = _can_go(rings, before[points], points, after[points])
    return rings.without(goes)


def _is_fixed(lattice: Lattice) -> NDArray[np.bool_]:
    """Ports, and vertices where three or more edges meet."""
    edge_count = np.bitwise_count(lattice.pattern)
    return lattice.is_port | (edge_count > 2)


def _arcs(
    lattice: Lattice, edges: Edges, fixed: NDArray[np.bool_]
) -> tuple[_Arcs, NDArray[np.bool_]]:
    """Each arc once, and whether it is closed without a fixed vertex."""
    chains = follow(np.where(fixed[edges.reaches], END, edges.successor).astype(np.int32))
    chosen = np.flatnonzero(_is_first_way(lattice, edges, chains) & (chains.lengths > 1))
    lengths = chains.lengths[chosen]
    elements = chains.order[ragged_range(chains.offsets[chosen], lengths)]
    offsets = offsets_of(lengths + 1)
    vertices = np.empty(offsets[-1], dtype=np.int32)
    vertices[offsets[1:] - 1] = edges.reaches[chains.order[chains.offsets[chosen + 1] - 1]]
    vertices[ragged_range(offsets[:-1], lengths)] = edges.leaves[elements]
    cols = lattice.cols[vertices].astype(np.int64)
    rows = np.maximum(lattice.rows[vertices], 0).astype(np.int64)
    way = np.zeros(len(vertices), dtype=np.int64)
    # The step from one arc to the next counts for nothing: only differences within arcs are used.
    np.cumsum(np.abs(np.diff(cols)) + np.abs(np.diff(rows)), out=way[1:])
    arcs = _Arcs(vertices=vertices, cols=cols, rows=rows, offsets=offsets, way_px=way)
    return arcs, chains.closed[chosen]


def _is_first_way(lattice: Lattice, edges: Edges, chains: Chains) -> NDArray[np.bool_]:
    """Whether a chain is the one of its arc that is taken: the arc is walked from both sides."""
    first = chains.order[chains.offsets[:-1]]
    last = chains.order[chains.offsets[1:] - 1]
    back = (edges.direction[last] + 2) & 3
    place = 4 * edges.reaches[last].astype(np.int64) + back
    return ~edges.is_present[place] | (first < edges.index[place])


def _bounds(arcs: _Arcs, stretches: _Stretches) -> _Bounds:
    inner = stretches.last - stretches.first - 1
    points = ragged_range(stretches.first + 1, inner)
    starts = offsets_of(inner)[:-1]
    of_stretch = np.repeat(np.arange(len(stretches), dtype=np.int64), inner)
    dx, dy = _chords(arcs, stretches)
    u = arcs.cols[points] - arcs.cols[stretches.first][of_stretch]
    v = arcs.rows[points] - arcs.rows[stretches.first][of_stretch]
    dx, dy = dx[of_stretch], dy[of_stretch]
    side, along = dx * v - dy * u, dx * u + dy * v
    distance = np.where((dx == 0) & (dy == 0), u * u + v * v, np.abs(side))
    top = np.maximum.reduceat(distance, starts)
    at_top = np.flatnonzero(distance == top[of_stretch])
    farthest = at_top[np.searchsorted(at_top, starts)]
    return _Bounds(
        side_min=np.minimum.reduceat(side, starts),
        side_max=np.maximum.reduceat(side, starts),
        along_min=np.minimum.reduceat(along, starts),
        along_max=np.maximum.reduceat(along, starts),
        farthest=points[farthest],
    )


def _of(bounds: _Bounds, chosen: NDArray[np.int64]) -> _Bounds:
    return _Bounds(
        side_min=bounds.side_min[chosen],
        side_max=bounds.side_max[chosen],
        along_min=bounds.along_min[chosen],
        along_max=bounds.along_max[chosen],
        farthest=bounds.farthest[chosen],
    )


def _chords(arcs: _Arcs, stretches: _Stretches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows from the first point of each stretch to its last."""
    return (
        arcs.cols[stretches.last] - arcs.cols[stretches.first],
        arcs.rows[stretches.last] - arcs.rows[stretches.first],
    )


def _is_near(
    arcs: _Arcs, stretches: _Stretches, bounds: _Bounds, tolerance_px: float
) -> NDArray[np.bool_]:
    """Rule 1, and that of twins."""
    dx, dy = _chords(arcs, stretches)
    squared = dx * dx + dy * dy
    farthest = np.maximum(-bounds.side_min, bounds.side_max)
    near = farthest <= tolerance_px * np.sqrt(squared)
    within = (squared > 0) & (bounds.along_min >= 0) & (bounds.along_max <= squared)
    # Vertices are numbered in reading order.
    downwards = arcs.vertices[stretches.first] < arcs.vertices[stretches.last]
    one_sided = np.where(downwards, bounds.side_min >= 0, bounds.side_max <= 0)
    # One edge between the ends has no lattice point by which rule 2 would find it.
    no_twin = one_sided & (squared > 1)
    return near & within & (no_twin | ~stretches.may_have_twin)


def _holds_no_other(
    arcs: _Arcs, stretches: _Stretches, bounds: _Bounds, passed: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Rule 2: a box along the chord, with the hull in it, holds the stretch's own points alone.

    That no lattice point of another boundary lies in the hull is enough: an edge that crossed the
    hull between two lattice points would have one of them in it, since the stretch passes its
    column (or row) at a lattice point too.

    Args:
        arcs: the points.
        stretches: those that satisfy rule 1.
        bounds: theirs.
        passed: (lattice rows, width + 2) points with a boundary left of each, in its row.
    """
    if not len(stretches):
        return np.zeros(0, dtype=bool)
    boxes = _boxes(arcs, stretches)
    # The lower cut's row belongs to the next band; the hull meets it in a port at the most.
    heights = np.minimum(boxes.row_max, passed.shape[0] - 1) - boxes.row_min + 1
    of_stretch = np.repeat(np.arange(len(stretches), dtype=np.int64), heights)
    rows = ragged_range(boxes.row_min, heights)
    low, high = _columns_in_box(arcs, stretches, bounds, boxes, rows, of_stretch)
    high = np.maximum(high, low - 1)
    inside = passed[rows, high + 1] - passed[rows, low]
    found = np.add.reduceat(inside, offsets_of(heights)[:-1])
    own = arcs.way_px[stretches.last] - arcs.way_px[stretches.first] + 1
    own -= (arcs.rows[stretches.last] == passed.shape[0]).astype(np.int64)
    own -= (arcs.rows[stretches.first] == passed.shape[0]).astype(np.int64)
    return np.asarray(found == own, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boxes:
    """Lattice rows and columns that stretches lie in, ends counted; (stretches,) each."""

    row_min: NDArray[np.int64]
    row_max: NDArray[np.int64]
    col_min: NDArray[np.int64]
    col_max: NDArray[np.int64]


def _boxes(arcs: _Arcs, stretches: _Stretches) -> _Boxes:
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


def _columns_in_box(
    arcs: _Arcs,
    stretches: _Stretches,
    bounds: _Bounds,
    boxes: _Boxes,
    rows: NDArray[np.int64],
    of_stretch: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last lattice column of some rows in the oblong along the chord; last < first = none.

    The oblong holds what is between the chord's ends and no farther to its sides than the stretch.
    """
    dx, dy = _chords(arcs, stretches)
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
    return low, high


def _quotients(
    factor: NDArray[np.int64], least: NDArray[np.int64], most: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The smallest and largest whole u with least <= factor u <= most; any where factor is 0."""
    size = np.maximum(np.abs(factor), 1)
    low, high = np.where(factor < 0, -most, least), np.where(factor < 0, -least, most)
    return -(-low // size), high // size


def _halves(arcs: _Arcs, stretches: _Stretches, at: NDArray[np.int64]) -> _Stretches:
    """Both parts of stretches that were split, those with a vertex inside."""
    dx, dy = _chords(arcs, stretches)
    closed = (dx == 0) & (dy == 0)
    halves = _Stretches(
        first=np.concatenate([stretches.first, at]),
        last=np.concatenate([at, stretches.last]),
        may_have_twin=np.concatenate([closed, closed]),
    )
    return halves.take(halves.last - halves.first >= 2)


def _neighbours(rings: Paths, step: int) -> NDArray[np.int64]:
    """The point before (-1) or after (1) each point of its ring."""
    points = np.arange(len(rings.cols), dtype=np.int64)
    starts = np.repeat(rings.offsets[:-1], rings.lengths)
    lengths = np.repeat(rings.lengths, rings.lengths)
    return starts + (points - starts + step) % lengths


def _can_go(
    rings: Paths,
    before: NDArray[np.int64],
    points: NDArray[np.int64],
    after: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether the chord between the neighbours may replace each cut point."""
    rows, cols = rings.rows.astype(np.int64), rings.cols.astype(np.int64)
    upper = np.where(rows[before] < rows[after], before, after)
    lower = np.where(rows[before] < rows[after], after, before)
    crosses = (rows[upper] < rows[points]) & (rows[points] < rows[lower])
    goes = np.zeros(len(points), dtype=bool)
    upper, middle, lower = upper[crosses], points[crosses], lower[crosses]
    height = rows[lower] - rows[upper]
    # Twice the distance along the row, times the chord's height: all whole numbers.
    off = 2 * np.abs(
        (cols[middle] - cols[upper]) * height
        - (cols[lower] - cols[upper]) * (rows[middle] - rows[upper])
    )
    free = off < height
    inner = height - 1
    between = ragged_range(rows[upper] + 1, inner)
    of_point = np.repeat(np.arange(len(middle), dtype=np.int64), inner)
    above = between <= rows[middle][of_point]
    ends = [ends[of_point] for ends in (upper, middle, lower)]
    bent = _line_at(
        cols, rows, np.where(above, ends[0], ends[1]), np.where(above, ends[1], ends[2]), between
    )
    chord = _line_at(cols, rows, ends[0], ends[2], between)
    caught = _lattice_points_between(bent, chord)
    free &= np.bincount(of_point, weights=caught, minlength=len(middle)) == 0
    goes[crosses] = free
    return goes


def _line_at(
    cols: NDArray[np.int64],
    rows: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    at_row: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where lines from point to point pass a row: whole column and remainder, over the height."""
    height = rows[end] - rows[start]
    numerator = cols[start] * height + (cols[end] - cols[start]) * (at_row - rows[start])
    return numerator, height


def _lattice_points_between(
    bent: tuple[NDArray[np.int64], NDArray[np.int64]],
    chord: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Lattice points of a row between two places on it, the chord's counted, the other's not."""
    west = chord[0] // chord[1] - bent[0] // bent[1]
    east = -(-bent[0] // bent[1]) + (-chord[0] // chord[1])
    return np.maximum(west, 0) + np.maximum(east, 0)
