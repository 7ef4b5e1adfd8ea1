"""Labels from label chips: taken pixel for pixel, whatever either says of its place."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.labels.chip_folder import ChipFolder
from geodinoseg.labels.class_mapping import Unlabelled
from geodinoseg.labels.classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.legend_file import read_legend_file
from geodinoseg.labels.paths import LabelsPath
from geodinoseg.labels.shared_legend import FoundLabels, in_one_legend
from geodinoseg.labels.styles import ClassStyle, StyledClass
from geodinoseg.legend import LARGEST_CLASS_ID, Legend
from geodinoseg.rasters.dataset import holds_whole_numbers, open_dataset, unreadable
from geodinoseg.rasters.legend_sources import find_legend
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The values of a label chip, packed: they are asked for again and again."""

    packed: bytes
    """Row by row, compressed by zlib."""
    shape: tuple[int, int]
    """Rows and columns."""
    dtype: str
    """Of the values."""
    values: tuple[int, ...]
    """Those that occur and are classes, ascending."""

    def read(self) -> NDArray[Any]:
        """(height, width) values."""
        return np.frombuffer(zlib.decompress(self.packed), self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSource:
    """Labels that come from a chip of the scene's own size."""

    chip: Chip
    """The chip."""
    channels: NDArray[np.int64]
    """(values,) channel of each value of the chip, or IGNORE."""
    fill: int
    """Channel of all other pixels, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:  # noqa: ARG002 (the same for every window)
        """Whether there is any label."""
        return len(self.chip.values) > 0

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window."""
        found = self.chip.read()[window.slices]
        channels = np.full(found.shape, self.fill, dtype=self.dtype)
        for value, channel in zip(self.chip.values, self.channels.tolist(), strict=True):
            channels[found == value] = channel
        return channels


def open_chip_labels(
    chips: ChipFolder,
    scenes: Sequence[Scene],
    *,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    extent: LabelsPath | None = None,
    legend_file: LabelsPath | None = None,
    allow_external: bool = False,
) -> list[Labels | None]:
    """Labels of chips with one legend: all classes that occur in one of them.

    Each label chip is read once and kept, packed. Nodata is no label, nor is 0 where the folder's
    0 is no class; other numbers are class ids.

    Args:
        chips: the pairs.
        scenes: the image of each pair.
        unlabelled: what pixels without a label are.
        ignore_classes: names of classes to be taken for unknown.
        extent: polygons within which labelling is complete, where the chips have a place.
        legend_file: numbers, names and colours of classes.
        allow_external: whether chips may be of any kind that GDAL knows; see `open_scene`.

    Returns:
        One for each pair; None where a chip has no label and pixels without one are unknown.

    Raises:
        LabelError: a label chip cannot be read, is of another size than its image, or is no
            raster of class numbers; or as in `open_labels`.
    """
    written = ClassStyle() if legend_file is None else read_legend_file(os.fspath(legend_file))
    read = [
        _read(
            label,
            scene,
            zero_is_unlabelled=chips.zero_is_unlabelled,
            allow_external=allow_external,
        )
        for (_, label), scene in zip(chips.pairs, scenes, strict=True)
    ]
    everything = sorted({value for chip in read for value in chip.values})
    if not everything and unlabelled == "ignore":
        raise LabelError(f"{chips.path}: no label chip holds a class; export them again.")
    style = _style(chips, everything, allow_external=allow_external)
    classes = feature_classes(
        chips.path,
        "value",
        everything,
        ignore_classes=ignore_classes,
        legend_names=written.names_by_id(),
        style_names=style.names_by_id(),
    )
    has_gaps = unlabelled == "background" or extent is not None
    kept = [has_gaps or not classes.names.keys().isdisjoint(chip.values) for chip in read]
    if not all(kept):
        _log.warning("%s: left out %d chips without a label.", chips.path, kept.count(False))
    found = [
        _found(label, scene, chip, classes, style)
        for (_, label), scene, chip, is_kept in zip(chips.pairs, scenes, read, kept, strict=True)
        if is_kept
    ]
    labels = iter(
        in_one_legend(
            found,
            unlabelled=unlabelled,
            ignore_classes=ignore_classes,
            legend=None,
            legend_style=written,
            extent=None if extent is None else os.fspath(extent),
            allow_external=allow_external,
        )
    )
    return [next(labels) if is_kept else None for is_kept in kept]


def _found(
    path: str, scene: Scene, chip: Chip, classes: FeatureClasses, style: ClassStyle
) -> FoundLabels:
    ids = [value if value in classes.names else IGNORE for value in chip.values]
    return FoundLabels(
        path=path,
        geobox=scene.geobox,
        classes=replace(classes, class_ids=np.array(ids, dtype=np.int64)),
        source_of=partial(_source, chip),
        styles=(style,),
    )


def _source(
    chip: Chip, channels: NDArray[np.int64], *, fill: int, dtype: np.dtype[Any]
) -> ChipSource:
    return ChipSource(chip=chip, channels=channels, fill=fill, dtype=dtype)


def _read(path: str, scene: Scene, *, zero_is_unlabelled: bool, allow_external: bool) -> Chip:
    """A label chip and its classes."""
    try:
        with open_dataset(RasterSource(path, allow_external)) as dataset:
            _check_kind(path, dataset, scene)
            nodata = dataset.nodata
            pixels = _pixels(path, dataset)
    except SceneError as error:
        raise LabelError(str(error)) from error
    values: set[int] = set(np.unique(pixels).tolist()) - {nodata}
    if zero_is_unlabelled:
        values.discard(0)
    wrong = [value for value in values if not 0 <= value <= LARGEST_CLASS_ID]
    if wrong:
        raise LabelError(
            f"{path}: holds the value {min(wrong)}, and class ids go from 0 to {LARGEST_CLASS_ID}; "
            f"declare it as nodata (gdal_edit -a_nodata {min(wrong)}) or renumber the classes."
        )
    return Chip(
        packed=zlib.compress(pixels.tobytes(), level=1),
        shape=(scene.height, scene.width),
        dtype=pixels.dtype.str,
        values=tuple(sorted(values)),
    )


def _check_kind(path: str, dataset: rasterio.DatasetReader, scene: Scene) -> None:
    if dataset.count != 1:
        raise LabelError(
            f"{path}: has {dataset.count} bands, and a label chip has one with class numbers; "
            f"turn colours into numbers first, for instance with rgb2pct."
        )
    if not holds_whole_numbers(dataset):
        raise LabelError(
            f"{path}: holds {dataset.dtypes[0]} numbers, class ids are whole ones; if these are, "
            f"convert them with gdal_translate -ot UInt16."
        )
    if (dataset.width, dataset.height) != (scene.width, scene.height):
        raise LabelError(
            f"{path}: has {dataset.width} x {dataset.height} px, its image {scene.path} "
            f"{scene.width} x {scene.height}; a label chip has the size of its image, export both "
            f"again."
        )


def _pixels(path: str, dataset: rasterio.DatasetReader) -> NDArray[Any]:
    window = Window(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
    try:
        values: NDArray[Any] = dataset.read(1)
    except (RasterioError, OSError) as error:
        raise unreadable(RasterSource(path), window, error) from error
    return values


def _style(chips: ChipFolder, class_ids: list[int], *, allow_external: bool) -> ClassStyle:
    """What the folder says of its classes, else the first label chip's tables."""
    if chips.style.classes or not class_ids:
        return chips.style
    path = chips.pairs[0][1]
    with open_dataset(RasterSource(path, allow_external)) as dataset:
        legend = find_legend(dataset, path, class_ids)
    bare = Legend.of_names({entry.class_id: entry.name for entry in legend}).by_id()
    return ClassStyle(
        tuple(
            StyledClass(
                class_id=entry.class_id,
                name=entry.name,
                color=entry.color if entry.color != bare[entry.class_id].color else None,
            )
            for entry in legend
        )
    )
