"""Polygons over no pixel's centre label nothing: they are counted, and can be made to count."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.features import rasterize
from sampled_maps import write_map

from geodinoseg.cli import main
from geodinoseg.errors import LabelError
from geodinoseg.evaluation.evaluate import EvaluationOptions, evaluate_map
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.coverage import covers_center
from geodinoseg.labels.open import open_label_set, open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.windows import Window, windows_over

PLACE = Affine(1, 0, 500_000, 0, -1, 5_000_000)
BOX = GeoBox(crs=CRS.from_epsg(32633), transform=PLACE, width=900, height=700)


def burnt(polygon, box=BOX, **options):
    return rasterize([(polygon, 1)], out_shape=(box.height, box.width), dtype="uint8", **options)


def random_polygons(seed, count=60):
    """Small, thin, large and crooked ones; some with corners on centres of pixels."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        kind = rng.integers(5)
        x, y = rng.uniform(0, 60, 2)
        size = rng.choice([0.05, 0.3, 0.9, 1.1, 3, 20])
        points = rng.uniform(-size, size, (rng.integers(3, 7), 2)) + np.array([x, y])
        if kind == 0:  # a thin strip
            points = np.array(
                [(x, y), (x + 20 * size, y + 3), (x + 20 * size, y + 3.05), (x, y + 0.05)]
            )
        if kind == 1:  # on centres and edges
            points = np.round(2 * points) / 2
        polygon = shapely.make_valid(shapely.convex_hull(shapely.MultiPoint(points)))
        if isinstance(polygon, shapely.Polygon):
            found.append(polygon)
    return np.array(found, dtype=object)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 100_000))
def test_polygons_cover_a_centre_where_gdal_burns_a_pixel(seed):
    box = GeoBox(crs=None, transform=Affine.identity(), width=64, height=61)
    polygons = random_polygons(seed)
    inside = shapely.covered_by(polygons, shapely.box(0, 0, 64, 61))
    expected = np.array([burnt(polygon, box).any() for polygon in polygons])
    assert_array_equal(covers_center(polygons, box)[inside], expected[inside])
    # What an edge of the scene cuts off is no surprise.
    assert covers_center(polygons, box)[~inside].all()


def ground(cells):
    return shapely.transform(
        np.array(cells, dtype=object), lambda xy: np.column_stack(PLACE @ tuple(xy.T))
    )


def write(path, cells, names):
    frame = geopandas.GeoDataFrame({"class": names}, geometry=list(ground(cells)), crs=BOX.crs)
    frame.to_file(path)
    return path


