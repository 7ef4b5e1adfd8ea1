"""A picture shows the scene and its map at the same place, in the legend's colours."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling

from geodinoseg.cli.picture import picture
from geodinoseg.errors import OutputError, OutputExistsError, SceneError
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.plots.layout import MapPage
from geodinoseg.plots.map_figure import plot_map
from geodinoseg.plots.preview import (
    class_colors,
    decimated,
    scene_colors,
)
from geodinoseg.plots.small_map import read_small_map
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.training.curves import training_curves
from geodinoseg.windows import Window

UTM = CRS.from_epsg(32645)
NORTH_UP = Affine(0.5, 0, 330_000, 0, -0.5, 3_060_000)
ROTATED = Affine.translation(330_000, 3_060_000) @ Affine.rotation(17) @ Affine.scale(0.5, -0.5)
LEGEND = Legend.of_names({0: "background", 3: "Straße & Gleis <1>", 7: "$a$ 水田"})


def write_scene(path, pixels, *, crs=UTM, transform=NORTH_UP, **profile):
    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as dataset:
        dataset.write(pixels)
    return path


def write_map(path, class_ids, *, crs=UTM, transform=NORTH_UP, legend=LEGEND):
    height, width = class_ids.shape
    geobox = GeoBox(crs=crs, transform=transform, width=width, height=height)
    window = Window(col_off=0, row_off=0, width=width, height=height)
    with class_raster_writer(path, geobox, legend) as writer:
        writer.write(ClassRows(window=window, class_ids=class_ids))
    return open_class_raster(path)


def classes_of(height, width):
    class_ids = np.zeros((height, width), dtype=np.uint8)
    class_ids[:, width // 2 :] = 3
    class_ids[height // 2 :, : width // 3] = 7
    class_ids[: height // 4, : width // 4] = 255
    return class_ids


def see(scene, raster, *, bands=None):
    return scene_colors(scene, raster, decimated(raster.geobox, longest_px=1000), bands=bands)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((1, 1), "projected"),
        ((3, 700), "rotated"),
        ((700, 3), "nowhere"),
        ((301, 467), "geographic"),
        ((1500, 700), "rotated"),
    ],
)
def test_a_picture_holds_the_colours_of_the_scene_and_of_every_class(tmp_path, size, place):
    crs, transform = {
        "projected": (UTM, NORTH_UP),
        "rotated": (UTM, ROTATED),
        "geographic": (CRS.from_epsg(4326), Affine(1e-5, 0, 85.5, 0, -1e-5, 60)),
        "nowhere": (None, Affine.translation(5, 5)),
    }[place]
    class_ids = classes_of(*size)
    scene = np.full((3, *size), 77, dtype=np.uint8)
    write_scene(tmp_path / "scene.tif", scene, crs=crs, transform=transform)
    raster = write_map(tmp_path / "map.tif", class_ids, crs=crs, transform=transform)

    path = plot_map(
        tmp_path / "scene.tif", raster, tmp_path / "p.png", caption="Imagery: A. Nobody, CC BY 4.0"
    )

    drawn = set(np.unique(pixels_of(path) @ [65_536, 256, 1]).tolist())
    assert int("4d4d4d", 16) in drawn
    shown = [entry for entry in LEGEND if (class_ids == entry.class_id).any()]
    assert {int(entry.color[1:], 16) for entry in shown} <= drawn


def pixels_of(path):
    return (imread(path)[..., :3] * 255).round().astype(np.uint8)


def test_scene_and_map_stand_side_by_side_the_same_way_up(tmp_path):
    """The class lies where the scene is bright: the two panels are each other's shift."""
    bright = np.zeros((90, 140), dtype=bool)
    bright[10:30, 20:60] = True
    scene = np.where(bright, np.array([200, 10, 20])[:, None, None], 30).astype(np.uint8)
    write_scene(tmp_path / "scene.tif", scene, transform=ROTATED)
    class_ids = np.where(bright, 7, 0).astype(np.uint8)
    raster = write_map(tmp_path / "map.tif", class_ids, transform=ROTATED)
    pixels = pixels_of(plot_map(tmp_path / "scene.tif", raster, tmp_path / "p.png"))

    # The swatches of the legend lie right of both panels.
    panels = pixels[:, : pixels.shape[1] * 3 // 4]
    left = np.argwhere((panels == (200, 10, 20)).all(axis=-1))
    right = np.argwhere((panels == LEGEND.by_id()[7].rgb).all(axis=-1))
    size = left.max(axis=0) - left.min(axis=0)
    assert_allclose(right.max(axis=0) - right.min(axis=0), size, atol=2)
    assert right[:, 0].min() == pytest.approx(left[:, 0].min(), abs=1)
    assert right[:, 1].min() > left[:, 1].max()
    assert size[1] / size[0] == pytest.approx(40 / 20, rel=0.02)


@pytest.mark.parametrize(("epsg", "latitude"), [(4326, 60), (4807, 60 / 0.9)])
def test_a_degree_of_longitude_is_drawn_as_short_as_it_is(tmp_path, epsg, latitude):
    """At 60 degrees north a pixel of equal degrees, or grads, is half as wide as it is high."""
    transform = Affine(1e-4, 0, 25, 0, -1e-4, latitude)
    geobox = GeoBox(crs=CRS.from_epsg(epsg), transform=transform, width=200, height=100)
    page = MapPage(geobox, classes=1, caption=None)
    page.add_panel(0, "Map", np.full((100, 200, 3), (255, 0, 0), dtype=np.uint8))
    page.save(tmp_path / "p.png")
    drawn = np.argwhere((pixels_of(tmp_path / "p.png") == (255, 0, 0)).all(axis=-1))
    height, width = drawn.max(axis=0) - drawn.min(axis=0)
    assert width / height == pytest.approx(1.0, rel=0.02)


@settings(deadline=None)
@given(
    class_ids=hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 3, 7, 12, 255]),
    ),
)
def test_each_pixel_has_its_class_colour_and_others_are_clear(class_ids):
    colors = class_colors(class_ids, LEGEND, nodata=255)
    expected = {entry.class_id: (*entry.rgb, 255) for entry in LEGEND}
    for index, class_id in np.ndenumerate(class_ids):
        assert tuple(colors[index]) == expected.get(int(class_id), (0, 0, 0, 0))


