"""Polygons become labels on any grid: the same in every window, the same as GDAL over the whole."""

import dataclasses
import math
import pickle

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as transform_points

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox, GroundControl
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_label_set, open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.legend import Legend
from geodinoseg.windows import Window, windows_over

UTM = CRS.from_epsg(32645)
ORIGIN = (350_000.0, 3_056_000.0)
WIDTH, HEIGHT = 211, 157
PIXEL_M = 2.5


def geobox(*, angle=0.0, flip=-1.0, crs=UTM, width=WIDTH, height=HEIGHT, pixel_m=PIXEL_M):
    transform = (
        Affine.translation(*ORIGIN) @ Affine.rotation(angle) @ Affine.scale(pixel_m, flip * pixel_m)
    )
    return GeoBox(crs=crs, transform=transform, width=width, height=height)


def ground(box, rings):
    """Polygons given in pixel coordinates, on the ground of a grid."""
    return shapely.transform(
        np.asarray(rings, dtype=object),
        lambda points: np.column_stack(box.transform @ tuple(points.T)),
    )


def frame(geometries, classes, *, crs=UTM, field="class"):
    return geopandas.GeoDataFrame({field: classes}, geometry=list(geometries), crs=crs)


def square(col, row, side=10.0):
    return shapely.box(col, row, col + side, row + side)


def whole(labels):
    box = labels.geobox
    return labels.read(Window(col_off=0, row_off=0, width=box.width, height=box.height))


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """Sixty triangles and discs of three classes round the origin, overlapping, as a GeoPackage."""
    rng = np.random.default_rng(3)
    reach = PIXEL_M * WIDTH
    centres = np.array(ORIGIN) + rng.uniform(-reach, reach, (60, 2))
    shapes = [
        shapely.Point(x, y).buffer(rng.uniform(5, 60))
        if index % 2
        else shapely.Polygon(np.array([x, y]) + rng.uniform(-80, 80, (3, 2)))
        for index, (x, y) in enumerate(centres)
    ]
    table = frame(shapes, rng.choice(["tin", "concrete", "grass"], 60))
    path = tmp_path_factory.mktemp("labels") / "scattered.gpkg"
    table.to_file(path)
    return path, table


