"""Removes points that are in a ring only because a cut ran through its boundary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import ragged_range
from geodinoseg.polygons.coverage.paths import CUT_POINT, Paths
from geodinoseg.polygons.coverage.simplify import Tolerance


def straighten_cut_points(rings: Paths, tolerance: Tolerance | None = None) -> Paths:
    """Remove the points that are in rings only because a cut ran through them.

    Such a point is removed where it lies on a straight line, or where the boundary without it
    passes within half a pixel and no other lattice point changes sides. Both adjacent polygons
    see the same three points, so they decide alike.

    Args:
        rings: the rings.
        tolerance: with which they were simplified; if its pixels are not square, half a pixel is
            half the shorter side of a pixel.
    """
    is_cut = (rings.flags & CUT_POINT) != 0
    if not is_cut.any():
        return rings
    for step in (1, -1):
        # A chain's end and the next one's start, or a vertex on the cut itself.
        beside = _neighbours(rings, step)
        same = (rings.cols == rings.cols[beside]) & (rings.rows == rings.rows[beside])
        rings = rings.without(same & ((rings.flags & CUT_POINT) != 0))
    rings = rings.without(_is_straight(rings) & ((rings.flags & CUT_POINT) != 0))
    is_cut = (rings.flags & CUT_POINT) != 0
    before, after = _neighbours(rings, -1), _neighbours(rings, 1)
    points = np.flatnonzero(is_cut & ~is_cut[before] & ~is_cut[after])
    goes = np.zeros(len(is_cut), dtype=bool)
    goes[points] = _can_go(rings, before[points], points, after[points], tolerance)
    return rings.without(goes)


def _is_straight(rings: Paths) -> NDArray[np.bool_]:
    """True = the point lies on the line through its neighbours, between them."""
    cols, rows = rings.cols.astype(np.int64), rings.rows.astype(np.int64)
    before, after = _neighbours(rings, -1), _neighbours(rings, 1)
    cols_in, rows_in = cols - cols[before], rows - rows[before]
    cols_out, rows_out = cols[after] - cols, rows[after] - rows
    on_line = cols_in * rows_out == cols_out * rows_in
    return np.asarray(on_line & ((rows_in > 0) == (rows_out > 0)), dtype=bool)


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
    tolerance: Tolerance | None,
) -> NDArray[np.bool_]:
    """Whether the chord between the neighbours may replace each cut point."""
    rows, cols = rings.rows.astype(np.int64), rings.cols.astype(np.int64)
    upper = np.where(rows[before] < rows[after], before, after)
    lower = np.where(rows[before] < rows[after], after, before)
    crosses = (rows[upper] < rows[points]) & (rows[points] < rows[lower])
    goes = np.zeros(len(points), dtype=bool)
    upper, middle, lower = upper[crosses], points[crosses], lower[crosses]
    height = rows[lower] - rows[upper]
    across = cols[lower] - cols[upper]
    # Distance along the row times the height of the chord, so that all numbers are integers.
    off = np.abs((cols[middle] - cols[upper]) * height - across * (rows[middle] - rows[upper]))
    free = 2 * off < height
    if tolerance is not None and not tolerance.has_square_pixels:
        free &= tolerance.is_within(off, (across, height), tolerance.shorter_side / 2)
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
    """Columns where lines from point to point cross a row, as numerator and denominator."""
    height = rows[end] - rows[start]
    numerator = cols[start] * height + (cols[end] - cols[start]) * (at_row - rows[start])
    return numerator, height


def _lattice_points_between(
    bent: tuple[NDArray[np.int64], NDArray[np.int64]],
    chord: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Number of lattice points in a row between two columns; that of the chord is included."""
    west = chord[0] // chord[1] - bent[0] // bent[1]
    east = -(-bent[0] // bent[1]) + (-chord[0] // chord[1])
    return np.maximum(west, 0) + np.maximum(east, 0)
