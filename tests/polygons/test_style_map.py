"""A finished map and its polygons get other colours, and nothing else changes."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from commands import cli, events
from coverages import write_class_raster
from qgis_styles import BOMB, save, saved_raster_qml, saved_vector_qml
from rasterio.crs import CRS
from rasters import ROTATED, write_raster
from rio_cogeo import cog_validate

from geodinoseg.errors import GeodinosegError, LabelError, OutputError
from geodinoseg.files.locks import lock_output
from geodinoseg.geobox import GeoBox, dataset_geobox, same_georeferencing
from geodinoseg.legend import Legend
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.polygons.style_map import style_map
from geodinoseg.qgis.styles import raster_attribute_table, raster_qml, vector_qml
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.windows import Window

AWKWARD = 'Straße & Gleis <1> "color": "#123456"'
LEGEND = Legend.of_names({0: "background", 3: AWKWARD, 7: "water"})
WIDE = Legend.of_names({0: "background", 3: AWKWARD, 300: "water"})
NEW = {0: "#010203", 3: "#a0b0c0", 7: "#0000ff", 300: "#0000ff"}
SIZE = {"height": 600, "width": 700}


def write_map(path, legend=LEGEND):
    ids = np.append(legend.class_ids, legend.nodata).astype(legend.dtype)
    rng = np.random.default_rng(0)
    pixels = np.kron(ids[rng.integers(0, 4, (60, 70))], np.ones((10, 10), legend.dtype))
    box = GeoBox(crs=CRS.from_epsg(32645), transform=ROTATED, **SIZE)
    with class_raster_writer(path, box, legend, tags={"GEODINOSEG_PLAN": "{}"}) as writer:
        writer.write(ClassRows(window=Window(col_off=0, row_off=0, **SIZE), class_ids=pixels))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A map and its polygons in a GeoPackage."""
    folder = tmp_path_factory.mktemp("finished")
    write_polygons(write_map(folder / "map.tif"), folder / "map.gpkg")
    return folder


@pytest.fixture
def path(finished, tmp_path):
    for entry in finished.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    return tmp_path / "map.tif"


@pytest.fixture
def colors(tmp_path):
    (tmp_path / "styles").mkdir()
    return save(tmp_path / "styles" / "new.qml", saved_raster_qml(LEGEND, NEW)) and (
        tmp_path / "styles" / "new.qml"
    )


def everything_but_colors(path):
    with rasterio.open(path) as dataset:
        tags = {k: v for k, v in dataset.tags().items() if k != "GEODINOSEG_LEGEND"}
        levels = range(len(dataset.overviews(1)))
        facts = [tags, dataset.tags(1), dataset.tags(ns="IMAGE_STRUCTURE"), dataset.profile]
        pixels = [dataset.read(1).tobytes()]
    for level in levels:
        with rasterio.open(path, overview_level=level) as dataset:
            pixels.append(dataset.read(1).tobytes())
    return [*map(str, facts), *pixels]


def tables_of(path):
    found = []
    for options in ({}, {"overview_level": 0}):
        with rasterio.open(path, **options) as dataset:
            found.append({k: dataset.colormap(1)[k] for k in (0, 3, 7, 255)})
    return found


def style_in(path):
    with closing(sqlite3.connect(path)) as database:
        ((text,),) = database.execute("SELECT styleQML FROM layer_styles").fetchall()
    return text


def test_all_parts_of_a_map_get_the_colours_and_nothing_else_changes(path, colors):
    before = everything_but_colors(path)
    styled = LEGEND.recolored(NEW)
    written = style_map(path, colors)
    assert {entry.name for entry in written} == {
        "map.tif",
        "map.tif.aux.xml",
        "map.qml",
        "map.gpkg",
    }
    assert everything_but_colors(path) == before
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as dataset:
        assert json.loads(dataset.tags()["GEODINOSEG_LEGEND"]) == styled.to_json()
    expected = {0: (1, 2, 3, 255), 3: (160, 176, 192, 255), 7: (0, 0, 255, 255)}
    for table in tables_of(path):
        assert {k: table[k] for k in expected} == expected
    marked = raster_qml(styled).replace('"Symbology"', '"Symbology" styledBy="geodinoseg style"')
    assert path.with_suffix(".qml").read_text("utf-8") == marked
    table = path.with_name("map.tif.aux.xml").read_text("utf-8")
    assert re.findall("<F>.*</F>", table) == re.findall("<F>.*</F>", raster_attribute_table(styled))
    assert style_in(path.with_suffix(".gpkg")) == vector_qml(styled)
    assert open_class_raster(path).legend == styled
    path.with_suffix(".qml").unlink()
    assert open_class_raster(path).legend == styled


