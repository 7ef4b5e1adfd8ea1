"""Which blocks of labelled scenes train a model and which validate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.labels.labels import Labels
from geodinoseg.model.band_units import BandUnits
from geodinoseg.rasters.scene import Scene, SceneReader
from geodinoseg.training.split.blocks import Blocks, find_blocks
from geodinoseg.training.split.crop_shape import crop_shape
from geodinoseg.training.split.held_out import NEITHER, NEVER, crossed_part, fixed_part, several
from geodinoseg.windows import Window

_NO_FOLD = np.iinfo(np.int16).min
_WARN_CUT = 0.1
"""Fraction of the labelled area in polygons that lie on both sides."""


@dataclass(frozen=True, kw_only=True)
class SplitScene:
    """A scene with its labels, cut into square blocks for training and for validation."""

    scene: Scene
    labels: Labels
    block_px: int
    """Side of a block; the last ones end at the scene's edge. At least a crop, unless the scene
    is smaller than two crops."""
    counts: NDArray[np.int64]
    """(block rows, block columns, classes) labelled pixels."""
    folds: NDArray[np.int16]
    """(block rows, block columns): the fold in which a block is held out; NEVER (-1) where it
    trains in each, NEITHER (-2) where it is in no part, since it shows held-out land of another
    scene."""
    units: tuple[BandUnits, BandUnits] | None = None
    """Units of its bands and of the training if its values must be converted, else None."""

    def read(self, reader: SceneReader, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a window in the units of the training, and True where they are valid."""
        pixels, valid = reader.read(window)
        if self.units is not None:
            here, own = self.units
            pixels = here.convert(pixels, own)
        return pixels, valid

    def with_sides_swapped(self) -> SplitScene:
        """The same with a fixed validation part to train on, and the rest held out in fold 0."""
        return replace(self, folds=np.where(self.folds == 0, NEVER, 0).astype(self.folds.dtype))

    def block(self, row: int, col: int) -> Window:
        """The pixels of a block."""
        side = self.block_px
        window = Window(col_off=col * side, row_off=row * side, width=side, height=side)
        return window.clipped_to(height=self.scene.height, width=self.scene.width)

    def held_out(self, fold: int | None) -> NDArray[np.bool_]:
        """(block rows, block columns), True where a block validates; None holds out nothing."""
        return np.asarray(self.folds == (_NO_FOLD if fold is None else fold))

    def trains(self, fold: int | None) -> NDArray[np.bool_]:
        """(block rows, block columns), True where a block trains; everywhere for None."""
        return ~self._barred(fold)

    def in_held_out(self, window: Window, fold: int | None) -> NDArray[np.bool_]:
        """(height, width) bool, True in a held-out block or in one that is in neither part."""
        rows = np.arange(window.row_off, window.row_end) // self.block_px
        cols = np.arange(window.col_off, window.col_end) // self.block_px
        return np.asarray(self._barred(fold)[np.ix_(rows, cols)])

    def touches(self, window: Window, fold: int | None) -> bool:
        """Whether any pixel of a window is not for training; see `in_held_out`."""
        rows = slice(window.row_off // self.block_px, (window.row_end - 1) // self.block_px + 1)
        cols = slice(window.col_off // self.block_px, (window.col_end - 1) // self.block_px + 1)
        return bool(self._barred(fold)[rows, cols].any())

    def pixels_of(self, fold: int | None, *, held_out: bool) -> NDArray[np.int64]:
        """(classes,) labelled pixels that are held out in a fold, or that it trains on."""
        blocks = self.held_out(fold) if held_out else self.trains(fold)
        pixels: NDArray[np.int64] = self.counts[blocks].sum(axis=0)
        return pixels

    def _barred(self, fold: int | None) -> NDArray[np.bool_]:
        if fold is None:
            return np.zeros(self.folds.shape, dtype=np.bool_)
        return np.asarray(self.held_out(fold) | (self.folds == NEITHER))


@dataclass(frozen=True, kw_only=True)
class Split:
    """All scenes of a training, split together."""

    scenes: tuple[SplitScene, ...]
    folds: int
    """0 where nothing is held out; 1 with one fixed validation part, fold 0; more for
    cross-validation, where every fold is held out once."""
    cut: float
    """Fraction of the labelled area in polygons that lie on both sides."""
    warnings: tuple[str, ...] = ()
    """Why its scores are optimistic, a line each."""


def split_scenes(
    scenes: Sequence[Scene],
    labels: Sequence[Labels],
    *,
    crop_px: int,
    fraction: float,
    seed: int,
) -> Split:
    """Cut scenes into blocks and hold some out: for good, or each once in cross-validation.

    Blocks are two crops a side, or one where few of those have labels. If there are so many groups
    of labelled blocks that 8 are held out (40 for a fifth), a fixed part holds about `fraction` of
    each class, over all scenes together. With fewer, or where a class that occurs in several groups
    cannot be on both sides, groups are sorted into at most 3 folds. A group that alone holds a
    class is never held out.

    No tile shows land of both parts: blocks are never smaller than a crop, a last block narrower
    than a crop goes with its neighbour, and a block that shows land of another scene's held-out
    block is in neither part. Only a scene smaller than two crops is cut into smaller blocks, with
    a warning, where nothing else can be held out. Labels of one polygon stay on one side where
    that leaves enough groups to choose from; a label raster has no polygons. Of a fixed part and
    folds, the one that cuts fewer polygons is taken if the other cuts more than a tenth of the
    labelled area; a warning tells the fraction if that is unavoidable.

    Args:
        scenes: with the same classes and bands.
        labels: of each, on its grid.
        crop_px: side of a training crop and of a validation tile; if the pixels of a scene are not
            square, crops are squares of the same area on the ground.
        fraction: of each class's labelled pixels to hold out, 0 to 0.5.
        seed: of the choice.
    """
    single = [max(crop_shape(scene.geobox, crop_px)) for scene in scenes]
    double = [2 * side for side in single]
    finest = [source.class_blocks(side) for source, side in zip(labels, single, strict=True)]
    coarse = [_coarser(counts) for counts in finest]
    large = find_blocks(scenes, labels, coarse, blocks_px=double, crops_px=single)
    if fraction == 0:
        return _split(large, double, coarse, _never(large))
    small = find_blocks(scenes, labels, finest, blocks_px=single, crops_px=single)
    fixed = partial(fixed_part, fraction=fraction, seed=seed, in_both=several(small, fraction))
    found = []
    for blocks, sides, counts, choose in (
        (large, double, coarse, fixed),
        (small, single, finest, fixed),
        (small, single, finest, partial(crossed_part, seed=seed)),
    ):
        folds = choose(blocks)
        if folds is not None:
            found.append(_split(blocks, sides, counts, folds))
            if found[-1].cut <= _WARN_CUT:
                break
    if found:
        return min(found, key=lambda split: split.cut)
    smaller = _smaller_blocks(scenes, labels, crops_px=single, fraction=fraction, seed=seed)
    return smaller or _split(small, single, finest, _never(small))


def _never(blocks: Blocks) -> NDArray[np.int64]:
    return np.full(len(blocks.scene), NEVER, dtype=np.int64)


def _smaller_blocks(
    scenes: Sequence[Scene],
    labels: Sequence[Labels],
    *,
    crops_px: Sequence[int],
    fraction: float,
    seed: int,
) -> Split | None:
    """A split with small scenes in blocks of a half or a quarter of a crop; None if impossible."""
    is_small = [
        min(scene.height, scene.width) < 2 * side
        for scene, side in zip(scenes, crops_px, strict=True)
    ]
    if not any(is_small):
        return None
    tried = []
    for parts in (2, 4):
        sides = [
            max(side // parts, 1) if small else side
            for small, side in zip(is_small, crops_px, strict=True)
        ]
        counts = [source.class_blocks(px) for source, px in zip(labels, sides, strict=True)]
        blocks = find_blocks(scenes, labels, counts, blocks_px=sides, crops_px=crops_px)
        tried.append((blocks, sides, counts))
    fixed = partial(fixed_part, fraction=fraction, seed=seed)
    for choose in (fixed, partial(crossed_part, seed=seed)):
        for blocks, sides, counts in tried:
            folds = choose(blocks)
            if folds is not None:
                first = is_small.index(True)
                text = (
                    f"{scenes[first].path}: is smaller than two crops of {crops_px[first]} "
                    f"px, so training and validation tiles show the same land and the scores are "
                    f"optimistic; give a larger scene, or a smaller --crop."
                )
                split = _split(blocks, sides, counts, folds)
                return replace(split, warnings=(text, *split.warnings))
    return None


def _split(
    blocks: Blocks,
    blocks_px: Sequence[int],
    counts: Sequence[NDArray[np.int64]],
    folds: NDArray[np.int64],
) -> Split:
    cut = blocks.cut_fraction(folds) if (folds >= 0).any() else 0.0
    text = (
        f"{cut:.0%} of the labelled area lies in polygons that extend from training into "
        f"validation blocks, so the scores are slightly optimistic; more and smaller polygons "
        f"separate better."
    )
    split = [
        SplitScene(
            scene=scene,
            labels=labels,
            block_px=px,
            counts=pixels,
            folds=folds[at].astype(np.int16),
        )
        for scene, labels, px, pixels, at in zip(
            blocks.scenes, blocks.labels, blocks_px, counts, blocks.at, strict=True
        )
    ]
    return Split(
        scenes=tuple(split),
        folds=int(folds.max(initial=NEVER)) + 1,
        cut=cut,
        warnings=(text,) if cut > _WARN_CUT else (),
    )


def _coarser(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of blocks of twice the side."""
    rows, cols, classes = counts.shape
    even = np.pad(counts, ((0, rows % 2), (0, cols % 2), (0, 0)))
    quads = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, classes)
    return np.asarray(quads.sum(axis=(1, 3)), dtype=np.int64)
