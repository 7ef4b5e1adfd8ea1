"""The data of a training: scenes with labels, split, and statistics of their bands. No torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.legend import Legend
from geodinoseg.model.band_statistics import (
    BandStatistics,
    measure_statistics,
    principal_components,
)
from geodinoseg.rasters.band_names import red_green_blue
from geodinoseg.rasters.scene import Scene
from geodinoseg.redaction import redact_name
from geodinoseg.segmentation.band_units import units_of
from geodinoseg.segmentation.missing_pixels import empty_bands
from geodinoseg.training.scenes import (
    LabelPaths,
    ScenePaths,
    in_units_of_first,
    open_labelled_scenes,
    pixel_sizes_m,
)
from geodinoseg.training.settings import TrainingSettings
from geodinoseg.training.split.crop_shape import default_crop_px
from geodinoseg.training.split.split import SplitScene, split_scenes

logger = logging.getLogger(__name__)

_FEWEST_CLASSES = 2
_STATISTICS_WINDOWS = 64
"""Of all scenes, at most: some 3 million pixels with crops of 224 px."""
_MOST_NAMES = 50
"""Of scenes in the model folder."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Scenes with labels, ready to be sampled."""

    splits: tuple[SplitScene, ...]
    """Each scene with its labels and blocks."""
    folds: int
    """0 without validation, 1 with a fixed part, more for cross-validation; see `Split`."""
    warnings: tuple[str, ...]
    """Why the scores are optimistic, a line each."""
    legend: Legend
    """The classes, in the order of class indices."""
    statistics: BandStatistics
    """Of the bands in the labelled training blocks."""
    components: NDArray[np.float32]
    """(components, bands), the principal components of the same pixels; see
    `principal_components`."""
    rgb: tuple[int, int, int] | None
    """Positions of red, green and blue, from 0, if the backbone sees these bands alone."""
    crop_px: int
    """Side of a training crop."""
    facts: dict[str, Any]
    """File names and pixel counts for the model folder, plain values."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands that are read, from 1."""
        return self.splits[0].scene.bands

    @property
    def band_names(self) -> tuple[str, ...]:
        """Descriptions of these bands; empty unless each has one."""
        scene = self.splits[0].scene
        names = tuple(scene.names[band - 1] for band in scene.bands)
        return names if all(names) else ()

    @property
    def pixel_size_m(self) -> float | None:
        """Ground resolution, metres: the median over the scenes; None if none has a CRS."""
        known = pixel_sizes_m([split.scene for split in self.splits])
        return float(np.median(known)) if known else None


def read_training_data(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    *,
    bands: Sequence[int] | None,
    options: LabelOptions,
    settings: TrainingSettings,
    nodata: float | None = None,
    patch_px: int | None = None,
) -> TrainingData:
    """Open scenes and labels, choose validation blocks, measure the bands.

    The arguments scenes, labels, bands and nodata are those of `train_model`; patch_px is that of
    the backbone, if it is known.

    Raises:
        SceneError: a scene cannot be read, or they are of different kinds.
        LabelError: labels are missing, lie elsewhere, or leave nothing to learn.
    """
    opened, found, label_names = open_labelled_scenes(
        scenes, labels, bands=bands, nodata=nodata, options=options
    )
    rgb = _red_green_blue(opened[0]) if settings.band_projection == "rgb" else None
    crop_px = settings.crop_px or default_crop_px(
        [scene.geobox for scene in opened], patch_px=patch_px
    )
    split = split_scenes(
        opened,
        found,
        crop_px=crop_px,
        fraction=settings.validation_share,
        seed=settings.seed,
    )
    splits = in_units_of_first(split.scenes)
    _check_classes(found, splits, settings)
    statistics, components = _statistics(splits, split.folds, crop_px=crop_px, seed=settings.seed)
    return TrainingData(
        splits=splits,
        folds=split.folds,
        warnings=split.warnings,
        legend=found[0].legend,
        statistics=statistics,
        components=components,
        rgb=rgb,
        crop_px=crop_px,
        facts=_facts(label_names, splits)
        | ({} if nodata is None else {"nodata": nodata})
        | ({} if rgb is None else {"rgb_bands": [opened[0].bands[band] for band in rgb]}),
    )


def _red_green_blue(scene: Scene) -> tuple[int, int, int]:
    """Positions of these bands of a scene; SceneError if they are unknown."""
    found = red_green_blue(scene)
    if found is None:
        raise SceneError(
            f"{scene.path}: which bands are red, green and blue is unknown (their descriptions, "
            f"wavelengths, names of a known sensor's bands and colour interpretation do not tell "
            f"all three); set them, such as gdal_edit.py -colorinterp_3 red, or give "
            f"--band-projection pca."
        )
    positions, source = found
    red, green, blue = (scene.bands[at] for at in positions)
    logger.info(
        "%s: the backbone sees bands %d (red), %d (green) and %d (blue), known by %s.",
        scene.source.name,
        *(red, green, blue),
        source,
    )
    return positions


