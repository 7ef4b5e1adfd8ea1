"""A label raster on any grid gives the class under each pixel's centre, the same in every window."""

import json

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels import raster_source as label_raster
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.legend import Legend
from geodinoseg.windows import Window, windows_over

UTM = CRS.from_epsg(32645)
NODATA = 200
ORIGIN = Affine.translation(350_000, 3_056_000)
SCENE = GeoBox(
    crs=UTM,
    transform=ORIGIN @ Affine.rotation(20) @ Affine.scale(2.03, -1.97),
    width=173,
    height=119,
)


def geobox(transform, shape, crs=UTM):
    return GeoBox(crs=crs, transform=transform, width=shape[1], height=shape[0])


def written(path, values, box, *, nodata=NODATA):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=box.width,
        height=box.height,
        count=1,
        dtype=values.dtype,
        nodata=nodata,
        crs=box.crs,
        transform=box.transform,
    ) as dataset:
        dataset.write(values, 1)
    return path


def patches(rng, shape, values=(3, 7, 8, NODATA)):
    """Classes in patches of 4 x 5 px, nodata among them."""
    small = rng.choice(np.array(values), (shape[0] // 4 + 1, shape[1] // 5 + 1))
    return np.kron(small, np.ones((4, 5), small.dtype))[: shape[0], : shape[1]].astype(np.uint8)


def whole(labels):
    box = labels.geobox
    return labels.read(Window(col_off=0, row_off=0, width=box.width, height=box.height))


def class_indices_of(values):
    """Class indices of the raster values 3, 7, 8."""
    return np.select([values == 3, values == 7, values == 8], [0, 1, 2], IGNORE)


def test_a_raster_on_the_scenes_grid_is_taken_as_it_is(tmp_path):
    values = patches(np.random.default_rng(1), (119, 173))
    labels = open_labels(written(tmp_path / "same.tif", values, SCENE), SCENE)
    assert labels.legend.names == ("class 3", "class 7", "class 8")
    assert_array_equal(whole(labels), class_indices_of(values))


@settings(deadline=None, max_examples=30)
@given(
    angle=st.floats(-180, 180),
    pixel_m=st.floats(0.7, 9),
    flip=st.sampled_from([-1, 1]),
    shift=st.floats(-90, 90),
)
def test_another_grid_of_the_same_crs_equals_gdals_nearest_warp(
    tmp_path_factory, angle, pixel_m, flip, shift
):
    path = tmp_path_factory.mktemp("labels") / "other.tif"
    values = patches(np.random.default_rng(2), (83, 131))
    transform = (
        SCENE.transform
        @ Affine.translation(80 + shift, 60 - shift / 2)
        @ Affine.rotation(angle)
        @ Affine.scale(pixel_m, flip * pixel_m)
        @ Affine.translation(-131 / 2, -83 / 2)
    )
    written(path, values, geobox(transform, values.shape))
    expected = np.full((119, 173), NODATA, np.uint8)
    with rasterio.open(path) as dataset:
        reproject(
            rasterio.band(dataset, 1),
            expected,
            dst_transform=SCENE.transform,
            dst_crs=UTM,
            dst_nodata=NODATA,
            resampling=Resampling.nearest,
        )
    found = whole(open_labels(path, SCENE))
    # A centre on an edge between two pixels may fall to either.
    cols, rows = np.meshgrid(np.arange(173) + 0.5, np.arange(119) + 0.5)
    positions = np.stack(~transform @ SCENE.transform @ (cols, rows))
    on_edge = (np.abs(positions - np.round(positions)) < 1e-3).any(axis=0)
    assert_array_equal(found[~on_edge], class_indices_of(expected)[~on_edge])


@pytest.mark.parametrize("angle", [0, 33])
def test_another_crs_gives_the_class_under_each_centre(tmp_path, angle):
    rng = np.random.default_rng(3)
    values = rng.choice(np.array([3, 7, 8, NODATA], np.uint8), (301, 407))
    to_degrees = pyproj.Transformer.from_crs(32645, 4326, always_xy=True)
    lon, lat = to_degrees.transform(*(SCENE.transform @ (90, 50)))
    transform = (
        Affine.translation(lon, lat)
        @ Affine.rotation(angle)
        @ Affine.scale(1.1e-5, -1e-5)
        @ Affine.translation(-200, -160)
    )
    path = written(tmp_path / "degrees.tif", values, geobox(transform, values.shape, "EPSG:4326"))
    cols, rows = np.meshgrid(np.arange(173) + 0.5, np.arange(119) + 0.5)
    cols, rows = ~transform @ to_degrees.transform(*(SCENE.transform @ (cols, rows)))
    cols, rows = np.floor(cols).astype(int), np.floor(rows).astype(int)
    inside = (cols >= 0) & (cols < 407) & (rows >= 0) & (rows < 301)
    expected = np.full(cols.shape, IGNORE)
    expected[inside] = class_indices_of(values[rows[inside], cols[inside]])
    found = whole(open_labels(path, SCENE))
    assert inside.mean() > 0.5
    assert not inside.all()
    assert_array_equal(found, expected)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(17, 119), cols=st.integers(17, 173))
def test_windows_put_together_are_the_whole(tmp_path_factory, rows, cols):
    path = tmp_path_factory.mktemp("labels") / "degrees.tif"
    values = np.random.default_rng(4).choice(np.array([3, 7, 8], np.uint8), (151, 207))
    transform = Affine(2.2e-5, 1e-6, 85.4825, -1e-6, -2e-5, 27.6235)
    written(path, values, geobox(transform, values.shape, "EPSG:4326"))
    labels = open_labels(path, SCENE)
    expected = whole(labels)
    assert (expected >= 0).any()
    found = np.full((119, 173), 99)
    for window in windows_over(height=119, width=173, rows=rows, cols=cols):
        found[window.slices] = labels.read(window)
    assert_array_equal(found, expected)


def test_blocks_count_the_labels_and_skip_what_lies_beside(tmp_path):
    values = patches(np.random.default_rng(5), (40, 30))
    box = geobox(SCENE.transform @ Affine.translation(70, 50), values.shape)
    labels = open_labels(
        written(tmp_path / "small.tif", values, box),
        SCENE,
        options=LabelOptions(unlabelled="background"),
    )
    counts = labels.class_blocks(32)
    class_indices = whole(labels)
    assert labels.legend.names[0] == "background"
    assert_array_equal(counts.sum(axis=(0, 1)), np.bincount(class_indices.ravel(), minlength=4))
    assert (class_indices == 0).sum() == 119 * 173 - 1200 + (values == NODATA).sum()
    assert not labels.source.reaches(Window(col_off=0, row_off=0, width=32, height=32))


def test_labels_much_finer_than_the_scene_are_read_in_pieces(tmp_path, monkeypatch):
    values = patches(np.random.default_rng(6), (1190, 1730), (3, 7, 8))
    fine = SCENE.transform @ Affine.scale(0.1)
    path = written(tmp_path / "fine.tif", values, geobox(fine, values.shape))
    labels = open_labels(path, SCENE)
    expected = whole(labels)
    monkeypatch.setattr(label_raster, "_MOST_PIXELS_AT_ONCE", 5_000)
    assert_array_equal(whole(labels), expected)
    # The centre of a pixel lies on a corner of the fine grid: the lower right one counts.
    assert_array_equal(expected, class_indices_of(values[5::10, 5::10]))


def test_classes_are_ignored_and_fitted_as_those_of_polygons_are(tmp_path):
    values = patches(np.random.default_rng(7), (119, 173))
    path = written(tmp_path / "labels.tif", values, SCENE)
    ignored = open_labels(path, SCENE, options=LabelOptions(ignore_classes=("7",)))
    assert ignored.legend.names == ("class 3", "class 8")
    assert (whole(ignored) == IGNORE).sum() == np.isin(values, [7, NODATA]).sum()
    legend = Legend.of_names({8: "wood", 7: "tin", 3: "grass", 1: "water"})
    fitted = whole(open_labels(path, SCENE, legend=legend))
    assert_array_equal(
        fitted, np.where(class_indices_of(values) < 0, IGNORE, class_indices_of(values) + 1)
    )
    with pytest.raises(
        LabelError, match=r"labels\.tif: class 8 \(class 8\) is not a class of the map"
    ):
        open_labels(path, SCENE, legend=Legend.of_names({3: "grass", 7: "tin"}))


def test_neither_scene_nor_labels_need_a_crs(tmp_path):
    values = patches(np.random.default_rng(8), (119, 173))
    box = geobox(SCENE.transform, values.shape, crs=None)
    path = written(tmp_path / "bare.tif", values, box)
    assert_array_equal(whole(open_labels(path, box)), class_indices_of(values))
    with pytest.raises(LabelError, match=r"bare\.tif: has no CRS.*gdal_edit"):
        open_labels(path, SCENE)


@pytest.mark.parametrize("nodata", [np.nan, -9999.0])
def test_whole_numbers_stored_as_floats_are_classes(tmp_path, nodata):
    values = patches(np.random.default_rng(11), (119, 173), (0, 3, 8, NODATA))
    floats = np.where(values == NODATA, nodata, values).astype(np.float32)
    path = written(tmp_path / "floats.tif", floats, SCENE, nodata=nodata)
    expected = np.select([values == 0, values == 3, values == 8], [0, 1, 2], IGNORE)
    assert_array_equal(whole(open_labels(path, SCENE)), expected)


def test_names_that_nothing_gives_are_missed_where_a_model_would_learn_them(tmp_path, caplog):
    values = patches(np.random.default_rng(13), (119, 173), (3, 7))
    path = written(tmp_path / "labels.tif", values, SCENE)
    open_labels(path, SCENE, legend=Legend.of_names({3: "a", 7: "b"}))
    (tmp_path / "l.csv").write_text("id,name\n3,a\n7,b\n")
    open_labels(path, SCENE, options=LabelOptions(legend_file=tmp_path / "l.csv"))
    assert not caplog.records
    open_labels(path, SCENE)
    assert "labels.tif: no class names were found" in caplog.text


def test_a_number_that_the_rasters_legend_lacks_is_an_error(tmp_path):
    values = patches(np.random.default_rng(12), (119, 173))
    path = written(tmp_path / "labels.tif", values, SCENE)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(
            GEODINOSEG_LEGEND=json.dumps(Legend.of_names({3: "a", 7: "b"}).to_json())
        )
    with pytest.raises(LabelError, match=r"pixels of value 8, which is not a class of its legend"):
        whole(open_labels(path, SCENE))


def test_label_rasters_that_cannot_serve_are_refused(tmp_path):
    values = patches(np.random.default_rng(9), (119, 173))
    far = geobox(SCENE.transform @ Affine.translation(900, 0), values.shape)
    path = written(tmp_path / "far.tif", values, far)
    with pytest.raises(LabelError, match=r"far\.tif: lies outside the scene; the labels cover x"):
        open_labels(path, SCENE)
    one = written(tmp_path / "one.tif", np.full_like(values, 3), SCENE)
    with pytest.raises(LabelError, match=r"one\.tif: has one class only, 'class 3'"):
        open_labels(one, SCENE)
    nothing = written(tmp_path / "nothing.tif", np.full_like(values, NODATA), SCENE)
    with pytest.raises(LabelError, match=r"nothing\.tif: holds no class"):
        open_labels(nothing, SCENE)
    with pytest.raises(LabelError, match=r"real\.tif: rows .* but class ids are integers"):
        open_labels(written(tmp_path / "real.tif", values + np.float32(0.5), SCENE), SCENE)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(one.read_bytes()[:60])
    with pytest.raises(LabelError, match=r"cut\.tif: cannot be read"):
        open_labels(cut, SCENE)
