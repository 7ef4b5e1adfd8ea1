"""Units: which labelled places go to one side of a split together."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geodinoseg.training.split.blocks import Places

_LARGEST_CELL = 8
"""Places along a side of a ground cell, at most."""
_LARGEST_UNIT = 1 / 3
"""Of all labelled pixels: where so much hangs together, it is cut after all."""
_HOLDERS = 2
"""Units that a class needs, to be trained on and checked."""
_LARGEST_PART = 1.5
"""Times an equal part of the labelled pixels, that units are joined to."""


def units_of(places: Places, *, fewest: int) -> NDArray[np.int64]:
    """Which labelled places go to one side together.

    Places of several scenes that show the same land are one unit; where scenes overlap like
    tiles of a roof, land is cut into square cells of several places instead. Then places that
    share polygons are joined, those first that share most, as long as `fewest` units are left
    and none comes to hold far more than its part.

    Args:
        places: all of them.
        fewest: units that are needed.

    Returns:
        (places,) number of the unit; -1 where nothing is labelled.
    """
    land = places.shared_land[places.is_labelled[places.shared_land[:, 1]]]
    units = _numbered(places, _components(len(places.scene), land))
    if units.max(initial=-1) + 1 < fewest or not _is_even(places, units):
        units = _cells(places, fewest) if len(land) else units
    return _joined(places, units, fewest)


def per_unit(counts: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """(units, classes) labelled pixels, from those of places and the unit of each, or -1."""
    sums = np.zeros((units.max(initial=-1) + 1, counts.shape[1]), dtype=np.int64)
    np.add.at(sums, units[units >= 0], counts[units >= 0])
    return sums


def _joined(places: Places, units: NDArray[np.int64], fewest: int) -> NDArray[np.int64]:
    """Units that share polygons made one, while enough are left, for each class too."""
    counts = per_unit(places.counts, units)
    most = counts.sum() * min(_LARGEST_UNIT, _LARGEST_PART / fewest)
    holders = (counts > 0).sum(axis=0)
    parent = list(range(len(counts)))
    left = len(counts)
    for first, second in _shared_polygons(places, units):
        one, other = _root(parent, first), _root(parent, second)
        both = counts[one] + counts[other]
        if left <= fewest or one == other or both.sum() > most:
            continue
        fewer = (counts[one] > 0) & (counts[other] > 0)
        if (holders[fewer] <= _HOLDERS).any():
            continue
        counts[one], parent[other] = both, one
        holders -= fewer
        left -= 1
    roots = np.array([_root(parent, unit) for unit in range(len(parent))], dtype=np.int64)
    return _numbered(places, np.where(units >= 0, roots[units], -1) if len(roots) else units)


def _shared_polygons(places: Places, units: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of units that polygons lie in, by the area that a cut would leave on one side."""
    polygon, place, area = places.polygon_areas
    keys = np.column_stack([polygon, units[place]])
    parts, index = np.unique(keys, axis=0, return_inverse=True)
    areas = np.bincount(index.reshape(-1), weights=area)
    lost: dict[tuple[int, int], float] = {}
    for at in np.flatnonzero(np.diff(parts[:, 0]) == 0).tolist():
        pair = (int(parts[at, 1]), int(parts[at + 1, 1]))
        lost[pair] = lost.get(pair, 0.0) + min(areas[at], areas[at + 1])
    return sorted(lost, key=lambda pair: (-lost[pair], pair))


def _is_even(places: Places, units: NDArray[np.int64]) -> bool:
    """Whether no unit holds much more of the labels than a single place must."""
    pixels = places.counts.sum(axis=1)
    sums = np.bincount(units[units >= 0], weights=pixels[units >= 0])
    return bool(sums.max(initial=0) <= max(_LARGEST_UNIT * pixels.sum(), pixels.max()))


def _cells(places: Places, fewest: int) -> NDArray[np.int64]:
    """Units by the square of land that the middle of a place lies in, as large as serves."""
    centroids = shapely.centroid(places.footprints)
    middles = np.column_stack([shapely.get_x(centroids), shapely.get_y(centroids)])
    side = float(np.sqrt(np.median(shapely.area(places.footprints))))
    across = _LARGEST_CELL
    while True:
        cells = np.column_stack(
            [places.planes[places.scene], np.nan_to_num(middles) // (across * side)]
        )
        _, cell = np.unique(cells, axis=0, return_inverse=True)
        units = _numbered(places, cell.reshape(-1))
        if across == 1 or units.max() + 1 >= fewest:
            return units
        across //= 2


def _numbered(places: Places, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of labelled places without gaps in their numbers; -1 where nothing is labelled."""
    units = np.full(len(groups), -1, dtype=np.int64)
    labelled = places.is_labelled
    units[labelled] = np.unique(groups[labelled], return_inverse=True)[1]
    return units


def _root(parent: list[int], node: int) -> int:
    """The node that stands for a set; whoever is asked on the way is led there directly."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _components(nodes: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """(nodes,) the least node that edges lead to: labels run along all edges until none falls."""
    least = np.arange(nodes, dtype=np.int64)
    while True:
        lower = least.copy()
        np.minimum.at(lower, edges[:, 0], least[edges[:, 1]])
        np.minimum.at(lower, edges[:, 1], least[edges[:, 0]])
        lower = lower[lower]
        if (lower == least).all():
            return least
        least = lower
