"""Styles of polygons that were edited in QGIS survive new polygons of the same name."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from coverages import write_class_raster
from qgis_styles import BOMB, save, saved_raster_qml, saved_vector_qml

from geodinoseg.legend import Legend
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.qgis.styles import vector_qml

NAMES = {1: "water", 2: "3", 3: "Straße & Gleis <1>"}
LEGEND = Legend.of_names(NAMES)
COLORS = {"water": "1,2,3,255,rgb:0,0,0,1", "3": "4,5,6,255", "Straße & Gleis <1>": "7,8,9,255"}
EDITED = saved_vector_qml(COLORS)
GRADUATED = EDITED.replace("categorizedSymbol", "graduatedSymbol")
FITTING = [
    EDITED,
    GRADUATED,
    saved_vector_qml({"1": "1,2,3,9", "2": "4,5,6,9", "3": "7,8,9,9"}, "class_id"),
    saved_vector_qml({"water": "1,2,3,9", "": "4,5,6,9"}),
    saved_vector_qml({"a": "1,2,3,9"}, "owner"),
]
UNFITTING = [BOMB, "<qgis", "<qgis/>", saved_vector_qml({"water": "1,2,3,255"})]


@pytest.fixture
def raster(tmp_path):
    (tmp_path / "raster").mkdir()
    values = np.array([[1, 2, 3], [3, 2, 1]], np.uint8)
    return write_class_raster(tmp_path / "raster" / "map.tif", values, names=NAMES)


def styles_in(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT styleName, useAsDefault, styleQML FROM layer_styles ORDER BY id"
        ).fetchall()


def edit(path, text):
    """Save a style into a GeoPackage in place of ours, as QGIS does on request."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE layer_styles SET styleQML = ?", (text,))


@pytest.mark.parametrize("text", FITTING)
def test_an_edited_style_that_fits_stays(tmp_path, raster, text):
    path = write_polygons(raster, tmp_path / "p.fgb")
    save(path.with_suffix(".qml"), text)
    write_polygons(raster, path, overwrite=True)
    assert path.with_suffix(".qml").read_text("utf-8") == text
    path = write_polygons(raster, tmp_path / "p.gpkg")
    edit(path, text)
    for _ in range(2):
        write_polygons(raster, path, overwrite=True)
        assert styles_in(path) == [
            ("classes", 0, vector_qml(LEGEND)),
            ("classes (edited)", 1, text),
        ]


@pytest.mark.parametrize("text", UNFITTING)
def test_an_edited_style_that_does_not_fit_leaves_its_colours_and_a_copy(
    tmp_path, raster, text, caplog
):
    colors = {1: "#010203"} if "water" in text else {}
    merged = vector_qml(LEGEND.recolored(colors))
    path = write_polygons(raster, tmp_path / "p.gpkg")
    edit(path, text)
    write_polygons(raster, path, overwrite=True)
    assert styles_in(path) == [("classes", 1, merged), ("classes (edited)", 0, text)]
    if "renderer-v2" in text:  # other files are refused
        path = write_polygons(raster, tmp_path / "p.shp")
        save(path.with_suffix(".qml"), text)
        write_polygons(raster, path, overwrite=True)
        assert path.with_suffix(".qml").read_text("utf-8") == merged
        assert path.with_suffix(".qml.old").read_text("utf-8") == text
    assert {line.levelname for line in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_polygons_follow_the_colours_of_their_map_where_nobody_edited_theirs(
    tmp_path, raster, suffix
):
    path = tmp_path / f"p{suffix}"
    for color in (LEGEND.by_id()[1].color, "#00ff00", "#0000ff"):
        save(raster.with_suffix(".qml"), saved_raster_qml(LEGEND, {1: color}))
        write_polygons(raster, path, overwrite=True)
        expected = vector_qml(LEGEND.recolored({1: color}))
        if suffix == ".gpkg":
            assert styles_in(path) == [("classes", 1, expected)]
        else:
            assert path.with_suffix(".qml").read_text("utf-8") == expected


def test_a_broken_table_of_styles_is_none(tmp_path, raster):
    path = write_polygons(raster, tmp_path / "p.gpkg")
    first = path.read_bytes()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE layer_styles RENAME COLUMN styleQML TO other")
    assert write_polygons(raster, path, overwrite=True).read_bytes() == first
    path.write_text("no database")
    assert write_polygons(raster, path, overwrite=True).read_bytes() == first
