"""Which class small regions take: the rule of the minimum mapping unit, on a graph of regions.

A region is a 4-connected area of one class. Wave by wave, a small region takes the class with
which it shares the longest border, counted over its neighbours that are large or took their class
in the wave before; between equals the smaller class id. So each small region joins a large one,
by the shortest way through small ones, whatever was read first. Regions that no large one can
reach so stay as they are; nodata is never taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_WAVE = -1
"""Wave of a region whose class is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGraph:
    """Regions and their borders, as far as the raster was read."""

    values: NDArray[np.int64]
    """(regions,) the class that each region has, or took."""
    waves: NDArray[np.int64]
    """(regions,) 0 = keeps its class; n = took it in wave n; NO_WAVE = not known yet."""
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

    def both_ways(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(2 x borders,) each border from both of its sides: region, neighbour, length."""
        return (
            np.concatenate([self.first, self.second]),
            np.concatenate([self.second, self.first]),
            np.concatenate([self.length_px, self.length_px]),
        )


def decide_classes(graph: RegionGraph) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decide what can be decided whatever the rest of the raster holds.

    Returns:
        (regions,) values and waves, those of decided regions changed. A region stays undecided
        where one that may still grow, or one that waits for such, could give it its class.
    """
    values, waves = graph.values.copy(), graph.waves.copy()
    region, neighbour, length_px = graph.both_ways()
    undecided = (waves == NO_WAVE) & ~graph.is_unsure
    # Waits since an earlier wave: its own wave may be any from there on.
    waits = graph.is_unsure.copy()
    wave = 0
    while undecided.any():
        wave += 1
        borders = undecided[region]
        region, neighbour, length_px = region[borders], neighbour[borders], length_px[borders]
        blocked = _marked(region[waits[neighbour]], len(waves)) & undecided
        # Nodata gives nothing; a hole of it that was filled before does.
        has_class = graph.gives_class[neighbour] | (wave > 1)
        gives = (waves[neighbour] == wave - 1) & has_class & ~blocked[region]
        takers = _marked(region[gives], len(waves))
        if not (blocked.any() or takers.any() or (waves >= wave).any()):
            break
        taker, taken = _longest_border(region[gives], values[neighbour[gives]], length_px[gives])
        values[taker] = taken
        waves[takers] = wave
        waits |= blocked
        undecided &= ~(blocked | takers)
    waves[undecided] = 0  # out of reach of every large region
    return values, waves


def _marked(places: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    marks = np.zeros(count, dtype=bool)
    marks[places] = True
    return marks


def _longest_border(
    regions: NDArray[np.int64], values: NDArray[np.int64], length_px: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each region the value with the longest border in all, between equals the smallest."""
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
