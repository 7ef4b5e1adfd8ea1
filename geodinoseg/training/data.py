"""What a model is trained on: scenes with their labels, split, and what their bands hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.grid import Window
from geodinoseg.labels.chip_folders import ChipFolder, find_chips, joined
from geodinoseg.labels.chip_labels import open_chip_labels
from geodinoseg.labels.label_files import LabelFiles, is_folder, label_files
from geodinoseg.labels.label_set import Labels, LabelsPath, open_label_set
from geodinoseg.model.normalization import BandStatistics, measure_statistics
from geodinoseg.scene import Scene, ScenePath, open_scene
from geodinoseg.training.validation_split import SplitScene, split_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.legend import Legend
    from geodinoseg.training.settings import LabelOptions, TrainingSettings

logger = logging.getLogger(__name__)

ScenePaths = ScenePath | Scene | Sequence[ScenePath | Scene]
"""One scene, or several of one kind; or folders of image chips."""
LabelPaths = LabelsPath | Sequence[LabelsPath]
"""Labels of all scenes, or of each."""

_FEWEST_CLASSES = 2
_STATISTICS_WINDOWS = 64
"""Of each scene, at most: some 3 million pixels where crops have 224 px."""
_WARN_RESOLUTION = 1.5
_MOST_NAMES = 50
"""Of scenes that the model folder names."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Scenes with labels, ready to be sampled."""

    splits: tuple[SplitScene, ...]
    """Each scene with its labels and blocks."""
    legend: Legend
    """The classes; channels are in its order."""
    statistics: BandStatistics
    """Of the bands in the labelled training blocks."""
    facts: dict[str, Any]
    """What the model folder says of all this: file names and pixel counts, plain values."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands that are read, from 1."""
        return self.splits[0].scene.bands

    @property
    def pixel_size_m(self) -> float | None:
        """Ground resolution, metres: the median over the scenes; None where none has a CRS."""
        known = _pixel_sizes_m([split.scene for split in self.splits])
        return float(np.median(known)) if known else None


def read_training_data(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    *,
    bands: Sequence[int] | None,
    options: LabelOptions,
    settings: TrainingSettings,
) -> TrainingData:
    """Open scenes and labels, choose validation blocks, measure the bands.

    Args:
        scenes: one or several rasters with the same kind of bands, or folders of image chips.
        labels: polygons or label rasters, one for all scenes or one for each; `NAME=FILE` or a
            folder for one file a class; for folders of chips those of the label chips, or None
            where they lie in the same folders.
        bands: bands to read, from 1; all but alpha where not given.
        options: how the labels are read.
        settings: crops, share of validation, seed.

    Raises:
        SceneError: a scene cannot be read, or they are of different kinds.
        LabelError: labels are missing, lie elsewhere, or leave nothing to learn.
    """
    opened, found, label_names = _open_labelled(scenes, labels, bands, options)
    splits = tuple(
        split_scene(
            scene,
            source,
            crop_px=settings.crop_px,
            share=settings.validation_share,
            seed=settings.seed + index,
        )
        for index, (scene, source) in enumerate(zip(opened, found, strict=True))
    )
    _check_classes(found, splits, settings)
    return TrainingData(
        splits=splits,
        legend=found[0].legend,
        statistics=_statistics(splits, settings),
        facts=_facts(label_names, splits),
    )


def _open_labelled(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    bands: Sequence[int] | None,
    options: LabelOptions,
) -> tuple[list[Scene], list[Labels], list[str]]:
    """Scenes, the labels of each, and the names of the label files."""
    given = [scenes] if isinstance(scenes, str) or not isinstance(scenes, Sequence) else scenes
    folders = [
        os.fspath(s) for s in given if isinstance(s, str | os.PathLike) and is_folder(s)
    ]
    if folders and len(folders) == len(given):
        return _open_chips(folders, labels, bands, options)
    if folders:
        raise LabelError(
            f"{folders[0]}: is a folder of chips, and other scenes are files; train on one kind."
        )
    if labels is None or labels == []:
        raise LabelError("no labels were given; say with --labels which file they are in.")
    opened = _open_scenes(scenes, bands)
    files = _label_files(labels, opened)
    found = open_label_set(
        files,
        [scene.geobox for scene in opened],
        class_field=options.class_field,
        unlabelled=options.unlabelled,
        ignore_classes=options.ignore_classes,
        extent=options.extent,
        legend_file=options.legend_file,
    )
    placed = [source.on(scene) for source, scene in zip(found, opened, strict=True)]
    return opened, placed, [_file_name(path) for path in dict.fromkeys(map(str, files))]


def _open_chips(
    folders: Sequence[str],
    labels: LabelPaths | None,
    bands: Sequence[int] | None,
    options: LabelOptions,
) -> tuple[list[Scene], list[Labels], list[str]]:
    """The chips of folders; those without a label are left out."""
    chips = _chips(folders, labels)
    opened = _open_scenes([image for image, _ in chips.pairs], bands)
    found = open_chip_labels(
        chips,
        opened,
        unlabelled=options.unlabelled,
        ignore_classes=options.ignore_classes,
        extent=options.extent,
        legend_file=options.legend_file,
    )
    kept = [(s, source.on(s)) for s, source in zip(opened, found, strict=True) if source]
    return [s for s, _ in kept], [source for _, source in kept], [_file_name(chips.path)]


