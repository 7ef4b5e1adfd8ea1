"""Labels are data: a local file asks no server, and every plain format is read as before."""

from __future__ import annotations

import json
import sqlite3
import threading
import zipfile

import geopandas
import pyogrio
import pytest
from click.testing import CliRunner
from hostile_sources import REACHING, source, text, vrt, wms
from label_files import BOX, UTM, ground, write
from numpy.testing import assert_array_equal
from range_server import range_server
from vector_formats import ALL, CELLS, NAMES, expected, geodatabase, kml, zipped

from geodinoseg.cli import main
from geodinoseg.errors import LabelError
from geodinoseg.labels import untrusted
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.untrusted import offline
from geodinoseg.labels.vector_layer import open_vector_layer

FRAME = geopandas.GeoDataFrame({"crop": NAMES}, geometry=list(ground(CELLS)), crs=UTM)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    FRAME.to_file(folder / "a.geojson")
    with range_server(folder) as served:
        yield served


@pytest.fixture
def listening(server):
    """The server; what it heard during the test must be nothing."""
    server.requests()
    yield server
    assert server.requests() == []


def ogr_vrt(url, *, layer="a"):
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="{layer}"><SrcDataSource>{url}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )


def geojson(folder, name, crs):
    FRAME.to_file(folder / name, driver="GeoJSON")
    content = json.loads((folder / name).read_text()) | {"crs": crs}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def pipeline(url):
    return json.dumps(
        {
            "type": "gdal_streamed_alg",
            "command_line": f"gdal vector pipeline ! read {url} ! reproject --dst-crs EPSG:32633",
        }
    )


def view_that_asks(folder):
    """A GeoPackage with a layer whose column comes from a geocoder."""
    path = write(folder / "v.gpkg", CELLS, crop=NAMES)
    with sqlite3.connect(path) as database:
        database.execute("CREATE VIEW asks AS SELECT fid, ogr_geocode('Rome') crop, geom FROM v")
        for table in ("gpkg_contents", "gpkg_geometry_columns"):
            row = database.execute(f"SELECT * FROM {table}").fetchone()
            marks = ",".join("?" * len(row))
            renamed = ["asks" if value == "v" else value for value in row]
            if table == "gpkg_contents":
                renamed[2] = "asks"  # the identifier, which is unique
            database.execute(f"INSERT INTO {table} VALUES ({marks})", renamed)
    database.close()
    return f"{path}|layername=asks"


def archive(folder, name, **members):
    with zipfile.ZipFile(folder / name, "w") as packed:
        for member, content in members.items():
            packed.writestr(member.replace("__", "."), content)
    return folder / name