def test_shares_are_those_of_the_mapped_pixels(tmp_path):
    class_ids = classes_of(91, 134)
    raster = write_map(tmp_path / "map.tif", class_ids)
    small = decimated(raster.geobox, longest_px=1000)
    shown = read_small_map(raster, small)
    assert_array_equal(shown.class_ids, class_ids)
    fractions = shown.fractions
    mapped = (class_ids != 255).sum()
    assert fractions == pytest.approx({i: (class_ids == i).sum() / mapped for i in (0, 3, 7)})


def test_shares_of_a_map_without_a_class_are_nought(tmp_path):
    class_ids = np.full((5, 9), 255, dtype=np.uint8)
    raster = write_map(tmp_path / "map.tif", class_ids)
    fractions = read_small_map(raster, raster.geobox).fractions
    assert fractions == {0: 0.0, 3: 0.0, 7: 0.0}
    write_scene(tmp_path / "scene.tif", np.zeros((1, 5, 9), dtype=np.uint8))
    plot_map(tmp_path / "scene.tif", raster, tmp_path / "p.png")


@pytest.mark.parametrize("overviews", [None, "nearest", "average", "mode", "of another raster"])
def test_overviews_of_others_change_neither_shares_nor_colours(tmp_path, overviews):
    """Averages of classes 1 and 9 are 5, which is a class of its own."""
    rng = np.random.default_rng(0)
    class_ids = rng.choice([1, 9], (300, 310)).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    class_ids[rng.integers(0, 1500, 400), rng.integers(0, 1550, 400)] = 5
    path = write_scene(
        tmp_path / "map.tif", class_ids[None], tiled=True, blockxsize=256, blockysize=256
    )
    external = overviews == "of another raster"
    if external:
        write_scene(tmp_path / "other.tif", np.full_like(class_ids, 9)[None])
        path = tmp_path / "other.tif"
    if overviews:
        with (
            rasterio.Env(TIFF_USE_OVR=external),
            rasterio.open(path, "r+") as dataset,
        ):
            dataset.build_overviews([2, 4], Resampling["nearest" if external else overviews])
    if external:
        (tmp_path / "other.tif.ovr").rename(tmp_path / "map.tif.ovr")
    raster = open_class_raster(tmp_path / "map.tif")
    small = decimated(raster.geobox, longest_px=400)
    shown = read_small_map(raster, small)
    expected = {i: float((class_ids == i).mean()) for i in (1, 5, 9)}
    assert shown.fractions == pytest.approx(expected, rel=1e-12)
    rows, cols = (
        ((np.arange(n) + 0.5) * length / n).astype(int)
        for n, length in zip(shown.class_ids.shape, class_ids.shape, strict=True)
    )
    assert_array_equal(shown.class_ids, class_ids[np.ix_(rows, cols)])


