"""One file a class: NAME=FILE or a folder; what may stand in a name; where labelling is complete."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings, strategies as st
from label_files import BOX, HEIGHT, UTM, WIDTH, square, write
from numpy.testing import assert_array_equal
from rasterio.features import rasterize

from geodinoseg.errors import LabelError
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_label_set, open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import ClassFiles, label_files
from geodinoseg.windows import Window, windows_over


def whole(labels):
    return labels.read(Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT))


@pytest.fixture
def two(tmp_path):
    """Tin in degrees as a shapefile, concrete in metres; they overlap on 5 x 10 px."""
    tin = write(tmp_path / "tin.shp", [square(5, 5), square(40, 40)], crs=4326)
    concrete = write(tmp_path / "concrete.gpkg", [square(10, 5), square(70, 20)])
    return concrete, tin


def expected_of(first, second):
    """Channels of class files in their order."""
    cells = {
        "tin": [square(5, 5), square(40, 40)],
        "concrete": [square(10, 5), square(70, 20)],
    }
    class_index = {"concrete": 0, "tin": 1}
    shapes = [(cell, class_index[name]) for name in (first, second) for cell in cells[name]]
    return rasterize(shapes, out=np.full((HEIGHT, WIDTH), IGNORE, np.int16))


def test_files_of_one_class_each_are_put_together_and_the_later_counts(two, caplog):
    concrete, tin = two
    labels = open_labels([f"tin={tin}", f"concrete={concrete}"], BOX)
    assert {entry.class_id: entry.name for entry in labels.legend} == {1: "concrete", 2: "tin"}
    assert_array_equal(whole(labels), expected_of("tin", "concrete"))
    assert "overlap on 50 pixels (200 m2) of the scene, 14% of the labelled area" in caplog.text
    assert "of 'concrete' and 'tin'" in caplog.text
    other = open_labels([f"concrete={concrete}", f"tin={tin}"], BOX)
    assert_array_equal(whole(other), expected_of("concrete", "tin"))


def test_a_folder_of_vector_files_has_its_classes_in_their_names(two):
    folder = two[0].parent
    (folder / "notes.txt").write_text("not a layer")
    assert_array_equal(whole(open_labels(folder, BOX)), expected_of("concrete", "tin"))


def test_numbers_as_names_are_class_ids_and_a_class_may_have_several_files(two, tmp_path):
    more = write(tmp_path / "more.gpkg", [square(100, 60)])
    labels = open_labels(
        [f"7={two[0]}", f"3={two[1]}", f"7={more}"],
        BOX,
        options=LabelOptions(ignore_classes=("3",), unlabelled="background"),
    )
    assert {entry.class_id: entry.name for entry in labels.legend} == {
        0: "background",
        7: "class 7",
    }
    class_indices = whole(labels)
    assert (class_indices[60:70, 100:110] == 1).all()
    assert (class_indices[40:50, 40:50] == IGNORE).all()


def test_class_files_serve_several_scenes_by_place(two, tmp_path):
    beside = BOX.crop(Window(col_off=60, row_off=0, width=WIDTH - 60, height=HEIGHT))
    files = label_files([f"tin={two[1]}", f"concrete={two[0]}"])
    left, right = open_label_set(files * 2, [BOX, beside])
    assert left.legend == right.legend
    window = Window(col_off=0, row_off=0, width=beside.width, height=HEIGHT)
    assert_array_equal(right.read(window), whole(left)[:, 60:])


@pytest.mark.parametrize("name", ["a=b.gpkg", "class=tin.gpkg"])
def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path, name):
    path = write(tmp_path / name, [square(5, 5), square(30, 5)], label=["a", "b"])
    assert label_files([str(path)]) == [str(path)]
    assert open_labels(path, BOX).legend.names == ("a", "b")


def test_a_relative_file_with_an_equals_sign_is_a_file_and_a_layer_is_no_class(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write("tin=roofs.gpkg", [square(5, 5)], label=["a"])
    assert label_files(["tin=roofs.gpkg"]) == ["tin=roofs.gpkg"]
    layer = "tin=roofs.gpkg|layername=tin=roofs"
    assert label_files([layer]) == [layer]
    (files,) = label_files([f"tin={layer}"])
    assert isinstance(files, ClassFiles)
    assert files.files == (("tin", layer),)


@pytest.mark.parametrize(
    "text", ["https://example.org/wfs?service=WFS&layer=a", "/vsicurl/https://example.org/a?b=c"]
)
def test_urls_are_files(text):
    assert label_files([text]) == [text]
    (files,) = label_files([f"tin={text}"])
    assert files.files == (("tin", text),)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["tin=absent.gpkg"], "absent.gpkg: no such file"),
        (["=absent.gpkg"], "give NAME=FILE"),
        (["tin="], "give NAME=FILE"),
        (["C:\\maps\\a=b.gpkg"], "no such file"),
        (["there.gpkg", "tin=there.gpkg"], "holds the class 'tin' alone"),
        (["empty"], "empty: holds no vector file"),
        (["tin=blank.gpkg"], "the file is empty"),
        (["tin=points.gpkg", "wood=there.gpkg"], "holds Points and no polygon"),
        (["tin=there.gpkg"], "has one class only, 'tin'"),
        (["tin=far.gpkg", "wood=far.gpkg"], "far.gpkg: lies outside the scene"),
    ],
)
def test_class_files_that_cannot_serve_are_refused_in_one_line(tmp_path, monkeypatch, given, fault):
    monkeypatch.chdir(tmp_path)
    write("there.gpkg", [square(5, 5)])
    write("far.gpkg", [square(900, 900)])
    Path("empty").mkdir()
    Path("blank.gpkg").touch()
    geopandas.GeoDataFrame(geometry=[shapely.Point(350_000, 3_056_000)], crs=UTM).to_file(
        "points.gpkg"
    )
    with pytest.raises(LabelError, match=r".") as caught:
        open_labels(given, BOX)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def scattered(rng, count):
    corners = rng.uniform((-20, -20), (WIDTH, HEIGHT), (count, 2))
    return [square(*corner, rng.uniform(3, 30)) for corner in corners]


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), rows=st.integers(9, 90), cols=st.integers(9, 140))
def test_inside_the_extent_the_rest_is_background_and_outside_unknown(
    tmp_path_factory, seed, rows, cols
):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("extent")
    cells = [*scattered(rng, 5), square(30, 30)]
    names = ["a", "b", None, "background", "b", "a"]
    areas = [*scattered(rng, 2), square(50, 20, 25)]
    labels = open_labels(
        write(folder / "labels.gpkg", cells, label=names),
        BOX,
        options=LabelOptions(extent=write(folder / "extent.geojson", areas, crs=4326)),
    )
    inside = rasterize(areas, out_shape=(HEIGHT, WIDTH)) == 1
    class_index = {name: labels.legend.names.index(name) for name in labels.legend.names} | {
        None: 99
    }
    order = [i for i in range(6) if names[i]] + [i for i in range(6) if not names[i]]
    # 98 is what nobody says anything of, 99 what is to be ignored.
    shapes = [(cells[i], class_index[names[i]]) for i in order if names[i] in class_index]
    expected = rasterize(shapes, out=np.full((HEIGHT, WIDTH), 98, np.int16))
    expected[(expected == 98) & inside] = class_index["background"]
    expected[expected >= 98] = IGNORE
    found = np.full((HEIGHT, WIDTH), 77)
    for window in windows_over(height=HEIGHT, width=WIDTH, rows=rows, cols=cols):
        found[window.slices] = labels.read(window)
    # GeoJSON rounds to 1e-7 degrees.
    assert (found != expected).sum() <= 4
    counts = labels.class_blocks(rows).sum(axis=(0, 1))
    assert_array_equal(counts, np.bincount(found[found >= 0], minlength=len(labels.legend)))


def test_an_extent_serves_a_label_raster_and_need_not_reach_every_scene(tmp_path):
    import rasterio

    raster = tmp_path / "labels.tif"
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5:15, 5:15] = 4
    with rasterio.open(
        raster,
        "w",
        driver="GTiff",
        width=WIDTH,
        height=HEIGHT,
        count=1,
        dtype="uint8",
        nodata=0,
        crs=UTM,
        transform=BOX.transform,
    ) as dataset:
        dataset.write(values, 1)
    extent = write(tmp_path / "extent.gpkg", [shapely.box(0, 0, 30, 40)])
    right = BOX.crop(Window(col_off=50, row_off=0, width=WIDTH - 50, height=HEIGHT))
    left, other = open_label_set(
        [raster, raster], [BOX, right], options=LabelOptions(extent=extent)
    )
    assert left.legend.names == ("background", "class 4")
    expected = np.full((HEIGHT, WIDTH), IGNORE)
    expected[:40, :30] = 0
    expected[5:15, 5:15] = 1
    assert_array_equal(whole(left), expected)
    assert (other.read(Window(col_off=0, row_off=0, width=81, height=HEIGHT)) == IGNORE).all()


@pytest.mark.parametrize(
    ("cells", "fault"),
    [([square(700, 900)], "extent.gpkg: lies outside the scene"), (None, "no such file")],
)
def test_an_extent_that_cannot_serve_is_refused(tmp_path, cells, fault):
    labels = write(tmp_path / "labels.gpkg", [square(5, 5), square(30, 5)], label=["a", "b"])
    extent = tmp_path / "extent.gpkg"
    if cells:
        write(extent, cells)
    with pytest.raises(LabelError, match=fault):
        open_labels(labels, BOX, options=LabelOptions(extent=extent))