def _chips(folders: Sequence[str], labels: LabelPaths | None) -> ChipFolder:
    paths = [labels] if isinstance(labels, str | os.PathLike) else list(labels or [])
    if paths and len(paths) != len(folders):
        raise LabelError(
            f"{len(paths)} folders of label chips for {len(folders)} of images: give one for each "
            f"in the same order, or none where both lie in one folder."
        )
    homes = [os.fspath(path) for path in paths] or [None] * len(folders)
    return joined([find_chips(folder, home) for folder, home in zip(folders, homes, strict=True)])


def _open_scenes(scenes: ScenePaths, bands: Sequence[int] | None) -> list[Scene]:
    if isinstance(scenes, str) or not isinstance(scenes, Sequence):
        scenes = [scenes]
    opened = [open_scene(source, bands=bands) for source in scenes]
    if not opened:
        raise SceneError("no scene was given to train on; give one or several.")
    first = opened[0]
    for scene in opened[1:]:
        if len(scene.bands) != len(first.bands) or scene.dtype != first.dtype:
            raise SceneError(
                f"{scene.path}: has {len(scene.bands)} bands of {scene.dtype}, {first.path} has "
                f"{len(first.bands)} of {first.dtype}; scenes of one training must be of one kind, "
                f"choose their bands with --bands."
            )
    sizes = _pixel_sizes_m(opened)
    if sizes and max(sizes) > _WARN_RESOLUTION * min(sizes):
        logger.warning(
            "the scenes have %.3g to %.3g m per pixel; the model learns all of them as %.3g m, and "
            "would be better trained on scenes of one resolution.",
            min(sizes), max(sizes), np.median(sizes),
        )  # fmt: skip
    return opened


def _pixel_sizes_m(scenes: Sequence[Scene]) -> list[float]:
    sizes = [scene.geobox.pixel_size_m for scene in scenes]
    return [size for size in sizes if size is not None]


def _label_files(labels: LabelPaths, scenes: Sequence[Scene]) -> list[LabelFiles]:
    given = [labels] if isinstance(labels, str | os.PathLike) else list(labels)
    files = label_files(given)
    if len(files) == 1:
        files *= len(scenes)
    if len(files) != len(scenes):
        raise LabelError(
            f"{len(files)} label files for {len(scenes)} scenes: give one for all, or one for each "
            f"in the same order."
        )
    return files


def _file_name(path: str) -> str:
    """A name without the folders, which say nothing to others."""
    return ", ".join(
        f"{name}{separator}{Path(file).name}" if separator else Path(name).name
        for name, separator, file in (part.partition("=") for part in path.split(", "))
    )


def _check_classes(
    found: Sequence[Labels], splits: Sequence[SplitScene], settings: TrainingSettings
) -> None:
    """Refuse labels that leave nothing to tell apart; warn of classes that are left out."""
    names = found[0].legend.names
    training, validation = (_pixels(splits, validation=side) for side in (False, True))
    trained = [name for name, pixels in zip(names, training, strict=True) if pixels]
    if len(trained) < _FEWEST_CLASSES:
        raise LabelError(
            f"{found[0].path}: fewer than two classes have labelled pixels in the scene; draw "
            f"polygons of another class, or say --unlabelled background where all else is one."
        )
    for name in names:
        if name not in trained:
            logger.warning("class %s has no labelled pixel to train on.", name)
    if settings.validation_share == 0:
        return
    if not validation.any():
        logger.warning(
            "%s: too few labels to keep some for validation, so nothing says how good the model "
            "is, and the last epoch is kept; label more places.", found[0].path,
        )  # fmt: skip
        return
    for name, pixels in zip(names, validation, strict=True):
        if name in trained and not pixels:
            logger.warning("class %s has too few labels to keep some for validation.", name)


def _pixels(splits: Sequence[SplitScene], *, validation: bool) -> NDArray[np.int64]:
    """(classes,) labelled pixels of one side of the split, over all scenes."""
    pixels: NDArray[np.int64] = np.sum(
        [split.pixels_of(validation=validation) for split in splits], axis=0
    )
    return pixels


def _statistics(splits: Sequence[SplitScene], settings: TrainingSettings) -> BandStatistics:
    """Of the bands in labelled training blocks, drawn at random where there are many."""
    rng = np.random.default_rng(settings.seed)

    def samples() -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        for split in splits:
            labelled = split.counts.any(axis=2) & ~split.is_validation
            chosen = rng.permutation(np.argwhere(labelled))[:_STATISTICS_WINDOWS]
            with split.scene.reader() as reader:
                for row, col in chosen.tolist():
                    yield reader.read(_corner(split.block(row, col), settings.crop_px))

    scene = splits[0].scene
    return measure_statistics(samples(), dtype=str(scene.dtype), what=scene.path)


def _corner(block: Window, side: int) -> Window:
    """Of a block no more than a crop, from its first pixel on."""
    return Window(
        col_off=block.col_off,
        row_off=block.row_off,
        width=min(side, block.width),
        height=min(side, block.height),
    )


def _facts(label_names: Sequence[str], splits: Sequence[SplitScene]) -> dict[str, Any]:
    names = splits[0].labels.legend.names

    def counted(*, validation: bool) -> dict[str, int]:
        return dict(zip(names, _pixels(splits, validation=validation).tolist(), strict=True))

    return {
        "scenes": _cut([Path(split.scene.path).name for split in splits]),
        "labels": list(label_names),
        "training_pixels": counted(validation=False),
        "validation_pixels": counted(validation=True),
    }


def _cut(names: list[str]) -> list[str]:
    """As many names as anyone reads, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return [*names[:_MOST_NAMES], f"and {more} more"] if more > 0 else names