@pytest.mark.parametrize("place", ["degrees", "metres"])
def test_shares_count_the_area_of_every_pixel_whatever_the_blocks(tmp_path, place):
    class_ids = np.full((911, 700), 255, dtype=np.uint8)
    class_ids[:300], class_ids[300:800, 20:] = 3, 7
    transform = Affine(0.1, 0, 10, 0, -0.09, 85)
    profile = {"crs": CRS.from_epsg(4326), "transform": transform} if place == "degrees" else {}
    path = write_scene(tmp_path / "map.tif", class_ids[None], nodata=255, **profile)
    raster = open_class_raster(path)
    areas = {
        i: float(((class_ids == i).sum(axis=1) * raster.geobox.row_areas_m2).sum()) for i in (3, 7)
    }
    total = sum(areas.values())
    shown = read_small_map(raster, decimated(raster.geobox, longest_px=50))
    assert shown.fractions == pytest.approx({i: areas[i] / total for i in areas}, rel=1e-9)


@settings(deadline=None)
@given(height=st.integers(1, 50_000), width=st.integers(1, 50_000), longest=st.integers(1, 2000))
def test_a_decimated_place_has_the_same_corners(height, width, longest):
    whole = GeoBox(crs=UTM, transform=ROTATED, width=width, height=height)
    small = decimated(whole, longest_px=longest)
    assert 1 <= max(small.width, small.height) <= max(longest, 1)
    assert_allclose(
        small.transform @ (small.width, small.height), whole.transform @ (width, height), rtol=1e-9
    )


def test_bytes_are_shown_as_they_are_and_nodata_is_white(tmp_path):
    pixels = np.random.default_rng(1).integers(1, 256, (3, 40, 61), dtype=np.uint8)
    pixels[:, :9, 50:] = 0
    write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    colors = see(tmp_path / "scene.tif", write_map(tmp_path / "map.tif", classes_of(40, 61)))
    expected = np.moveaxis(pixels, 0, -1).copy()
    expected[:9, 50:] = 255
    assert_array_equal(colors, expected)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_other_types_are_stretched_between_percentiles(tmp_path, dtype):
    values = np.arange(41 * 67).reshape(1, 41, 67).astype(dtype)
    values[0, 0, 0] = 30_000
    write_scene(tmp_path / "scene.tif", values)
    colors = see(tmp_path / "scene.tif", write_map(tmp_path / "map.tif", classes_of(41, 67)))
    low, high = np.percentile(values.astype(np.float64), (2, 98))
    expected = ((values[0].astype(np.float64) - low) / (high - low)).clip(0, 1) * 255
    assert_array_equal(colors, np.repeat(expected.round()[..., None], 3, axis=-1))


