"""Labels lie where they lie on the earth: across the 180th meridian, at a pole, in any unit."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject
from rasters import write_raster

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.windows import Window, windows_over

RADIANS = pyproj.CRS.from_wkt(
    'GEOGCRS["radians",DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]]'
    ',CS[ellipsoidal,2],AXIS["latitude",north],AXIS["longitude",east],ANGLEUNIT["radian",1]]'
)
SITE = (
    'ENGCRS["site grid",EDATUM["unknown"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)


def scene(crs, transform, width=301, height=99):
    return GeoBox(crs=CRS.from_user_input(crs), transform=transform, width=width, height=height)


def fiji(crs=32760, x=800_000):
    """500 m pixels on both sides of the 180th meridian, in UTM 60 S or 1 S."""
    return scene(crs, Affine(500, 0, x, 0, -500, 8_100_000))


def whole(labels):
    box = labels.geobox
    return labels.read(Window(col_off=0, row_off=0, width=box.width, height=box.height))


def centers(box):
    cols, rows = np.meshgrid(np.arange(box.width) + 0.5, np.arange(box.height) + 0.5)
    return box.transform @ (cols, rows)


def classes(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 200, (height, width)).astype(np.uint8)


def expected_classes(values, transform, box, label_crs, *, turn=None):
    """The value under the centre of each pixel, one by one, and where it is on no edge."""
    transformer = pyproj.Transformer.from_crs(box.crs, label_crs, always_xy=True)
    x, y = transformer.transform(*centers(box))
    height, width = values.shape
    if turn is not None:
        left, _ = transform @ (0, 0)
        x = left + np.mod(x - left, turn)
    cols, rows = ~transform @ (x, y)
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    found = np.zeros(cols.shape, dtype=np.int64)
    col, row = (np.floor(v[inside]).astype(int) for v in (cols, rows))
    found[inside] = values[row, col]
    clear = (np.abs(cols - np.round(cols)) > 0.02) & (np.abs(rows - np.round(rows)) > 0.02)
    return found, clear


def found_classes(labels):
    indices = whole(labels)
    return np.where(indices == IGNORE, 0, np.append(labels.legend.class_ids, 0)[indices])


@pytest.mark.parametrize("left", [-180.0, 0.0, 175.0])
@pytest.mark.parametrize("box", [fiji(), fiji(32701, 100_000)], ids=["zone 60", "zone 1"])
def test_a_label_raster_in_degrees_serves_a_scene_across_the_180th_meridian(tmp_path, left, box):
    width = 100 if left == 175 else 3600
    values, transform = classes(60, width), Affine(0.1, 0, left, 0, -0.1, -15)
    path = write_raster(tmp_path / "l.tif", values[None], crs="EPSG:4326", transform=transform)
    found = found_classes(open_labels(path, box))

    expected, clear = expected_classes(values, transform, box, 4326, turn=360)
    assert clear.mean() > 0.8
    assert_array_equal(found[clear], expected[clear])
    # GDAL warps one half after the other, each of which it takes for a place of its own.
    halves = np.zeros_like(expected, dtype=np.uint8)
    for west, east in ((-180, -175), (175, 180)):
        cols = round(((west - left) % 360) * 10), round(((east - 0.05 - left) % 360) * 10)
        part = values[:, cols[0] : cols[1] + 1]
        warped = np.zeros_like(halves)
        reproject(
            part,
            warped,
            src_crs="EPSG:4326",
            src_transform=Affine(0.1, 0, west, 0, -0.1, -15),
            dst_crs=box.crs,
            dst_transform=box.transform,
            src_nodata=0,
            dst_nodata=0,
            resampling=Resampling.nearest,
        )
        halves[warped > 0] = warped[warped > 0]
    # GDAL's approximation is good to an eighth of a pixel of 22 scene pixels.
    differ = (found != halves)[clear]
    assert differ.mean() < 0.02
    assert (found[:, :150] > 0).all()
    assert (found[:, 150:] > 0).all()


@pytest.mark.parametrize("left", [179.0, -181.0])
def test_a_label_raster_in_metres_serves_a_scene_in_degrees_across_it(tmp_path, left):
    values, transform = classes(120, 300), Affine(1000, 0, 700_000, 0, -1000, 8_120_000)
    path = write_raster(tmp_path / "l.tif", values[None], crs="EPSG:32760", transform=transform)
    box = scene(4326, Affine(0.01, 0, left, 0, -0.01, -17.3), 211, 97)
    expected, clear = expected_classes(values, transform, box, 32760)
    found = found_classes(open_labels(path, box))
    assert (expected[:, :90] > 0).mean() > 0.5
    assert (expected[:, 110:] > 0).mean() > 0.5
    assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("labels_left", [-180.0, 0.0])
@pytest.mark.parametrize("scene_left", [178.0, -182.0, -179.5])
def test_the_same_crs_in_another_turn_is_the_same_place(tmp_path, labels_left, scene_left):
    values, transform = classes(40, 3600), Affine(0.1, 0, labels_left, 0, -0.1, -15)
    path = write_raster(tmp_path / "l.tif", values[None], crs="EPSG:4326", transform=transform)
    box = scene(4326, Affine(0.03, 0, scene_left + 0.005, 0, -0.03, -16.004), 131, 50)
    expected, clear = expected_classes(values, transform, box, 4326, turn=360)
    assert (expected > 0).all()
    assert_array_equal(found_classes(open_labels(path, box))[clear], expected[clear])


@pytest.mark.parametrize(
    ("crs", "degrees"),
    [("EPSG:4807", 0.9), (RADIANS, np.degrees(1.0)), ("EPSG:4326", 1.0)],
    ids=["grads", "radians", "degrees"],
)
def test_angular_units_are_those_of_the_crs(tmp_path, crs, degrees):
    label_crs = pyproj.CRS.from_user_input(crs)
    # 2.337 degrees is the meridian of Paris, from which EPSG:4807 counts.
    west = -180.0 / degrees
    values = classes(300, 7200)
    transform = Affine(0.05 / degrees, 0, west, 0, -0.05 / degrees, -10 / degrees)
    path = write_raster(
        tmp_path / "l.tif", values[None], crs=label_crs.to_wkt(), transform=transform
    )
    box = fiji()
    to_labels = pyproj.Transformer.from_crs(box.crs, label_crs, always_xy=True)
    x, y = to_labels.transform(*centers(box))
    if degrees > 2:  # pyproj takes and gives degrees where a CRS is in radians
        x, y = np.radians(x), np.radians(y)
    cols, rows = ~transform @ (west + np.mod(x - west, 360 / degrees), y)
    expected = values[np.floor(rows).astype(int), np.floor(cols).astype(int)]
    clear = (np.abs(cols - np.round(cols)) > 0.02) & (np.abs(rows - np.round(rows)) > 0.02)
    found = found_classes(open_labels(path, box))
    assert_array_equal(found[clear], expected[clear])


def polygon_file(path, polygons, names, crs):
    geopandas.GeoDataFrame({"class": names}, geometry=list(polygons), crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("turns", [-1, 0, 1])
@pytest.mark.parametrize("box", [fiji(), fiji(32701, 100_000)], ids=["zone 60", "zone 1"])
def test_polygons_in_degrees_count_in_any_turn(tmp_path, turns, box):
    cells = [shapely.box(179.4, -18, 180.3, -17.4), shapely.box(180.5, -17.8, 180.9, -17.2)]
    moved = shapely.transform(cells, lambda xy: xy + np.array([360 * turns, 0]))
    path = polygon_file(tmp_path / "l.gpkg", moved, ["a", "b"], 4326)
    to_degrees = pyproj.Transformer.from_crs(box.crs, 4326, always_xy=True)
    lon, lat = to_degrees.transform(*centers(box))
    inside = [shapely.contains_xy(cell, np.mod(lon, 360), lat) for cell in cells]
    expected = np.select(inside, [0, 1], IGNORE)
    assert all(half.sum() > 1000 for half in inside)
    # An edge that passes through a centre decides by rounding.
    assert (whole(open_labels(path, box)) != expected).sum() <= 4


@pytest.mark.parametrize("left", [179.0, -181.0, -180.0])
def test_polygons_in_metres_serve_scenes_in_degrees_across_it(tmp_path, left):
    width = 36_000 if left == -180.0 else 211
    box = scene(4326, Affine(0.01, 0, left, 0, -0.01, -17.3), width, 97)
    cells = [shapely.box(780_000, 8_020_000, 860_000, 8_060_000)]
    hole = shapely.box(815_000, 8_035_000, 825_000, 8_045_000)
    cells = [cells[0].difference(hole), shapely.box(865_000, 8_020_000, 890_000, 8_060_000)]
    path = polygon_file(tmp_path / "l.gpkg", cells, ["a", "b"], 32760)
    to_metres = pyproj.Transformer.from_crs(4326, 32760, always_xy=True)
    cols = np.r_[0:110, 35_890:36_000] if left == -180.0 else np.arange(211)
    lon, lat = np.meshgrid(left + 0.01 * (cols + 0.5), -17.3 - 0.01 * (np.arange(97) + 0.5))
    x, y = to_metres.transform(lon, lat)
    expected = np.select([shapely.contains_xy(cell, x, y) for cell in cells], [0, 1], IGNORE)
    found = whole(open_labels(path, box))
    assert (expected == 0).sum() > 1000
    assert (found[:, cols] != expected).sum() <= 6
    if left == -180.0:
        assert (found[:, 110:35_890] == IGNORE).all()


def arctic(width=400, height=300):
    """The north pole a little off a pixel's centre, 5 km pixels."""
    return scene("EPSG:3413", Affine(5000, 0, -1_001_000, 0, -5000, 752_000), width, height)


