"""From what files say of scenes to labels with one legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.class_mapping import (
    Unlabelled,
    channel_dtype,
    fitted_to,
    legend_of,
    shared_names,
    unlabelled_channel,
    with_background,
)
from geodinoseg.labels.classes import IGNORE, FeatureClasses
from geodinoseg.labels.extent import UNSAID, ExtentSource, extents_on
from geodinoseg.labels.labels import Labels, LabelSource
from geodinoseg.labels.polygon_source import PolygonSource
from geodinoseg.labels.styles import ClassStyle
from geodinoseg.legend import Legend


@dataclass(frozen=True, kw_only=True)
class FoundLabels:
    """What a file says of a scene, before its classes have a channel."""

    path: str
    """The file."""
    geobox: GeoBox
    """The scene."""
    classes: FeatureClasses
    """Of the polygons that reach the scene, or of the values of a raster."""
    source_of: Callable[..., LabelSource]
    """From the channel of each of the classes, `fill` and `dtype` to the source of labels."""
    styles: tuple[ClassStyle, ...] = ()
    """What the file's own styles say of the classes, the first that knows one counts."""


def in_one_legend(
    found: Sequence[FoundLabels],
    *,
    unlabelled: Unlabelled,
    ignore_classes: Sequence[str],
    legend: Legend | None,
    legend_style: ClassStyle,
    extent: str | None,
    allow_external: bool = False,
) -> list[Labels]:
    """The labels of scenes, with the classes that reach one of them, or with those given.

    Args:
        found: of each scene.
        unlabelled: what pixels without a label are; with an extent, background inside it.
        ignore_classes: names of classes to be taken for unknown.
        legend: the classes to use; None finds them.
        legend_style: numbers, names and colours that come before those of the files.
        extent: polygons within which labelling is complete.
        allow_external: whether the extent may be of any kind that GDAL knows.

    Raises:
        LabelError: as in `open_labels`.
    """
    if extent is not None:
        unlabelled = "background"
    if legend is None:
        _check_ignored(found, ignore_classes)
        legend = _found_legend(found, unlabelled, legend_style)
    extents: Sequence[PolygonSource | None] = [None] * len(found)
    if extent is not None:
        geoboxes = [labels.geobox for labels in found]
        extents = extents_on(extent, geoboxes, allow_external=allow_external)
    return [
        _in_legend(labels, legend, unlabelled, area)
        for labels, area in zip(found, extents, strict=True)
    ]


def _found_legend(
    found: Sequence[FoundLabels], unlabelled: Unlabelled, legend_style: ClassStyle
) -> Legend:
    path = found[0].path
    names = shared_names([(labels.path, labels.classes) for labels in found])
    is_numbered = any(labels.classes.is_numbered for labels in found)
    if not is_numbered:
        names = legend_style.renumbered(names)
    if unlabelled == "background":
        names = with_background(path, names, legend_style.background())
    styles = [legend_style, *(style for labels in found for style in labels.styles)]
    colors = {}
    for class_id, name in names.items():
        number = class_id if is_numbered else None
        known = (style.color_of(number, name) for style in dict.fromkeys(styles))
        color = next((color for color in known if color), None)
        if color:
            colors[class_id] = color
    return legend_of(path, names, colors=colors)


def _in_legend(
    labels: FoundLabels, legend: Legend, unlabelled: Unlabelled, area: PolygonSource | None
) -> Labels:
    ids = fitted_to(labels.path, labels.classes, legend)
    if unlabelled == "ignore" and (ids == IGNORE).all():
        raise LabelError(
            f"{labels.path}: has no class in the scene, all that reaches it is to be ignored; "
            f"label some of it, or leave this scene out."
        )
    channels = _channels(ids, legend)
    background = unlabelled_channel(labels.path, legend, unlabelled)
    fill = background if area is None else UNSAID
    source = labels.source_of(channels, fill=fill, dtype=channel_dtype(legend))
    if area is not None:
        source = ExtentSource(labels=source, extent=area, background=background)
    return Labels(path=labels.path, geobox=labels.geobox, legend=legend, source=source)


def _check_ignored(found: Sequence[FoundLabels], ignore_classes: Sequence[str]) -> None:
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
