"""Warnings before a training about unmarked missing pixels, and bands left out as alpha.

The rules are those of segmentation. Does not import torch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodinoseg.labels.classes import IGNORE
from geodinoseg.segmentation.missing_pixels import (
    collar_values,
    is_considerable,
    names_text,
    report_missing_pixels,
)
from geodinoseg.training.split.split import SplitScene

logger = logging.getLogger(__name__)

_MOST_BLOCKS = 256
"""Maximum number of labelled blocks to read, drawn at random: 51 million px at a crop of 224."""
_MOST_SCENES = 20
"""Maximum number of scenes whose bands are sampled, since thousands of chips are alike."""


def warn_of_scenes(splits: Sequence[SplitScene], *, bands: Sequence[int] | None, seed: int) -> None:
    """Warn where missing pixels may be taken for data, and log which bands are left out as alpha.

    Args:
        splits: scenes with their labels.
        bands: bands chosen by the user; None if all are read.
        seed: seed of the choice of blocks.
    """
    step = -(-len(splits) // _MOST_SCENES)
    report_missing_pixels([split.scene for split in splits[::step]], bands_chosen=bands is not None)
    _warn_of_collars(splits, seed)


@dataclass(frozen=True, kw_only=True)
class _Collar:
    """Labelled pixels that have one value in every band."""

    value: int
    by_class: NDArray[np.int64]
    """(classes,) number of pixels."""
    scenes: set[int]
    """Indices of the scenes with such pixels."""

    def add(self, found: NDArray[np.int64], scene: int) -> None:
        """Add (classes,) numbers of pixels of a scene."""
        self.by_class[:] += found
        if found.any():
            self.scenes.add(scene)

    @property
    def pixels(self) -> int:
        """Number of pixels of all classes."""
        return int(self.by_class.sum())


def _warn_of_collars(splits: Sequence[SplitScene], seed: int) -> None:
    """Warn of labelled pixels that are 0 or the maximum in every band."""
    watched = [split for split in splits if collar_values(split.scene)]
    blocks = _labelled_blocks(watched)
    if not len(blocks):
        return
    chosen = np.random.default_rng(seed).permutation(blocks)[:_MOST_BLOCKS]
    seen, collars = _count(watched, chosen)
    for collar in collars:
        if is_considerable(collar.pixels, seen):
            _warn(watched, collar, seen=seen, scale=len(blocks) / len(chosen))


def _labelled_blocks(splits: Sequence[SplitScene]) -> NDArray[np.int64]:
    """(blocks, 3) scene, row and column of each labelled block."""
    found = [np.zeros((0, 3), dtype=np.int64)]
    for index, split in enumerate(splits):
        blocks = np.argwhere(split.counts.any(axis=2))
        found.append(np.insert(blocks, 0, index, axis=1))
    return np.concatenate(found)


def _count(
    splits: Sequence[SplitScene], chosen: NDArray[np.int64]
) -> tuple[int, tuple[_Collar, ...]]:
    """The number of labelled pixels of some blocks, and the pixels that appear to be nodata."""
    classes = len(splits[0].labels.legend)
    values = dict.fromkeys(value for split in splits for value in collar_values(split.scene))
    collars = tuple(
        _Collar(value=value, by_class=np.zeros(classes, dtype=np.int64), scenes=set())
        for value in values
    )
    seen = 0
    for index in np.unique(chosen[:, 0]).tolist():
        split = splits[index]
        watched = collar_values(split.scene)
        with split.scene.reader() as reader:
            for _, row, col in chosen[chosen[:, 0] == index].tolist():
                window = split.block(row, col)
                pixels, valid = reader.read(window)
                labels = np.where(valid, split.labels.read(window), IGNORE)
                seen += int((labels != IGNORE).sum())
                for collar in (collar for collar in collars if collar.value in watched):
                    inside = labels[(pixels == collar.value).all(axis=0)]
                    found = np.bincount(inside[inside != IGNORE], minlength=classes)
                    collar.add(found, index)
    return seen, collars


def _warn(splits: Sequence[SplitScene], collar: _Collar, *, seen: int, scale: float) -> None:
    names = splits[0].labels.legend.names
    classes = [
        f"{name} {round(scale * pixels):,}"
        for name, pixels in zip(names, collar.by_class.tolist(), strict=True)
        if pixels
    ]
    logger.warning(
        "%s: %s%s labelled pixels (%.0f%%: %s) are %d in every band, and the file does not mark "
        "them as nodata, so they are learned as their class and distort the statistics of the "
        "bands. If they hold no data, train again with --nodata %d.",
        names_text([splits[index].scene for index in sorted(collar.scenes)]),
        "" if scale == 1 else "about ",
        f"{round(scale * collar.pixels):,}",
        100 * collar.pixels / seen,
        ", ".join(classes),
        collar.value,
        collar.value,
    )
