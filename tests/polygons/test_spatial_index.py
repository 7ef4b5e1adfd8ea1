"""The spatial indexes of FlatGeobuf and GeoPackage, read by GDAL and SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS

from geodinoseg.legend import Legend
from geodinoseg.polygons.table import polygon_schema
from geodinoseg.polygons.writer import PolygonLayer, write_batches

SUFFIXES = [".fgb", ".gpkg"]
SCHEMA = polygon_schema(has_confidence=False)


def batches(boxes, *, size):
    """Boxes as features whose class ids count them."""
    for first in range(0, len(boxes), size):
        some = boxes[first : first + size]
        numbers = np.arange(first, first + len(some))
        columns = [
            pa.array(numbers).cast(field.type) for field in SCHEMA if field.name != "geometry"
        ]
        yield pa.record_batch([*columns, pa.array(shapely.to_wkb(some), SCHEMA[-1].type)], SCHEMA)


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-3e5, 3e5, count), rng.normal(5e6, 1e5, count)
    width, height = rng.exponential(2000, count), rng.exponential(3000, count)
    return shapely.box(west, south, west + width, south + height)


def written(tmp_path, boxes, *, size=1000, suffix=".fgb"):
    layer = PolygonLayer(
        crs=CRS.from_epsg(32633),
        legend=Legend.of_names({0: "none"}),
        schema=SCHEMA,
        geometry_type="Polygon",
    )
    return write_batches(batches(boxes, size=size), tmp_path / f"x{suffix}", layer=layer)


def read(path, **options):
    return pyogrio.read_dataframe(path, layer="x", **options)


def check_tree(path):
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT rtreecheck('rtree_x_geom')").fetchall() == [("ok",)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 50, 51, 52, 255, 257, 2601, 2602, 5000])
def test_a_search_by_place_finds_exactly_what_is_there(tmp_path, count, suffix):
    boxes = random_boxes(count)
    path = written(tmp_path, boxes, size=77, suffix=suffix)
    info = pyogrio.read_info(path, layer="x", force_total_bounds=True)
    assert info["features"] == count
    assert info["capabilities"]["fast_spatial_filter"]
    np.testing.assert_allclose(info["total_bounds"], shapely.total_bounds(boxes))
    if suffix == ".gpkg":
        check_tree(path)
    whole = read(path)
    assert sorted(whole.class_id) == list(range(count))
    geometries = whole.sort_values("class_id").geometry.to_numpy()
    assert shapely.equals_exact(shapely.normalize(geometries), shapely.normalize(boxes)).all()
    for seed in range(20):
        window = shapely.buffer(random_boxes(1, seed + 100)[0], 2e4, join_style="mitre")
        found = read(path, bbox=window.bounds).class_id
        expected = np.flatnonzero(shapely.intersects(boxes, window))
        assert sorted(found) == expected.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_features_than_are_handled_at_once_are_indexed(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("geodinoseg.polygons.feature_boxes.BOXES_AT_ONCE", 100)
    monkeypatch.setattr("geodinoseg.polygons.geopackage_index.BOXES_AT_ONCE", 110)
    monkeypatch.setattr("geodinoseg.polygons.flatgeobuf._AT_ONCE", 160)
    boxes = random_boxes(3001)
    path = written(tmp_path, boxes, suffix=suffix)
    if suffix == ".gpkg":
        check_tree(path)
    window = shapely.box(-1e5, 4.95e6, 1e5, 5.02e6)
    expected = np.flatnonzero(shapely.intersects(boxes, window))
    assert len(expected) > 100
    assert sorted(read(path, bbox=window.bounds).class_id) == expected.tolist()


def test_neighbours_in_the_file_are_neighbours_on_the_map(tmp_path):
    """As in GDAL's own order; that of the features given is random."""
    boxes = random_boxes(4000)
    order = read(written(tmp_path, boxes)).class_id.to_numpy()
    centres = shapely.get_coordinates(shapely.centroid(boxes))
    centres /= centres.std(axis=0)
    steps = np.hypot(*np.diff(centres[order], axis=0).T)
    assert np.median(steps) < 0.1
    assert steps.sum() < 0.05 * np.hypot(*np.diff(centres, axis=0).T).sum()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_features_in_one_place_and_none_at_all_are_written(tmp_path, suffix):
    one_place = np.repeat(shapely.box(10, 20, 30, 40), 70)
    path = written(tmp_path, one_place, suffix=suffix)
    assert len(read(path, bbox=(0, 0, 11, 21))) == 70
    path.unlink()
    assert len(read(written(tmp_path, one_place[:0], suffix=suffix))) == 0


@pytest.mark.parametrize("count", [0, 1, 400])
def test_a_geopackage_can_be_edited_and_its_index_follows(tmp_path, count):
    path = written(tmp_path, random_boxes(count), suffix=".gpkg")
    far = geopandas.GeoDataFrame(
        {"class_id": [7], "class_name": ["new"]},
        geometry=[shapely.box(9e5, 0, 9.1e5, 1)],
        crs=32633,
    )
    pyogrio.write_dataframe(far, path, layer="x", append=True)
    assert read(path, bbox=(8e5, -1, 1e6, 2)).class_id.tolist() == [7]
    check_tree(path)


def test_the_tables_of_an_index_are_those_of_gdal(tmp_path, monkeypatch):
    """Their nodes differ; the style's table comes after them."""
    boxes, tables = random_boxes(700), []
    for built in (True, False):
        monkeypatch.setattr("geodinoseg.polygons.writer.has_rtree", lambda built=built: built)
        path = written(tmp_path, boxes, suffix=".gpkg")
        check_tree(path)
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
            extensions = database.execute("SELECT * FROM gpkg_extensions")
            tables.append((set(found.fetchall()), extensions.fetchall()))
        path.unlink()
    assert tables[0] == tables[1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_but_the_file_and_its_style_is_left(tmp_path, suffix):
    written(tmp_path, random_boxes(50), suffix=suffix)
    assert {entry.name for entry in tmp_path.iterdir()} - {"x.qml"} == {f"x{suffix}"}