def test_a_new_map_of_the_same_name_keeps_the_colours(path, colors):
    style_map(path, colors)
    write_map(path)
    assert open_class_raster(path).legend == LEGEND.recolored(NEW)


def test_the_own_style_edited_in_qgis_is_taken_over_and_keeps_all_else(path):
    style = path.with_suffix(".qml")
    save(style, saved_raster_qml(LEGEND, {7: "#0000ff"}))
    style_map(path, style)
    assert 'opacity="0.7"' in style.read_text("utf-8")
    assert tables_of(path)[0][7] == (0, 0, 255, 255)
    assert style_in(path.with_suffix(".gpkg")) == vector_qml(LEGEND.recolored({7: "#0000ff"}))


def test_polygons_of_other_names_and_formats_get_them_on_request(path, colors, tmp_path):
    given = [write_polygons(path, tmp_path / f"fields{end}") for end in (".shp", ".fgb", ".gpkg")]
    other = save(given[2].with_suffix(".qml"), saved_vector_qml({"water": "9,9,9,120,rgb:0,0,0,1"}))
    written = style_map(path, colors, polygons=given)
    assert {"fields.qml", "fields.gpkg", "map.gpkg"} <= {entry.name for entry in written}
    # The rest of an edited style stays, as its opacity.
    text = given[0].with_suffix(".qml").read_text("utf-8")
    assert 'value="0,0,255,120"' in text
    assert text.count("<category ") == other.count("<category ") == 1
    given[0].with_suffix(".qml").unlink()
    style_map(path, colors, polygons=given)
    assert given[0].with_suffix(".qml").read_text("utf-8") == vector_qml(LEGEND.recolored(NEW))


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
def test_tiffs_of_any_kind_are_recoloured(path, tmp_path, bigtiff, endianness, colors):
    copy = tmp_path / "copy.tif"
    options = {"compress": "LZW", "bigtiff": "YES" if bigtiff else "NO"}
    rasterio.shutil.copy(path, copy, driver="GTiff", endianness=endianness, **options)
    before = everything_but_colors(copy) if copy.exists() else None
    style_map(copy, colors)
    with rasterio.open(copy) as dataset:
        assert dataset.colormap(1)[7] == (0, 0, 255, 255)
    assert everything_but_colors(copy) == before
    copy.with_suffix(".qml").unlink()
    assert open_class_raster(copy).legend == LEGEND.recolored(NEW)


def test_a_map_of_large_ids_has_no_colour_table(tmp_path, colors):
    path = write_map(tmp_path / "wide.tif", WIDE)
    before = everything_but_colors(path)
    save(colors, saved_raster_qml(WIDE, NEW))
    style_map(path, colors)
    assert everything_but_colors(path) == before
    assert open_class_raster(path).legend == WIDE.recolored(NEW)


def test_maps_of_other_programs_get_colours_too(tmp_path, caplog):
    csv = tmp_path / "new.csv"
    csv.write_text("id,name,color\n1,lake,#0000ff\n2,roof,#ff0000\n")
    values = np.array([[1, 2, 2], [2, 1, 1]], np.uint8)
    plain = write_raster(tmp_path / "plain.tif", values[None], nodata=0)
    ours = write_class_raster(tmp_path / "ours.tif", values, names={1: "lake", 2: "roof"})
    png = tmp_path / "map.png"
    rasterio.shutil.copy(plain, png, driver="PNG")
    for path in (plain, ours, png):
        with rasterio.open(path) as dataset:
            place, pixels = dataset_geobox(dataset), dataset.read()
        style_map(path, csv)
        found = open_class_raster(path)
        assert [entry.color for entry in found.legend] == ["#0000ff", "#ff0000"]
        with rasterio.open(path) as dataset:
            assert same_georeferencing(dataset_geobox(dataset), place)
            assert (dataset.read() == pixels).all()
            if path != png:
                assert dataset.colormap(1)[2] == (255, 0, 0, 255)
    assert "is a PNG file, whose own colours stay" in caplog.text


def test_names_serve_as_well_as_ids_and_what_is_missing_stays(path, tmp_path, caplog):
    file = tmp_path / "new.txt"
    file.write_text("WATER #0000ff\nmoon #ffffff\n")
    style_map(path, file)
    assert open_class_raster(path).legend == LEGEND.recolored({7: "#0000ff"})
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        f"{path} lacks moon, which is ignored.",
        f"has no colour for background, {AWKWARD}, which keeps its own.",
    ]
    caplog.clear()
    file.write_text("7 the sea #00ff00\n0 background #111111\n3 road #222222\n")
    style_map(path, file)
    assert open_class_raster(path).legend.names == LEGEND.names
    assert len(caplog.messages) == 1
    assert "only colours are changed" in caplog.messages[0]


