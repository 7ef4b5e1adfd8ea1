"""Styles as QGIS saves them: the whole file anew, in another form than ours."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from geodinoseg.legend import Legend

HEAD = (
    "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    '<qgis maxScale="0" version="3.22.16-Białowieża" styleCategories="AllStyleCategories">\n'
)
BOMB = '<!DOCTYPE q [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><qgis>&b;</qgis>'


def saved_raster_qml(legend: Legend, colors: dict[int, str]) -> str:
    """A paletted raster's style with other colours of some classes, and an opacity."""
    entries = "".join(
        f'<paletteEntry value="{entry.class_id}" alpha="255" label={quoteattr(entry.name)} '
        f'color="{colors.get(entry.class_id, entry.color)}"/>'
        for entry in legend
    )
    return (
        f'{HEAD}<pipe><provider/><rasterrenderer type="paletted" opacity="0.7" band="1">'
        f"<rasterTransparency/><colorPalette>{entries}</colorPalette></rasterrenderer></pipe></qgis>"
    )


def saved_vector_qml(colors: dict[str, str], attribute: str = "class_name") -> str:
    """Categories with symbols as QGIS 3.40 saves them; colours are `r,g,b,a,rgb:...`."""
    symbols = "".join(
        f'<symbol name="{n}" type="fill"><layer class="SimpleFill"><Option type="Map">'
        f'<Option name="color" value="{color}" type="QString"/></Option></layer></symbol>'
        for n, color in enumerate(colors.values())
    )
    categories = "".join(
        f'<category symbol="{n}" value={quoteattr(name)} label={quoteattr(name)} type="string"/>'
        for n, name in enumerate(colors)
    )
    return (
        f'{HEAD}<renderer-v2 type="categorizedSymbol" attr="{attribute}"><categories>{categories}'
        f"</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


def save(path: Path, text: str) -> str:
    """Write a style, and return it."""
    path.write_text(text, encoding="utf-8")
    return text
