"""How a sample of points looks in QGIS: open and answered points, a list of classes to choose."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

REFERENCE_FIELD = "reference"
"""Column of a sample that a person fills in."""
POINT_FIELD = "point_id"
"""Column with the number of each point, from 1, in random order."""

_QML_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_STATE = f"CASE WHEN trim(coalesce(\"{REFERENCE_FIELD}\", '')) = '' THEN 'open' ELSE 'answered' END"
# Rings, so that the pixel to be judged is seen through the symbol.
_RINGS = {"open": "238,102,119,255", "answered": "34,136,51,255"}


def sample_points_qml(class_names: Sequence[str]) -> str:
    """The style of a sample's layer.

    Args:
        class_names: what the reference may be, in the order of the list.

    Returns:
        The text of a `.qml` file, as the `layer_styles` table of a GPKG holds it.
    """
    root = ET.Element(
        "qgis", version="3.22", styleCategories="Symbology|Labeling|Fields|Forms|AttributeTable"
    )
    _add_fields(root, class_names)
    _add_rings(root)
    ET.indent(root)
    return _QML_DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"


def _add_fields(root: ET.Element, class_names: Sequence[str]) -> None:
    fields = ET.SubElement(root, "fieldConfiguration")
    number = ET.SubElement(fields, "field", name=POINT_FIELD)
    config = ET.SubElement(ET.SubElement(number, "editWidget", type="TextEdit"), "config")
    ET.SubElement(config, "Option")
    reference = ET.SubElement(fields, "field", name=REFERENCE_FIELD)
    config = ET.SubElement(ET.SubElement(reference, "editWidget", type="ValueMap"), "config")
    entries = ET.SubElement(
        ET.SubElement(config, "Option", type="Map"), "Option", name="map", type="List"
    )
    for name in class_names:
        entry = ET.SubElement(entries, "Option", type="Map")
        ET.SubElement(entry, "Option", name=name, type="QString", value=name)
    editable = ET.SubElement(root, "editable")
    for name, value in ((POINT_FIELD, "0"), (REFERENCE_FIELD, "1")):
        ET.SubElement(editable, "field", name=name, editable=value)


def _add_rings(root: ET.Element) -> None:
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr=_STATE,
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, (state, color) in enumerate(_RINGS.items()):
        ET.SubElement(
            categories,
            "category",
            symbol=str(index),
            value=state,
            label=state,
            type="string",
            render="true",
        )
        _add_ring(symbols, str(index), color)


def _add_ring(symbols: ET.Element, name: str, color: str) -> None:
    symbol = ET.SubElement(
        symbols, "symbol", name=name, type="marker", alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = ET.SubElement(
        symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "locked": "0", "pass": "0"}
    )
    properties = {
        "name": "circle",
        "color": "255,255,255,0",
        "outline_color": color,
        "outline_style": "solid",
        "outline_width": "0.6",
        "outline_width_unit": "MM",
        "size": "4",
        "size_unit": "MM",
    }
    # QGIS reads options from 3.26 on, and only `prop` before.
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in properties.items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)