def test_a_scene_at_the_pole_gets_the_class_under_each_centre(tmp_path):
    values, transform = classes(400, 3600), Affine(0.1, 0, -180, 0, -0.05, 90)
    path = write_raster(tmp_path / "l.tif", values[None], crs="EPSG:4326", transform=transform)
    box = arctic()
    labels = open_labels(path, box)
    expected, clear = expected_classes(values, transform, box, 4326, turn=360)
    found = found_classes(labels)
    assert (expected > 0).all()
    assert_array_equal(found[clear], expected[clear])
    pieces = np.zeros_like(found)
    for window in windows_over(height=box.height, width=box.width, rows=71, cols=53):
        pieces[window.slices] = np.append(labels.legend.class_ids, 0)[labels.read(window)]
    assert_array_equal(pieces, found)


def test_polygons_reach_round_a_pole_both_ways(tmp_path):
    box = arctic()
    lon, lat = pyproj.Transformer.from_crs(3413, 4326, always_xy=True).transform(*centers(box))
    cap = polygon_file(
        tmp_path / "cap.gpkg",
        [shapely.box(-180, 86, 180, 90), shapely.box(-60, 83, 30, 86)],
        ["cap", "side"],
        4326,
    )
    expected = np.select([lat > 86, (lat > 83) & (lon > -60) & (lon < 30)], [0, 1], IGNORE)
    found = whole(open_labels(cap, box))
    # Edges of 90 degrees follow their parallels.
    assert (found != expected).sum() <= 10

    metres = polygon_file(
        tmp_path / "metres.gpkg", [shapely.box(-400_000, -300_000, 500_000, 350_000)], ["a"], 3413
    )
    degrees = scene(4326, Affine(0.25, 0, -180, 0, -0.05, 90), 1440, 200)
    x, y = pyproj.Transformer.from_crs(4326, 3413, always_xy=True).transform(*centers(degrees))
    inside = (np.abs(x - 50_000) < 450_000) & (np.abs(y - 25_000) < 325_000)
    other = polygon_file(tmp_path / "o.gpkg", [shapely.box(6e5, 0, 7e5, 1e5)], ["b"], 3413)
    found = whole(open_labels([f"a={metres}", f"b={other}"], degrees)) == 0
    assert (found != inside).mean() < 0.002
    assert found[0].all()