@settings(deadline=None, max_examples=40)
@given(
    angle=st.floats(-180, 180),
    flip=st.sampled_from([-1.0, 1.0]),
    rows=st.integers(1, HEIGHT),
    cols=st.integers(1, WIDTH),
)
def test_windows_put_together_equal_gdal_over_the_whole_scene(scattered, angle, flip, rows, cols):
    path, table = scattered
    box = geobox(angle=angle, flip=flip)
    labels = open_labels(path, box)
    class_indices = [labels.legend.names.index(name) for name in table["class"]]
    expected = rasterize(
        zip(table.geometry, class_indices, strict=True),
        out=np.full((HEIGHT, WIDTH), IGNORE, np.int16),
        transform=box.transform,
    )
    found = np.full((HEIGHT, WIDTH), 99, np.int16)
    # Thin slices only where they are few.
    for window in windows_over(
        height=HEIGHT, width=WIDTH, rows=max(rows, HEIGHT // 8), cols=max(cols, WIDTH // 8)
    ):
        found[window.slices] = labels.read(window)
    assert_array_equal(found, expected)


@given(block_px=st.integers(7, 300))
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("unlabelled", ["ignore", "background"])
def test_blocks_count_the_pixels_of_each_class(scattered, unlabelled, block_px):
    labels = open_labels(
        scattered[0], geobox(angle=33), options=LabelOptions(unlabelled=unlabelled)
    )
    class_indices = whole(labels)
    counts = labels.class_blocks(block_px)
    assert counts.dtype == np.int64
    assert counts.shape == (-(-HEIGHT // block_px), -(-WIDTH // block_px), len(labels.legend))
    for row, col in np.ndindex(counts.shape[:2]):
        part = class_indices[row * block_px :, col * block_px :][:block_px, :block_px]
        expected = np.bincount(part[part >= 0], minlength=len(labels.legend))
        assert_array_equal(counts[row, col], expected)


class CountingSource:
    """Counts the windows that are burnt."""

    def __init__(self, source):
        self.source, self.fill, self.reads = source, source.fill, 0

    def reaches(self, window):
        return self.source.reaches(window)

    def read(self, window):
        self.reads += 1
        return self.source.read(window)


def test_twenty_polygons_in_a_huge_scene_cost_twenty_blocks(tmp_path):
    box = geobox(width=223_001, height=151_003)
    cells = [square(4096.0 * n + 100, 4096.0 * n + 200, 300.0) for n in range(20)]
    path = tmp_path / "few.gpkg"
    frame(ground(box, cells), ["tin", "grass"] * 10).to_file(path)
    labels = open_labels(path, box, options=LabelOptions(unlabelled="background"))
    counting = CountingSource(labels.source)
    counts = dataclasses.replace(labels, source=counting).class_blocks(2048)
    assert counting.reads == 20
    assert counts.sum() == box.width * box.height
    assert counts[..., 1:].sum() == 20 * 300 * 300


def test_long_edges_follow_the_projection(tmp_path):
    # Edges of 60 km and two corners only: their chords lie tens of metres off in the other CRS.
    box = geobox(width=1203, height=701, pixel_m=50.0, angle=9)
    cells = [shapely.box(-40, 100.3, 1300, 330.7), shapely.box(100.2, 400.1, 1100.4, 650.9)]
    edges = shapely.segmentize(ground(box, cells), 50.0)
    lonlat = frame(ground(box, cells), [1, 2]).to_crs(4326)
    straight = frame(shapely.segmentize(lonlat.geometry.array, 0.0005), [1, 2], crs=4326).to_crs(
        UTM
    )
    path = tmp_path / "long.gpkg"
    lonlat.to_file(path)
    expected = rasterize(
        zip(straight.geometry, [0, 1], strict=True),
        out=np.full((701, 1203), IGNORE, np.int16),
        transform=box.transform,
    )
    bent = rasterize(
        zip(edges, [0, 1], strict=True),
        out=np.full((701, 1203), IGNORE, np.int16),
        transform=box.transform,
    )
    found = whole(open_labels(path, box))
    # 64 px between points: the chord is 0.004 px off, and the edges are 4,600 px long.
    assert (found != expected).sum() <= 20
    assert (bent != expected).sum() > 200, "the case would not show a chord"


def test_polygons_of_the_whole_earth_are_cut_to_the_scene(tmp_path):
    box = geobox(angle=-28)
    x, y = box.transform @ (WIDTH / 2, HEIGHT / 2)
    (lon,), _ = transform_points(UTM, "EPSG:4326", [x], [y])
    halves = [shapely.box(-180, -90, lon, 90), shapely.box(lon, -90, 180, 90)]
    path = tmp_path / "earth.geojson"
    frame(halves, ["west", "east"], crs=4326).to_file(path)
    cols, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    lons, _ = transform_points(UTM, "EPSG:4326", *(v.ravel() for v in box.transform @ (cols, rows)))
    expected = np.where(np.reshape(lons, cols.shape) > lon, 0, 1)  # east comes first by name
    assert_array_equal(whole(open_labels(path, box)), expected)


def test_a_map_of_the_earth_takes_polygons_that_reach_the_poles(tmp_path):
    # The poles themselves have no place in Web Mercator.
    transform = Affine.translation(-20_037_508, 20_037_508) @ Affine.scale(160_300, -160_300)
    box = GeoBox(crs=CRS.from_epsg(3857), transform=transform, width=250, height=249)
    path = tmp_path / "earth.gpkg"
    halves = [shapely.box(-180, 0, 180, 90), shapely.box(-180, -90, 180, 0)]
    frame(halves, ["north", "south"], crs=4326).to_file(path)
    class_indices = whole(open_labels(path, box))
    assert_array_equal(class_indices[:124], 0)
    assert_array_equal(class_indices[126:], 1)


def test_a_scene_in_degrees_takes_labels_in_metres(tmp_path, caplog):
    transform = Affine.translation(85.5, 27.6) @ Affine.rotation(8) @ Affine.scale(2e-5, -2e-5)
    box = GeoBox(crs=CRS.from_epsg(4326), transform=transform, width=97, height=83)
    cells = [shapely.box(10, 20, 60, 70), shapely.box(50, 60, 90, 80)]
    path = tmp_path / "metres.gpkg"
    frame(ground(box, cells), [4, 5], crs=4326).to_crs(UTM).to_file(path)
    expected = np.full((83, 97), IGNORE)
    expected[20:70, 10:60], expected[60:80, 50:90] = 0, 1
    assert_array_equal(whole(open_labels(path, box)), expected)
    assert "overlap on 100 pixels (43" in caplog.text


def test_a_scene_across_the_180th_meridian_gets_its_labels(tmp_path):
    # Fiji: eastings grow across the meridian in UTM 60 S.
    transform = Affine.translation(800_000, 8_100_000) @ Affine.scale(500, -500)
    box = GeoBox(crs=CRS.from_epsg(32760), transform=transform, width=301, height=99)
    west, east = shapely.box(178.5, -18, 180, -17), shapely.box(-180, -18, -179.5, -17)
    path = tmp_path / "fiji.gpkg"
    frame([west, east], ["a", "b"], crs=4326).to_file(path)
    class_indices = whole(open_labels(path, box))
    assert set(np.unique(class_indices)) == {IGNORE, 0, 1}
    a, b = np.nonzero(class_indices == 0)[1], np.nonzero(class_indices == 1)[1]
    assert a.max() <= b.min() + 2


def test_a_picture_without_georeference_takes_pixel_coordinates_either_way_up(tmp_path):
    box = GeoBox(crs=None, transform=Affine.identity(), width=61, height=43)
    cells = [shapely.box(5, 7, 25, 12), shapely.box(30, 20, 60, 41)]
    path, mirrored = tmp_path / "down.gpkg", tmp_path / "qgis.gpkg"
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        frame(cells, [1, 2], crs=None).to_file(path)
    # QGIS shows such a picture below y = 0.
    below = shapely.transform(cells, lambda points: points * (1, -1))
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        frame(below, [1, 2], crs=None).to_file(mirrored)
    expected = np.full((43, 61), IGNORE)
    expected[7:12, 5:25], expected[20:41, 30:60] = 0, 1
    assert_array_equal(whole(open_labels(path, box)), expected)
    assert_array_equal(whole(open_labels(mirrored, box)), expected)


def test_a_scene_without_crs_takes_coordinates_as_they_are_and_says_so(tmp_path, caplog):
    box = geobox(crs=None, angle=12)
    path = tmp_path / "labels.gpkg"
    frame(ground(box, [square(3, 4), square(50, 60)]), [1, 2]).to_file(path)
    assert (whole(open_labels(path, box)) >= 0).sum() == 200
    assert "labels.gpkg: the scene has no CRS" in caplog.text


def test_the_later_of_overlapping_polygons_counts_and_the_area_is_said(tmp_path, caplog):
    box = geobox(angle=90)
    path = tmp_path / "overlap.gpkg"
    cells = [square(0, 0), square(5, 0), square(5, 5), square(100, 100), square(102, 100)]
    frame(ground(box, cells), ["b", "a", "b", "a", "a"]).to_file(path)
    class_indices = whole(open_labels(path, box))
    expected = np.full((HEIGHT, WIDTH), IGNORE)
    expected[:10, :10] = 1
    expected[:10, 5:15] = 0
    expected[5:15, 5:15] = 1
    expected[100:110, 100:112] = 0
    assert_array_equal(class_indices, expected)
    # a on b: 5 x 10 and 10 x 5 px of 6.25 m2.
    assert "overlap on 100 pixels (625 m2)" in caplog.text


def test_polygons_that_share_an_edge_are_no_overlap(tmp_path, caplog):
    box = geobox(angle=17)
    path = tmp_path / "edge.gpkg"
    frame(ground(box, [square(0, 0), square(10, 0), square(10, 10)]), [1, 2, 1]).to_file(path)
    open_labels(path, box)
    assert not caplog.records


@pytest.mark.parametrize("unknown", [None, "", "  "])
def test_polygons_without_a_class_are_ignored_on_top_of_all_others(tmp_path, unknown):
    box = geobox()
    path = tmp_path / "unknown.gpkg"
    cells = [square(2, 2, 6), square(0, 0), square(40, 40)]
    frame(ground(box, cells), [unknown, "tin", "wood"]).to_file(path)
    labels = open_labels(path, box, options=LabelOptions(unlabelled="background"))
    class_indices = whole(labels)
    assert labels.legend.names == ("background", "tin", "wood")
    assert (class_indices == IGNORE).sum() == 36
    assert (class_indices[2:8, 2:8] == IGNORE).all()
    assert (class_indices == 1).sum() == 100 - 36
    assert (class_indices == 0).sum() == HEIGHT * WIDTH - 200


def test_ignored_classes_are_unknown_and_take_no_id(tmp_path):
    box = geobox()
    path = tmp_path / "roofs.gpkg"
    frame(ground(box, [square(0, 0), square(20, 0), square(40, 0)]), ["b", "a", "c"]).to_file(path)
    labels = open_labels(path, box, options=LabelOptions(ignore_classes=("a",)))
    assert {entry.class_id: entry.name for entry in labels.legend} == {1: "b", 2: "c"}
    assert (whole(labels)[:10, 20:30] == IGNORE).all()


def test_labels_survive_the_way_to_another_process(scattered):
    labels = open_labels(scattered[0], geobox(angle=5))
    copy = pickle.loads(pickle.dumps(labels))
    assert copy.legend == labels.legend
    assert_array_equal(whole(copy), whole(labels))


def test_classes_out_of_the_scene_keep_their_number_and_leave_the_legend(tmp_path, caplog):
    box = geobox()
    path = tmp_path / "two_scenes.gpkg"
    cells = [square(0, 0), square(-500, 0), square(40, 40)]
    frame(ground(box, cells), ["ash", "birch", "cedar"]).to_file(path)
    labels = open_labels(path, box)
    assert {entry.class_id: entry.name for entry in labels.legend} == {1: "ash", 3: "cedar"}
    said = f"{path}: no polygon of 'birch' lies in the scene, so the model will not know it."
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    open_labels(path, box, options=LabelOptions(ignore_classes=("birch",)))
    open_labels(path, box, legend=labels.legend)
    assert not caplog.text


def test_a_legend_that_is_given_rules_the_channels(tmp_path):
    box = geobox()
    legend = Legend.of_names({9: "wood", 4: "tin", 0: "background"})
    path = tmp_path / "further.gpkg"
    frame(ground(box, [square(0, 0)]), ["wood"]).to_file(path)
    labels = open_labels(
        path,
        box,
        legend=legend,
        options=LabelOptions(unlabelled="background", ignore_classes=("tin",)),
    )
    assert labels.legend == legend
    assert np.unique(whole(labels)).tolist() == [0, 2]


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_every_usual_format_gives_the_same_labels(tmp_path, suffix, scattered):
    path, table = scattered
    box = geobox(angle=-61, flip=1.0)
    other = tmp_path / f"labels{suffix}"
    table = table.to_crs(4326) if suffix == ".geojson" else table
    if suffix == ".parquet":
        table.to_parquet(other)
    else:
        # A FlatGeobuf with an index has its features in another order.
        table.to_file(other, **({"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}))
    # GeoJSON rounds to 1e-7 degrees, about 0.004 px here.
    differing = whole(open_labels(path, box)) != whole(open_labels(other, box))
    assert differing.sum() <= (20 if suffix == ".geojson" else 0)


def test_unsound_geometries_are_repaired_or_left_out_and_counted(tmp_path, caplog):
    box = geobox(crs=None)
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    spiked = shapely.Polygon([(60, 60), (70, 60), (70, 70), (90, 90), (70, 70), (60, 70)])
    texts = [g.wkt for g in ground(box, [bow_tie, spiked])]
    centre = box.transform @ (105, 105)
    texts += [
        f"CURVEPOLYGON(CIRCULARSTRING({centre[0] - 25} {centre[1]},{centre[0] + 25} {centre[1]},"
        f"{centre[0] - 25} {centre[1]}))",
        f"POLYGON Z (({', '.join(f'{x} {y} 7' for x, y in ground(box, [square(120, 0)])[0].exterior.coords)}))",
        "POLYGON ((0 0, 1 1))",
        "POLYGON EMPTY",
        f"POINT ({centre[0]} {centre[1]})",
        f"LINESTRING ({centre[0]} {centre[1]}, 0 0)",
        f"GEOMETRYCOLLECTION ({ground(box, [square(140, 0)])[0].wkt}, POINT (0 0))",
        "POLYGON ((nan nan, 1 1, 1 2, nan nan))",
    ]
    path = tmp_path / "unsound.csv"
    rows = [f'"{text}",{"ab"[index % 2]}' for index, text in enumerate(texts)]
    path.write_text("\n".join(["WKT,label", *rows]) + "\n")
    labels = open_labels(path, box)
    class_indices = whole(labels)
    assert "unsound.csv: repaired 2 self-crossing polygons" in caplog.text
    assert "unsound.csv: left out 3 features without a geometry" in caplog.text
    assert "unsound.csv: left out 2 features that are not polygons" in caplog.text
    assert (class_indices[:10, :10] >= 0).sum() == pytest.approx(50, abs=10)
    assert (class_indices[60:70, 60:70] == 1).all()
    assert (class_indices[95:115, 95:115] == 0).sum() == pytest.approx(math.pi * 100, abs=12)
    assert (class_indices[:10, 120:130] == 1).all()
    assert (class_indices[:10, 140:150] == 0).all()


def test_ten_thousand_polygons_that_touch_fill_the_ground(tmp_path):
    box = geobox(width=2003, height=2001)
    corners = [(20 * col, 20 * row) for col in range(100) for row in range(100)]
    path = tmp_path / "many.gpkg"
    frame(ground(box, [square(*corner, 20) for corner in corners]), ["a", "b"] * 5000).to_file(path)
    counts = open_labels(path, box).class_blocks(512)
    assert counts.sum() == 2000 * 2000


def two_scenes():
    """Neighbours that share no pixel."""
    first = geobox(angle=30)
    transform = first.transform @ Affine.translation(WIDTH + 20, 0)
    return [first, GeoBox(crs=UTM, transform=transform, width=99, height=71)]


def test_scenes_of_one_file_share_the_legend_of_all_of_them(tmp_path):
    boxes = two_scenes()
    cells = [square(0, 0), square(20, 0), square(WIDTH + 25, 5), square(-900, 0)]
    path = tmp_path / "all.gpkg"
    frame(ground(boxes[0], cells), ["oak", "tin", "ash", "far"]).to_file(path)
    first, second = open_label_set([path, path], boxes)
    assert first.legend == second.legend
    assert {entry.class_id: entry.name for entry in first.legend} == {1: "ash", 3: "oak", 4: "tin"}
    assert np.unique(whole(first)).tolist() == [IGNORE, 1, 2]
    assert np.unique(whole(second)).tolist() == [IGNORE, 0]


def test_files_that_number_names_differently_are_numbered_together(tmp_path):
    boxes = two_scenes()
    paths = [tmp_path / "first.gpkg", tmp_path / "second.gpkg"]
    frame(ground(boxes[0], [square(0, 0), square(20, 0)]), ["oak", "tin"]).to_file(paths[0])
    frame(ground(boxes[1], [square(0, 0), square(20, 0)]), ["ash", "brick"]).to_file(paths[1])
    first, second = open_label_set(
        paths, boxes, options=LabelOptions(ignore_classes=("brick",), unlabelled="background")
    )
    assert first.legend.names == second.legend.names == ("background", "ash", "oak", "tin")
    assert np.unique(whole(first)).tolist() == [0, 2, 3]
    assert np.unique(whole(second)).tolist() == [IGNORE, 0, 1]


def test_files_that_name_a_number_differently_are_refused(tmp_path):
    boxes = two_scenes()
    paths = [tmp_path / "first.gpkg", tmp_path / "second.gpkg"]
    for path, box, names in zip(paths, boxes, (["oak", "ash"], ["elm", "ash"]), strict=True):
        table = frame(ground(box, [square(0, 0), square(20, 0)]), [1, 2], field="class_id")
        table.assign(class_name=names).to_file(path)
    with pytest.raises(LabelError, match=r"second\.gpkg: class 1 is called 'elm', and 'oak'"):
        open_label_set(paths, boxes)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_labels_with_a_crs_do_not_fit_a_scene_placed_by_control_points_only(tmp_path, caplog):
    control = GroundControl(points=((0, 0, 85.0, 27.0, 0), (HEIGHT, WIDTH, 86.0, 28.0, 0)), crs=UTM)
    scene = GeoBox(
        crs=None, transform=Affine.identity(), width=WIDTH, height=HEIGHT, control=control
    )
    # In degrees, these would lie inside the scene if they were taken for columns and rows.
    shapes, names = [square(85, 27, side=1), square(40, 30)], ["tin", "grass"]
    frame(shapes, names, crs=4326).to_file(tmp_path / "labels.gpkg")
    with pytest.raises(LabelError, match=r"labels\.gpkg: has a CRS, .* gdalwarp -tps IN"):
        open_labels(tmp_path / "labels.gpkg", scene)
    assert not caplog.text
    frame(shapes, names, crs=None).to_file(tmp_path / "pixels.gpkg")
    found = whole(open_labels(tmp_path / "pixels.gpkg", scene))
    assert (found[30:40, 40:50] != IGNORE).all()
    assert (found != IGNORE).sum() == 101
