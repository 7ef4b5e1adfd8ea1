"""Colours changed in QGIS count, and survive a new map of the same name."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
from qgis_styles import BOMB, save, saved_raster_qml, saved_vector_qml
from rasterio.crs import CRS
from rasters import ROTATED

from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import confidence_qml, raster_qml
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.windows import Window

LEGEND = Legend.of_names({0: "background", 3: "Straße & Gleis <1>", 7: "water"})
GEOBOX = GeoBox(crs=CRS.from_epsg(32645), transform=ROTATED, width=7, height=5)
ROWS = ClassRows(
    window=Window(col_off=0, row_off=0, width=7, height=5),
    class_ids=np.resize(np.array([0, 3, 7, 255, 7], np.uint8), (5, 7)),
    confidence=np.full((5, 7), 80, np.uint8),
    probabilities=np.full((3, 5, 7), 80, np.uint8),
)


def write_map(folder, legend=LEGEND):
    with class_raster_writer(
        folder / "map.tif",
        GEOBOX,
        legend,
        confidence_path=folder / "sure.tif",
        probabilities_path=folder / "all.tif",
    ) as writer:
        writer.write(ROWS)
    assert writer.raster == open_class_raster(folder / "map.tif")  # in the colours of the style
    return folder / "map.tif"


def colors_of(path):
    return {entry.class_id: entry.color for entry in open_class_raster(path).legend}


def test_the_style_beside_a_map_comes_before_its_own_colours(tmp_path):
    path = write_map(tmp_path)
    own = colors_of(path)
    style = path.with_suffix(".qml")
    style.write_text(raster_qml(LEGEND).replace(own[7], "#00FF00"), "utf-8")
    assert colors_of(path) == own | {7: "#00ff00"}
    # Names stay, since reference data and samples go by them.
    save(style, saved_raster_qml(LEGEND, {3: "#123456"}).replace('"water"', '"the sea"'))
    assert colors_of(path) == own | {3: "#123456"}
    assert open_class_raster(path).legend.names == LEGEND.names


RAMP = (
    '<qgis><pipe><rasterrenderer type="singlebandpseudocolor"><rastershader><colorrampshader '
    'colorRampType="{}"><item value="7" color="#010203" label="7"/></colorrampshader>'
    "</rastershader></rasterrenderer></pipe></qgis>"
)


def test_a_ramp_counts_where_its_values_are_exact(tmp_path):
    path = write_map(tmp_path)
    save(path.with_suffix(".qml"), RAMP.format("EXACT"))
    assert colors_of(path)[7] == "#010203"
    save(path.with_suffix(".qml"), RAMP.format("INTERPOLATED"))
    assert colors_of(path)[7] == LEGEND.by_id()[7].color


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        (BOMB, True),
        ("<qgis", True),
        ("", True),
        ("no XML \0", True),
        ("<qgis/>", False),
        (saved_vector_qml({"water": "1,2,3,255", "7": "4,5,6,255"}), False),
        (saved_raster_qml(Legend.of_names({9: "moon", 60_000: "sun"}), {}), False),
        ('<qgis><paletteEntry value="7" color="blue"/><paletteEntry color="#fff"/></qgis>', False),
        ('<qgis><paletteEntry value="99999" color="#ffffff"/></qgis>', False),
    ],
)
def test_a_style_that_does_not_fit_breaks_nothing(tmp_path, text, warns, caplog):
    path = write_map(tmp_path)
    save(path.with_suffix(".qml"), text)
    assert open_class_raster(path).legend == LEGEND
    warnings = [line.getMessage() for line in caplog.records]
    assert len(warnings) == warns
    assert all(line.startswith(f"{path.with_suffix('.qml')}: ") for line in warnings)
    assert "\n" not in "".join(warnings)
    # Nor does it break the next map, which keeps a copy of it.
    write_map(tmp_path)
    assert path.with_suffix(".qml").read_text() == raster_qml(LEGEND)
    assert path.with_suffix(".qml.old").read_text() == text


def test_the_first_of_two_colours_of_a_class_counts(tmp_path):
    path = write_map(tmp_path)
    twice = '<paletteEntry value="7" color="#000001"/><paletteEntry value="7" color="#000002"/>'
    save(path.with_suffix(".qml"), f"<qgis>{twice}</qgis>")
    assert colors_of(path)[7] == "#000001"


def test_an_edited_style_is_kept_by_a_new_map_of_the_same_classes(tmp_path, caplog):
    path = write_map(tmp_path)
    before = path.read_bytes()
    edits = {
        "map.qml": saved_raster_qml(LEGEND, {7: "#00ff00"}).replace('"water"', '"the sea"'),
        "sure.qml": confidence_qml().replace("#440154", "#000000"),
        "all.qml": "<qgis><pipe/></qgis>",
    }
    for name, text in edits.items():
        save(tmp_path / name, text)
    with caplog.at_level(logging.INFO):
        write_map(tmp_path)
    assert {name: (tmp_path / name).read_text("utf-8") for name in edits} == edits
    assert path.read_bytes() == before
    assert colors_of(path)[7] == "#00ff00"
    said = [line.getMessage() for line in caplog.records]
    assert said == [f"{tmp_path / name}: was edited, so it is kept." for name in edits]
    assert not list(tmp_path.glob("*.old*"))


def test_a_colour_edited_by_hand_is_an_edit_too(tmp_path):
    path = write_map(tmp_path)
    style = path.with_suffix(".qml")
    edited = save(style, style.read_text("utf-8").replace(LEGEND.by_id()[7].color, "#00ff00"))
    write_map(tmp_path)
    assert style.read_text("utf-8") == edited


def test_a_style_that_nobody_edited_is_that_of_the_new_map(tmp_path, caplog):
    path = write_map(tmp_path)
    write_map(tmp_path, legend=Legend.of_names({0: "a", 3: "b", 7: "c"}))
    style = path.with_suffix(".qml")
    style.write_text(style.read_text("utf-8").replace("\n", "\r\n") + "<!-- a note -->", "utf-8")
    write_map(tmp_path, legend=LEGEND.recolored({7: "#ff0000"}))
    assert style.read_text("utf-8") == raster_qml(LEGEND.recolored({7: "#ff0000"}))
    assert not caplog.records


def test_a_map_of_other_classes_takes_the_colours_of_those_that_are_the_same(tmp_path, caplog):
    path = write_map(tmp_path)
    style = path.with_suffix(".qml")
    edited = save(style, saved_raster_qml(LEGEND, {0: "#010101", 3: "#030303", 7: "#070707"}))
    new = Legend.of_names({0: "background", 3: "lake", 7: "water"})
    (tmp_path / "map.qml.old").write_text("older")
    write_map(tmp_path, legend=new)
    assert colors_of(path) == {0: "#010101", 3: new.by_id()[3].color, 7: "#070707"}
    assert (tmp_path / "map.qml.old2").read_text("utf-8") == edited
    assert (tmp_path / "map.qml.old").read_text() == "older"
    (warning,) = caplog.messages
    assert "the edited one is kept as map.qml.old2." in warning


def test_a_mosaic_of_maps_with_different_colours_keeps_the_names(tmp_path):
    (tmp_path / "other").mkdir()
    first = write_map(tmp_path)
    second = write_map(tmp_path / "other", legend=LEGEND.recolored({7: "#00ff00"}))
    with rasterio.open(first) as dataset:
        profile = dataset.profile
    assert profile["count"] == 1
    band = "".join(
        f"<SimpleSource><SourceFilename relativeToVRT='1'>{path.relative_to(tmp_path)}"
        f"</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        for path in (first, second)
    )
    vrt = tmp_path / "mosaic.vrt"
    vrt.write_text(
        f"<VRTDataset rasterXSize='7' rasterYSize='5'><VRTRasterBand dataType='Byte' band='1'>"
        f"<NoDataValue>255</NoDataValue>{band}</VRTRasterBand></VRTDataset>"
    )
    assert open_class_raster(vrt).legend == LEGEND
