"""Groups of labelled blocks that go to one side of a split together."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geodinoseg.training.split.blocks import Blocks

_LARGEST_CELL = 8
"""Blocks along a side of a ground cell, at most."""
_LARGEST_GROUP = 1 / 3
"""Of all labelled pixels; a larger group is divided after all."""
_HOLDERS = 2
"""Groups that a class needs, to be trained on and checked."""
_LARGEST_PART = 1.5
"""Groups are joined up to so many times an equal part of the labelled pixels."""


def group_blocks(blocks: Blocks, *, fewest: int) -> NDArray[np.int64]:
    """Find labelled blocks that go to one side together.

    Blocks of several scenes that show the same land are one group; where scenes overlap like
    tiles of a roof, land is cut into square cells of several blocks instead. Then blocks that
    share polygons are joined, those first that share most, as long as `fewest` groups are left
    and none comes to hold far more than its part. The result is (blocks,) number of the group, -1
    where nothing is labelled.
    """
    land = blocks.shared_land[blocks.is_labelled[blocks.shared_land[:, 1]]]
    groups = _numbered(blocks, _components(len(blocks.scene), land))
    if groups.max(initial=-1) + 1 < fewest or not _is_even(blocks, groups):
        groups = _cells(blocks, fewest) if len(land) else groups
    return _joined(blocks, groups, fewest)


def sum_by_group(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(groups, classes) labelled pixels, from those of blocks and the group of each, or -1."""
    sums = np.zeros((groups.max(initial=-1) + 1, counts.shape[1]), dtype=np.int64)
    np.add.at(sums, groups[groups >= 0], counts[groups >= 0])
    return sums


def _joined(blocks: Blocks, groups: NDArray[np.int64], fewest: int) -> NDArray[np.int64]:
    """Groups that share polygons made one, while enough are left, for each class too."""
    counts = sum_by_group(blocks.counts, groups)
    most = counts.sum() * min(_LARGEST_GROUP, _LARGEST_PART / fewest)
    holders = (counts > 0).sum(axis=0)
    parent = list(range(len(counts)))
    left = len(counts)
    for first, second in _shared_polygons(blocks, groups):
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
    roots = np.array([_root(parent, group) for group in range(len(parent))], dtype=np.int64)
    return _numbered(blocks, np.where(groups >= 0, roots[groups], -1) if len(roots) else groups)


def _shared_polygons(blocks: Blocks, groups: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of groups that share polygons, by the area that a cut would leave on one side."""
    polygon, block, area = blocks.polygon_areas
    keys = np.column_stack([polygon, groups[block]])
    parts, index = np.unique(keys, axis=0, return_inverse=True)
    areas = np.bincount(index.reshape(-1), weights=area)
    lost: dict[tuple[int, int], float] = {}
    for at in np.flatnonzero(np.diff(parts[:, 0]) == 0).tolist():
        pair = (int(parts[at, 1]), int(parts[at + 1, 1]))
        lost[pair] = lost.get(pair, 0.0) + min(areas[at], areas[at + 1])
    return sorted(lost, key=lambda pair: (-lost[pair], pair))


def _is_even(blocks: Blocks, groups: NDArray[np.int64]) -> bool:
    """Whether no group holds much more of the labels than a single block must."""
    pixels = blocks.counts.sum(axis=1)
    sums = np.bincount(groups[groups >= 0], weights=pixels[groups >= 0])
    return bool(sums.max(initial=0) <= max(_LARGEST_GROUP * pixels.sum(), pixels.max()))


def _cells(blocks: Blocks, fewest: int) -> NDArray[np.int64]:
    """Groups by the ground cell of a block's centre; cells are as large as `fewest` allows."""
    centroids = shapely.centroid(blocks.footprints)
    middles = np.column_stack([shapely.get_x(centroids), shapely.get_y(centroids)])
    side = float(np.sqrt(np.median(shapely.area(blocks.footprints))))
    across = _LARGEST_CELL
    while True:
        cells = np.column_stack(
            [blocks.planes[blocks.scene], np.nan_to_num(middles) // (across * side)]
        )
        _, cell = np.unique(cells, axis=0, return_inverse=True)
        groups = _numbered(blocks, cell.reshape(-1))
        if across == 1 or groups.max() + 1 >= fewest:
            return groups
        across //= 2


def _numbered(blocks: Blocks, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(blocks,) group of each labelled block from 0 without gaps, one for each key; else -1."""
    groups = np.full(len(keys), -1, dtype=np.int64)
    labelled = blocks.is_labelled
    groups[labelled] = np.unique(keys[labelled], return_inverse=True)[1]
    return groups


def _root(parent: list[int], node: int) -> int:
    """The root of a node in a union-find forest, with path halving."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _components(nodes: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """(nodes,) the smallest node of the connected component of each."""
    least = np.arange(nodes, dtype=np.int64)
    while True:
        lower = least.copy()
        np.minimum.at(lower, edges[:, 0], least[edges[:, 1]])
        np.minimum.at(lower, edges[:, 1], least[edges[:, 0]])
        lower = lower[lower]
        if (lower == least).all():
            return least
        least = lower
