"""Measures whether a map shows its tiles: disagreement in overlaps, changes of the class at joins.

Blending hides the edge of a tile, but not that two tiles see different surroundings: where both are
sure of different classes, the class changes along the line where the tile of largest weight does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.seams import JoinRates, Seams
from geodinoseg.segmentation.tile_grid import TileGrid
from geodinoseg.windows import Window, windows_over

logger = logging.getLogger(__name__)

_JOIN_PX = 1
"""A join is the line in the middle of an overlap and this many lines on either side: with an odd
overlap the middle is a pixel, between two lines."""
_RUN_PX = 8
"""Length of a piece of a straight border; blocks, in which it is counted, are multiples of it."""
_ALL_BITS = 255
_COUNTED_AT_ONCE_PX = 1024
"""Columns counted together: half a megapixel, which fits a core's cache."""
_WARN_P, _WARN_RATIO = 0.01, 2.0


class OverlapCounts:
    """Counts the pixels that several tiles cover, and those for which the tiles disagree.

    The tiles of a pixel disagree if they do not all have the same most probable class. This is so
    if and only if the class of one of them differs from the blended one: the weights are positive,
    so the class of tiles that agree is that of their mean.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._shared_rows = _shared(grid.row_offsets, grid.tile_px, grid.height)
        self._shared_cols = _shared(grid.col_offsets, grid.tile_px, grid.width)
        self.overlap_px = self.disagreeing_px = 0

    def count(self, rows: ClassRows, *, nodata: int) -> None:
        """Count finished rows."""
        known = rows.class_ids != nodata
        down, across = rows.window.slices
        shared_rows, shared_cols = self._shared_rows[down], self._shared_cols[across]
        self.overlap_px += int(np.count_nonzero(known[shared_rows]))
        self.overlap_px += int(np.count_nonzero(known[~shared_rows][:, shared_cols]))
        if rows.disagrees is not None:
            self.disagreeing_px += int(np.count_nonzero(rows.disagrees & known))

    def to_json(self) -> dict[str, int]:
        """The counts, as a part keeps them."""
        return {"overlap_px": self.overlap_px, "disagreeing_px": self.disagreeing_px}

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a part."""
        self.overlap_px += counts["overlap_px"]
        self.disagreeing_px += counts["disagreeing_px"]


class JoinCounts:
    """Counts changes of the class across the lines between pixels, from a map in pieces.

    Holds a row, a column and a few counts for each phase of the grid.
    """

    def __init__(self, grid: TileGrid, *, nodata: int, dtype: np.dtype[Any]) -> None:
        self._nodata = nodata
        self._above = np.full(grid.width, nodata, dtype=dtype)
        self._left = np.full(grid.height, nodata, dtype=dtype)
        axes = ((grid.row_offsets, grid.height), (grid.col_offsets, grid.width))
        self._lines = [
            [_Lines(offsets, grid, length) for offsets, length in axes] for _ in range(2)
        ]

    def add(self, window: Window, class_ids: NDArray[Any]) -> None:
        """Add a piece (height, width) of the map, after those above it and to its left.

        It starts and ends at multiples of 512 rows and columns, or at the end of the map.
        """
        for strip in windows_over(
            height=window.height, width=window.width, rows=window.height, cols=_COUNTED_AT_ONCE_PX
        ):
            place = strip.shifted_by(rows=window.row_off, cols=window.col_off)
            self._add_strip(place, class_ids[strip.slices])

    def _add_strip(self, window: Window, class_ids: NDArray[Any]) -> None:
        down, across = window.slices
        above = np.concatenate([self._above[None, across], class_ids[:-1]])
        left = np.concatenate([self._left[down, None], class_ids[:, :-1]], axis=1)
        self._above[across], self._left[down] = class_ids[-1], class_ids[:, -1]
        pairs, runs = self._lines
        for axis, before, first in ((0, above, window.row_off), (1, left, window.col_off)):
            known = (before != self._nodata) & (class_ids != self._nodata)
            changed = (before != class_ids) & known
            pairs[axis].add(first, known, changed, along=1 - axis)
            known, changed = _runs(known, along=1 - axis), _runs(changed, along=1 - axis)
            runs[axis].add(first, known, changed, along=1 - axis)

    def rates(self) -> tuple[JoinRates, JoinRates]:
        """Of single pairs, and of pieces of straight borders."""
        pairs, runs = (_rates(*lines) for lines in self._lines)
        return pairs, runs


