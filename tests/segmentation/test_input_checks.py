"""The values of a scene against those of the training: other units are said, another day is not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_array_equal
from rasters import write_raster
from trainings import color_channels, color_pixels, small_segmentor

from geodinoseg.model.band_statistics import measure_statistics
from geodinoseg.rasters.scene import open_scene
from geodinoseg.segmentation.input_checks import far_values, sampled_values, warn_of_far_values
from geodinoseg.segmentation.segment import plan_segmentation, segment_scene

REFLECTANCE = np.array([[400, 300], [600, 400], [500, 300], [2800, 900]], dtype=float)
"""Mean and deviation of blue, green, red and near infrared, times 10,000."""


def land(scale=1.0, *, offset=0.0, seed=0, order=(0, 1, 2, 3), dtype=float):
    """(4, pixels) of a scene with vegetation, soil and some water."""
    rng = np.random.default_rng(seed)
    cover = rng.gamma(3, 1 / 3, (1, 4000))
    values = REFLECTANCE[:, :1] * cover + 0.3 * REFLECTANCE[:, 1:] * rng.normal(0, 1, (4, 4000))
    return (values[list(order)].clip(20) * scale + offset).astype(dtype).astype(float)


def statistics_of(values, dtype="uint16"):
    pixels = values[:, None]
    return measure_statistics([(pixels, np.ones(pixels.shape[1:], bool))], dtype=dtype, what="s")


TRAINING = statistics_of(land(seed=7))


@pytest.mark.parametrize("factor", [0.5, 0.7, 1, 1.5, 2])
@given(seed=st.integers(0, 50))
def test_another_day_is_no_reason_to_warn(factor, seed):
    assert far_values(land(factor, seed=seed), TRAINING, dtype="uint16") is None


@pytest.mark.parametrize("band", range(4))
def test_land_of_one_kind_is_no_reason_to_warn(band):
    rng = np.random.default_rng(band)
    water = np.array([[350.0], [330], [200], [100]]) + rng.normal(0, 15, (4, 500))
    forest = np.array([[250.0], [450], [280], [3300]]) + rng.normal(0, 40, (4, 500))
    assert far_values(water, TRAINING, dtype="uint16") is None
    assert far_values(forest, TRAINING, dtype="uint16") is None


def test_reflectance_of_0_to_1_against_times_10_000_is_said_both_ways():
    message = far_values(land(1e-4), TRAINING, dtype="float32")
    assert message is not None
    assert message.startswith("all bands hold values far from")
    assert "reflectance of 0 to 1, but the model expects reflectance times 10,000" in message
    message = far_values(land(), statistics_of(land(1e-4, seed=7), "float32"), dtype="uint16")
    assert "they look like reflectance times 10,000, but the model expects 0 to 1" in message
    assert "\n" not in message


@pytest.mark.parametrize(("scale", "dtype"), [(1 / 20, "uint8"), (1 / 40, "uint8")])
def test_8_bit_against_12_bit_is_said(scale, dtype):
    message = far_values(land(scale, dtype=np.uint8), TRAINING, dtype=dtype)
    assert "the scene has uint8, but the model was trained on uint16" in message
    bytes_ = statistics_of(land(scale, seed=7), "uint8")
    assert "the scene has uint16" in far_values(land(), bytes_, dtype="uint16")


def test_bands_in_another_order_are_said():
    message = far_values(land(order=(3, 2, 1, 0)), TRAINING, dtype="uint16")
    assert "choose them with --bands" in message
    assert message.startswith("band 1 holds")
    assert "band 1: " in message


def test_decibels_against_linear_power_are_said():
    rng = np.random.default_rng(0)
    power = rng.gamma(2, 0.03, (2, 4000)) + 0.002
    training = statistics_of(10 * np.log10(power), "float32")
    assert far_values(power, training, dtype="float32") is not None
    assert far_values(10 * np.log10(2 * power), training, dtype="float32") is None


def test_a_band_that_was_constant_in_training_says_nothing():
    values = land()
    training = land(seed=7)
    training[2] = 500
    values[2] = 40_000
    assert far_values(values, statistics_of(training), dtype="uint16") is None


@pytest.mark.parametrize("pixels", [0, 5])
def test_too_few_pixels_say_nothing(pixels):
    assert far_values(np.full((4, pixels), 1e9), TRAINING, dtype="uint16") is None


def test_only_valid_pixels_are_looked_at(tmp_path):
    pixels = np.full((3, 400, 300), 65_535, dtype=np.uint16)
    pixels[:, 100:300, 50:250] = np.random.default_rng(0).integers(90, 110, (3, 200, 200))
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, nodata=65_535))
    values = sampled_values(scene)
    assert values.shape[0] == 3
    assert 1000 < values.shape[1] <= 25 * 64 * 64
    assert values.max() < 110
    assert_array_equal(values, sampled_values(scene))
    empty = open_scene(write_raster(tmp_path / "e.tif", np.zeros((3, 50, 7), np.uint8), nodata=0))
    assert sampled_values(empty).shape == (3, 0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (70, 64), (64, 65)])
def test_scenes_of_any_size_are_sampled(tmp_path, shape):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.ones((2, *shape), np.int16)))
    assert sampled_values(scene).shape[1] > 0


def test_giant_blocks_are_decoded_seldom(tmp_path, monkeypatch):
    scene = open_scene(
        write_raster(
            tmp_path / "s.tif",
            np.ones((1, 900, 800), np.uint8),
            tiled=True,
            blockxsize=512,
            blockysize=512,
        )
    )
    monkeypatch.setattr("geodinoseg.segmentation.input_checks._MOST_BYTES", 2 * 512 * 512)
    assert sampled_values(scene).shape[1] == 2 * 64 * 64


def test_a_scene_that_cannot_be_read_is_not_this_checks_matter(tmp_path, backbone, caplog):
    path = write_raster(
        tmp_path / "s.tif",
        color_pixels(color_channels(300, 300)),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    )
    scene = open_scene(path)
    path.write_bytes(path.read_bytes()[:900])
    with caplog.at_level(logging.WARNING):
        warn_of_far_values(scene, small_segmentor(backbone))
        path.unlink()
        warn_of_far_values(scene, small_segmentor(backbone))
    assert not caplog.text


@pytest.mark.parametrize("way", ["segment", "dry run"])
def test_it_is_said_before_the_run_and_in_a_dry_run(way, tmp_path, backbone, caplog):
    pixels = color_pixels(color_channels(150, 130)).astype(np.float32) / 255
    far, near = write_raster(tmp_path / "far.tif", pixels), tmp_path / "near.tif"
    write_raster(near, color_pixels(color_channels(150, 130), seed=3))
    model = small_segmentor(backbone)
    said = []

    def run(scene):
        if way == "dry run":
            plan_segmentation(scene, model, tmp_path / "map.tif", overwrite=True)
            return
        segment_scene(
            scene,
            model,
            tmp_path / "map.tif",
            overwrite=True,
            progress=lambda *_: said.append(caplog.text),
        )

    with caplog.at_level(logging.WARNING):
        run(near)
        assert "far from" not in caplog.text
        said.clear()
        run(far)
    assert caplog.text.count("far.tif: all bands hold values far from") == 1
    assert all("far from" in text for text in said)


def test_a_model_without_statistics_or_with_other_bands_says_nothing(tmp_path, backbone, caplog):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.full((2, 90, 80), 9000, np.uint16)))
    with caplog.at_level(logging.WARNING):
        warn_of_far_values(scene, object())
        warn_of_far_values(scene, small_segmentor(backbone))
    assert not caplog.text
