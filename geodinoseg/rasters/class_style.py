"""Names and colours of classes from a legend file or a QGIS style, which may be incomplete."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.legend import BACKGROUND, Legend

_HEX = re.compile(r"#?([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?")
_SHORT_HEX = re.compile(r"#([0-9a-fA-F]{3})")
_WHOLE = re.compile(r"\d{1,5}(\.0*)?")
_RGB = 3


class StyleError(ValueError):
    """A style that cannot be read; the caller adds the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledClass:
    """What is known of one class."""

    class_id: int | None = None
    """None if the class is known by its name only."""
    name: str | None = None
    """None if the class is known by its number only."""
    color: str | None = None
    """#rrggbb."""


@dataclass(frozen=True, slots=True)
class ClassStyle:
    """The classes of a legend file or of a layer's style."""

    classes: tuple[StyledClass, ...] = ()

    def names_by_id(self) -> dict[int, str]:
        """Names by class id; only printable names that belong to a single id."""
        named = {
            entry.class_id: entry.name.strip()
            for entry in self.classes
            if entry.class_id is not None and entry.name is not None
        }
        count = Counter(named.values())
        return {
            class_id: name
            for class_id, name in named.items()
            if name and name.isprintable() and count[name] == 1
        }

    def colors_by_id(self) -> dict[int, str]:
        """Colours by class id."""
        return {
            entry.class_id: entry.color
            for entry in reversed(self.classes)
            if entry.class_id is not None and entry.color is not None
        }

    def color_of(self, class_id: int | None, name: str) -> str | None:
        """The colour of a class, by its number where it has one of its own, else by its name."""
        by_id = [e for e in self.classes if class_id is not None and e.class_id == class_id]
        found = next((entry for entry in by_id if entry.color), None) or self._named(name)
        return found.color if found else None

    def renumber(self, names: Mapping[int, str]) -> dict[int, str]:
        """Give classes that have a name and no number of their own the numbers of this style.

        Classes that this style lacks get the next free numbers, in their order.
        """
        entries = {name: self._named(name) for name in names.values()}
        given = {
            entry.class_id: name
            for name, entry in entries.items()
            if entry is not None and entry.class_id is not None
        }
        taken = {entry.class_id for entry in self.classes if entry.class_id is not None}
        for class_id, name in sorted(names.items()):
            if name not in given.values():
                free = class_id
                while free in given or free in taken:
                    free += 1
                given[free] = name
        return given

    def background(self) -> dict[int, str]:
        """Number and name of the class called background; nothing without a number."""
        entry = self._named(BACKGROUND)
        if entry is None or entry.class_id is None or entry.name is None:
            return {}
        return {entry.class_id: entry.name}

    def _named(self, name: str) -> StyledClass | None:
        exact = (entry for entry in self.classes if entry.name == name)
        alike = (e for e in self.classes if e.name and e.name.casefold() == name.casefold())
        return next(exact, None) or next(alike, None)


def style_of_legend(legend: Legend, *, keep_palette: bool = False) -> ClassStyle:
    """The names and colours of a legend.

    Colours that the palette gives by default do not count, unless `keep_palette`.
    """
    defaults = Legend.of_names({entry.class_id: entry.name for entry in legend}).by_id()
    classes = []
    for entry in legend:
        is_default = entry.color == defaults[entry.class_id].color
        color = entry.color if keep_palette or not is_default else None
        classes.append(StyledClass(class_id=entry.class_id, name=entry.name, color=color))
    return ClassStyle(tuple(classes))


def hex_color(value: Any) -> str | None:
    """#rrggbb of a colour as files give them; None where it is not a colour.

    Args:
        value: `#rrggbb`, `rrggbb`, `#rgb`, `r,g,b` or `r,g,b,a,...` from 0 to 255, or numbers.
    """
    if isinstance(value, (list, tuple)):
        return _hex_of_rgb([str(number) for number in value])
    text = str(value).strip()
    if found := _HEX.fullmatch(text):
        return f"#{found[1].lower()}"
    if found := _SHORT_HEX.fullmatch(text):
        return "#" + "".join(2 * digit for digit in found[1].lower())
    return _hex_of_rgb(re.split(r"[,;\s]+", text.removeprefix("rgb(").removesuffix(")")))


def read_qml(text: str, *, fields: tuple[str, ...] = ()) -> ClassStyle:
    """The classes of a QGIS style; a StyleError where it is not XML, or declares entities.

    Args:
        text: of the style: categories of a vector layer, or the palette of a raster.
        fields: columns of the layer that the categories may be of; any if empty.

    Returns:
        Nothing where the style is of another kind or by another column. A category of a number
        has its label as the name; a category of a text has the text.
    """
    root = _parse(text)
    palette = tuple(_palette_classes(root))
    if palette:
        return ClassStyle(palette)
    renderer = root.find(".//renderer-v2[@type='categorizedSymbol']")
    if renderer is None or not _is_of(renderer.get("attr", ""), fields):
        return ClassStyle()
    colors = {symbol.get("name"): _fill(symbol) for symbol in renderer.findall("symbols/symbol")}
    categories = [e for e in renderer.iter("category") if e.get("value")]
    return ClassStyle(tuple(_styled_class(e, colors.get(e.get("symbol"))) for e in categories))


def read_raster_qml(text: str) -> ClassStyle:
    """The palette of a raster's style; empty for any other style; errors as `read_qml`."""
    return ClassStyle(tuple(_palette_classes(_parse(text))))


def read_single_color(text: str) -> str | None:
    """The colour of a layer with a single symbol, None of other layers; errors as `read_qml`."""
    renderer = _parse(text).find(".//renderer-v2[@type='singleSymbol']")
    symbol = None if renderer is None else renderer.find("symbols/symbol")
    return None if symbol is None else _fill(symbol)


def _hex_of_rgb(texts: list[str]) -> str | None:
    try:
        rgb = [float(text) for text in texts[:_RGB]]
    except ValueError:
        return None
    if len(rgb) < _RGB or not all(0 <= number <= 255 for number in rgb):
        return None
    return "#{:02x}{:02x}{:02x}".format(*map(round, rgb))


def _parse(text: str) -> ET.Element:
    try:
        # Without the XML declaration: the text is decoded already, whatever encoding that names.
        return parse_xml(re.sub(r"^\s*<\?xml[^>]*\?>", "", text.removeprefix("\ufeff")))
    except XmlError as error:
        raise StyleError(str(error)) from error


def _palette_classes(root: ET.Element) -> Iterator[StyledClass]:
    """The entries of a palette, or of a pseudocolour ramp with exact values."""
    exact = root.findall(".//colorrampshader[@colorRampType='EXACT']/item")
    for entry in (*root.iter("paletteEntry"), *exact):
        if entry.get("value"):
            yield _styled_class(entry, hex_color(entry.get("color", "")))


def _is_of(attribute: str, fields: tuple[str, ...]) -> bool:
    # An expression has its columns in quotes.
    named = attribute.strip().strip('"').casefold()
    return not fields or named in {field.casefold() for field in fields}


def _styled_class(entry: ET.Element, color: str | None) -> StyledClass:
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