def test_what_is_not_a_number_is_white(tmp_path):
    values = np.ones((1, 20, 33), dtype=np.float32)
    values[0, 3:5, 7:] = np.nan
    write_scene(tmp_path / "scene.tif", values)
    colors = see(tmp_path / "scene.tif", write_map(tmp_path / "map.tif", classes_of(20, 33)))
    assert (colors[3:5, 7:] == 255).all()
    assert (colors[:3] == 0).all()


def test_bands_called_red_green_and_blue_are_taken_as_such(tmp_path):
    pixels = np.stack([np.full((20, 33), value, dtype=np.uint8) for value in (10, 20, 30, 40)])
    path = write_scene(tmp_path / "scene.tif", pixels)
    raster = write_map(tmp_path / "map.tif", classes_of(20, 33))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.blue,
            ColorInterp.green,
            ColorInterp.red,
            ColorInterp.undefined,
        ]
    assert tuple(see(path, raster)[0, 0]) == (30, 20, 10)
    assert tuple(see(path, raster, bands=(4, 1, 2))[0, 0]) == (40, 10, 20)
    assert tuple(see(path, raster, bands=(4,))[0, 0]) == (40, 40, 40)
    with pytest.raises(SceneError, match="2 bands cannot be drawn"):
        see(path, raster, bands=(1, 2))
    with pytest.raises(SceneError, match="band 5 was requested"):
        see(path, raster, bands=(5,))


@pytest.mark.parametrize("alpha", [False, True])
def test_a_scene_on_another_grid_is_shown_where_the_map_lies(tmp_path, alpha):
    """The map lies 30 px right of and 10 px below the scene's corner, and reaches past it."""
    pixels = np.random.default_rng(2).integers(0, 200, (3, 50, 80), dtype=np.uint8)
    interp = {"photometric": "RGB"}
    if alpha:
        pixels = np.concatenate([pixels, np.full((1, 50, 80), 255, dtype=np.uint8)])
        interp["alpha"] = "yes"
    write_scene(tmp_path / "scene.tif", pixels, **interp)
    shifted = NORTH_UP @ Affine.translation(30, 10)
    raster = write_map(tmp_path / "map.tif", classes_of(45, 60), transform=shifted)
    colors = see(tmp_path / "scene.tif", raster)
    assert_array_equal(colors[:40, :50], np.moveaxis(pixels[:3, 10:, 30:], 0, -1))
    assert (colors[40:] == 255).all()
    assert (colors[:, 50:] == 255).all()


def test_a_scene_that_cannot_be_placed_is_refused(tmp_path):
    write_scene(tmp_path / "scene.tif", np.zeros((1, 50, 80), dtype=np.uint8), crs=None)
    raster = write_map(tmp_path / "map.tif", classes_of(45, 60))
    with pytest.raises(SceneError, match=r"scene\.tif: has another grid than .*map\.tif"):
        see(tmp_path / "scene.tif", raster)


@pytest.mark.parametrize(
    "crs", ["IAU_2015:49910", 'LOCAL_CS["site grid",UNIT["metre",1]]'], ids=["mars", "site"]
)
def test_a_scene_of_an_unrelated_crs_is_refused_in_one_line(tmp_path, crs):
    pixels = np.zeros((1, 50, 80), dtype=np.uint8)
    write_scene(tmp_path / "scene.tif", pixels, crs=CRS.from_user_input(crs))
    raster = write_map(tmp_path / "map.tif", classes_of(45, 60))
    with pytest.raises(SceneError, match=r"scene\.tif: no transformation exists from") as caught:
        see(tmp_path / "scene.tif", raster)
    assert "\n" not in str(caught.value)


def test_a_scene_elsewhere_is_refused(tmp_path):
    write_scene(tmp_path / "scene.tif", np.zeros((1, 50, 80), dtype=np.uint8))
    elsewhere = NORTH_UP @ Affine.translation(80, 0)
    raster = write_map(tmp_path / "map.tif", classes_of(45, 60), transform=elsewhere)
    with pytest.raises(SceneError, match=r"scene\.tif: has no data in the area of .*map\.tif"):
        see(tmp_path / "scene.tif", raster)


