"""Labels from label chips: read pixel for pixel, whatever either says of its place."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioError

from geodinoseg.class_rasters.legend_sources import find_legend
from geodinoseg.errors import LabelError, SceneError
from geodinoseg.grid import Window
from geodinoseg.labels.class_style import ClassStyle, StyledClass
from geodinoseg.labels.classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.labels.found import FoundLabels, in_one_legend
from geodinoseg.labels.label_files import LabelsPath
from geodinoseg.labels.legend_files import read_legend_file
from geodinoseg.labels.legends import Unlabelled
from geodinoseg.labels.scene_labels import Labels
from geodinoseg.legend import LARGEST_CLASS_ID
from geodinoseg.raster_file import opened_raster, unreadable

if TYPE_CHECKING:
    import rasterio
    from numpy.typing import NDArray

    from geodinoseg.labels.chip_folders import ChipFolder
    from geodinoseg.scene import Scene

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSource:
    """Labels that are read from a raster of the scene's own size."""

    path: str
    """The label chip."""
    values: NDArray[np.int64]
    """(values,) that occur in it and are classes, ascending."""
    channels: NDArray[np.int64]
    """(values,) channel of each, or IGNORE."""
    fill: int
    """Channel of all other pixels, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:  # noqa: ARG002 (the same for every window)
        """Whether there is any label."""
        return len(self.values) > 0

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window.

        Raises:
            LabelError: the chip cannot be read.
        """
        found = _read(self.path, window)
        channels = np.full(found.shape, self.fill, dtype=self.dtype)
        if len(self.values):
            place = np.searchsorted(self.values, found).clip(max=len(self.values) - 1)
            known = self.values[place] == found
            channels[known] = self.channels[place[known]]
        return channels


def open_chip_labels(
    chips: ChipFolder,
    scenes: Sequence[Scene],
    *,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    extent: LabelsPath | None = None,
    legend_file: LabelsPath | None = None,
) -> list[Labels | None]:
    """Labels of chips with one legend: all classes that occur in one of them.

    Each label chip is read through once. Nodata is no label, nor is 0 where the folder's 0 is no
    class; other numbers are class ids.

    Args:
        chips: the pairs.
        scenes: the image of each pair.
        unlabelled: what pixels without a label are.
        ignore_classes: names of classes to be taken for unknown.
        extent: polygons within which labelling is complete, where the chips have a place.
        legend_file: numbers, names and colours of classes.

    Returns:
        One for each pair; None where a chip has no label and pixels without one are unknown.

    Raises:
        LabelError: a label chip cannot be read, is of another size than its image, or is no
            raster of class numbers; or as in `open_labels`.
    """
    written = ClassStyle() if legend_file is None else read_legend_file(os.fspath(legend_file))
    counts = [
        _counted(label, scene, zero_is_unlabelled=chips.zero_is_unlabelled)
        for (_, label), scene in zip(chips.pairs, scenes, strict=True)
    ]
    everything = sorted({value for count in counts for value in count})
    if not everything and unlabelled == "ignore":
        raise LabelError(f"{chips.path}: no label chip holds a class; export them again.")
    style = _style(chips, everything)
    classes = feature_classes(
        chips.path,
        "value",
        everything,
        ignore_classes=ignore_classes,
        legend_names=written.names_by_id(),
        style_names=style.names_by_id(),
    )
    kept = [bool(_labelled(count, classes)) or unlabelled != "ignore" for count in counts]
    if not all(kept):
        _log.warning("%s: left out %d chips without a label.", chips.path, kept.count(False))
    found = [
        _found(label, scene, count, classes, style)
        for (_, label), scene, count, is_kept in zip(chips.pairs, scenes, counts, kept, strict=True)
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
        )
    )
    return [next(labels) if is_kept else None for is_kept in kept]


