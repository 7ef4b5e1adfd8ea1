"""Styles and attribute tables hold every class whole, and GDAL reads what we wrote."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given, settings, strategies as st

from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import (
    confidence_qml,
    raster_attribute_table,
    raster_qml,
    vector_qml,
)

AWKWARD = "Straße & Gleis <1>"
LEGEND = Legend.of_names({0: "background", 3: AWKWARD, 7: 'a "quoted" name', 200: "水田"})

names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
legends = st.dictionaries(st.integers(0, 65_534), names, min_size=1, max_size=6).map(
    lambda found: Legend.of_names({key: f"{key} {name}" for key, name in found.items()})
)


@settings(deadline=None)
@given(legend=legends)
def test_a_raster_style_lists_every_class_with_its_number_name_and_colour(legend):
    renderer = ET.fromstring(raster_qml(legend)).find("pipe/rasterrenderer")
    entries = [
        (int(entry.get("value")), entry.get("label"), entry.get("color"), entry.get("alpha"))
        for entry in renderer.iter("paletteEntry")
    ]
    assert renderer.get("type") == "paletted"
    assert entries == [(c.class_id, c.name, c.color, "255") for c in legend]


@settings(deadline=None)
@given(legend=legends)
def test_a_vector_style_lists_every_class_under_the_field_class_name(legend):
    renderer = ET.fromstring(vector_qml(legend)).find("renderer-v2")
    categories = list(renderer.iter("category"))
    symbols = {symbol.get("name"): symbol for symbol in renderer.iter("symbol")}
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class_name")
    assert tuple(category.get("value") for category in categories) == legend.names
    assert tuple(category.get("label") for category in categories) == legend.names
    for entry, category in zip(legend, categories, strict=True):
        layer = symbols[category.get("symbol")].find("layer")
        options = {o.get("name"): o.get("value") for o in layer.find("Option").iter("Option")}
        props = {prop.get("k"): prop.get("v") for prop in layer.iter("prop")}
        options.pop(None)
        assert options == props
        assert options["color"] == ",".join(map(str, (*entry.rgb, 255)))


def test_a_confidence_style_runs_from_0_to_100_and_leaves_nodata_clear():
    renderer = ET.fromstring(confidence_qml()).find("pipe/rasterrenderer")
    values = [float(item.get("value")) for item in renderer.iter("item")]
    assert (values[0], values[-1]) == (0, 100)
    assert values == sorted(values)
    clear = next(renderer.iter("pixelListEntry"))
    assert (clear.get("min"), clear.get("percentTransparent")) == ("255", "100")


@settings(deadline=None)
@given(legend=legends)
def test_an_attribute_table_has_one_row_a_class_by_number(legend):
    band = ET.fromstring(raster_attribute_table(legend)).find("PAMRasterBand")
    table = band.find("GDALRasterAttributeTable")
    columns = [
        (c.findtext("Name"), c.findtext("Type"), c.findtext("Usage"))
        for c in table.iter("FieldDefn")
    ]
    rows = [[cell.text for cell in row.iter("F")] for row in table.iter("Row")]
    assert table.get("tableType") == "thematic"
    assert columns == [
        ("Value", "0", "5"),
        ("Class", "2", "2"),
        ("Red", "0", "6"),
        ("Green", "0", "7"),
        ("Blue", "0", "8"),
        ("Alpha", "0", "9"),
    ]
    assert rows == [[str(c.class_id), c.name, *map(str, c.rgb), "255"] for c in legend]


def test_category_names_stand_at_their_number_with_blanks_between():
    band = ET.fromstring(raster_attribute_table(LEGEND)).find("PAMRasterBand")
    found = [category.text or "" for category in band.iter("Category")]
    assert len(found) == 201
    assert {i: name for i, name in enumerate(found) if name} == {c.class_id: c.name for c in LEGEND}


def test_ids_past_a_byte_get_no_list_of_categories():
    legend = Legend.of_names({1: "a", 60_000: "b"})
    assert "CategoryNames" not in raster_attribute_table(legend)


@pytest.mark.parametrize("legend", [LEGEND, Legend.of_names({5: AWKWARD, 40_000: "field"})])
def test_gdal_reads_the_table_and_writes_the_same_one(tmp_path, legend):
    source, copy = tmp_path / "map.tif", tmp_path / "copy.tif"
    with rasterio.open(
        source,
        "w",
        driver="GTiff",
        width=5,
        height=3,
        count=1,
        dtype=legend.dtype,
        transform=Affine(2, 0, 10, 0, -2, 20),
    ) as dataset:
        dataset.write(np.full((1, 3, 5), legend.class_ids[0], dtype=legend.dtype))
    source.with_name("map.tif.aux.xml").write_text(raster_attribute_table(legend), "utf-8")

    rasterio.shutil.copy(source, copy, driver="GTiff")

    ours, theirs = (
        ET.parse(path.with_name(f"{path.name}.aux.xml")).find("PAMRasterBand")
        for path in (source, copy)
    )
    for tag in ("Category", "Name", "Type", "Usage", "F"):
        assert [e.text for e in theirs.iter(tag)] == [e.text for e in ours.iter(tag)]
