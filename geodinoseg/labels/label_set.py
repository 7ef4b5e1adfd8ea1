"""What is known about the pixels of a scene: class channels on its grid, from polygons or a raster.

Nothing is burnt or read until a window is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geodinoseg.errors import LabelError
from geodinoseg.grid import Window, windows_over
from geodinoseg.labels.classes import IGNORE, FeatureClasses
from geodinoseg.labels.features import read_features
from geodinoseg.labels.legends import (
    Unlabelled,
    channel_dtype,
    fitted_to,
    legend_of,
    shared_names,
    unlabelled_channel,
)
from geodinoseg.labels.polygons import polygon_source, polygons_on
from geodinoseg.labels.raster import is_raster, open_label_raster, raster_source
from geodinoseg.labels.vector_layer import file_of, has_vector_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from geodinoseg.geobox import GeoBox
    from geodinoseg.legend import Legend

__all__ = ["IGNORE", "LabelSource", "Labels", "Unlabelled", "open_label_set", "open_labels"]

LabelsPath = str | os.PathLike[str]


class LabelSource(Protocol):
    """Where labels come from."""

    @property
    def fill(self) -> int:
        """Channel of pixels without a label, or IGNORE."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labels on the pixel grid of a scene. A plain value; made by `open_labels`."""

    path: str
    """The file they come from."""
    geobox: GeoBox
    """The scene."""
    legend: Legend
    """What the channels mean."""
    source: LabelSource
    """Polygons or a raster."""

    def read(self, window: Window) -> NDArray[Any]:
        """Labels of a window.

        Args:
            window: inside the scene.

        Returns:
            (height, width) int16 (int32 past 32,767 classes): channel 0 to classes - 1 of the
            legend, IGNORE where there is no label.

        Raises:
            LabelError: a label raster cannot be read.
        """
        return self.source.read(window)

    def class_blocks(self, block_px: int) -> NDArray[np.int64]:
        """How many pixels of each class each block of the scene holds.

        Blocks without a polygon cost nothing; a label raster is read through once.

        Args:
            block_px: side of a block; the last ones end at the scene's edge.

        Returns:
            (block rows, block columns, classes).
        """
        height, width = self.geobox.height, self.geobox.width
        shape = (-(-height // block_px), -(-width // block_px), len(self.legend))
        counts = np.zeros(shape, dtype=np.int64)
        for block in windows_over(height=height, width=width, rows=block_px, cols=block_px):
            counts[block.row_off // block_px, block.col_off // block_px] = self._counted(block)
        return counts

    def _counted(self, window: Window) -> NDArray[np.int64]:
        if not self.source.reaches(window):
            counts = np.zeros(len(self.legend), dtype=np.int64)
            if self.source.fill != IGNORE:
                counts[self.source.fill] = window.height * window.width
            return counts
        channels = self.source.read(window)
        return np.bincount(channels[channels != IGNORE], minlength=len(self.legend))


def open_labels(
    path: LabelsPath,
    geobox: GeoBox,
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    legend: Legend | None = None,
) -> Labels:
    """Labels for a scene, from polygons in any vector format or from a label raster.

    Polygons are brought into the scene's CRS; a pixel belongs to the polygon over its centre,
    and where polygons overlap the later one in the file counts. Polygons without a class are
    areas to ignore. Classes are those that reach the scene, and a class has the same id in every
    scene of one file. A label raster on another grid is resampled to the nearest pixel, and all
    classes of its legend count.

    Args:
        path: a vector file (`file.gpkg|layername=NAME` picks one of several layers) or a raster.
        geobox: the scene.
        class_field: column with class names or numbers; of polygons only. Found unasked where it
            is called class, class_id, class_name or label.
        unlabelled: what pixels without a label are: unknown, or the class background.
        ignore_classes: names of classes to be taken for unknown.
        legend: the classes to use, such as a model's; all labels must fit it, and classes to
            ignore need not occur.

    Raises:
        LabelError: the file is missing, empty or unreadable, lies elsewhere, holds no polygons,
            no such column, classes that contradict each other or the legend, or fewer than two.
    """
    return open_label_set(
        [path],
        [geobox],
        class_field=class_field,
        unlabelled=unlabelled,
        ignore_classes=ignore_classes,
        legend=legend,
    )[0]


def open_label_set(
    paths: Sequence[LabelsPath],
    geoboxes: Sequence[GeoBox],
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    legend: Legend | None = None,
) -> list[Labels]:
    """Labels for several scenes with one legend: all classes that reach one of them.

    Args:
        paths: a file for each scene; it may be the same for all.
        geoboxes: the scenes.
        class_field: as in `open_labels`, and so are the others.
        unlabelled: what pixels without a label are.
        ignore_classes: names of classes to be taken for unknown; each occurs in one file at least.
        legend: the classes to use.

    Raises:
        LabelError: as in `open_labels`, or a class has different names in two files.
    """
    found = [
        _find(os.fspath(path), geobox, class_field, ignore_classes)
        for path, geobox in zip(paths, geoboxes, strict=True)
    ]
    if legend is None:
        _check_ignored(found, ignore_classes)
        names = shared_names([(labels.path, labels.classes) for labels in found])
        colors = {key: color for labels in found for key, color in labels.colors.items()}
        legend = legend_of(found[0].path, names, unlabelled=unlabelled, colors=colors)
    return [labels.in_legend(legend, unlabelled) for labels in found]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a file says of a scene, before its classes have a channel."""

    path: str
    geobox: GeoBox
    classes: FeatureClasses
    colors: Mapping[int, str]
    source_of: Callable[..., LabelSource]
    """From the channel of each of the classes, `fill` and `dtype` to the source of labels."""

    def in_legend(self, legend: Legend, unlabelled: Unlabelled) -> Labels:
        if unlabelled == "ignore" and (self.classes.class_ids == IGNORE).all():
            raise LabelError(
                f"{self.path}: has no class in the scene, all that reaches it is to be ignored; "
                f"label some of it, or leave this scene out."
            )
        source = self.source_of(
            _channels(fitted_to(self.path, self.classes, legend), legend),
            fill=unlabelled_channel(self.path, legend, unlabelled),
            dtype=channel_dtype(legend),
        )
        return Labels(path=self.path, geobox=self.geobox, legend=legend, source=source)


def _find(
    path: str, geobox: GeoBox, class_field: str | None, ignore_classes: Sequence[str]
) -> _Found:
    _check_is_there(path)
    source_of: Callable[..., LabelSource]
    if is_raster(path) and not has_vector_layer(path):
        raster, classes = open_label_raster(path, ignore_classes=ignore_classes)
        colors = {entry.class_id: entry.color for entry in raster.legend}
        source_of = partial(raster_source, raster, geobox)
    else:
        features = read_features(path, class_field=class_field, ignore_classes=ignore_classes)
        placed = polygons_on(features, geobox)
        classes = replace(features.classes, class_ids=placed.class_ids)
        colors, source_of = {}, partial(polygon_source, placed)
    return _Found(path=path, geobox=geobox, classes=classes, colors=colors, source_of=source_of)


def _check_ignored(found: Sequence[_Found], ignore_classes: Sequence[str]) -> None:
    occurring = {name for labels in found for name in labels.classes.ignored}
    absent = [name for name in ignore_classes if name not in occurring]
    if absent:
        there = {name for labels in found for name in labels.classes.names.values()} | occurring
        raise LabelError(
            f"{found[0].path}: has no class {absent[0]!r} to ignore; its classes are "
            f"{', '.join(sorted(there))}."
        )


def _channels(class_ids: NDArray[np.int64], legend: Legend) -> NDArray[np.int64]:
    """Channels of class ids; IGNORE stays."""
    channel_of = {class_id: channel for channel, class_id in enumerate(legend.class_ids.tolist())}
    return np.array([channel_of.get(class_id, IGNORE) for class_id in class_ids.tolist()], np.int64)


def _check_is_there(path: str) -> None:
    file = Path(file_of(path))
    if path.startswith("/vsi") or "://" in path:
        return
    if not file.exists():
        raise LabelError(f"{path}: no such file; give polygons or a label raster.")
    if file.is_file() and not file.stat().st_size:
        raise LabelError(f"{path}: the file is empty; export or copy it again.")
