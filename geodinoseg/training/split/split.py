"""Which blocks of labelled scenes train a model and which validate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geodinoseg.legend import Legend
from geodinoseg.rasters.scene import Scene
from geodinoseg.training.split.blocks import Places, find_places
from geodinoseg.training.split.folds import fold_of_units, held_out_units, renumbered
from geodinoseg.training.split.groups import per_unit, units_of
from geodinoseg.windows import Window

NEVER, NEITHER = -1, -2
"""In `SplitScene.folds`: trained on in every fold; in no part at all, a buffer."""

_NO_FOLD = np.iinfo(np.int16).min
_FEWEST_UNITS = 10
"""Of labelled land for a fixed part; a split of fewer is far from the share that was asked for."""
_MOST_FOLDS = 8
_FEWEST_FOLDS = 2
_WARN_CUT = 0.1
"""Of the labelled area, in polygons that lie on both sides."""


class SceneLabels(Protocol):
    """What training asks of labels; see `labels.open_labels`."""

    @property
    def legend(self) -> Legend:
        """The classes."""

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channel of each pixel, IGNORE where there is no label."""

    def class_blocks(self, block_px: int) -> NDArray[np.int64]:
        """(block rows, block columns, classes) labelled pixels of each class in each block."""


@dataclass(frozen=True, kw_only=True)
class SplitScene:
    """A scene with its labels, cut into square blocks for training and for validation."""

    scene: Scene
    """The pixels."""
    labels: SceneLabels
    """What is known of them."""
    block_px: int
    """Side of a block; the last ones end at the scene's edge. At least a crop, unless the scene
    is smaller than two crops."""
    counts: NDArray[np.int64]
    """(block rows, block columns, classes) labelled pixels."""
    folds: NDArray[np.int16]
    """(block rows, block columns): the fold in which a block is held out; NEVER (-1) where it
    trains in each, NEITHER (-2) where it is in no part, since it shows held-out land of another
    scene."""

    def block(self, row: int, col: int) -> Window:
        """The pixels of a block."""
        return Window(
            col_off=col * self.block_px,
            row_off=row * self.block_px,
            width=min(self.block_px, self.scene.width - col * self.block_px),
            height=min(self.block_px, self.scene.height - row * self.block_px),
        )

    def held_out(self, fold: int | None) -> NDArray[np.bool_]:
        """(block rows, block columns), True where a block validates; None holds out nothing."""
        return np.asarray(self.folds == (_NO_FOLD if fold is None else fold))

    def trains(self, fold: int | None) -> NDArray[np.bool_]:
        """(block rows, block columns), True where a block may be trained on; None: everywhere."""
        return ~self._barred(fold)

    def in_held_out(self, window: Window, fold: int | None) -> NDArray[np.bool_]:
        """Pixels of a window that are not for training: in a held-out block, or in neither part.

        Returns:
            (height, width) bool.
        """
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
    """Each scene with its blocks."""
    folds: int
    """0 where nothing is held out; 1 with one fixed validation part, fold 0; more for
    cross-validation, where every fold is held out once."""
    warnings: tuple[str, ...] = ()
    """What makes its scores flatter, a line each."""


def split_scenes(
    scenes: Sequence[Scene],
    labels: Sequence[SceneLabels],
    *,
    crop_px: int,
    share: float,
    seed: int,
) -> Split:
    """Cut scenes into blocks and hold some out: for good, or each once in cross-validation.

    Blocks are two crops a side, or one where few of those have labels. With 10 units of labelled
    land or more, a fixed part holds about `share` of each class, over all scenes together. With
    fewer, or where a class that occurs in several places cannot be on both sides, labelled land
    is sorted into at most 8 folds. A place that alone holds a class is never held out.

    No tile shows land of both parts: blocks are never smaller than a crop, a last block narrower
    than a crop goes with its neighbour, and a block that shows land of another scene's held-out
    block is in neither part. Only a scene smaller than two crops is cut into smaller blocks,
    where nothing else can be held out; that is said. Labels of one polygon stay on one side where
    that leaves land enough to choose from; a label raster knows no polygons. The share of the
    labelled area in polygons that are cut all the same is said where it is above a tenth.

    Args:
        scenes: with the same classes and bands.
        labels: of each, on its grid.
        crop_px: side of a training crop and of a validation tile.
        share: share of each class's labelled pixels to hold out, 0 to 0.5.
        seed: of the choice.
    """
    finest = [source.class_blocks(crop_px) for source in labels]
    whole = [crop_px] * len(scenes)
    double = [2 * crop_px] * len(scenes)
    coarse = [_coarser(counts) for counts in finest]
    places = find_places(scenes, labels, coarse, blocks_px=double, crop_px=crop_px)
    if share == 0:
        return _split(places, double, coarse, np.full(len(places.scene), NEVER, dtype=np.int64))
    fine = find_places(scenes, labels, finest, blocks_px=whole, crop_px=crop_px)
    folds = _fixed(places, share, seed, in_both=_several(fine))
    if folds is not None:
        return _split(places, double, coarse, folds)
    for part in (_fixed_part, _crossed_part):
        folds = part(fine, share, seed)
        if folds is not None:
            return _split(fine, whole, finest, folds)
    smaller = _smaller_blocks(scenes, labels, crop_px=crop_px, share=share, seed=seed)
    if smaller is not None:
        return smaller
    return _split(fine, whole, finest, np.full(len(fine.scene), NEVER, dtype=np.int64))


