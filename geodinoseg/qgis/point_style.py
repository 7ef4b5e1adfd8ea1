"""The QGIS style of a sample of points: open and answered points, a list of classes to choose."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from geodinoseg.qgis.styles import add_categorized_renderer, qml_text

REFERENCE_FIELD = "reference"
"""Column of a sample for the answers."""
POINT_FIELD = "point_id"
"""Column with the number of each point, from 1, in random order."""

_STATE = f"CASE WHEN trim(coalesce(\"{REFERENCE_FIELD}\", '')) = '' THEN 'open' ELSE 'answered' END"
# Rings, so that the pixel is visible through the symbol.
_RINGS = {"open": "238,102,119,255", "answered": "34,136,51,255"}
_RING_MM = 0.6
# Colour and width of what lies under a ring: white with a dark edge, so that it is visible on a
# class of its own colour, on white, and on black.
_HALOS = (("34,34,34,255", 1.4), ("255,255,255,255", 1.1))


def sample_points_qml(class_names: Sequence[str]) -> str:
    """The `.qml` of a sample's layer; the list of answers has the class names in this order."""
    root = ET.Element(
        "qgis", version="3.22", styleCategories="Symbology|Labeling|Fields|Forms|AttributeTable"
    )
    _add_fields(root, class_names)
    symbols = [
        (state, [_ring_properties(*line) for line in (*_HALOS, (color, _RING_MM))])
        for state, color in _RINGS.items()
    ]
    add_categorized_renderer(root, _STATE, symbols, kind="marker", layer_class="SimpleMarker")
    return qml_text(root)


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


def _ring_properties(color: str, width_mm: float) -> dict[str, str]:
    return {
        "name": "circle",
        "color": "255,255,255,0",
        "outline_color": color,
        "outline_style": "solid",
        "outline_width": str(width_mm),
        "outline_width_unit": "MM",
        "size": "4",
        "size_unit": "MM",
    }
