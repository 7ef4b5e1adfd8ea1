"""Labels from label chips: taken pixel for pixel, without regard to georeferences."""

from __future__ import annotations

import logging
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
from geodinoseg.labels.classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.shared_legend import RawLabels, share_legend
from geodinoseg.legend import LARGEST_CLASS_ID
from geodinoseg.rasters.class_reader import PixelType
from geodinoseg.rasters.class_style import ClassStyle, style_of_legend
from geodinoseg.rasters.dataset import open_dataset, unreadable
from geodinoseg.rasters.legend_sources import find_legend
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The values of a label chip, compressed in memory, as they are read again and again."""

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
    class_indices: NDArray[np.int64]
    """(values,) class index of each value of the chip, or IGNORE."""
    fill: int
    """Class index of all other pixels, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:  # noqa: ARG002 (the same for every window)
        """Whether there is any label."""
        return len(self.chip.values) > 0

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class indices of a window."""
        found = self.chip.read()[window.slices]
        class_indices = np.full(found.shape, self.fill, dtype=self.dtype)
        for value, index in zip(self.chip.values, self.class_indices.tolist(), strict=True):
            class_indices[found == value] = index
        return class_indices


def open_chip_labels(
    chips: ChipFolder, scenes: Sequence[Scene], options: LabelOptions
) -> list[Labels | None]:
    """Labels of chips with one legend: all classes that occur in one of them.

    Each label chip is read once and kept, compressed. Nodata is no label, nor is 0 where the
    folder's 0 is no class; other numbers are class ids.

    Args:
        chips: the pairs.
        scenes: the image of each pair.
        options: how the chips are read; an extent needs georeferenced chips.

    Returns:
        One for each pair; None where a chip has no label and pixels without one are unknown.

    Raises:
        LabelError: a label chip cannot be read, is of another size than its image, or is not a
            raster of class numbers; or as in `open_labels`.
    """
    options.warn_of_class_field(chips.path, "label chips have no columns")
    if options.all_touched:
        _log.warning("%s: holds label chips; --all-touched applies to polygons only.", chips.path)
    legend_style = options.legend_style()
    read = [
        _read_chip(
            label,
            scene,
            zero_is_unlabelled=chips.zero_is_unlabelled,
            allow_external=options.allow_external,
        )
        for (_, label), scene in zip(chips.pairs, scenes, strict=True)
    ]
    style, classes = _classes_of_chips(chips, read, legend_style, options)
    kept = [
        options.has_background or not classes.names.keys().isdisjoint(chip.values) for chip in read
    ]
    if not all(kept):
        _log.warning("%s: left out %d chips without a label.", chips.path, kept.count(False))
    raw = [
        _raw_labels(label, scene, chip, classes, style)
        for (_, label), scene, chip, is_kept in zip(chips.pairs, scenes, read, kept, strict=True)
        if is_kept
    ]
    labels = iter(share_legend(raw, options, legend=None, legend_style=legend_style))
    return [next(labels) if is_kept else None for is_kept in kept]


def _classes_of_chips(
    chips: ChipFolder, read: Sequence[Chip], legend_style: ClassStyle, options: LabelOptions
) -> tuple[ClassStyle, FeatureClasses]:
    """What the folder says of its classes, and all classes that occur in it."""
    values = sorted({value for chip in read for value in chip.values})
    if not values and options.unlabelled == "ignore":
        raise LabelError(f"{chips.path}: no label chip holds a class; export them again.")
    style = _style_of_chips(chips, values, allow_external=options.allow_external)
    classes = feature_classes(
        chips.path,
        "value",
        values,
        ignore_classes=options.ignore_classes,
        legend_names=legend_style.names_by_id(),
        style_names=style.names_by_id(),
    )
    return style, classes


def _style_of_chips(chips: ChipFolder, class_ids: list[int], *, allow_external: bool) -> ClassStyle:
    """What the folder says of its classes, else the first label chip's tables."""
    if chips.style.classes or not class_ids:
        return chips.style
    path = chips.pairs[0][1]
    with open_dataset(RasterSource(path, allow_external)) as dataset:
        return style_of_legend(find_legend(dataset, path, class_ids).legend)


def _raw_labels(
    path: str, scene: Scene, chip: Chip, classes: FeatureClasses, style: ClassStyle
) -> RawLabels:
    ids = [value if value in classes.names else IGNORE for value in chip.values]
    return RawLabels(
        path=path,
        geobox=scene.geobox,
        classes=replace(
            classes,
            class_ids=np.array(ids, dtype=np.int64),
            is_unknown=np.zeros(len(ids), dtype=np.bool_),
        ),
        source_of=partial(ChipSource, chip=chip),
        styles=(style,),
    )


def _read_chip(path: str, scene: Scene, *, zero_is_unlabelled: bool, allow_external: bool) -> Chip:
    """A label chip and its classes."""
    try:
        with open_dataset(RasterSource(path, allow_external)) as dataset:
            _check_chip(path, dataset, scene)
            pixel_type = PixelType.of(path, dataset)
            pixels = _read_pixels(path, dataset, pixel_type)
    except SceneError as error:
        raise LabelError(str(error)) from error
    values: set[int] = set(np.unique(pixels).tolist()) - {pixel_type.nodata}
    if zero_is_unlabelled:
        values.discard(0)
    wrong = [value for value in values if not 0 <= value <= LARGEST_CLASS_ID]
    if wrong:
        raise LabelError(
            f"{path}: holds the value {min(wrong)}, but class ids range from 0 to "
            f"{LARGEST_CLASS_ID}; declare it as nodata (gdal_edit -a_nodata {min(wrong)}) or "
            f"renumber the classes."
        )
    return Chip(
        packed=zlib.compress(pixels.tobytes(), level=1),
        shape=(scene.height, scene.width),
        dtype=pixels.dtype.str,
        values=tuple(sorted(values)),
    )


def _check_chip(path: str, dataset: rasterio.DatasetReader, scene: Scene) -> None:
    if dataset.count != 1:
        raise LabelError(
            f"{path}: has {dataset.count} bands, but a label chip has one with class numbers; "
            f"convert colours to numbers first, for instance with rgb2pct."
        )
    if (dataset.width, dataset.height) != (scene.width, scene.height):
        raise LabelError(
            f"{path}: has {dataset.width} x {dataset.height} px, its image {scene.path} "
            f"{scene.width} x {scene.height}; a label chip has the size of its image, export both "
            f"again."
        )


def _read_pixels(path: str, dataset: rasterio.DatasetReader, pixel_type: PixelType) -> NDArray[Any]:
    window = Window(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
    try:
        values: NDArray[Any] = dataset.read(1)
    except (RasterioError, OSError) as error:
        raise unreadable(RasterSource(path), window, error) from error
    return pixel_type.class_ids(path, window, values)
