"""Scenes and their labels, opened together: files, or folders of chips. Loads no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.files.arguments import listed, path_text
from geodinoseg.files.atomic import PathLike
from geodinoseg.labels.chip_folder import ChipFolder, find_chips, joined
from geodinoseg.labels.chip_source import open_chip_labels
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.open import open_label_set
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import (
    GivenLabels,
    LabelFiles,
    is_folder,
    label_files,
    recorded_name,
)
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.segmentation.band_order import bands_by_name
from geodinoseg.segmentation.band_units import needs_conversion, spread, units_of
from geodinoseg.segmentation.input_checks import sampled_values
from geodinoseg.training.split.split import SplitScene

logger = logging.getLogger(__name__)

ScenePaths = PathLike | Scene | Sequence[PathLike | Scene]
"""One scene, or several of one kind; or folders of image chips."""
LabelPaths = GivenLabels | Sequence[GivenLabels]
"""Labels of all scenes, or of each."""

_WARN_RESOLUTION = 1.5
_MOST_SIZES = 200
"""Scenes whose resolution is computed, which takes a call of PROJ each."""


def open_labelled_scenes(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    options: LabelOptions,
) -> tuple[list[Scene], list[Labels], list[str]]:
    """Open scenes with their labels, as given to `train_model`.

    Returns:
        scenes: one for each raster, or for each chip with a label.
        labels: of each; a pixel without data in its scene does not count.
        names: of the label files, without their folders.
    """
    given = listed(scenes)
    folders = [os.fspath(scene) for scene in given if is_folder(scene)]
    if folders and len(folders) == len(given):
        return _open_chips(folders, labels, bands, nodata, options)
    if folders:
        raise LabelError(
            f"{folders[0]}: is a folder of chips, and other scenes are files; train on one kind."
        )
    paths = [] if labels is None else listed(labels)
    if not paths:
        raise LabelError("no labels were given; name their file with --labels.")
    opened = _open_scenes(given, bands, nodata, allow_external=False)
    files = _label_files(paths, opened)
    found = open_label_set(files, [scene.geobox for scene in opened], options=options)
    placed = [source.on(scene) for source, scene in zip(found, opened, strict=True)]
    return opened, placed, [recorded_name(file) for file in dict.fromkeys(files)]


def _open_chips(
    folders: Sequence[str],
    labels: LabelPaths | None,
    bands: Sequence[int] | None,
    nodata: float | None,
    options: LabelOptions,
) -> tuple[list[Scene], list[Labels], list[str]]:
    """The chips of folders; those without a label are left out."""
    chips = _chips(folders, labels)
    images = [image for image, _ in chips.pairs]
    opened = _open_scenes(images, bands, nodata, allow_external=options.allow_external)
    found = open_chip_labels(chips, opened, options)
    kept = [(s, source.on(s)) for s, source in zip(opened, found, strict=True) if source]
    names = ", ".join(Path(folder).name for folder in chips.path.split(", "))
    return [s for s, _ in kept], [source for _, source in kept], [names]


def _chips(folders: Sequence[str], labels: LabelPaths | None) -> ChipFolder:
    paths = [] if labels is None else listed(labels)
    if paths and len(paths) != len(folders):
        raise LabelError(
            f"{len(paths)} folders of label chips for {len(folders)} of images: give one for each "
            f"in the same order, or none where both lie in one folder."
        )
    homes: list[str | None] = [
        path_text(path, "labels", "a folder of label chips", error=LabelError) for path in paths
    ]
    homes = homes or [None] * len(folders)
    return joined([find_chips(folder, home) for folder, home in zip(folders, homes, strict=True)])


def _open_scenes(
    scenes: Sequence[PathLike | Scene],
    bands: Sequence[int] | None,
    nodata: float | None,
    *,
    allow_external: bool,
) -> list[Scene]:
    opened = [
        open_scene(source, bands=bands, nodata=nodata, allow_external=allow_external)
        for source in scenes
    ]
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
    _check_order(first, opened[1:])
    sizes = pixel_sizes_m(opened)
    if sizes and max(sizes) > _WARN_RESOLUTION * min(sizes):
        logger.warning(
            "the scenes have %.3g to %.3g m per pixel; the model learns all of them as %.3g m. "
            "Prefer scenes of one resolution.",
            min(sizes),
            max(sizes),
            np.median(sizes),
        )
    return opened


def _check_order(first: Scene, others: Sequence[Scene]) -> None:
    """Refuse a scene whose bands have the descriptions of the first one's, in another order."""
    for scene in others:
        if scene.names == first.names:
            continue
        found = bands_by_name(scene, [first.names[band - 1] for band in first.bands])
        if found not in {None, scene.bands}:
            raise SceneError(
                f"{scene.path}: its bands are described in another order than those of "
                f"{first.source.name}; reorder them with gdal_translate "
                f"{' '.join(f'-b {band}' for band in found or ())}, or correct the descriptions."
            )


def in_units_of_first(splits: Sequence[SplitScene]) -> tuple[SplitScene, ...]:
    """Set the scenes of a training to the scale and offset of the first scene's bands.

    Logs one line for each scene with another scale or offset.
    """
    first = splits[0].scene
    own = units_of(first)
    reference: NDArray[np.float64] | None = None
    found = []
    for split in splits:
        here = units_of(split.scene)
        if here.equals(own):
            found.append(split)
            continue
        reference = spread(sampled_values(first)) if reference is None else reference
        is_other = needs_conversion(split.scene, here, own, reference, whose=first.source.name)
        found.append(replace(split, units=(here, own)) if is_other else split)
    return tuple(found)


def pixel_sizes_m(scenes: Sequence[Scene]) -> list[float]:
    """Ground resolutions of scenes that have one, metres; a sample of thousands of scenes."""
    sampled = scenes[:: max(1, len(scenes) // _MOST_SIZES)]
    sizes = [scene.geobox.pixel_size_m for scene in sampled]
    return [size for size in sizes if size is not None]


def _label_files(labels: Sequence[GivenLabels], scenes: Sequence[Scene]) -> list[LabelFiles]:
    files = label_files(labels)
    if len(files) == 1:
        files *= len(scenes)
    if len(files) != len(scenes):
        raise LabelError(
            f"{len(files)} label files for {len(scenes)} scenes: give one for all, or one for each "
            f"in the same order."
        )
    return files