BAD_STYLES = {
    "bomb.qml": BOMB,
    "cut.qml": "<qgis",
    "empty.csv": "",
    "twice.csv": "id,name,color\n7,a,#000000\n7,b,#000000\n",
    "names.csv": "id,name,color\n7,a,#000000\n3,a,#000000\n",
    "no_color.csv": "id,name\n7,water\n",
    "word.csv": "id,name,color\n7,water,blue\n",
    "strange.csv": "id,name,color\n70,moon,#ffffff\n",
    "swapped.csv": "id,name,color\n0,water,#ffffff\n",
}


@pytest.mark.parametrize("name", [*BAD_STYLES, "absent.qml"])
def test_a_style_that_cannot_serve_is_one_line_and_changes_nothing(path, tmp_path, name):
    if name in BAD_STYLES:
        save(tmp_path / name, BAD_STYLES[name])
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    result = cli("style", path, tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / name}: ")
    assert result.stderr.count("\n") == 1
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    with pytest.raises(LabelError):
        style_map(path, tmp_path / name)


def test_what_cannot_be_recoloured_is_refused_before_anything_changes(path, colors, tmp_path):
    before = path.read_bytes()
    (tmp_path / "map.shp").write_text("a shapefile that shares the style of the map")
    for polygons in ("absent.gpkg", "map.kml", "map.shp"):
        with pytest.raises(OutputError, match=re.escape(polygons)):
            style_map(path, colors, polygons=[tmp_path / polygons])
    with pytest.raises(OutputError, match="is not a local file"):
        style_map("https://example.com/map.tif", colors)
    with pytest.raises(GeodinosegError, match=r"absent\.tif"):
        style_map(tmp_path / "absent.tif", colors)
    with lock_output(path), pytest.raises(OutputError, match="is writing it"):
        style_map(path, colors)
    path.with_name("map.tif.aux.xml").write_text(BOMB)
    with pytest.raises(OutputError, match=r"map.tif.aux.xml: cannot be read"):
        style_map(path, colors)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".geodinoseg-*"))


def test_a_tag_of_another_form_is_refused(path, colors):
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"&amp;quot;color", b"&amp;quot;c\\u006flor", 1)[: len(content)]
    )
    with pytest.raises(GeodinosegError):
        style_map(path, colors)


def test_a_link_stays_a_link(path, colors, tmp_path):
    link = tmp_path / "link.tif"
    link.symlink_to(path)
    style_map(link, colors)
    assert link.is_symlink()
    assert open_class_raster(link).legend == LEGEND.recolored(NEW)


def test_the_command_names_what_it_changed(path, colors):
    result = cli("style", path, colors)
    assert result.exit_code == 0, result.stderr
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        str(path.with_name(name)) for name in ("map.tif", "map.tif.aux.xml", "map.qml", "map.gpkg")
    ]
    last = events(cli("style", path, colors, "--json"))[-1]
    assert last["result"]["classes"] == LEGEND.recolored(NEW).to_json()


def test_polygons_that_are_open_elsewhere_are_one_line(path, colors, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0.01}))
    before = path.read_bytes()
    with closing(connect(path.with_suffix(".gpkg"))) as database:
        database.execute("BEGIN EXCLUSIVE")
        result = cli("style", path, colors)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {path.with_suffix('.gpkg')}: is locked; close it in other programs, and try "
        f"again.\n"
    )
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_kill_leaves_the_old_or_the_new(path, colors, tmp_path):
    script = textwrap.dedent("""
        import sys
        from geodinoseg.polygons.style_map import style_map
        print("ready", flush=True)
        style_map(sys.argv[1], sys.argv[2])
    """)
    whole = {path.read_bytes()}
    for delay_ms in (0, 3, 6, 10, 15, 20, 30):
        process = subprocess.Popen(
            [sys.executable, "-c", script, path, colors], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        whole.add(path.read_bytes())
        assert open_class_raster(path).legend in (LEGEND, LEGEND.recolored(NEW))
        assert style_in(path.with_suffix(".gpkg")) in {
            vector_qml(LEGEND),
            vector_qml(LEGEND.recolored(NEW)),
        }
    assert len(whole) <= 2
    style_map(path, colors)
    assert open_class_raster(path).legend == LEGEND.recolored(NEW)
    assert not list(tmp_path.glob(".geodinoseg-*"))
