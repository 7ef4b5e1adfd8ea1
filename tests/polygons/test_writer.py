"""Polygon files: each format read back, the same for any chunk, whole or absent."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from affine import Affine
from coverages import NODATA, blobs, write_class_raster
from rasters import NORTH_UP

from geodinoseg.errors import OutputError, OutputExistsError
from geodinoseg.polygons import writer
from geodinoseg.polygons.formats import within_shapefile_limits
from geodinoseg.polygons.polygonize import polygonize, write_polygons
from geodinoseg.polygons.stream import PolygonOptions
from geodinoseg.qgis.geopackage import add_layer_style

SUFFIXES = [".gpkg", ".shp", ".fgb", ".geojson", ".parquet"]
NAMES = {0: "Straße & Gleis <1>", 1: "水", 2: "c", 3: "d", 4: 'quoted "e"'}
SIMPLER = {"min_area_m2": 3.0, "simplify_px": 1.2}


@pytest.fixture
def raster(tmp_path):
    array = blobs(300, 211)
    percent = np.random.default_rng(3).integers(0, 101, array.shape, dtype=np.uint8)
    folder = tmp_path / "raster"
    folder.mkdir()
    return write_class_raster(
        folder / "map.tif", array, transform=NORTH_UP, names=NAMES, confidence=percent
    )


def read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=path.stem)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_holds_the_polygons_and_their_attributes(tmp_path, raster, suffix):
    frame = read(write_polygons(raster, tmp_path / f"land cover{suffix}"))
    expected = polygonize(raster)
    columns = ["class_id", "class_name", "area_m2", "perim_m", "conf_mean"]
    if suffix == ".geojson":
        assert frame.crs.to_epsg() == 4326
        assert shapely.coverage_is_valid(frame.geometry.to_numpy())
        moved = frame.to_crs(expected.crs).geometry.to_numpy()
        assert shapely.hausdorff_distance(moved, expected.geometry.to_numpy()).max() < 1e-3
    else:
        assert frame.crs.to_epsg() == 32633
    if suffix in {".fgb", ".geojson"}:  # FlatGeobuf sorts by place; GeoJSON's are compared above
        key = ["area_m2", "perim_m", "conf_mean", "class_id"]
        frame, expected = frame.sort_values(key), expected.sort_values(key)
    elif suffix != ".geojson":
        assert frame.geometry.normalize().equals(expected.geometry.normalize())
    for column in columns:
        assert column in frame
        if column != "class_name":
            np.testing.assert_allclose(frame[column].to_numpy(), expected[column], rtol=1e-12)
    assert frame.class_name.tolist() == expected.class_name.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_does_not_hold_the_time_at_which_it_was_written(tmp_path, raster, suffix):
    written = []
    for folder in (tmp_path / "now", tmp_path / "later"):
        folder.mkdir()
        path = write_polygons(raster, folder / f"map{suffix}")
        written.append({p.name: p.read_bytes() for p in folder.iterdir()})
        time.sleep(0.05)  # a GeoPackage's clock has milliseconds
    assert written[0] == written[1]
    if suffix == ".shp":  # a dBase file's has days
        assert tuple(path.with_suffix(".dbf").read_bytes()[1:4]) == (70, 1, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [{}, SIMPLER], ids=["plain", "simpler"])
def test_any_chunks_give_the_same_file_content(tmp_path, raster, suffix, options):
    frames = []
    for chunk_rows in (37, 256, 1000):
        path = tmp_path / f"chunks{chunk_rows}{suffix}"
        write_polygons(raster, path, options=PolygonOptions(chunk_rows=chunk_rows), **options)
        frames.append(read(path))
    for frame in frames[1:]:
        assert frame.equals(frames[0])


def test_chunks_of_a_map_in_degrees_give_the_same_bits(tmp_path):
    path = write_class_raster(
        tmp_path / "map.tif",
        blobs(200, 90),
        transform=Affine(1e-4, 0, 8, 0, -1e-4, 47),
        crs="EPSG:4326",
    )
    frames = [polygonize(path, options=PolygonOptions(chunk_rows=n)) for n in (13, 256)]
    assert frames[0].equals(frames[1])


def test_a_geopackage_opens_in_qgis_named_and_coloured(tmp_path, raster):
    path = write_polygons(raster, tmp_path / "landcover.gpkg")
    with sqlite3.connect(path) as database:
        row = database.execute(
            "SELECT f_table_schema, f_table_name, f_geometry_column, useAsDefault, styleQML "
            "FROM layer_styles"
        ).fetchone()
        geometry_column = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns"
        ).fetchone()[0]
        registered = database.execute(
            "SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'"
        ).fetchone()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        # GDAL before 3.7 warns of versions after 1.3, and QGIS of Debian 12 has such a one.
        assert database.execute("PRAGMA user_version").fetchone()[0] <= 10300
    database.close()
    assert row[:4] == ("", "landcover", geometry_column, 1)
    assert "categorizedSymbol" in row[4]
    assert registered == ("attributes",)
    assert not path.with_suffix(".qml").exists()


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_other_formats_have_a_style_beside_them(tmp_path, raster, suffix):
    path = write_polygons(raster, tmp_path / f"landcover{suffix}")
    assert "categorizedSymbol" in path.with_suffix(".qml").read_text(encoding="utf-8")


def test_geoparquet_says_where_row_groups_lie(tmp_path, raster):
    path = write_polygons(raster, tmp_path / "landcover.parquet")
    file = pyarrow.parquet.ParquetFile(path)
    geo = json.loads(file.metadata.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    frame = geopandas.read_parquet(path)
    assert geo["version"] == "1.1.0"
    np.testing.assert_allclose(column["bbox"], frame.total_bounds)
    west, south, east, north = frame.total_bounds
    some = geopandas.read_parquet(path, bbox=(west, (south + north) / 2, east, north))
    assert 0 < len(some) < len(frame)


def test_dissolved_polygons_are_multipolygons_in_the_file(tmp_path, raster):
    for suffix in SUFFIXES:
        path = tmp_path / f"classes{suffix}"
        write_polygons(raster, path, options=PolygonOptions(dissolve=True))
        frame = read(path)
        assert sorted(frame.class_id) == [0, 1, 2, 3, 4]
        assert frame.is_valid.all()


@pytest.mark.parametrize("dissolve", [False, True])
def test_a_map_without_polygons_is_an_empty_file(tmp_path, raster, dissolve):
    options = PolygonOptions(classes=[], dissolve=dissolve)
    for suffix in SUFFIXES:
        frame = read(write_polygons(raster, tmp_path / f"none{suffix}", options=options))
        assert len(frame) == 0
    assert len(polygonize(raster, options=options)) == 0


def test_a_raster_without_crs_is_written_without_one_but_not_as_geojson(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(30, 41), crs=None)
    for suffix in (".gpkg", ".shp", ".fgb", ".parquet"):
        frame = read(write_polygons(path, tmp_path / f"map{suffix}"))
        assert frame.crs is None or "undefined" in frame.crs.name.lower()
    with pytest.raises(OutputError, match=r"map.geojson: GeoJSON is in longitude and latitude"):
        write_polygons(path, tmp_path / "map.geojson")


def test_an_output_that_exists_is_kept_unless_it_may_go(tmp_path, raster):
    path = tmp_path / "landcover.gpkg"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_polygons(raster, path)
    assert path.read_text() == "mine"
    assert len(read(write_polygons(raster, path, overwrite=True)))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("landcover.tif", "must end in"),
        ("missing/landcover.gpkg", "does not exist"),
        ("raster/map.tif", "must end in"),
        ("folder.gpkg", "is a folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path, raster, name, fault):
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(OutputError, match=fault):
        write_polygons(raster, tmp_path / name)


def test_a_name_too_long_for_a_shapefile_is_refused_before_any_work(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(9, 8), names={0: "ü" * 128})
    with pytest.raises(OutputError, match=r"map.shp: .* up to 254 bytes, .* has 256"):
        write_polygons(path, tmp_path / "map.shp")
    long_enough = write_class_raster(
        tmp_path / "long.tif", np.zeros((9, 8), dtype=np.uint8), names={0: "ü" * 127}
    )
    frame = read(write_polygons(long_enough, tmp_path / "long.shp"))
    assert frame.class_name.tolist() == ["ü" * 127]


def test_a_shapefile_s_bytes_are_foreseen_so_that_none_grows_past_2_gb(tmp_path, raster):
    from geodinoseg.polygons.stream import PolygonStream
    from geodinoseg.rasters.class_raster import open_class_raster

    path = write_polygons(raster, tmp_path / "landcover.shp")
    largest = max(path.stat().st_size, path.with_suffix(".dbf").stat().st_size)

    def passed(limit):
        source = open_class_raster(raster)
        stream = PolygonStream.of(source, min_area_m2=0, simplify_px=0, options=PolygonOptions())
        batches = stream.batches(lambda fraction, message: None)
        return list(within_shapefile_limits(batches, path, source.legend, largest_bytes=limit))

    assert passed(2 * largest)
    with pytest.raises(OutputError, match=r"landcover.shp: .* write a .gpkg"):
        passed(largest - 1)


def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path, raster, monkeypatch):
    from geodinoseg.polygons import writer as vector_files

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vector_files, "vector_qml", full)
    for suffix in SUFFIXES:
        with pytest.raises(OutputError, match="No space left"):
            write_polygons(raster, tmp_path / f"landcover{suffix}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raster"]


def test_gaps_of_nodata_stay_gaps_in_every_format(tmp_path):
    array = np.zeros((12, 17), dtype=np.uint8)
    array[4:7, 5:9] = NODATA
    path = write_class_raster(tmp_path / "map.tif", array)
    for suffix in SUFFIXES:
        frame = read(write_polygons(path, tmp_path / f"map{suffix}"))
        assert len(frame.geometry[0].interiors) == 1


def parts_of(folder, stem):
    return {entry.name for entry in folder.iterdir() if entry.stem == stem}


def test_the_style_of_a_raster_is_never_replaced(tmp_path, raster):
    style = tmp_path / "map.qml"
    for suffix in SUFFIXES[1:]:
        style.write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"map\.\w+: its style would replace map.qml"):
                write_polygons(raster, tmp_path / f"map{suffix}", overwrite=overwrite)
        assert parts_of(tmp_path, "map") == {"map.qml"}
    write_polygons(raster, tmp_path / "map.gpkg")
    assert "rasterrenderer" in style.read_text()


def test_the_style_of_an_older_polygon_file_is_replaced(tmp_path, raster):
    write_polygons(raster, tmp_path / "map.fgb")
    write_polygons(raster, tmp_path / "map.shp")
    assert len(read(tmp_path / "map.shp")) == len(read(tmp_path / "map.fgb"))


def test_what_belonged_to_an_old_file_goes_with_it(tmp_path, raster):
    without_crs = write_class_raster(tmp_path / "raster" / "lost.tif", blobs(30, 41), crs=None)
    for suffix, old in ((".shp", [".qix", ".PRJ", ".dbf"]), (".gpkg", [".gpkg-wal"])):
        path = write_polygons(raster, tmp_path / f"map{suffix}")
        for ending in old:
            (tmp_path / f"map{ending}").write_text("old")
        other = tmp_path / f"map.of.mine{old[0]}"
        other.write_text("mine")
        frame = read(write_polygons(without_crs, path, overwrite=True))
        assert frame.crs is None or "undefined" in frame.crs.name.lower()
        assert len(frame) == len(polygonize(without_crs))
        assert other.read_text() == "mine"
    written = {".shp", ".shx", ".dbf", ".cpg", ".qml", ".gpkg"}
    assert parts_of(tmp_path, "map") == {f"map{ending}" for ending in written}


@pytest.mark.parametrize("name", ["table.dbf", "table.SHX", "table.prj"])
def test_a_part_of_another_file_is_not_replaced_unasked(tmp_path, raster, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        OutputExistsError, match=f"{name}: exists already, and would be read as part of table.shp"
    ):
        write_polygons(raster, tmp_path / "table.shp")
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("suffix", [".GPKG", ".SHP", ".Fgb", ".GeoJSON", ".PARQUET"])
def test_endings_in_capitals_are_the_same_formats(tmp_path, raster, suffix):
    path = write_polygons(raster, tmp_path / f"map{suffix}")
    assert path.name == f"map{suffix}"
    frame = geopandas.read_parquet(path) if suffix == ".PARQUET" else read(path)
    assert len(frame) == len(polygonize(raster))


@pytest.mark.parametrize("stem", ["layer_styles", "GPKG_contents", "sqlite_master"])
def test_a_name_that_a_geopackage_keeps_for_itself_is_refused(tmp_path, raster, stem):
    with pytest.raises(OutputError, match="the layer is named after the file"):
        write_polygons(raster, tmp_path / f"{stem}.gpkg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raster"]


def test_a_disk_that_fills_up_under_the_style_is_said_to_be_full(tmp_path, raster, monkeypatch):
    from geodinoseg.qgis import geopackage as geopackage_style

    def full(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(geopackage_style, "_write", full)
    with pytest.raises(OutputError, match=r"map.gpkg: could not be written; is the disk full\?"):
        write_polygons(raster, tmp_path / "map.gpkg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raster"]


def test_the_number_of_transactions_changes_no_byte_of_a_geopackage(tmp_path, monkeypatch):
    values = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    raster = write_class_raster(tmp_path / "map.tif", values)
    first = write_polygons(raster, tmp_path / "map.gpkg").read_bytes()
    assert first[24:28] == first[92:96] == b"\x00\x00\x00\x01"

    def with_another_transaction(path, qml, *, target):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE gpkg_contents SET last_change = last_change")
        add_layer_style(path, qml, target=target)

    monkeypatch.setattr(writer, "add_layer_style", with_another_transaction)
    assert write_polygons(raster, tmp_path / "map.gpkg", overwrite=True).read_bytes() == first
    with closing(sqlite3.connect(tmp_path / "map.gpkg")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
