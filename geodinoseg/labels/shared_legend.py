"""Gives the labels of several scenes one legend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.class_mapping import (
    add_background,
    background_index,
    class_index_dtype,
    make_legend,
    match_to_legend,
    shared_names,
    warn_of_similar_names,
)
from geodinoseg.labels.classes import IGNORE, FeatureClasses
from geodinoseg.labels.coverage import Coverage, counted, lost_polygons
from geodinoseg.labels.extent import NO_LABEL, ExtentSource, extent_sources
from geodinoseg.labels.labels import Labels, LabelSource
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.polygon_source import PolygonSource
from geodinoseg.legend import Legend
from geodinoseg.rasters.class_style import ClassStyle
from geodinoseg.rasters.legend_sources import listed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RawLabels:
    """Labels of a scene as their file has them, before its classes have an index in a legend."""

    path: str
    """The file."""
    geobox: GeoBox
    """The scene."""
    classes: FeatureClasses
    """Of the polygons that intersect the scene, or of the values of a raster."""
    source_of: Callable[..., LabelSource]
    """Makes the source of labels from `class_indices` (of `classes`), `fill` and `dtype`."""
    known: frozenset[str] = frozenset()
    """Names of the classes of all polygons of the file, also of those elsewhere."""
    coverage: Coverage | None = None
    """Which polygons cover the centre of a pixel; None for a raster and with `all_touched`."""
    styles: tuple[ClassStyle, ...] = ()
    """The file's own styles; for each class, the first that contains it applies."""
    nameless: Legend | None = None
    """The legend of a raster without class names in any source; else None."""


def share_legend(
    raw: Sequence[RawLabels],
    options: LabelOptions,
    *,
    legend: Legend | None,
    legend_style: ClassStyle,
) -> list[Labels]:
    """The labels of scenes, with the classes that intersect one of them, or with those given.

    Numbers, names and colours of `legend_style` take precedence over those of the files.
    """
    _check_coverage(raw, is_training=legend is None)
    _check_ignored(raw, options.ignore_classes, legend)
    if legend is None:
        _check_not_renamed(raw, options)
        legend = _find_legend(raw, legend_style, has_background=options.has_background)
        _warn_of_classes_elsewhere(raw)
    extents: Sequence[PolygonSource | None] = [None] * len(raw)
    extent_file = options.extent_file
    if extent_file is not None:
        extents = extent_sources(
            extent_file,
            [labels.geobox for labels in raw],
            allow_external=options.allow_external,
        )
    return [
        _apply_legend(labels, legend, extent, options)
        for labels, extent in zip(raw, extents, strict=True)
    ]


def _find_legend(
    raw: Sequence[RawLabels], legend_style: ClassStyle, *, has_background: bool
) -> Legend:
    path = raw[0].path
    names = shared_names([(labels.path, labels.classes) for labels in raw])
    warn_of_similar_names(path, names.values())
    is_numbered = any(labels.classes.is_numbered for labels in raw)
    if not is_numbered:
        names = legend_style.renumber(names)
    if has_background:
        names = add_background(path, names, legend_style.background())
    styles = dict.fromkeys([legend_style, *(style for labels in raw for style in labels.styles)])
    colors = {}
    for class_id, name in names.items():
        number = class_id if is_numbered else None
        color = next(filter(None, (style.color_of(number, name) for style in styles)), None)
        if color:
            colors[class_id] = color
    return make_legend(path, names, colors=colors)


def _apply_legend(
    raw: RawLabels, legend: Legend, extent: PolygonSource | None, options: LabelOptions
) -> Labels:
    ids = match_to_legend(raw.path, raw.classes, legend, options.renames)
    has_background = options.has_background
    if not has_background and (ids == IGNORE).all():
        raise LabelError(
            f"{raw.path}: has no class in the scene, all labels that reach it are ignored; "
            f"label some of it, or leave this scene out."
        )
    background = background_index(raw.path, legend) if has_background else IGNORE
    source = raw.source_of(
        class_indices=_class_indices(ids, legend),
        fill=background if extent is None else NO_LABEL,
        dtype=class_index_dtype(legend),
    )
    if extent is not None:
        source = ExtentSource(labels=source, extent=extent, background=background)
    return Labels(path=raw.path, geobox=raw.geobox, legend=legend, source=source)


def _check_not_renamed(raw: Sequence[RawLabels], options: LabelOptions) -> None:
    """Refuse to rename classes without a map to compare with."""
    if options.renames:
        raise LabelError(
            f"{raw[0].path}: renaming matches classes to those of a map, but there is no map; name "
            f"the classes with a legend file, or rename them in the labels."
        )


def _check_ignored(
    raw: Sequence[RawLabels], ignore_classes: Sequence[str], legend: Legend | None
) -> None:
    """Refuse to ignore what is no class; a class of the map need not occur in the labels."""
    occurring = {name for labels in raw for name in labels.classes.ignored}
    absent = [name for name in ignore_classes if name not in occurring]
    on_map = {text for entry in legend or () for text in (entry.name, str(entry.class_id))}
    if absent and set(absent) <= on_map:
        _log.warning(
            "%s: --ignore-class %s has no effect: the labels lack it.", raw[0].path, absent[0]
        )
    elif absent:
        known = {name for labels in raw for name in labels.classes.names.values()} | occurring
        raise LabelError(
            f"{raw[0].path}: has no class {absent[0]!r} to ignore; its classes are "
            f"{', '.join(sorted(known))}."
        )


def _check_coverage(raw: Sequence[RawLabels], *, is_training: bool) -> None:
    """Warn of polygons that label no pixel; in training, refuse a class with only such polygons."""
    for path in dict.fromkeys(labels.path for labels in raw):
        of_path = [labels for labels in raw if labels.path == path]
        found = [labels.coverage for labels in of_path if labels.coverage is not None]
        lost = lost_polygons(found, of_path[0].classes.names) if found else []
        if not lost:
            continue
        elsewhere = {
            name for labels in raw if labels.path != path for name in labels.classes.occurring()
        }
        for entry in lost if is_training else ():
            if entry.lost == entry.total and entry.name not in elsewhere:
                raise LabelError(
                    f"{path}: none of the {entry.total:,} polygons of {entry.name!r} covers a "
                    f"pixel's centre, so this class cannot be learned; label every pixel that they "
                    f"touch with --all-touched, or leave the class out with --ignore-class."
                )
        _log.warning(
            "%s: %s cover no pixel's centre, so they label no pixel; --all-touched labels every "
            "pixel that a polygon touches.",
            path,
            counted(lost),
        )


def _warn_of_classes_elsewhere(raw: Sequence[RawLabels]) -> None:
    """Name the classes that a model will not know, as their polygons reach no scene."""
    here = {name for labels in raw for name in labels.classes.occurring()}
    for path in dict.fromkeys(labels.path for labels in raw):
        known = frozenset[str]().union(*(labels.known for labels in raw if labels.path == path))
        elsewhere = sorted(known - here)
        if elsewhere:
            scene = "the scene" if len(raw) == 1 else "any scene"
            _log.warning(
                "%s: no polygon of %s lies in %s, so the model will not know %s.",
                path,
                listed([repr(name) for name in elsewhere]),
                scene,
                "it" if len(elsewhere) == 1 else "them",
            )


def _class_indices(class_ids: NDArray[np.int64], legend: Legend) -> NDArray[np.int64]:
    """Positions of class ids in a legend; IGNORE stays."""
    index_of = {class_id: index for index, class_id in enumerate(legend.class_ids.tolist())}
    return np.array([index_of.get(class_id, IGNORE) for class_id in class_ids.tolist()], np.int64)