def test_polygons_of_a_local_grid_serve_a_scene_of_it(tmp_path):
    box = scene(SITE, Affine(2, 0, 100, 0, -2, 300), 61, 43)
    cells = [shapely.box(110, 260, 150, 290), shapely.box(160, 240, 200, 290)]
    expected = rasterize(
        zip(cells, [0, 1], strict=True),
        out=np.full((43, 61), IGNORE, dtype=np.int16),
        transform=box.transform,
    )
    for suffix in (".gpkg", ".shp", ".fgb"):
        path = polygon_file(tmp_path / f"l{suffix}", cells, ["a", "b"], SITE)
        assert_array_equal(whole(open_labels(path, box)), expected)


@pytest.mark.parametrize(
    ("labels_crs", "scene_crs"),
    [(SITE, 32633), (32633, SITE), ("IAU_2015:49900", 32633), (4326, "IAU_2015:49910")],
    ids=["site", "scene of a site", "mars", "scene of mars"],
)
def test_labels_of_an_unrelated_crs_are_refused_in_one_line(tmp_path, labels_crs, scene_crs):
    box = scene(scene_crs, Affine(10, 0, 0, 0, -10, 0), 40, 30)
    polygons = polygon_file(tmp_path / "l.gpkg", [shapely.box(0, 0, 1, 1)], ["a"], labels_crs)
    raster = write_raster(
        tmp_path / "l.tif",
        classes(9, 9)[None],
        crs=CRS.from_user_input(labels_crs),
        transform=Affine(1, 0, 0, 0, -1, 0),
    )
    for path in (polygons, raster):
        with pytest.raises(LabelError, match="no transformation exists from the CRS") as caught:
            open_labels(path, box)
        assert str(caught.value).startswith(f"{path}: ")
        message = str(caught.value)
        assert "\n" not in message
        assert message.count("(") == message.count(")")
