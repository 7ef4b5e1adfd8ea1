"""Which blocks are held out: a fixed part if there are enough of them, or each in a fold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from geodinoseg.training.split.blocks import Blocks
from geodinoseg.training.split.folds import folds_of_groups, held_out_groups, renumbered
from geodinoseg.training.split.groups import group_blocks, sum_by_group

NEVER, NEITHER = -1, -2
"""In `SplitScene.folds`: trained on in every fold; in neither part, a buffer."""

_FEWEST_JUDGES = 8
"""Blocks of a fixed validation part. With fewer it depends on chance which model looks better."""
_MOST_FOLDS = 3
"""Each costs the training of every head."""
_FEWEST_FOLDS = 2
_FEWEST_CROSSED = 4
"""Groups for cross-validation, whose blocks share no polygons as far as that leaves so many."""


def several(blocks: Blocks, fraction: float) -> NDArray[np.bool_]:
    """(classes,), True for classes that occur in several groups."""
    groups = group_blocks(blocks, fewest=_fewest_groups(fraction))
    counts = sum_by_group(blocks.counts, groups)
    return np.asarray((counts > 0).sum(axis=0) > 1)


def fixed_part(
    blocks: Blocks, *, fraction: float, seed: int, in_both: NDArray[np.bool_] | None = None
) -> NDArray[np.int64] | None:
    """(blocks,) fold 0 where held out for good; None with few, or where a class is not served.

    in_both is (classes,), True for classes that must train and validate; by default those in
    several groups.
    """
    in_both = several(blocks, fraction) if in_both is None else in_both
    groups = group_blocks(blocks, fewest=_fewest_groups(fraction))
    counts = sum_by_group(blocks.counts, groups)
    if len(counts) < _fewest_groups(fraction):
        return None
    chosen = held_out_groups(counts, fraction=fraction, seed=seed)
    folds = np.where((groups >= 0) & chosen[groups], 0, NEVER)
    # Training land that shows held-out land.
    other = blocks.shared_land[folds[blocks.shared_land[:, 0]] == 0, 1]
    folds[other[folds[other] != 0]] = NEITHER
    training = blocks.counts[folds == NEVER].any(axis=0)
    validation = blocks.counts[folds == 0].any(axis=0)
    serves = (training | ~counts.any(axis=0)) & (validation | ~in_both)
    is_enough = (blocks.is_labelled & (folds == 0)).sum() >= _FEWEST_JUDGES
    return folds if serves.all() and is_enough else None


def crossed_part(blocks: Blocks, *, seed: int) -> NDArray[np.int64] | None:
    """(blocks,) the fold in which each is held out; None where fewer than two can be."""
    groups = group_blocks(blocks, fewest=_FEWEST_CROSSED)
    by_group = folds_of_groups(sum_by_group(blocks.counts, groups), most=_MOST_FOLDS, seed=seed)
    folds = np.where(groups >= 0, by_group[groups] if len(by_group) else NEVER, NEVER)
    folds = _apart(blocks, folds)
    used = folds != NEITHER
    everywhere = blocks.counts[used].sum(axis=0)
    for fold in range(int(folds.max(initial=NEVER)) + 1):
        left = everywhere - blocks.counts[folds == fold].sum(axis=0)
        if ((left == 0) & (everywhere > 0)).any():
            folds[folds == fold] = NEVER
    folds = renumbered(folds)
    return folds if folds.max(initial=NEVER) + 1 >= _FEWEST_FOLDS else None


def _fewest_groups(fraction: float) -> int:
    """To choose a fixed validation part from."""
    return math.ceil(_FEWEST_JUDGES / fraction)


def _apart(blocks: Blocks, folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Folds such that no land is in two: blocks that share most with others leave, one by one.

    Unlabelled blocks that show land of one fold go with it, and into neither part if of several.
    """
    folds = folds.copy()
    labelled = blocks.is_labelled
    pairs = blocks.shared_land
    between = pairs[labelled[pairs[:, 1]]]
    while True:
        first, second = folds[between.T]
        clash = between[(first != second) & (first != NEITHER) & (second != NEITHER)]
        if not len(clash):
            break
        # Not blocks that train in every fold: they may be the only ones to show a class.
        leaving = clash[folds[clash[:, 0]] >= 0, 0]
        folds[np.bincount(leaving).argmax()] = NEITHER
    for block, other in pairs[~labelled[pairs[:, 1]]].tolist():
        if folds[block] >= 0 and folds[other] != folds[block]:
            folds[other] = folds[block] if folds[other] == NEVER else NEITHER
    return folds