class _Lines:
    """Counts places and changes on the lines across one axis, by their phase in the tile grid.

    Phase 0 is the middle of an overlap, phase k the line k pixels after it, modulo the stride.
    """

    def __init__(self, offsets: NDArray[np.int64], grid: TileGrid, length_px: int) -> None:
        stride_px = grid.stride_px
        joins = -(-(offsets[:-1] + offsets[1:] + grid.tile_px) // 2)
        lines = np.arange(length_px, dtype=np.int64)  # the one before each pixel
        distances = _distances(lines, joins)
        near = (distances >= -(stride_px // 2)) & (distances < stride_px - stride_px // 2)
        self._is_join = near & (np.abs(distances) <= _JOIN_PX)
        # The last two joins may be nearer to each other: no line counts for both.
        self._phases = np.where(near, distances % stride_px, stride_px)
        self.by_phase = np.zeros((2, stride_px + 1), dtype=np.int64)
        self.at_joins = np.zeros(2, dtype=np.int64)
        self.everywhere = np.zeros(2, dtype=np.int64)

    def add(
        self, first: int, known: NDArray[np.bool_], changed: NDArray[np.bool_], *, along: int
    ) -> None:
        """Add lines; two arrays of the same shape, with the lines one after the other.

        Args:
            first: number of the first line.
            known: True for a place with data on both sides.
            changed: True for a known place where the class changes.
            along: axis of the arrays along a line.
        """
        counts = np.stack([np.count_nonzero(places, axis=along) for places in (known, changed)])
        lines = slice(first, first + counts.shape[1])
        for of_phase, of_lines in zip(self.by_phase, counts, strict=True):
            np.add.at(of_phase, self._phases[lines], of_lines)
        self.at_joins += counts[:, self._is_join[lines]].sum(axis=1)
        self.everywhere += counts.sum(axis=1)

    def shifted(self) -> NDArray[np.int64]:
        """Places and changes, (2, stride), if all joins were 0, 1, 2, ... px further on."""
        by_phase = self.by_phase[:, :-1]
        steps = range(-_JOIN_PX, _JOIN_PX + 1)
        return np.asarray(sum(np.roll(by_phase, step, axis=1) for step in steps))


def _shared(offsets: NDArray[np.int64], tile_px: int, length_px: int) -> NDArray[np.bool_]:
    """(length_px,) bool, True where more than one tile of an axis lies."""
    steps = np.zeros(length_px + 1, dtype=np.int64)
    np.add.at(steps, offsets, 1)
    np.subtract.at(steps, np.minimum(offsets + tile_px, length_px), 1)
    return np.asarray(np.cumsum(steps[:-1]) > 1)


def _distances(lines: NDArray[np.int64], joins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Signed distance of each line from the nearest join; beyond all bounds without one."""
    if not len(joins):
        return np.full(lines.shape, np.iinfo(np.int64).max)
    after = np.clip(np.searchsorted(joins, lines), 0, len(joins) - 1)
    before = np.maximum(after - 1, 0)
    to_before, to_after = lines - joins[before], lines - joins[after]
    return np.where(np.abs(to_before) < np.abs(to_after), to_before, to_after)


def _runs(places: NDArray[np.bool_], *, along: int) -> NDArray[np.bool_]:
    """True for each 8 places along an axis that are all True; fewer at the end do not count."""
    if along == 1:
        return np.asarray(np.packbits(places, axis=1) == _ALL_BITS)
    # The same, and along columns 40 times as fast.
    height, width = len(places) // _RUN_PX, places.shape[1]
    return np.asarray(places[: height * _RUN_PX].reshape(height, _RUN_PX, width).all(axis=1))


def _rates(rows: _Lines, cols: _Lines) -> JoinRates:
    at_joins, changed = (rows.at_joins + cols.at_joins).tolist()
    everywhere, changed_everywhere = (rows.everywhere + cols.everywhere).tolist()
    return JoinRates(
        at_joins=at_joins,
        changed_at_joins=changed,
        elsewhere=everywhere - at_joins,
        changed_elsewhere=changed_everywhere - changed,
        p_value=phase_p_value(rows.shifted(), cols.shifted()) if at_joins else None,
    )


def phase_p_value(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> float:
    """How often joins at another phase of the same grid would show as high a rate of changes.

    A toroidal shift test: all shifts of the joins down and across by less than a stride are
    equally likely if the map does not depend on the grid. It keeps the correlation of neighbouring
    pixels, which a binomial test would take for evidence. Lotwick and Silverman (1982), Methods for
    analysing spatial processes of several types of points, J. R. Stat. Soc. B 44, 406-413.

    Args:
        rows: (2, stride) places and changes on horizontal lines, by shift.
        cols: the same of vertical lines.

    Returns:
        The fraction of the shifts whose rate is at least that of the first, which is included.
    """
    observed = (rows[1, 0] + cols[1, 0]) / (rows[0, 0] + cols[0, 0])
    as_high = shifts = 0
    for places, changes in rows.T:
        places_here, changes_here = places + cols[0], changes + cols[1]
        known = places_here > 0
        rates = changes_here[known] / places_here[known]
        as_high += int(np.count_nonzero(rates >= observed))
        shifts += len(rates)
    return as_high / shifts


def measured_seams(overlap: OverlapCounts, joins: JoinCounts) -> Seams:
    """The seams of a map, when all of it has been counted."""
    changes, straight = joins.rates()
    return Seams(
        overlap_px=overlap.overlap_px,
        disagreeing_px=overlap.disagreeing_px,
        changes=changes,
        straight=straight,
    )


def warn_of_seams(name: str, seams: Seams, grid: TileGrid) -> None:
    """Warn if straight borders are clearly more frequent at tile joins than elsewhere."""
    straight = seams.straight
    here, elsewhere = straight.rate_at_joins or 0.0, straight.rate_elsewhere or 0.0
    is_chance = straight.p_value is None or straight.p_value > _WARN_P
    if is_chance or here < _WARN_RATIO * elsewhere:
        return
    logger.warning(
        "%s: the map may show seams: straight borders of classes lie on %.1f%% of the joins of "
        "tiles, and on %.1f%% of other lines (p = %.2g); tiles disagree on %.1f%% of their "
        "overlap. Try larger tiles (--tile %d).",
        name,
        100 * here,
        100 * elsewhere,
        straight.p_value,
        100 * (seams.disagreement or 0),
        2 * grid.tile_px,
    )
