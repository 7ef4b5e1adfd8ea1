"""New colours in an existing style or attribute table, of which everything else stays."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from geodinoseg.legend import Legend

_CHANNELS = ("6", "7", "8")
_VALUE = "5"
"""GDALRATFieldUsage of the column of ids; _CHANNELS are those of red, green and blue."""
_RGB = 3


def recolor_palette(root: ET.Element, legend: Legend) -> bool:
    """Recolour the palette of a raster's style.

    Args:
        root: the parsed `.qml`, which is changed.
        legend: the classes, by id.

    Returns:
        Whether every class is in the palette.
    """
    colors = {str(entry.class_id): entry.color for entry in legend}
    exact = root.findall(".//colorrampshader[@colorRampType='EXACT']/item")
    found = set()
    for entry in (*root.iter("paletteEntry"), *exact):
        value = entry.get("value", "").partition(".")[0]
        if value in colors:
            entry.set("color", colors[value])
            found.add(value)
    return found == set(colors)


def recolor_categories(root: ET.Element, legend: Legend) -> bool:
    """Recolour the symbols of a style of polygons by `class_name` or `class_id`.

    Args:
        root: the parsed `.qml`, which is changed.
        legend: the classes.

    Returns:
        Whether the style has a symbol for a class.
    """
    renderer = root.find(".//renderer-v2[@type='categorizedSymbol']")
    if renderer is None:
        return False
    field = renderer.get("attr", "").strip().strip('"').casefold()
    rgb_of = {
        entry.name if field == "class_name" else str(entry.class_id): entry.rgb for entry in legend
    }
    if field not in {"class_name", "class_id"}:
        return False
    symbols = {symbol.get("name"): symbol for symbol in renderer.findall("symbols/symbol")}
    found = False
    for category in renderer.iter("category"):
        rgb, symbol = rgb_of.get(category.get("value", "")), symbols.get(category.get("symbol"))
        if rgb is not None and symbol is not None:
            found = True
            _recolor_symbol(symbol, rgb)
    return found


def _recolor_symbol(symbol: ET.Element, rgb: tuple[int, int, int]) -> None:
    """Recolour the first layer that has a colour, and its outline if it is a tone of that."""
    for layer in symbol.findall("layer"):
        fills = list(_settings(layer, "color"))
        if not fills:
            continue
        outline = _text([value * 2 // 3 for value in _rgb(fills[0]) or ()])
        for key, element in fills:
            element.set(key, _with_alpha(element.get(key, ""), rgb))
        for key, element in _settings(layer, "outline_color"):
            if element.get(key, "").startswith(f"{outline},"):
                dark = (rgb[0] * 2 // 3, rgb[1] * 2 // 3, rgb[2] * 2 // 3)
                element.set(key, _with_alpha(element.get(key, ""), dark))
        return


def _settings(layer: ET.Element, name: str) -> Iterator[tuple[str, ET.Element]]:
    """Elements with a setting of a symbol layer, and the attribute that holds its value."""
    yield from (("value", e) for e in layer.findall(f"Option/Option[@name='{name}']"))
    yield from (("v", e) for e in layer.findall(f"prop[@k='{name}']"))


def _rgb(setting: tuple[str, ET.Element]) -> list[int] | None:
    key, element = setting
    parts = element.get(key, "").split(",")[:_RGB]
    return list(map(int, parts)) if all(part.strip().isdecimal() for part in parts) else None


def _with_alpha(old: str, rgb: tuple[int, int, int]) -> str:
    """The colour with the opacity of an old one, `r,g,b,a` and perhaps more."""
    parts = old.split(",")
    return f"{_text(rgb)},{parts[_RGB] if len(parts) > _RGB else 255}"


def _text(rgb: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, rgb))


def recolor_table(table: ET.Element, legend: Legend) -> bool:
    """Recolour GDAL's attribute table where it has columns of ids and colours.

    Args:
        table: the element `GDALRasterAttributeTable`, which is changed.
        legend: the classes.

    Returns:
        Whether every class has a row.
    """
    usages = [column.findtext("Usage", "") for column in table.findall("FieldDefn")]
    if not {_VALUE, *_CHANNELS} <= set(usages):
        return False
    rgb_of = {str(entry.class_id): entry.rgb for entry in legend}
    found = set()
    for row in table.findall("Row"):
        cells = row.findall("F")
        if len(cells) != len(usages):
            continue
        value = (cells[usages.index(_VALUE)].text or "").partition(".")[0]
        if value in rgb_of:
            found.add(value)
            for usage, channel in zip(_CHANNELS, rgb_of[value], strict=True):
                cells[usages.index(usage)].text = str(channel)
    return found == set(rgb_of)
