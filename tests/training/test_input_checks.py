"""What of a training's scenes may be missing without a mark, and scenes that store other units."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import rasterio
from chips import write_chips
from numpy.testing import assert_allclose, assert_array_equal
from rasters import ROTATED, write_raster
from trainings import color_channels, color_pixels, no_pictures, quick

from geodinoseg.labels.options import LabelOptions
from geodinoseg.rasters.scene import open_scene
from geodinoseg.segmentation.missing_pixels import report_missing_pixels
from geodinoseg.training import input_checks
from geodinoseg.training.data import read_training_data
from geodinoseg.training.plan import read_inputs
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.train import train_model

HEIGHT, WIDTH = 170, 230
COLLAR = np.s_[:, :, :60]


@pytest.fixture
def channels():
    return color_channels(HEIGHT, WIDTH)


@pytest.fixture
def labels(tmp_path, channels):
    """Every pixel is labelled, those of the collar too."""
    return write_raster(tmp_path / "labels.tif", (channels + 1).astype(np.uint8)[None], nodata=0)


def read(scene, labels, *, bands=None, nodata=None, **changes):
    return read_inputs(
        scene,
        labels,
        bands=bands,
        nodata=nodata,
        options=LabelOptions(),
        settings=quick(**({"backbone_learning_rate": None} | changes)),
        network={},
    )


def lines(caplog):
    """What was warned of, apart from the names of classes and constant bands."""
    rooms = ("geodinoseg.segmentation", "geodinoseg.training")
    records = [r for r in caplog.records if r.name.startswith(rooms)]
    found = [r.getMessage() for r in records if r.levelno == logging.WARNING]
    caplog.clear()
    return [line for line in found if "which has one value" not in line]


@pytest.mark.parametrize("value", [0, 255])
def test_a_collar_that_nothing_marks_is_counted_and_named(
    value, tmp_path, channels, labels, caplog
):
    pixels = color_pixels(channels)
    pixels[COLLAR] = value
    scene = write_raster(tmp_path / "s.tif", pixels)
    bent = read(scene, labels)
    (line,) = lines(caplog)
    count = HEIGHT * 60
    assert line.startswith(f"{scene}: {count:,} labelled pixels ({100 * 60 / WIDTH:.0f}%: ")
    assert f"class 1 {count:,}" in line
    assert f"are {value} in every band" in line
    assert line.endswith(f"train again with --nodata {value}.")
    told = read(scene, labels, nodata=value)
    assert lines(caplog) == []
    assert told.splits[0].counts.sum() == HEIGHT * WIDTH - count
    assert min(told.statistics.low) > 1
    assert max(told.statistics.high) < 255
    assert value in (*bent.statistics.low, *bent.statistics.high)
    assert told.facts["nodata"] == value
    assert "nodata" not in bent.facts


def test_a_collar_beside_another_nodata_value_is_named_and_marked_ones_are_not(
    tmp_path, channels, labels, caplog
):
    pixels = color_pixels(channels)
    pixels[COLLAR] = 0
    marked = write_raster(tmp_path / "marked.tif", pixels, nodata=0)
    pixels[:, :9] = 255
    scene = write_raster(tmp_path / "s.tif", pixels, nodata=255)
    read([marked, scene], labels)
    (line,) = lines(caplog)
    assert line.startswith(f"{scene}: {(HEIGHT - 9) * 60:,} labelled pixels (")
    assert line.endswith("train again with --nodata 0.")


@pytest.mark.parametrize("value", [0, -9999])
def test_a_collar_in_floating_point_is_named_too(value, tmp_path, channels, labels, caplog):
    pixels = color_pixels(channels).astype(np.float32) / 255
    pixels[COLLAR] = value
    read(write_raster(tmp_path / "s.tif", pixels), labels)
    (line,) = lines(caplog)
    assert f"are {value} in every band" in line


def test_in_floating_point_nodata_0_is_missing_only_where_every_band_is_0(
    tmp_path, channels, labels, caplog
):
    pixels = color_pixels(channels).astype(np.float32) / 255
    pixels[1, ::2] = 0
    pixels[COLLAR] = 0
    scene = write_raster(tmp_path / "s.tif", pixels)
    tagged = write_raster(tmp_path / "t.tif", pixels, nodata=0)
    for data in (read(scene, labels, nodata=0), read(tagged, labels)):
        assert data.splits[0].counts.sum() == HEIGHT * (WIDTH - 60)
        assert data.statistics.low[1] == 0
        assert data.statistics.low[0] > 0
    assert lines(caplog) == []


def test_a_collar_of_background_does_not_pass_in_silence(tmp_path, channels, caplog):
    pixels = color_pixels(channels)
    pixels[COLLAR] = 0
    scene = write_raster(tmp_path / "s.tif", pixels)
    sparse = np.where((np.indices((HEIGHT, WIDTH)).sum(axis=0) % 60 < 12) & (channels > 0), 1, 0)
    labels = write_raster(tmp_path / "l.tif", sparse.astype(np.uint8)[None], nodata=0)
    read_inputs(
        scene,
        labels,
        bands=None,
        nodata=None,
        options=LabelOptions(unlabelled="background"),
        settings=quick(backbone_learning_rate=None),
        network={},
    )
    (line,) = lines(caplog)
    assert f"background {HEIGHT * 60:,}" in line


def test_of_many_blocks_some_are_looked_at_and_the_number_is_about(
    tmp_path, channels, labels, caplog, monkeypatch
):
    monkeypatch.setattr(input_checks, "_MOST_BLOCKS", 5)
    pixels = color_pixels(channels)
    pixels[COLLAR] = 0
    read(write_raster(tmp_path / "s.tif", pixels), labels, crop_px=28)
    (line,) = lines(caplog)
    assert "about " in line


@pytest.mark.parametrize(
    ("bands", "options"),
    [
        (3, {"nodata": 0}),
        (3, {"alpha": np.full((HEIGHT, WIDTH), 255, np.uint8)}),
        (3, {"mask": np.full((HEIGHT, WIDTH), True)}),
        (2, {}),
    ],
)
def test_scenes_that_say_what_is_missing_and_those_of_few_bands_are_not_watched(
    bands, options, tmp_path, channels, labels, caplog
):
    pixels = color_pixels(channels)[:bands]
    pixels[COLLAR] = 0
    read(write_raster(tmp_path / "s.tif", pixels, **options), labels)
    assert lines(caplog) == []


def test_shade_is_no_collar(tmp_path, channels, labels, caplog):
    pixels = color_pixels(channels)
    pixels[:, ::9, ::9] = 0
    read(write_raster(tmp_path / "s.tif", pixels), labels)
    assert lines(caplog) == []


def test_the_collars_of_chips_are_one_line(tmp_path, caplog):
    write_chips(tmp_path / "chips", count=6)
    for path in sorted((tmp_path / "chips" / "images").iterdir()):
        with rasterio.open(path, "r+") as dataset:
            pixels = dataset.read()
            pixels[:, :, :20] = 0
            dataset.write(pixels)
    read(tmp_path / "chips", None, crop_px=28)
    (line,) = [text for text in lines(caplog) if "in every band" in text]
    assert " and 5 more scenes: " in line
    read(tmp_path / "chips", None, crop_px=28, nodata=0)
    assert not [text for text in lines(caplog) if "in every band" in text]


def fourth_band(kind, channels):
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    if kind == "mask":
        mask[:, :60] = 0
    if kind == "infrared":
        mask = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    if kind == "dark":
        mask[:] = 0
    return np.concatenate([color_pixels(channels), mask[None]])


@pytest.mark.parametrize(
    ("kind", "says"),
    [("mask", "only 0 and 255"), ("opaque", "only 255"), ("infrared", None), ("dark", None)],
)
def test_a_fourth_band_of_0_and_255_is_said_to_look_like_transparency(
    kind, says, tmp_path, channels, labels, caplog
):
    scene = write_raster(tmp_path / "s.tif", fourth_band(kind, channels), photometric="MINISBLACK")
    read(scene, labels)
    found = lines(caplog)
    assert len(found) == (says is not None)
    if says:
        assert found[0].startswith(f"{scene}: band 4 holds {says}, like alpha")
        assert "--bands 1,2,3" in found[0]
        assert "-colorinterp_4 alpha" in found[0]
    read(scene, labels, bands=(1, 2, 3, 4))
    read(scene, labels, bands=(1, 2, 3))
    assert lines(caplog) == [], "whoever names bands knows them"


def test_what_it_advises_masks_what_the_band_masks(tmp_path, channels, labels, caplog):
    scene = write_raster(
        tmp_path / "s.tif", fourth_band("mask", channels), photometric="MINISBLACK"
    )
    with rasterio.open(scene, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    data = read(scene, labels)
    assert lines(caplog) == []
    assert data.bands == (1, 2, 3)
    assert data.splits[0].counts.sum() == HEIGHT * (WIDTH - 60)


@pytest.mark.parametrize("kind", ["mask", "infrared"])
def test_alpha_masks_unless_it_is_named_and_is_said_to_be_left_out(
    kind, tmp_path, channels, labels, caplog
):
    *colors, fourth = fourth_band(kind, channels)
    scene = write_raster(tmp_path / "s.tif", np.array(colors), alpha=fourth)
    for bands in (None, (1, 2, 3)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "geodinoseg.segmentation"):
            data = read(scene, labels, bands=bands)
        assert data.bands == (1, 2, 3)
        assert data.splits[0].counts.sum() == (fourth > 0).sum()
        said = [r for r in caplog.records if "band 4" in r.getMessage()]
        assert [r.levelname for r in said] == ["WARNING" if kind == "infrared" else "INFO"]
        assert "is left out" in said[0].getMessage()
    caplog.clear()
    data = read(scene, labels, bands=(1, 2, 3, 4))
    assert data.bands == (1, 2, 3, 4)
    assert data.splits[0].counts.sum() == HEIGHT * WIDTH
    assert lines(caplog) == []


def test_the_alpha_of_chips_is_one_line(tmp_path, caplog):
    write_chips(tmp_path / "chips", count=6)
    for path in (tmp_path / "chips" / "images").iterdir():
        with rasterio.open(path) as dataset:
            pixels = dataset.read()
        write_raster(path, pixels, alpha=np.full(pixels.shape[1:], 255, np.uint8))
    with caplog.at_level(logging.INFO, "geodinoseg.segmentation"):
        read(tmp_path / "chips", None, crop_px=28)
    said = [r.getMessage() for r in caplog.records if "band 4" in r.getMessage()]
    assert len(said) == 1
    assert " and 5 more scenes: band 4 is alpha: it marks missing pixels" in said[0]


def test_a_vrt_that_lost_the_nodata_value_of_its_source_is_warned_of(
    tmp_path, channels, labels, caplog
):
    write_raster(tmp_path / "a.tif", color_pixels(channels), nodata=7)
    bands = "".join(
        f"<VRTRasterBand dataType='Byte' band='{band}'><SimpleSource>"
        f"<SourceFilename relativeToVRT='1'>a.tif</SourceFilename><SourceBand>{band}</SourceBand>"
        f"</SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = ",".join(map(str, ROTATED.to_gdal()))
    scene = tmp_path / "a.vrt"
    scene.write_text(
        f"<VRTDataset rasterXSize='{WIDTH}' rasterYSize='{HEIGHT}'><SRS>EPSG:32633</SRS>"
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    read(scene, labels)
    (line,) = lines(caplog)
    assert "a.tif marks missing pixels with nodata 7, but the VRT does not" in line
    read(scene, labels, nodata=7)
    assert lines(caplog) == []


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 255), (np.uint16, 65_535)])
def test_transparency_is_known_in_8_and_16_bit(dtype, top, tmp_path, channels, caplog):
    pixels = fourth_band("mask", channels).astype(dtype)
    pixels[3] = np.where(pixels[3] > 0, top, 0)
    scene = write_raster(tmp_path / "s.tif", pixels, photometric="MINISBLACK")
    report_missing_pixels([open_scene(scene)], bands_chosen=False)
    assert f"only 0 and {top}" in lines(caplog)[0]
    report_missing_pixels([open_scene(scene, bands=[1])], bands_chosen=True)
    assert lines(caplog) == []


@pytest.fixture
def two_scenes(tmp_path, channels, labels):
    """The same land twice, stored with and without an offset, and labels of both."""
    pixels = color_pixels(channels).astype(np.uint16) * 9 + 600
    scenes = []
    for name, shift, offset in (("old", 0, 0.0), ("new", 1000, -0.1)):
        path = write_raster(tmp_path / f"{name}.tif", pixels + np.uint16(shift))
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,) * 3, (offset,) * 3
        scenes.append(path)
    return scenes


def test_scenes_of_other_units_are_brought_to_those_of_the_first(two_scenes, labels, caplog):
    with caplog.at_level(logging.INFO, logger="geodinoseg"):
        both = read(two_scenes, labels)
    said = [r.getMessage() for r in caplog.records if "its bands have" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(
        f"{two_scenes[1]}: its bands have scale 0.0001, offset -0.1, those of"
    )
    assert said[0].endswith("converted: value - 1000.")
    twice = read([two_scenes[0]] * 2, labels)
    for name in ("mean", "std", "low", "high"):
        assert_allclose(getattr(both.statistics, name), getattr(twice.statistics, name), rtol=1e-6)
    assert both.statistics.units == twice.statistics.units
    assert both.statistics.units.offsets == (0.0,) * 3


def test_every_crop_of_a_training_is_in_the_units_of_the_first(two_scenes, labels):
    def crops(scenes):
        data = read(scenes, labels)
        settings = quick()
        with Sampler(
            data.splits, crop_px=56, augmentation=settings.augmentation, seed=3
        ) as sampler:
            held_out = [sampler.validation_crop(*piece) for piece in sampler.validation_pieces()]
            return sampler.batch(0, 12) + held_out

    both, twice = crops(two_scenes), crops([two_scenes[0]] * 2)
    assert {crop.scene for crop in both} == {0, 1}
    for one, other in zip(both, twice, strict=True):
        assert_array_equal(one.labels, other.labels)
        assert_allclose(one.pixels[:, one.valid], other.pixels[:, other.valid], rtol=1e-5)


@pytest.mark.slow
def test_the_model_of_both_is_that_of_one_scene_twice(
    two_scenes, labels, backbone, tmp_path, monkeypatch
):
    no_pictures(monkeypatch)

    def train(scenes, name):
        train_model(
            scenes,
            labels,
            tmp_path / name,
            settings=quick(epochs=1, steps_per_epoch=2),
            network={"backbone": backbone, "quantize": False},
            device="cpu",
        )
        return json.loads((tmp_path / name / "config.json").read_text())

    both, twice = train(two_scenes, "both"), train([two_scenes[0]] * 2, "twice")
    assert both["statistics"]["scale"] == twice["statistics"]["scale"] == [1e-4] * 3
    assert_allclose(both["scores"]["mean_iou"], twice["scores"]["mean_iou"], atol=0.02)


def test_scenes_whose_tags_alone_differ_are_used_as_stored(two_scenes, labels, caplog):
    with rasterio.open(two_scenes[0]) as dataset:
        pixels = dataset.read()
    with rasterio.open(two_scenes[1], "r+") as dataset:
        dataset.write(pixels)
    data = read(two_scenes, labels)
    assert "used as stored" in lines(caplog)[0]
    assert all(split.units is None for split in data.splits)


def test_statistics_of_few_labels_are_read_by_read_training_data_too(tmp_path, channels, labels):
    pixels = color_pixels(channels)
    pixels[COLLAR] = 0
    data = read_training_data(
        write_raster(tmp_path / "s.tif", pixels),
        labels,
        bands=None,
        nodata=0,
        options=LabelOptions(),
        settings=quick(),
    )
    assert min(data.statistics.low) > 1
    assert data.splits[0].scene.geobox.transform == ROTATED
