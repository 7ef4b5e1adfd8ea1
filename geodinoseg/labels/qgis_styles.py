"""Classes, names and colours from a QGIS style: the text of a `.qml` file or of `layer_styles`.

Others wrote it, so it is read with care: a style that declares an entity is refused, which is how
XML is made to grow without end or to read other files. Its DOCTYPE names a file on a server, and
nothing is ever fetched for it: expat opens no external entity by itself, and none is handled here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, NoReturn
from xml.parsers import expat

from geodinoseg.labels.class_style import ClassStyle, StyledClass, hex_color

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
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    try:
        # As bytes, so that what the header says of an encoding that is past has no say.
        parser.Parse(_without_declaration(text), True)  # noqa: FBT003
        return builder.close()
    except (expat.ExpatError, AssertionError) as error:
        raise StyleError(f"it is no XML ({error})") from error


def _without_declaration(text: str) -> str:
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text.removeprefix("\ufeff"))


def _refuse_entity(name: str, *_: Any) -> NoReturn:
    raise StyleError(f"it declares the entity {name!r}, which no style of QGIS does")


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
