"""The minimum mapping unit on a stream of rows: removes small regions from the rows.

The rule is in `regions`. A row is returned as soon as the class of every region in it is decided,
so that only a few rows are held: as many as a region may need to grow large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import connected_sets, offsets_of
from geodinoseg.polygons.coverage.regions import (
    NO_WAVE,
    Contacts,
    RegionGraph,
    Runs,
    decide_classes,
    find_contacts,
    find_runs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """Which regions are small."""

    least_weight: float
    """Area weight at which a region keeps its class."""
    least_gap_weight: float
    """Area weight at which a hole of nodata is kept; 0 = all are kept."""
    kept_classes: NDArray[np.int64]
    """Class ids whose regions are kept, however small."""
    outside: int
    """Value of nodata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regions:
    """The regions of the rows held, and those next to undecided ones."""

    values: NDArray[np.int64]
    """(regions,) class as read, or as assigned."""
    weights: NDArray[np.int64]
    """(regions,) area so far."""
    waves: NDArray[np.int64]
    """(regions,) as in `RegionGraph`."""
    at_edge: NDArray[np.bool_]
    """(regions,) True = touches the raster's edge."""
    goes_on: NDArray[np.bool_]
    """(regions,) True = reaches the last row read and may continue below."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldRows:
    """Rows not yet decided: their runs, and the regions of these."""

    lengths: NDArray[np.int64]
    regions: NDArray[np.int64]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewRows:
    """Rows just read, as runs, and the regions that they form with the known ones."""

    runs: Runs
    """Those of the last known row come first: there new rows touch known ones."""
    rows: NDArray[np.int64]
    """(runs,) row of the raster."""
    repeated: int
    """Runs of the last known row."""
    borders: Contacts
    """Between the new rows, and with the last known row."""
    regions: int
    """Number of regions, known and new."""
    of_known: NDArray[np.int64]
    """(known regions,) the region that each now belongs to."""
    of_runs: NDArray[np.int64]
    """(runs,) the region of each."""


class MinimumArea:
    """Takes chunks of rows, top to bottom, and returns rows whose classes are decided."""

    def __init__(self, rule: SizeRule, *, height: int, weights_above: NDArray[np.int64]) -> None:
        self._rule = rule
        self._height = height
        self._row_weights = np.diff(weights_above)
        self._next_row = 0
        self._last_row: NDArray[Any] | None = None
        self._last_regions = np.empty(0, dtype=np.int64)
        self._held: list[_HeldRows] = []
        # Region, neighbour and length in pixel sides; each border once.
        self._borders = np.empty((3, 0), dtype=np.int64)
        none = np.empty(0, dtype=np.int64)
        self._regions = _Regions(
            values=none, weights=none, waves=none, at_edge=none == 0, goes_on=none == 0
        )

    def run(self, chunks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Rows without small regions, in chunks of any number of rows; chunks are (rows, width)."""
        for chunk in chunks:
            self._add(chunk)
            self._decide()
            yield from self._take_rows(chunk.dtype)
            self._forget()

    def _add(self, chunk: NDArray[Any]) -> None:
        """Merge the regions of new rows with the known ones."""
        new = self._arrived(chunk)
        self._regions = self._joined_regions(new)
        self._borders = self._joined_borders(new)
        self._held = [replace(held, regions=new.of_known[held.regions]) for held in self._held]
        self._held.append(
            _HeldRows(
                lengths=new.runs.lengths[new.repeated :],
                regions=new.of_runs[new.repeated :],
                rows=len(chunk),
            )
        )
        self._next_row += len(chunk)
        self._last_row = chunk[-1:].copy()
        self._last_regions = new.of_runs[new.rows == self._next_row - 1]

    def _arrived(self, chunk: NDArray[Any]) -> _NewRows:
        """Find the runs of new rows, and which of them form a region with known ones."""
        cells = chunk if self._last_row is None else np.vstack([self._last_row, chunk])
        runs = find_runs(cells)
        contacts = find_contacts(runs, cells)
        known, repeated = len(self._regions), len(self._last_regions)
        same = runs.values[contacts.first] == runs.values[contacts.second]
        roots = connected_sets(
            known + len(runs),
            np.concatenate([self._last_regions, known + contacts.first[same]]),
            np.concatenate([known + np.arange(repeated), known + contacts.second[same]]),
        )
        firsts, region_of = np.unique(roots, return_inverse=True)
        return _NewRows(
            runs=runs,
            rows=runs.rows + self._next_row - (len(cells) - len(chunk)),
            repeated=repeated,
            borders=contacts.take(~same & (contacts.second >= repeated)),
            regions=len(firsts),
            of_known=region_of[:known],
            of_runs=region_of[known:],
        )

    def _joined_regions(self, new: _NewRows) -> _Regions:
        """The regions formed by known regions and new runs."""
        old, runs = self._regions, new.runs
        values = np.empty(new.regions, dtype=np.int64)
        values[new.of_runs] = runs.values
        values[new.of_known] = old.values
        weights = np.zeros(new.regions, dtype=np.int64)
        np.add.at(weights, new.of_known, old.weights)
        added = runs.lengths * self._row_weights[new.rows]
        np.add.at(weights, new.of_runs[new.repeated :], added[new.repeated :])
        waves = np.full(new.regions, NO_WAVE, dtype=np.int64)
        np.maximum.at(waves, new.of_known, old.waves)
        cols, last_row = runs.starts % runs.width, self._height - 1
        at_side = (cols == 0) | (cols + runs.lengths == runs.width)
        at_edge = np.zeros(new.regions, dtype=bool)
        at_edge[new.of_known[old.at_edge]] = True
        at_edge[new.of_runs[at_side | (new.rows == 0) | (new.rows == last_row)]] = True
        goes_on = np.zeros(new.regions, dtype=bool)
        goes_on[new.of_runs[(new.rows == new.rows[-1]) & (new.rows < last_row)]] = True
        return _Regions(
            values=values, weights=weights, waves=waves, at_edge=at_edge, goes_on=goes_on
        )

    def _joined_borders(self, new: _NewRows) -> NDArray[np.int64]:
        """Border lengths between regions, known and new ones summed."""
        first = np.concatenate([new.of_known[self._borders[0]], new.of_runs[new.borders.first]])
        second = np.concatenate([new.of_known[self._borders[1]], new.of_runs[new.borders.second]])
        pairs = np.minimum(first, second) * new.regions + np.maximum(first, second)
        unique, place = np.unique(pairs, return_inverse=True)
        totals = np.zeros(len(unique), dtype=np.int64)
        np.add.at(totals, place, np.concatenate([self._borders[2], new.borders.length_px]))
        return np.stack([*np.divmod(unique, new.regions), totals])

    def _decide(self) -> None:
        regions, rule = self._regions, self._rule
        is_gap = regions.values == rule.outside
        large = regions.weights >= np.where(is_gap, rule.least_gap_weight, rule.least_weight)
        large |= np.isin(regions.values, rule.kept_classes) | (is_gap & regions.at_edge)
        waves = np.where((regions.waves == NO_WAVE) & large, 0, regions.waves)
        graph = RegionGraph(
            values=regions.values,
            waves=waves,
            is_unsure=(waves == NO_WAVE) & regions.goes_on,
            gives_class=~is_gap,
            first=self._borders[0],
            second=self._borders[1],
            length_px=self._borders[2],
        )
        values, waves = decide_classes(graph)
        self._regions = replace(regions, values=values, waves=waves)

    def _take_rows(self, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """The rows above the first one that holds an undecided region."""
        width = 0 if self._last_row is None else self._last_row.shape[1]
        while self._held:
            held = self._held[0]
            is_sure = self._regions.waves[held.regions] != NO_WAVE
            ends = offsets_of(held.lengths)
            unsure = int(np.argmin(is_sure)) if not is_sure.all() else len(is_sure)
            rows = int(ends[unsure]) // width
            runs = int(np.searchsorted(ends, rows * width))
            if rows:
                values = self._regions.values[held.regions[:runs]].astype(dtype)
                yield np.repeat(values, held.lengths[:runs]).reshape(rows, width)
            if rows < held.rows:
                self._held[0] = _HeldRows(
                    lengths=held.lengths[runs:],
                    regions=held.regions[runs:],
                    rows=held.rows - rows,
                )
                return
            self._held.pop(0)

    def _forget(self) -> None:
        """Drop the regions and borders that nothing undecided depends on."""
        waits = self._regions.waves == NO_WAVE
        needed = waits[self._borders[0]] | waits[self._borders[1]]
        self._borders = self._borders[:, needed]
        used = np.zeros(len(self._regions), dtype=bool)
        used[self._last_regions] = True
        used[self._borders[:2].ravel()] = True
        for held in self._held:
            used[held.regions] = True
        number = np.cumsum(used) - 1
        regions = self._regions
        self._regions = _Regions(
            values=regions.values[used],
            weights=regions.weights[used],
            waves=regions.waves[used],
            at_edge=regions.at_edge[used],
            goes_on=regions.goes_on[used],
        )
        self._borders[:2] = number[self._borders[:2]]
        self._last_regions = number[self._last_regions]
        self._held = [replace(held, regions=number[held.regions]) for held in self._held]