def _smaller_blocks(
    scenes: Sequence[Scene],
    labels: Sequence[SceneLabels],
    *,
    crop_px: int,
    share: float,
    seed: int,
) -> Split | None:
    """Small scenes cut into blocks of half a crop, or of a quarter; None where that is no use."""
    is_small = [min(scene.height, scene.width) < 2 * crop_px for scene in scenes]
    if not any(is_small):
        return None
    tried = []
    for parts in (2, 4):
        blocks = [max(crop_px // parts, 1) if small else crop_px for small in is_small]
        counts = [source.class_blocks(px) for source, px in zip(labels, blocks, strict=True)]
        places = find_places(scenes, labels, counts, blocks_px=blocks, crop_px=crop_px)
        tried.append((places, blocks, counts))
    for part in (_fixed_part, _crossed_part):
        for places, blocks, counts in tried:
            folds = part(places, share, seed)
            if folds is not None:
                text = (
                    f"{scenes[is_small.index(True)].path}: is smaller than two crops of {crop_px} "
                    f"px, so tiles show land of training and of validation, and the scores "
                    f"flatter; give a larger scene, or a smaller --crop."
                )
                split = _split(places, blocks, counts, folds)
                return replace(split, warnings=(text, *split.warnings))
    return None


def _split(
    places: Places,
    blocks_px: Sequence[int],
    counts: Sequence[NDArray[np.int64]],
    folds: NDArray[np.int64],
) -> Split:
    cut = places.cut_share(folds) if (folds >= 0).any() else 0.0
    text = (
        f"{cut:.0%} of the labelled area lies in polygons that reach from training into "
        f"validation, so the scores flatter a little; more and smaller polygons would part better."
    )
    split = [
        SplitScene(
            scene=scene,
            labels=labels,
            block_px=px,
            counts=pixels,
            folds=folds[of_block].astype(np.int16),
        )
        for scene, labels, px, pixels, of_block in zip(
            places.scenes, places.labels, blocks_px, counts, places.of_block, strict=True
        )
    ]
    return Split(
        scenes=tuple(split),
        folds=int(folds.max(initial=NEVER)) + 1,
        warnings=(text,) if cut > _WARN_CUT else (),
    )


def _fixed_part(places: Places, share: float, seed: int) -> NDArray[np.int64] | None:
    return _fixed(places, share, seed, in_both=_several(places))


def _several(places: Places) -> NDArray[np.bool_]:
    """(classes,), True for classes that occur in several units."""
    counts = per_unit(places.counts, units_of(places, fewest=_FEWEST_UNITS))
    return np.asarray((counts > 0).sum(axis=0) > 1)


def _fixed(
    places: Places, share: float, seed: int, *, in_both: NDArray[np.bool_]
) -> NDArray[np.int64] | None:
    """(places,) fold 0 where held out for good; None where that does not serve every class.

    Args:
        places: whose labelled units are chosen from.
        share: of each class to hold out.
        seed: of the choice.
        in_both: (classes,), True for those that must train and validate.
    """
    units = units_of(places, fewest=_FEWEST_UNITS)
    counts = per_unit(places.counts, units)
    if len(counts) < _FEWEST_UNITS:
        return None
    chosen = held_out_units(counts, share=share, seed=seed)
    folds = np.where((units >= 0) & chosen[units], 0, NEVER)
    # Training land that shows held-out land.
    other = places.shared_land[folds[places.shared_land[:, 0]] == 0, 1]
    folds[other[folds[other] != 0]] = NEITHER
    training = places.counts[folds == NEVER].any(axis=0)
    validation = places.counts[folds == 0].any(axis=0)
    serves = (training | ~counts.any(axis=0)) & (validation | ~in_both)
    return folds if serves.all() and validation.any() else None


def _crossed_part(places: Places, _: float, seed: int) -> NDArray[np.int64] | None:
    """(places,) the fold in which each is held out; None where fewer than two can be."""
    units = units_of(places, fewest=_MOST_FOLDS // 2)
    by_unit = fold_of_units(per_unit(places.counts, units), most=_MOST_FOLDS, seed=seed)
    folds = np.where(units >= 0, by_unit[units] if len(by_unit) else NEVER, NEVER)
    folds = _apart(places, folds)
    used = folds != NEITHER
    everywhere = places.counts[used].sum(axis=0)
    for fold in range(int(folds.max(initial=NEVER)) + 1):
        left = everywhere - places.counts[folds == fold].sum(axis=0)
        if ((left == 0) & (everywhere > 0)).any():
            folds[folds == fold] = NEVER
    folds = renumbered(folds)
    return folds if folds.max(initial=NEVER) + 1 >= _FEWEST_FOLDS else None


def _apart(places: Places, folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Folds such that no land is in two: who shares most with others leaves, one by one.

    Unlabelled land that shows land of one fold goes with it, and into neither where of several.
    """
    folds = folds.copy()
    labelled = places.is_labelled
    pairs = places.shared_land
    between = pairs[labelled[pairs[:, 1]]]
    while True:
        first, second = folds[between.T]
        clash = between[(first != second) & (first != NEITHER) & (second != NEITHER)]
        if not len(clash):
            break
        # Not who trains in every fold: it may be the only one to show a class.
        leaving = clash[folds[clash[:, 0]] >= 0, 0]
        folds[np.bincount(leaving).argmax()] = NEITHER
    for place, other in pairs[~labelled[pairs[:, 1]]].tolist():
        if folds[place] >= 0 and folds[other] != folds[place]:
            folds[other] = folds[place] if folds[other] == NEVER else NEITHER
    return folds


def _coarser(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of blocks of twice the side."""
    rows, cols, classes = counts.shape
    even = np.pad(counts, ((0, rows % 2), (0, cols % 2), (0, 0)))
    quads = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, classes)
    return np.asarray(quads.sum(axis=(1, 3)), dtype=np.int64)
