"""Many lists of lattice points at once: the chains and rings that make up polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import follow, offsets_of, ragged_range

SELF_TOUCH = np.uint8(1)
"""Flag of a vertex where a region has only the cells of a diagonal: a ring may pass it twice."""
CUT_POINT = np.uint8(2)
"""Flag of a point that exists only because a boundary was simplified up to a cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Consecutive lists of lattice points; a ring does not repeat its first point."""

    cols: NDArray[np.int32]
    """(points,) lattice columns of the whole raster."""
    rows: NDArray[np.int32]
    """(points,) lattice rows of the whole raster."""
    flags: NDArray[np.uint8]
    """(points,) SELF_TOUCH, CUT_POINT, both or 0."""
    offsets: NDArray[np.int64]
    """(paths + 1,): path i has the points offsets[i] to offsets[i + 1]; may have none."""

    def __len__(self) -> int:
        """Number of paths."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Points of each path, (paths,)."""
        return np.diff(self.offsets)

    @property
    def path_of_point(self) -> NDArray[np.int64]:
        """The path that each point belongs to, (points,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def path_of_points(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """The path that each of some points belongs to, (points,)."""
        return np.searchsorted(self.offsets, points, side="right") - 1

    def take(self, selection: NDArray[np.integer[Any]]) -> Paths:
        """The selected paths, in the order of the selection."""
        lengths = self.lengths[selection]
        return self.reordered(ragged_range(self.offsets[selection], lengths), offsets_of(lengths))

    def reordered(self, points: NDArray[np.int64], offsets: NDArray[np.int64]) -> Paths:
        """Paths of some of the points, in the order given."""
        return Paths(
            cols=self.cols[points],
            rows=self.rows[points],
            flags=self.flags[points],
            offsets=offsets,
        )

    def without(self, points: NDArray[np.bool_]) -> Paths:
        """The paths without some of their points; True = leave out, (points,)."""
        kept = ~points
        return self.reordered(np.flatnonzero(kept), offsets_of(kept)[self.offsets])


def no_paths() -> Paths:
    """No path at all."""
    return Paths(
        cols=np.empty(0, dtype=np.int32),
        rows=np.empty(0, dtype=np.int32),
        flags=np.empty(0, dtype=np.uint8),
        offsets=np.zeros(1, dtype=np.int64),
    )


def concatenate(many: Sequence[Paths]) -> Paths:
    """All paths, in order."""
    return Paths(
        cols=np.concatenate([paths.cols for paths in many]),
        rows=np.concatenate([paths.rows for paths in many]),
        flags=np.concatenate([paths.flags for paths in many]),
        offsets=offsets_of(np.concatenate([paths.lengths for paths in many])),
    )


def segment_ends(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of the next point of each point of a ring; the first follows the last."""
    following = np.arange(1, offsets[-1] + 1, dtype=np.int64)
    filled = np.diff(offsets) > 0
    following[offsets[1:][filled] - 1] = offsets[:-1][filled]
    return following


def start_at_first(rings: Paths) -> Paths:
    """Rotate each ring so that it starts at its first point in reading order.

    Args:
        rings: closed; none passes a point twice.
    """
    ring_of = rings.path_of_point
    starts = rings.offsets[:-1]
    top = np.minimum.reduceat(rings.rows, starts)
    cols = np.where(rings.rows == top[ring_of], rings.cols, np.iinfo(np.int32).max)
    left = np.minimum.reduceat(cols, starts)
    first = np.flatnonzero(cols == left[ring_of])
    places = np.arange(len(ring_of), dtype=np.int64) + (first - starts)[ring_of]
    past = places >= rings.offsets[1:][ring_of]
    places -= np.where(past, rings.lengths[ring_of], 0)
    return rings.reordered(places, rings.offsets)


def are_holes(rings: Paths) -> NDArray[np.bool_]:
    """Which rings have their region outside; each starts at its first point in reading order.

    No other point of a ring precedes that one, so the turn there gives the orientation.
    """
    at = rings.offsets[:-1]
    before, after = rings.offsets[1:] - 1, at + 1
    cols, rows = rings.cols, rings.rows
    cols_in, rows_in = (cols[at] - cols[before]).astype(np.int64), rows[at] - rows[before]
    cols_out, rows_out = (cols[after] - cols[at]).astype(np.int64), rows[after] - rows[at]
    return np.asarray(cols_in * rows_out > cols_out * rows_in, dtype=bool)


def split_at_self_touches(rings: Paths) -> tuple[Paths, NDArray[np.int64]]:
    """Split rings that touch themselves into rings that touch each other, as OGC requires.

    Where a ring passes a point twice it does not cross itself, so the passes are nested like
    brackets and can all be cut at once: each pass continues where the other one did.

    Args:
        rings: closed.

    Returns:
        Rings that pass no point twice, and the ring of the input that each comes from.
    """
    first, second = _double_passes(rings)
    if not len(first):
        return rings, np.arange(len(rings), dtype=np.int64)
    is_touching = np.zeros(len(rings), dtype=bool)
    is_touching[rings.path_of_points(first)] = True
    whole, touching = np.flatnonzero(~is_touching), np.flatnonzero(is_touching)
    loops, parents = _loops(rings, touching, first, second)
    return concatenate([rings.take(whole), loops]), np.concatenate([whole, parents])


def _loops(
    rings: Paths,
    touching: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> tuple[Paths, NDArray[np.int64]]:
    """The loops of rings that pass the point first[i] again as second[i], and their rings."""
    # Between two passes the points stay in order: only such stretches are linked anew.
    last_points = rings.offsets[touching + 1] - 1
    ends = np.unique(np.concatenate([first, second, last_points]))
    goes_to = ends + 1
    goes_to[np.searchsorted(ends, last_points)] = rings.offsets[touching]
    starts = np.sort(goes_to)
    one, other = np.searchsorted(ends, first), np.searchsorted(ends, second)
    goes_to[one], goes_to[other] = goes_to[other], goes_to[one]
    chains = follow(np.searchsorted(starts, goes_to).astype(np.int32))
    lengths = (ends - starts + 1)[chains.order]
    points = ragged_range(starts[chains.order], lengths)
    loops = rings.reordered(points, offsets_of(lengths)[chains.offsets])
    heads = starts[chains.order[chains.offsets[:-1]]]
    return loops, rings.path_of_points(heads)


def _double_passes(rings: Paths) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points where a ring passes a lattice point for the first and for the second time."""
    candidates = np.flatnonzero(rings.flags & SELF_TOUCH)
    ring_of = rings.path_of_points(candidates)
    cols, rows = rings.cols[candidates], rings.rows[candidates]
    order = np.lexsort((candidates, cols, rows, ring_of))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for values in (cols, rows, ring_of):
        same &= values[order[1:]] == values[order[:-1]]
    place = np.flatnonzero(same)
    return candidates[order[place]], candidates[order[place + 1]]