def _found(
    path: str,
    scene: Scene,
    count: Mapping[int, int],
    classes: FeatureClasses,
    style: ClassStyle,
) -> FoundLabels:
    values = np.array(sorted(count), dtype=np.int64)
    names = classes.names
    ids = [value if value in names else IGNORE for value in values.tolist()]
    return FoundLabels(
        path=path,
        geobox=scene.geobox,
        classes=FeatureClasses(
            class_ids=np.array(ids, dtype=np.int64),
            names=names,
            is_numbered=True,
            ignored=classes.ignored,
        ),
        source_of=partial(_source, path, values),
        styles=(style,),
        pixels=np.array([count[value] for value in values.tolist()], dtype=np.int64),
    )


def _source(
    path: str,
    values: NDArray[np.int64],
    channels: NDArray[np.int64],
    *,
    fill: int,
    dtype: np.dtype[Any],
) -> ChipSource:
    return ChipSource(path=path, values=values, channels=channels, fill=fill, dtype=dtype)


def _labelled(count: Mapping[int, int], classes: FeatureClasses) -> set[int]:
    return set(count) & set(classes.names)


def _counted(path: str, scene: Scene, *, zero_is_unlabelled: bool) -> dict[int, int]:
    """How many pixels of each class a label chip holds."""
    try:
        with opened_raster(path) as dataset:
            _check_kind(path, dataset, scene)
            nodata = dataset.nodata
            values = _pixels(path, dataset, _whole(scene))
    except SceneError as error:
        raise LabelError(str(error)) from error
    found, counts = np.unique(values, return_counts=True)
    count = dict(zip(found.tolist(), counts.tolist(), strict=True))
    if nodata is not None:
        count.pop(nodata, None)
    if zero_is_unlabelled:
        count.pop(0, None)
    wrong = [value for value in count if not 0 <= value <= LARGEST_CLASS_ID]
    if wrong:
        raise LabelError(
            f"{path}: holds the value {wrong[0]}, and class ids go from 0 to {LARGEST_CLASS_ID}; "
            f"declare it as nodata (gdal_edit -a_nodata {wrong[0]}) or renumber the classes."
        )
    return count


def _check_kind(path: str, dataset: rasterio.DatasetReader, scene: Scene) -> None:
    if dataset.count != 1:
        raise LabelError(
            f"{path}: has {dataset.count} bands, and a label chip has one with class numbers; "
            f"turn colours into numbers first, for instance with rgb2pct."
        )
    name: str = dataset.dtypes[0]
    # GDAL's complex integers are no numpy type.
    if "complex" in name or np.dtype(name).kind not in "iu":
        raise LabelError(
            f"{path}: holds {name} numbers, class ids are whole ones; if these are, "
            f"convert them with gdal_translate -ot UInt16."
        )
    if (dataset.width, dataset.height) != (scene.width, scene.height):
        raise LabelError(
            f"{path}: has {dataset.width} x {dataset.height} px, its image {scene.path} "
            f"{scene.width} x {scene.height}; a label chip has the size of its image, export both "
            f"again."
        )


def _whole(scene: Scene) -> Window:
    return Window(col_off=0, row_off=0, width=scene.width, height=scene.height)


def _read(path: str, window: Window) -> NDArray[Any]:
    try:
        with opened_raster(path) as dataset:
            return _pixels(path, dataset, window)
    except SceneError as error:
        raise LabelError(str(error)) from error


def _pixels(path: str, dataset: rasterio.DatasetReader, window: Window) -> NDArray[Any]:
    try:
        values: NDArray[Any] = dataset.read(1, window=window.ranges)
    except (RasterioError, OSError) as error:
        raise unreadable(path, window, error) from error
    return values


def _style(chips: ChipFolder, class_ids: list[int]) -> ClassStyle:
    """What the folder says of its classes, else the first label chip's tables."""
    if chips.style.classes or not class_ids:
        return chips.style
    path = chips.pairs[0][1]
    with opened_raster(path) as dataset:
        legend = find_legend(dataset, path, class_ids)
    bare = type(legend).of_names({entry.class_id: entry.name for entry in legend}).by_id()
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
