"""The rule of the minimum mapping unit on a graph of regions: which class small regions take.

A region is a 4-connected area of one class. Wave by wave, a small region takes the class with
which it shares the longest border, summed over its neighbours that are large or took their class
in the previous wave; a tie goes to the smaller class id. So each small region joins a large one by
the shortest path through small ones, independent of the order of reading. Regions that no large
one can reach stay unchanged; nodata is never taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import offsets_of, ragged_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs of equal pixels within rows, in reading order."""

    starts: NDArray[np.int64]
    """(runs,) first pixel, counted in reading order from the first row's first pixel."""
    lengths: NDArray[np.int64]
    """(runs,) pixels."""
    values: NDArray[Any]
    """(runs,) class id or nodata."""
    width: int
    """Pixels in a row."""

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(runs,) row, from 0."""
        return self.starts // self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Contacts:
    """Stretches where two runs touch."""

    first: NDArray[np.int64]
    """(contacts,) a run."""
    second: NDArray[np.int64]
    """(contacts,) the run to its right or below it."""
    length_px: NDArray[np.int64]
    """(contacts,) sides of pixels."""

    def take(self, chosen: NDArray[Any]) -> Contacts:
        """The chosen ones."""
        return Contacts(
            first=self.first[chosen], second=self.second[chosen], length_px=self.length_px[chosen]
        )


def find_runs(cells: NDArray[Any]) -> Runs:
    """The runs of some rows, (rows, width)."""
    begins = _begins(cells)
    starts = np.flatnonzero(begins)
    return Runs(
        starts=starts,
        lengths=np.diff(starts, append=cells.size),
        values=cells.ravel()[starts],
        width=cells.shape[1],
    )


def find_contacts(runs: Runs, cells: NDArray[Any]) -> Contacts:
    """All contacts between the runs of some rows: side by side, then one above the other."""
    rows = runs.rows
    beside = np.flatnonzero(rows[1:] == rows[:-1])
    begins = _begins(cells)
    # One run is above one other up to where either of them ends.
    stretches = np.flatnonzero(begins[1:] | begins[:-1])
    lengths = np.diff(stretches, append=cells.size - runs.width)
    run_of_pixel = np.cumsum(begins, dtype=np.int64) - 1
    return Contacts(
        first=np.concatenate([beside, run_of_pixel[stretches]]),
        second=np.concatenate([beside + 1, run_of_pixel[stretches + runs.width]]),
        length_px=np.concatenate([np.ones(len(beside), dtype=np.int64), lengths]),
    )


def _begins(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a run begins: in the first column, and where the pixel to the left differs."""
    begins = np.ones(cells.shape, dtype=bool)
    np.not_equal(cells[:, 1:], cells[:, :-1], out=begins[:, 1:])
    return begins


NO_WAVE = -1
"""Wave of a region whose class is not yet decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGraph:
    """Regions and their borders in the rows read so far."""

    values: NDArray[np.int64]
    """(regions,) the class that each region has or took."""
    waves: NDArray[np.int64]
    """(regions,) 0 = keeps its class; n = took it in wave n; NO_WAVE = not yet decided."""
    is_unsure: NDArray[np.bool_]
    """(regions,) True = may still grow large; its wave is NO_WAVE."""
    gives_class: NDArray[np.bool_]
    """(regions,) False = never taken: nodata."""
    first: NDArray[np.int64]
    """(borders,) a region."""
    second: NDArray[np.int64]
    """(borders,) its neighbour; each border once."""
    length_px: NDArray[np.int64]
    """(borders,) sides of pixels."""


def decide_classes(graph: RegionGraph) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decide what does not depend on the rest of the raster.

    Returns:
        (regions,) values and waves, updated for decided regions. A region stays undecided where
        one that may still grow, or one that waits for such a region, could give it its class.
    """
    values, waves = graph.values.copy(), graph.waves.copy()
    undecided = (waves == NO_WAVE) & ~graph.is_unsure
    borders = _Borders.of(graph)
    # Each wave looks only at the neighbours of the regions that the previous wave changed.
    newly_waiting = np.flatnonzero(graph.is_unsure)
    wave, last_wave = 0, int(waves.max(initial=NO_WAVE))
    while len(newly_waiting) or wave <= last_wave:
        wave += 1
        blocked = borders.of_neighbours(newly_waiting)[0]
        newly_waiting = np.unique(blocked[undecided[blocked]])
        undecided[newly_waiting] = False
        givers = np.flatnonzero(waves == wave - 1)
        if wave == 1:  # nodata gives nothing; a hole of it that was filled in a wave does
            givers = givers[graph.gives_class[givers]]
        region, giver, length_px = borders.of_neighbours(givers)
        takes = undecided[region]
        takers, taken = _longest_border(region[takes], values[giver[takes]], length_px[takes])
        values[takers], waves[takers] = taken, wave
        undecided[takers] = False
        last_wave = max(last_wave, wave if len(takers) else 0)
    waves[undecided] = 0  # out of reach of every large region
    return values, waves


@dataclass(frozen=True, slots=True, kw_only=True)
class _Borders:
    """Borders from both of their sides, sorted by neighbour."""

    region: NDArray[np.int64]
    length_px: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """(regions + 1,): the borders of neighbour n are offsets[n] to offsets[n + 1]."""

    @classmethod
    def of(cls, graph: RegionGraph) -> _Borders:
        neighbour = np.concatenate([graph.second, graph.first])
        order = np.argsort(neighbour, kind="stable")
        return cls(
            region=np.concatenate([graph.first, graph.second])[order],
            length_px=np.concatenate([graph.length_px, graph.length_px])[order],
            offsets=offsets_of(np.bincount(neighbour, minlength=len(graph.values))),
        )

    def of_neighbours(
        self, neighbours: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The borders of some neighbours: region, neighbour, length."""
        counts = self.offsets[neighbours + 1] - self.offsets[neighbours]
        places = ragged_range(self.offsets[neighbours], counts)
        return self.region[places], np.repeat(neighbours, counts), self.length_px[places]


def _longest_border(
    regions: NDArray[np.int64], values: NDArray[np.int64], length_px: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each region the value with the longest total border; a tie goes to the smallest."""
    order = np.lexsort((values, regions))
    regions, values, length_px = regions[order], values[order], length_px[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (regions[1:] != regions[:-1]) | (values[1:] != values[:-1])
    places = np.flatnonzero(is_new)
    if not len(places):
        return regions, values
    totals = np.add.reduceat(length_px, places)
    regions, values = regions[places], values[places]
    best = np.lexsort((values, -totals, regions))
    is_first = np.ones(len(best), dtype=bool)
    is_first[1:] = regions[best][1:] != regions[best][:-1]
    return regions[best][is_first], values[best][is_first]
