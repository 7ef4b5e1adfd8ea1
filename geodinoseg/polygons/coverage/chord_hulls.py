"""Whether a chord may replace a stretch of a boundary: what else lies in the stretch's hull."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.arcs import Arcs, SideBounds, Stretches, chords
from geodinoseg.polygons.coverage.chains import offsets_of, ragged_range


def holds_no_other(
    arcs: Arcs, stretches: Stretches, bounds: SideBounds, passed: NDArray[np.int32]
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
    """Lattice rows and columns that stretches lie in, ends counted; (stretches,) each."""

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
    """The lattice rows of each box, and the first and last column in its oblong along the chord.

    The oblong holds what is between the chord's ends and no farther to its sides than the stretch
    goes. Where the last column is before the first, it holds nothing of the row.
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
    """The smallest and largest whole u with least <= factor u <= most; any where factor is 0."""
    size = np.maximum(np.abs(factor), 1)
    low, high = np.where(factor < 0, -most, least), np.where(factor < 0, -least, most)
    return -(-low // size), high // size
