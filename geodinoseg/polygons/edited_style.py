"""Styles of polygons that a user edited in QGIS, where the polygons are written anew."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from geodinoseg.errors import LegendError
from geodinoseg.files.edited_style import StyleFile, is_made_by, is_style
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.legend import Legend, LegendClass
from geodinoseg.qgis.geopackage import OUR_STYLE, LayerStyle
from geodinoseg.qgis.styles import vector_qml
from geodinoseg.rasters.class_style import ClassStyle, StyleError, read_qml

CLASS_FIELDS = ("class_name", "class_id")
"""Columns of our polygons that tell their class."""
_log = logging.getLogger(__name__)


def write_style(folder: Path, target: Path, legend: Legend, fresh: str) -> None:
    """Write the `.qml` of polygons, unless the user edited the existing one and it still fits.

    Args:
        folder: where the new file is written before it is moved to the target.
        target: the file of polygons.
        legend: the classes.
        fresh: our style of them.
    """
    style = StyleFile(target.with_suffix(".qml"))
    text = style.text
    if text is None or _is_ours(text, fresh):
        (folder / style.path.name).write_text(fresh, encoding="utf-8")
        return
    merged = vector_qml(legend.recolored(_colors(text, legend)))
    style.replace_in(folder, merged, fits=_fits(text, legend))


def keep_edited_styles(
    old: Sequence[LayerStyle], target: Path, legend: Legend, fresh: str
) -> tuple[str, tuple[LayerStyle, ...]]:
    """The styles of a GeoPackage that is written anew: ours, and the edited ones of the old file.

    The user's default style stays the default if it still fits; else ours takes its colours for
    classes that are the same.
    """
    edited = [style for style in old if not _is_ours(style.qml, fresh)]
    kept: list[LayerStyle] = []
    for style in edited:
        fits = style.is_default and _fits(style.qml, legend)
        # Ours has this name, which the user's style took over.
        name = f"{OUR_STYLE} (edited)" if style.name == OUR_STYLE else style.name
        kept.append(LayerStyle(style.qml, name, is_default=fits, description=style.description))
        if fits:
            _log.info("%s: its style %s was edited, so it is kept.", target, name)
        elif style.is_default:
            fresh = vector_qml(legend.recolored(_colors(style.qml, legend)))
            _log.warning(
                "%s: its style was edited, but does not fit the new polygons; the new style has "
                "its colours for classes that are the same, and the edited one is kept as %s.",
                target,
                name,
            )
    return fresh, tuple(kept)


def _is_ours(qml: str, fresh: str) -> bool:
    """Whether a style is one that we write, for these classes or for those that it shows."""
    return is_style(qml, [fresh]) or is_made_by(qml, _style_of_its_classes)


def _style_of_its_classes(qml: str) -> str | None:
    """Our style of the classes that a style shows by name; None if that is impossible."""
    renderer = _renderer(qml)
    if renderer is None:
        return None
    by_name = {entry.name: entry.color for entry in _style(qml).classes}
    by_name |= {str(entry.class_id): entry.color for entry in _style(qml).classes}
    names = [category.get("value", "") for category in renderer.iter("category")]
    try:
        return vector_qml(
            Legend(
                tuple(
                    LegendClass(class_id=index, name=name, color=by_name.get(name) or "")
                    for index, name in enumerate(names)
                )
            )
        )
    except LegendError:
        return None


def _fits(qml: str, legend: Legend) -> bool:
    """Whether a style draws every class: it has each of them, or does not depend on the class."""
    try:
        root = parse_xml(qml.removeprefix("\ufeff"))
    except (XmlError, RecursionError):
        return False
    if root.find(".//renderer-v2") is None:
        return False
    renderer = root.find(".//renderer-v2[@type='categorizedSymbol']")
    field = "" if renderer is None else renderer.get("attr", "").strip('"').casefold()
    if renderer is None or field not in CLASS_FIELDS:
        return True
    values = {category.get("value", "") for category in renderer.iter("category")}
    shown = {e.name if field == "class_name" else str(e.class_id) for e in legend}
    return "" in values or shown <= values  # the empty value stands for all others


def _colors(qml: str, legend: Legend) -> dict[int, str]:
    """Colours of the classes that a style shows by name, by class id."""
    by_name = {entry.name: entry.color for entry in _style(qml).classes if entry.color}
    return {entry.class_id: by_name[entry.name] for entry in legend if entry.name in by_name}


def _style(qml: str) -> ClassStyle:
    try:
        return read_qml(qml, fields=("class_name",))
    except StyleError:
        return ClassStyle()


def _renderer(qml: str) -> ET.Element | None:
    try:
        root = parse_xml(qml.removeprefix("\ufeff"))
    except (XmlError, RecursionError):
        return None
    return root.find("renderer-v2[@type='categorizedSymbol'][@attr='class_name']")
