"""The style of a new raster of a map, where the user edited that of the raster it replaces."""

from __future__ import annotations

import json
from pathlib import Path

from rasterio.errors import RasterioError

from geodinoseg.errors import LegendError
from geodinoseg.files.edited_style import StyleFile, is_style
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import raster_qml
from geodinoseg.rasters.class_raster import CONTENT_TAG, LEGEND_TAG
from geodinoseg.rasters.class_style import StyledClass, StyleError, read_raster_qml
from geodinoseg.rasters.cog import reopen


def replace_style(folder: Path, target: Path, content: str, legend: Legend, *, fresh: str) -> bool:
    """Replace the `.qml` of a raster, unless the user edited it and it still fits.

    Args:
        folder: where the new raster is written before it is moved to the target.
        target: the raster, whose old version is still there.
        content: classes, confidence or probabilities.
        legend: the classes.
        fresh: the style to write; empty for none.

    Returns:
        Whether the existing file must stay.
    """
    style = StyleFile(target.with_suffix(".qml"))
    text = style.text
    tags = _tags(target)
    old = _legend_in(tags)
    ours = [fresh, *([raster_qml(old)] if old and content == "classes" else ())]
    if text is None or is_style(text, filter(None, ours)):
        if fresh:
            (folder / style.path.name).write_text(fresh, encoding="utf-8")
        return False
    if content != "classes":
        return style.replace_in(folder, fresh, fits=tags.get(CONTENT_TAG) == content)
    same = _same_classes(text, legend, old)
    colors = {number: entry.color for number, entry in same.items() if entry.color}
    fresh = raster_qml(legend.recolored(colors))
    return style.replace_in(folder, fresh, fits=len(colors) == len(legend))


def _same_classes(text: str, legend: Legend, old: Legend | None) -> dict[int, StyledClass]:
    """What an edited style has of the classes of a legend, by id.

    A class is the same if the style has its name, or if the old map has, whose labels may be
    edited.
    """
    try:
        palette = read_raster_qml(text).classes
    except StyleError:
        return {}
    by_id = {entry.class_id: entry for entry in reversed(palette)}
    names = {entry.class_id: entry.name for entry in old or ()}
    return {
        entry.class_id: by_id[entry.class_id]
        for entry in legend
        if entry.class_id in by_id
        and entry.name in (by_id[entry.class_id].name, names.get(entry.class_id))
    }


def _tags(target: Path) -> dict[str, str]:
    """The tags of the raster that is replaced; empty if it cannot be read."""
    if not target.is_file():
        return {}
    try:
        with reopen(target) as dataset:
            tags: dict[str, str] = dataset.tags()
            return tags
    except (OSError, RasterioError):
        return {}


def _legend_in(tags: dict[str, str]) -> Legend | None:
    try:
        return Legend.from_json(json.loads(tags[LEGEND_TAG]))
    except (KeyError, ValueError, RecursionError, LegendError):
        return None
