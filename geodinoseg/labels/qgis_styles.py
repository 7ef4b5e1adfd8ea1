"""Classes, names and colours from a QGIS style: the text of a `.qml` file or of `layer_styles`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from geodinoseg.files.safe_xml import XmlError, parsed_xml
from geodinoseg.labels.styles import ClassStyle, StyledClass, hex_color

_WHOLE = re.compile(r"\d{1,5}(\.0*)?")


class StyleError(ValueError):
    """A style that cannot be read; whoever asked for it says of which file."""


def read_qml(text: str, *, fields: tuple[str, ...] = ()) -> ClassStyle:
    """The classes of a style.

    Args:
        text: of the style: categories of a vector layer, or the palette of a raster.
        fields: columns of the layer that the categories may be of; any where none is given.

    Returns:
        Nothing where the style is of another kind or by another column. A category of a number
        has its label as the name; a category of a text has the text.

    Raises:
        StyleError: it is no XML, or declares entities.
    """
    root = _parsed(text)
    palette = [entry for entry in root.iter("paletteEntry") if entry.get("value")]
    if palette:
        return ClassStyle(tuple(_of_value(e, hex_color(e.get("color", ""))) for e in palette))
    renderer = root.find(".//renderer-v2[@type='categorizedSymbol']")
    if renderer is None or not _is_of(renderer.get("attr", ""), fields):
        return ClassStyle()
    colors = {symbol.get("name"): _fill(symbol) for symbol in renderer.findall("symbols/symbol")}
    categories = [e for e in renderer.iter("category") if e.get("value")]
    return ClassStyle(tuple(_of_value(e, colors.get(e.get("symbol"))) for e in categories))


def single_color(text: str) -> str | None:
    """The one colour of a layer that is drawn in one, None where there are none or more.

    Raises:
        StyleError: it is no XML, or declares entities.
    """
    renderer = _parsed(text).find(".//renderer-v2[@type='singleSymbol']")
    symbol = None if renderer is None else renderer.find("symbols/symbol")
    return None if symbol is None else _fill(symbol)


def _parsed(text: str) -> ET.Element:
    try:
        # Without its header: what that says of an encoding that is past has no say.
        return parsed_xml(re.sub(r"^\s*<\?xml[^>]*\?>", "", text.removeprefix("\ufeff")))
    except XmlError as error:
        raise StyleError(str(error)) from error


def _is_of(attribute: str, fields: tuple[str, ...]) -> bool:
    # An expression has its columns in quotes.
    named = attribute.strip().strip('"').casefold()
    return not fields or named in {field.casefold() for field in fields}


def _of_value(entry: ET.Element, color: str | None) -> StyledClass:
    value, label = entry.get("value", "").strip(), entry.get("label", "").strip()
    if _WHOLE.fullmatch(value):
        name = label if label and label != value else None
        return StyledClass(class_id=int(float(value)), name=name, color=color)
    return StyledClass(name=value, color=color)


def _fill(symbol: ET.Element) -> str | None:
    """Colour of the first symbol layer with one; QGIS writes `Option` from 3.26, `prop` before."""
    found = (hex_color(value) for value in _colors(symbol) if value)
    return next((color for color in found if color), None)


def _colors(symbol: ET.Element) -> Iterator[str | None]:
    for layer in symbol.findall("layer"):
        yield from (e.get("value") for e in layer.findall("Option/Option[@name='color']"))
        yield from (e.get("v") for e in layer.findall("prop[@k='color']"))
