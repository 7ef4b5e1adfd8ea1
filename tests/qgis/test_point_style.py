"""The style of a sample: every ring is visible, whatever lies under it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from geodinoseg.qgis.point_style import sample_points_qml


def test_a_ring_has_a_white_and_a_dark_halo():
    root = ET.fromstring(sample_points_qml(["water", "roof"]))
    symbols = list(root.iter("symbol"))
    assert len(symbols) == 2
    for symbol in symbols:
        rings = [
            {option.get("name"): option.get("value") for option in layer.iter("Option")}
            for layer in symbol.findall("layer")
        ]
        widths = [float(ring["outline_width"]) for ring in rings]
        # QGIS draws the first layer first, so the widest is at the bottom.
        assert widths == sorted(widths, reverse=True)
        assert len({ring["size"] for ring in rings}) == 1
        dark, white, _ = (ring["outline_color"] for ring in rings)
        assert white == "255,255,255,255"
        assert max(map(int, dark.split(",")[:3])) < 80
        assert {ring["color"] for ring in rings} == {"255,255,255,0"}  # the pixel stays visible