HOSTILE = {
    "a VRT of an address, called gpkg": lambda f, u: text(f, "a.gpkg", ogr_vrt(f"/vsicurl/{u}")),
    "a VRT of an address": lambda f, u: text(f, "a.vrt", ogr_vrt(f"/vsicurl/{u}")),
    "a VRT of an address behind a comment, called shp": lambda f, u: text(
        f, "a.shp", f"<?xml version='1.0'?><!-- {'a' * 500} -->" + ogr_vrt(f"/vsicurl/{u}")
    ),
    "a VRT called kml, with kml in it": lambda f, u: text(
        f, "a.kml", f"<kml><!-- {ogr_vrt(f'/vsicurl/{u}')} --></kml>"
    ),
    "a VRT of a file": lambda f, u: (
        write(f / "b.gpkg", CELLS, crop=NAMES),
        text(f, "a.gpkg", ogr_vrt(f / "b.gpkg", layer="b")),
    )[1],
    "a web feature service": lambda f, u: text(
        f, "a.gpkg", f"<OGRWFSDataSource><URL>{u}</URL></OGRWFSDataSource>"
    ),
    "a catalogue service": lambda f, u: text(
        f, "a.gpkg", f"<OGRCSWDataSource><URL>{u}</URL></OGRCSWDataSource>"
    ),
    "a pipeline": lambda f, u: text(f, "a.gpkg", pipeline(f"/vsicurl/{u}")),
    "a pipeline called geojson": lambda f, u: text(f, "a.geojson", pipeline(f"/vsicurl/{u}")),
    "a pipeline by its own name": lambda f, u: text(f, "a.gdalg.json", pipeline(f"/vsicurl/{u}")),
    "a coordinate system by a link": lambda f, u: geojson(
        f, "a.geojson", {"type": "link", "properties": {"href": u, "type": "ogcwkt"}}
    ),
    "a coordinate system by a URL, last": lambda f, u: geojson(
        f, "a.json", {"properties": {"url": u}, "type": "url"}
    ),
    "a coordinate system by a link, deep among others": lambda f, u: geojson(
        f,
        "a.json",
        {"a": {"b": {"c": {}}, "d": "e" * 99_999}, "type": "Link", "properties": {"href": u}},
    ),
    "a coordinate system by a link, in numbers": lambda f, u: (
        path := geojson(f, "a.json", {"type": "link", "properties": {"href": u}}),
        path.write_text(path.read_text().replace('"link"', '"l\\u0069nk"')),
    )[0],
    "a raster of an address": lambda f, u: text(f, "a.json", vrt(source(f"/vsicurl/{u}"))),
    "a web map service": lambda f, u: text(f, "a.tif", wms(u)),
    "entities": lambda f, u: text(
        f, "a.kml", f'<!DOCTYPE a [<!ENTITY b SYSTEM "{u}">]><kml>&b;</kml>'
    ),
    "entities that multiply": lambda f, u: text(
        f, "a.gml", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><FeatureCollection/>'
    ),
    "a table made of others": lambda f, u: text(
        f, "a.tab", f'!table\n!version 100\nOpen Table "/vsicurl/{u}" Hide\nCreate View a As\n'
    ),
    "a track for another program": lambda f, u: text(f, "a.gpkg", "$GPGSA,A,3\n$GPGGA,1\n"),
    "a VRT in an archive": lambda f, u: archive(f, "a.zip", a__shp=ogr_vrt(f"/vsicurl/{u}")),
    "a VRT of any name in an archive": lambda f, u: archive(f, "a.zip", a=ogr_vrt(f"/vsicurl/{u}")),
    "a VRT in a GeoPackage's archive": lambda f, u: archive(
        f, "a.gpkg.zip", a__gpkg=ogr_vrt(f"/vsicurl/{u}")
    ),
    "an archive in an archive": lambda f, u: (
        archive(f, "b.zip", a__shp=ogr_vrt(f"/vsicurl/{u}")),
        archive(f, "a.zip", b__zip=(f / "b.zip").read_bytes()),
    )[1],
    "an archive of pictures": lambda f, u: archive(f, "a.zip", a__png=b"\x89PNG", b__txt="b"),
    "a broken archive": lambda f, u: text(f, "a.zip", "PK\3\4 and nothing else"),
    "a database that asks": lambda f, u: view_that_asks(f),
    "a folder called gdb": lambda f, u: (
        (f / "a.gdb").mkdir(),
        text(f / "a.gdb", "a.vrt", ogr_vrt(u)),
        f / "a.gdb",
    )[2],
    "an address": lambda f, u: u,
    "an address within an archive": lambda f, u: f"/vsizip//vsicurl/{u}/a.zip",
    "a stream of an address": lambda f, u: f"/vsicurl_streaming/{u}",
    "a database elsewhere": lambda f, u: "postgresql://127.0.0.1:9/a",
    "a driver's prefix": lambda f, u: f"WFS:{u}",
    "text in place of a name": lambda f, u: ogr_vrt(u),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_labels_that_reach_further_are_refused_in_one_line_and_ask_nobody(
    kind, server, listening, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = HOSTILE[kind](tmp_path, server.url("ok", "a.geojson"))
    for read in (
        lambda: open_labels(path, BOX, options=LabelOptions(class_field="crop")),
        lambda: open_vector_layer(str(path)),
        lambda: open_labels([f"tin={path}", f"wood={path}"], BOX),
    ):
        with pytest.raises(LabelError) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(REACHING)[:12])
def test_a_label_raster_obeys_the_rules_of_scenes(kind, listening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabelError):
        open_labels(REACHING[kind](tmp_path, listening.root), BOX)


def written(name, **options):
    def write_it(folder):
        FRAME.to_file(folder / name, **options)
        return folder / name

    return write_it


def as_gml(folder):
    FRAME.to_file(folder / "a.gml", driver="GML")
    return folder / "a.gml"


def as_parquet(folder):
    FRAME.to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def as_tab(name):
    def write_it(folder):
        pyogrio.write_dataframe(FRAME, folder / name, driver="MapInfo File")
        return folder / name

    return write_it


def as_csv(folder):
    rows = [f'"{cell.wkt}",{name}' for cell, name in zip(FRAME.geometry, NAMES, strict=True)]
    text(folder, "a.prj", UTM.to_wkt())
    return text(folder, "a.csv", "\n".join(["WKT,crop", *rows]))


def with_code(folder):
    return geojson(
        folder, "a.geojson", {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32645"}}
    )


def with_links(folder):
    """A column that happens to hold what a linked coordinate system is made of."""
    FRAME.assign(type="link", url="ä.de").to_file(folder / "a.geojson")
    return folder / "a.geojson"


def packed_geodatabase(folder):
    geodatabase(folder / "a.gdb")
    with zipfile.ZipFile(folder / "a.gdb.zip", "w") as packed:
        for part in (folder / "a.gdb").iterdir():
            packed.write(part, f"a.gdb/{part.name}")
    return folder / "a.gdb.zip"


def packed(name, *, beside=()):
    def write_it(folder):
        FRAME.to_file(folder / name)
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive_file:
            archive_file.write(folder / name, name)
            for other in beside:
                archive_file.writestr(other, "<metadata/>")
        return folder / f"{name}.zip"

    return write_it


PLAIN = {
    "GeoPackage": written("a.gpkg"),
    "Shapefile": written("a.shp"),
    "GeoJSON": written("a.geojson"),
    "GeoJSON with a code": with_code,
    "GeoJSON with links": with_links,
    "GeoJSON, line by line": written("a.geojsonl"),
    "FlatGeobuf": written("a.fgb"),
    "SQLite": written("a.sqlite", driver="SQLite"),
    "GeoParquet": as_parquet,
    "KML": lambda f: kml(f / "a.kml"),
    "GML": as_gml,
    "MapInfo": as_tab("a.tab"),
    "MapInfo's exchange format": as_tab("a.mif"),
    "CSV with outlines": as_csv,
    "a zipped Shapefile": lambda f: zipped(f / "a.zip"),
    "a zipped GeoPackage": packed("a.gpkg"),
    "a geodatabase": lambda f: geodatabase(f / "a.gdb"),
    "a zipped geodatabase": packed_geodatabase,
    "within an archive": lambda f: f"/vsizip/{packed('a.gpkg', beside=('a.gpkg.xml',))(f)}/a.gpkg",
    "within an archive, as a URL": lambda f: f"zip://{packed('a.gpkg')(f)}!a.gpkg",
}


@pytest.mark.filterwarnings("ignore:.*CRS.*:UserWarning")
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_labels_are_read_as_ever(kind, listening, tmp_path):
    labels = open_labels(PLAIN[kind](tmp_path), BOX, options=LabelOptions(class_field="crop"))
    assert labels.legend.names == ("a", "b")
    assert_array_equal(labels.read(ALL), expected())


def test_zipped_kml_is_read_as_ever(listening, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.kmz", "w") as archive_file:
        archive_file.write(kml(tmp_path / "a.kml"), "doc.kml")
    assert len(open_vector_layer(str(tmp_path / "a.kmz")).read(())) == len(CELLS)


@pytest.mark.parametrize("kind", ["a VRT of a file", "an address"])
def test_labels_that_are_trusted_may_reach_further(kind, server, tmp_path):
    path = HOSTILE[kind](tmp_path, server.url("ok", "a.geojson"))
    labels = open_labels(path, BOX, options=LabelOptions(class_field="crop", allow_external=True))
    assert_array_equal(labels.read(ALL), expected())


def test_whatever_the_check_lets_pass_is_kept_from_the_network(server, listening, tmp_path):
    link = server.url("ok", "a.geojson")
    path = geojson(tmp_path, "b.geojson", {"type": "link", "properties": {"href": link}})
    with offline(allow_external=False):
        assert pyogrio.read_info(path)["features"] == len(CELLS)
    with offline(allow_external=False), pytest.raises(pyogrio.errors.CRSError):
        pyogrio.read_info(text(tmp_path, "a.vrt", ogr_vrt(f"/vsicurl/{link}")))
    assert pyogrio.get_gdal_config_option("GDAL_HTTP_PROXY") is None


def test_the_commands_refuse_such_labels_and_take_them_with_the_option(tmp_path):
    import numpy as np
    from rasters import write_raster

    classes = np.zeros((1, BOX.height, BOX.width), np.uint8)
    classes[:, :, 40:] = 1
    crop_map = str(
        write_raster(tmp_path / "map.tif", classes, transform=BOX.transform, crs=BOX.crs)
    )
    frame = FRAME.assign(crop=["class 0", "class 1", "class 0"])
    frame.to_file(tmp_path / "b.gpkg")
    path = str(text(tmp_path, "a.vrt", ogr_vrt(str(tmp_path / "b.gpkg"), layer="b")))
    good = str(tmp_path / "b.gpkg")
    for more in (
        ["--labels", path],
        ["--labels", good, "--extent", path],
        ["--labels", good, "--regions", path, "--region-field", "crop"],
    ):
        words = ["evaluate", crop_map, "--class-field", "crop", *more]
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code == 1
        (error,) = (line for line in refused.stderr.splitlines() if "Warning" not in line)
        assert error.startswith(f"Error: {path}: cannot be read as polygons")
        assert "--allow-external" in refused.stderr
        taken = CliRunner().invoke(main, [*words, "--allow-external"])
        assert taken.exit_code == 0, taken.stderr


def test_a_style_that_never_ends_is_left_out(tmp_path):
    path = write(tmp_path / "v.gpkg", CELLS, crop=NAMES)
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE VIEW layer_styles AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
            "FROM n) SELECT 'v' f_table_name, 'a' styleQML, 1 useAsDefault, i id FROM n"
        )
    database.close()
    labels = open_labels(path, BOX, options=LabelOptions(class_field="crop"))
    assert_array_equal(labels.read(ALL), expected())


def test_threads_that_overlap_leave_gdals_settings_as_they_were():
    """One is in when another enters, and out when the other still reads: in any order."""

    def settings():
        return {name: pyogrio.get_gdal_config_option(name) for name in untrusted._OFFLINE}

    before = settings()
    entered, leave = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def read(number):
        with offline(allow_external=False):
            entered[number].set()
            assert leave[number].wait(20)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    threads[0].start()
    assert entered[0].wait(20)
    inside = settings()
    threads[1].start()
    assert entered[1].wait(20)
    assert inside["GDAL_HTTP_PROXY"] == "127.0.0.1:9"
    leave[0].set()
    threads[0].join(20)
    assert settings() == inside, "the other still reads"

    # Who may ask servers waits until nobody keeps GDAL from them.
    asked = threading.Event()

    def ask():
        with offline(allow_external=True):
            assert settings() == before
            asked.set()

    external = threading.Thread(target=ask)
    external.start()
    assert not asked.wait(0.2)
    leave[1].set()
    threads[1].join(20)
    external.join(20)
    assert asked.is_set()
    assert settings() == before