def test_a_damaged_scene_is_one_line_and_leaves_no_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 200, 300), dtype=np.uint8)
    path = write_scene(tmp_path / "scene.tif", pixels, compress="deflate")
    path.write_bytes(path.read_bytes()[:-9000])
    raster = write_map(tmp_path / "map.tif", classes_of(200, 300))
    with pytest.raises(SceneError, match=r"scene\.tif: rows 0 to 199 cannot be read") as caught:
        plot_map(path, raster, tmp_path / "p.png")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "p.png").exists()


def test_a_picture_replaces_another_only_when_asked(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", np.zeros((1, 9, 12), dtype=np.uint8))
    write_map(tmp_path / "map.tif", classes_of(9, 12))
    (tmp_path / "p.png").write_text("old")
    with pytest.raises(OutputExistsError):
        plot_map(scene, tmp_path / "map.tif", tmp_path / "p.png")
    with pytest.raises(OutputError, match=r"must end in \.png"):
        plot_map(scene, tmp_path / "map.tif", tmp_path / "p.jpg")
    assert (tmp_path / "p.png").read_text() == "old"
    plot_map(scene, tmp_path / "map.tif", tmp_path / "p.png", overwrite=True)
    assert imread(tmp_path / "p.png").ndim == 3


def test_a_long_legend_sums_its_smallest_classes_up(tmp_path):
    legend = Legend.of_names({i: f"a class with a rather long name, number {i}" for i in range(60)})
    class_ids = np.minimum(np.arange(60 * 40).reshape(40, 60) // 7, 59).astype(np.uint8)
    raster = write_map(tmp_path / "map.tif", class_ids, legend=legend)
    scene = write_scene(tmp_path / "scene.tif", np.zeros((1, 40, 60), dtype=np.uint8))
    height = imread(plot_map(scene, raster, tmp_path / "p.png")).shape[0]
    assert height < 2000


HISTORY = [
    {"epoch": 1, "train_loss": 1.0, "val_loss": 1.1, "mean_iou": 0.2},
    {"epoch": 2, "train_loss": 0.7, "val_loss": 0.9, "mean_iou": 0.5},
    {"epoch": 3, "train_loss": 0.5, "val_loss": 0.95, "mean_iou": 0.4},
]


def test_training_curves_are_the_same_from_rows_and_from_their_csv(tmp_path):
    with (tmp_path / "history.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(HISTORY[0]))
        writer.writeheader()
        writer.writerows(HISTORY)
    first = training_curves(HISTORY, tmp_path / "a.png")
    second = training_curves(tmp_path / "history.csv", tmp_path / "b.png")
    assert_array_equal(imread(first), imread(second))


@pytest.mark.parametrize("rows", [[], HISTORY[:1], [{**HISTORY[0], "mean_iou": math.nan}]])
def test_training_curves_are_drawn_of_few_epochs_and_without_validation(tmp_path, rows):
    assert imread(training_curves(rows, tmp_path / "a.png")).std() > 0


def test_the_command_draws_and_says_what_it_wrote(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", np.zeros((1, 9, 12), dtype=np.uint8))
    write_map(tmp_path / "map.tif", classes_of(9, 12))
    arguments = [str(scene), str(tmp_path / "map.tif"), "-o", str(tmp_path / "p.png")]
    result = CliRunner().invoke(picture, [*arguments, "--caption", "Imagery: nobody"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{tmp_path / 'p.png'}: ")
    assert (tmp_path / "p.png").exists()
    result = CliRunner().invoke(picture, [*arguments, "--overwrite", "--json"])
    assert '"event": "done"' in result.output
    assert CliRunner().invoke(picture, [str(scene)]).exit_code == 2
    assert "\n  Example:\n" in CliRunner().invoke(picture, ["--help"]).output


def test_no_pyplot_and_no_torch_are_loaded():
    code = (
        "import sys, geodinoseg.plots.map_figure as p; "
        "sys.exit(bool({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