def _check_classes(
    found: Sequence[Labels], splits: Sequence[SplitScene], settings: TrainingSettings
) -> None:
    """Refuse labels of fewer than two classes; warn of classes that are left out."""
    names = found[0].legend.names
    training, validation = (_pixels(splits, held_out=side) for side in (False, True))
    trained = [name for name, pixels in zip(names, training, strict=True) if pixels]
    if len(trained) < _FEWEST_CLASSES:
        _check_data_under_labels(found, splits)
        raise LabelError(
            f"{found[0].path}: fewer than two classes have labelled pixels in the scene; draw "
            f"polygons of another class, or give --unlabelled background if all else is one."
        )
    for name in names:
        if name not in trained:
            logger.warning("class %s has no labelled pixel to train on.", name)
    if settings.validation_share == 0:
        return
    if not validation.any():
        logger.warning(
            "%s: too few labels to keep some for validation, so the accuracy of the model is "
            "unknown and the last epoch is kept; label more places.",
            found[0].path,
        )
        return
    for name, pixels in zip(names, validation, strict=True):
        if name in trained and not pixels:
            logger.warning("class %s has too few labels to keep some for validation.", name)


def _check_data_under_labels(found: Sequence[Labels], splits: Sequence[SplitScene]) -> None:
    """Refuse a scene that has no data where its labels are."""
    for labels, split in zip(found, splits, strict=True):
        drawn = replace(labels, scene=None).class_blocks(split.block_px).any(axis=(0, 1))
        if drawn.sum() > split.counts.any(axis=(0, 1)).sum():
            empty = empty_bands(split.scene)
            if empty:
                raise SceneError(f"{split.scene.path}: {empty}.")
            raise LabelError(
                f"{split.scene.path}: holds no data where {labels.path} has labels of "
                f"{', '.join(np.array(labels.legend.names)[drawn])}; label what it shows, or "
                f"correct its nodata value or its mask."
            )


def _pixels(splits: Sequence[SplitScene], *, held_out: bool) -> NDArray[np.int64]:
    """(classes,) labelled pixels of one side of the split; in cross-validation all on both."""
    folds = 1 + max(int(split.folds.max(initial=-1)) for split in splits)
    sides = range(folds) if held_out else [0 if folds == 1 else None]
    pixels = np.zeros(splits[0].counts.shape[-1], dtype=np.int64)
    for split in splits:
        for fold in sides:
            pixels += split.pixels_of(fold, held_out=held_out)
    return pixels


def _statistics(
    scenes: Sequence[SplitScene], folds: int, *, crop_px: int, seed: int
) -> tuple[BandStatistics, NDArray[np.float32]]:
    """Of the bands in labelled training blocks, drawn at random; in cross-validation in all.

    The second result are the principal components.
    """
    fold = 0 if folds == 1 else None

    def samples() -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        chosen = _statistics_blocks(scenes, fold, seed)
        for index in np.unique(chosen[:, 0]).tolist():
            with scenes[index].scene.reader() as reader:
                for _, row, col in chosen[chosen[:, 0] == index].tolist():
                    pixels, valid = scenes[index].read(reader, scenes[index].block(row, col))
                    # All over a block, as data may be anywhere in it, but no more than a crop.
                    step = -(-max(valid.shape) // crop_px)
                    yield pixels[:, ::step, ::step], valid[::step, ::step]

    scene = scenes[0].scene
    taken = list(samples())
    measured = measure_statistics(taken, dtype=str(scene.dtype), what=scene.path, bands=scene.bands)
    _warn_of_constant_bands(scene, measured)
    components = principal_components(taken, measured)
    units = units_of(scene)
    return (replace(measured, units=units) if units.has_tags else measured), components


def _warn_of_constant_bands(scene: Scene, measured: BandStatistics) -> None:
    is_constant = [low == high for low, high in zip(measured.low, measured.high, strict=True)]
    constant, others = (
        ",".join(str(b) for b, same in zip(scene.bands, is_constant, strict=True) if same == side)
        for side in (True, False)
    )
    if constant:
        logger.warning(
            "%s: the model does not use band %s, which has one value in all labelled training "
            "blocks; leave it out with --bands %s.",
            scene.source.name,
            constant,
            others,
        )


def _statistics_blocks(
    scenes: Sequence[SplitScene], fold: int | None, seed: int
) -> NDArray[np.int64]:
    """(blocks, 3) scene, row and column: first one of each scene, then a second, and so on."""
    rng = np.random.default_rng(seed)
    found = []
    for index, split in enumerate(scenes):
        blocks = rng.permutation(np.argwhere(split.counts.any(axis=2) & split.trains(fold)))
        turn = np.arange(len(blocks))
        found.append(np.column_stack([turn, np.full(len(blocks), index), blocks]))
    every = rng.permutation(np.concatenate(found))
    first = np.argsort(every[:, 0], kind="stable")[:_STATISTICS_WINDOWS]
    return np.asarray(every[first, 1:], dtype=np.int64)


def _facts(label_names: Sequence[str], splits: Sequence[SplitScene]) -> dict[str, Any]:
    names = splits[0].labels.legend.names

    def counted(*, held_out: bool) -> dict[str, int]:
        return dict(zip(names, _pixels(splits, held_out=held_out).tolist(), strict=True))

    return {
        "scenes": _cut([redact_name(split.scene.path) for split in splits]),
        "labels": list(label_names),
        "training_pixels": counted(held_out=False),
        "validation_pixels": counted(held_out=True),
    }


def _cut(names: list[str]) -> list[str]:
    """The first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return [*names[:_MOST_NAMES], f"and {more} more"] if more > 0 else names