@pytest.fixture
def labels(tmp_path):
    """200 trees of a third of a pixel, strips of road between the centres, and fields."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (200, 2))
    trees = [shapely.box(x, y, x + 0.3, y + 0.3) for x, y in corners]
    roads = [shapely.box(400.1, 10 * i + 0.55, 800, 10 * i + 0.95) for i in range(20)]
    roads.append(shapely.box(400, 300, 420, 310))
    fields = [shapely.box(400, 400, 500, 500), shapely.box(890, 650, 900, 700)]
    cells = [*trees, *roads, *fields]
    path = write(tmp_path / "l.gpkg", cells, ["tree"] * 200 + ["road"] * 21 + ["field"] * 2)
    return path, cells


def whole(labels):
    return labels.read(Window(col_off=0, row_off=0, width=BOX.width, height=BOX.height))


def test_polygons_over_no_centre_are_counted_by_class(labels, caplog):
    path, cells = labels
    lost = sum(not burnt(cell).any() for cell in cells[:200])
    assert 170 < lost < 190
    open_labels(path, BOX)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 20 of 21 polygons of 'road' and {lost} of 200 of 'tree' cover no pixel's centre, "
        "so they label no pixel; --all-touched labels every pixel that a polygon touches."
    ]


def test_a_polygon_that_two_scenes_show_counts_once(labels, caplog):
    path, _ = labels
    other = GeoBox(crs=BOX.crs, transform=PLACE, width=850, height=690)
    open_label_set([path, path], [BOX, other])
    assert "20 of 21 polygons of 'road'" in caplog.text


def test_a_class_without_a_pixel_is_refused_to_learn_and_missed_in_an_evaluation(tmp_path, caplog):
    cells = [shapely.box(1.6, 1.6, 1.9, 1.9), shapely.box(5, 5, 9, 9), shapely.box(20, 5, 30, 9)]
    path = write(tmp_path / "l.gpkg", cells, ["tree", "field", "road"])
    with pytest.raises(
        LabelError, match=r"none of the 1 polygons of 'tree' covers a pixel's"
    ) as caught:
        open_labels(path, BOX)
    assert "--all-touched" in str(caught.value)
    assert "\n" not in str(caught.value)
    ignored = open_labels(path, BOX, options=LabelOptions(ignore_classes=("tree",)))
    assert ignored.legend.names == ("field", "road")
    touched = open_labels(path, BOX, options=LabelOptions(all_touched=True))
    assert touched.legend.names == ("field", "road", "tree")
    assert (whole(touched) == 2).sum() == 1
    # Another file of the same training may have larger trees.
    more = write(tmp_path / "m.gpkg", [shapely.box(50, 50, 60, 60)], ["tree"])
    assert open_label_set([path, more], [BOX, BOX])[0].legend.names == ("field", "road", "tree")

    pixels = np.ones((700, 900))
    pixels[:, 15:] = 4
    names = {1: "field", 4: "road", 9: "tree"}
    class_map = write_map(tmp_path / "map.tif", pixels, names, transform=PLACE)
    caplog.clear()
    found = evaluate_map(class_map, path)
    assert found.accuracy.pixels == 16 + 40
    assert "1 of 1 polygons of 'tree' cover no pixel's centre" in caplog.text
    found = evaluate_map(class_map, path, label_options=LabelOptions(all_touched=True))
    assert found.accuracy.matrix[2].sum() == 1


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1000), rows=st.integers(5, 70), cols=st.integers(5, 70))
def test_pixels_that_are_touched_are_those_of_gdal_in_every_window(
    tmp_path_factory, seed, rows, cols
):
    box = GeoBox(crs=BOX.crs, transform=PLACE, width=64, height=61)
    cells = random_polygons(seed, 30)
    cells = cells[shapely.intersects(cells, shapely.box(0, 0, 64, 61))]
    names = [["a", "b", "c"][i % 3] for i in range(len(cells))]
    path = write(tmp_path_factory.mktemp("touched") / "l.gpkg", cells, names)
    labels = open_labels(path, box, options=LabelOptions(all_touched=True))
    order = {name: index for index, name in enumerate(labels.legend.names)}
    expected = rasterize(
        [(cell, order[name]) for cell, name in zip(cells, names, strict=True)],
        out=np.full((61, 64), -1, dtype=np.int16),
        all_touched=True,
    )
    found = np.empty_like(expected)
    for window in windows_over(height=61, width=64, rows=rows, cols=cols):
        found[window.slices] = labels.read(window)
    at_once = labels.read(Window(col_off=0, row_off=0, width=64, height=61))
    assert_array_equal(found, at_once)
    # Coordinates of the ground are a nanometre off; a corner on an edge may touch either side.
    assert (found != expected).mean() < 0.01


def test_extents_and_regions_that_no_pixel_lies_in_are_counted(tmp_path, caplog):
    labels = write(tmp_path / "l.gpkg", [shapely.box(5, 5, 9, 9)], ["field"])
    areas = [
        shapely.box(0, 0, 20, 20),
        shapely.box(30.6, 5.1, 30.9, 5.4),
        shapely.box(40.6, 5, 40.9, 90),
    ]
    extent = write(tmp_path / "e.gpkg", areas, ["x"] * 3)
    open_labels(labels, BOX, options=LabelOptions(extent=extent))
    assert f"{extent}: 2 of its 3 polygons cover no pixel's centre" in caplog.text
    class_map = write_map(tmp_path / "map.tif", np.ones((700, 900)), {1: "field"}, transform=PLACE)
    regions = write(tmp_path / "r.gpkg", [*areas, areas[1]], ["big", "dot", "line", "big"])
    caplog.clear()
    found = evaluate_map(
        class_map,
        labels,
        options=EvaluationOptions(regions=regions, region_field="class"),
    )
    assert [region.accuracy.pixels for region in found.regions] == [16, 0, 0]
    assert f"{regions}: 3 of 4 polygons cover no pixel's centre" in caplog.text
    assert "regions without pixels: dot, line" in caplog.text


def test_the_option_does_not_pass_in_silence_where_it_has_no_effect(tmp_path, caplog):
    raster = write_map(
        tmp_path / "l.tif", np.tile([1, 4], (700, 450)), {1: "a", 4: "b"}, transform=PLACE
    )
    open_labels(raster, BOX, options=LabelOptions(all_touched=True))
    assert "l.tif: is a raster; --all-touched" in caplog.text


def test_the_command_has_the_option(labels, tmp_path):
    path, _ = labels
    names = {1: "field", 4: "road", 9: "tree"}
    class_map = write_map(tmp_path / "map.tif", np.full((700, 900), 4), names, transform=PLACE)
    results = [
        CliRunner().invoke(main, ["evaluate", str(class_map), "--labels", str(path), *more])
        for more in ([], ["--all-touched"])
    ]
    assert [result.exit_code for result in results] == [0, 0]
    assert "label no pixel" in results[0].stderr
    assert "label no pixel" not in results[1].stderr
    trees = [
        int(line.split()[-1])
        for r in results
        for line in r.stdout.splitlines()
        if line.startswith("tree")
    ]
    assert trees[0] < 40
    assert trees[1] > 200
