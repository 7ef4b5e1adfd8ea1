"""Arcs: the boundaries of a band between its fixed points, each once, and stretches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import END, Chains, follow, offsets_of, ragged_range
from geodinoseg.polygons.coverage.lattice import Edges, Lattice


@dataclass(frozen=True, slots=True, kw_only=True)
class Arcs:
    """Arcs, each once, as consecutive points, both ends included."""

    vertices: NDArray[np.int32]
    """(points,) vertex of the lattice."""
    cols: NDArray[np.int64]
    """(points,) lattice columns."""
    rows: NDArray[np.int64]
    """(points,) lattice rows within the band; that of a port is the cut's."""
    offsets: NDArray[np.int64]
    """(arcs + 1,): arc i has the points offsets[i] to offsets[i + 1]."""
    way_px: NDArray[np.int64]
    """(points,) length along the boundaries from the very first point to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Parts of arcs that a chord might replace."""

    first: NDArray[np.int64]
    """(stretches,) point where the chord begins."""
    last: NDArray[np.int64]
    """(stretches,) point where it ends; at least two points later."""
    may_have_twin: NDArray[np.bool_]
    """(stretches,) True = another stretch may have the same two ends."""

    def __len__(self) -> int:
        """Number of stretches."""
        return len(self.first)

    def take(self, chosen: NDArray[Any]) -> Stretches:
        """The chosen ones."""
        return Stretches(
            first=self.first[chosen],
            last=self.last[chosen],
            may_have_twin=self.may_have_twin[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBounds:
    """Extents of each stretch across its chord and along it.

    In units of the chord's length: exact, as products of integers.
    """

    side_min: NDArray[np.int64]
    side_max: NDArray[np.int64]
    along_min: NDArray[np.int64]
    along_max: NDArray[np.int64]
    farthest: NDArray[np.int64]
    """(stretches,) the point farthest from the chord; from its ends, where it has no length."""

    def take(self, chosen: NDArray[Any]) -> SideBounds:
        """Those of the chosen stretches."""
        return SideBounds(
            side_min=self.side_min[chosen],
            side_max=self.side_max[chosen],
            along_min=self.along_min[chosen],
            along_max=self.along_max[chosen],
            farthest=self.farthest[chosen],
        )


def find_arcs(
    lattice: Lattice, edges: Edges, fixed: NDArray[np.bool_]
) -> tuple[Arcs, NDArray[np.bool_]]:
    """Each arc once, and whether it is closed without a fixed vertex."""
    chains = follow(np.where(fixed[edges.reaches], END, edges.successor).astype(np.int32))
    chosen = np.flatnonzero(_is_first_way(edges, chains) & (chains.lengths > 1))
    lengths = chains.lengths[chosen]
    elements = chains.order[ragged_range(chains.offsets[chosen], lengths)]
    offsets = offsets_of(lengths + 1)
    vertices = np.empty(offsets[-1], dtype=np.int32)
    vertices[offsets[1:] - 1] = edges.reaches[chains.order[chains.offsets[chosen + 1] - 1]]
    vertices[ragged_range(offsets[:-1], lengths)] = edges.leaves[elements]
    cols = lattice.cols[vertices].astype(np.int64)
    rows = np.maximum(lattice.rows[vertices], 0).astype(np.int64)
    way = np.zeros(len(vertices), dtype=np.int64)
    # The step from one arc to the next is irrelevant: only differences within arcs are used.
    np.cumsum(np.abs(np.diff(cols)) + np.abs(np.diff(rows)), out=way[1:])
    arcs = Arcs(vertices=vertices, cols=cols, rows=rows, offsets=offsets, way_px=way)
    return arcs, chains.closed[chosen]


def _is_first_way(edges: Edges, chains: Chains) -> NDArray[np.bool_]:
    """Which chains to keep: each arc is followed from both sides, and only one of them counts."""
    first = chains.order[chains.offsets[:-1]]
    last = chains.order[chains.offsets[1:] - 1]
    back = (edges.direction[last] + 2) & 3
    place = 4 * edges.reaches[last].astype(np.int64) + back
    return ~edges.is_present[place] | (first < edges.index[place])


def side_bounds(arcs: Arcs, stretches: Stretches) -> SideBounds:
    """Measure the points between the ends of each stretch against its chord."""
    points, starts, of_stretch = inner_points(stretches)
    dx, dy = chords(arcs, stretches)
    u = arcs.cols[points] - arcs.cols[stretches.first][of_stretch]
    v = arcs.rows[points] - arcs.rows[stretches.first][of_stretch]
    dx, dy = dx[of_stretch], dy[of_stretch]
    side, along = dx * v - dy * u, dx * u + dy * v
    distance = np.where((dx == 0) & (dy == 0), u * u + v * v, np.abs(side))
    top = np.maximum.reduceat(distance, starts)
    at_top = np.flatnonzero(distance == top[of_stretch])
    farthest = at_top[np.searchsorted(at_top, starts)]
    return SideBounds(
        side_min=np.minimum.reduceat(side, starts),
        side_max=np.maximum.reduceat(side, starts),
        along_min=np.minimum.reduceat(along, starts),
        along_max=np.maximum.reduceat(along, starts),
        farthest=points[farthest],
    )


def inner_points(
    stretches: Stretches,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The points between the ends of stretches, in the order of the stretches.

    Returns:
        (points,) the points; (stretches,) the index among them of the first point of each stretch;
        (points,) the stretch of each point.
    """
    inner = stretches.last - stretches.first - 1
    points = ragged_range(stretches.first + 1, inner)
    return (
        points,
        offsets_of(inner)[:-1],
        np.repeat(np.arange(len(stretches), dtype=np.int64), inner),
    )


def chords(arcs: Arcs, stretches: Stretches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows from the first point of each stretch to its last."""
    return (
        arcs.cols[stretches.last] - arcs.cols[stretches.first],
        arcs.rows[stretches.last] - arcs.rows[stretches.first],
    )
