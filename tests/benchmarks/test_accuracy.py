"""The parts of the accuracy benchmark that could lie: shares of labels, confidence, a U-Net's size."""

# ruff: noqa: E402 (the benchmarks are scripts, not a package)
from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

from accuracy_calibration import binned
from accuracy_data import Dataset, fewer_labels, fewer_polygons, resampled
from accuracy_unet import UNet, parameters_of, unet_of_size
from rasters import write_raster
from trainings import NAMES, color_channels, color_pixels, write_squares

from geodinoseg import LabelOptions, open_scene
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.windows import Window

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
"""rasterio's own, where a script calls it without the quiet that the package makes round it."""


def read(labels, scene):
    everything = Window(col_off=0, row_off=0, width=scene.width, height=scene.height)
    return labels.read(everything)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("fewer")
    channels = color_channels()
    scene = write_raster(folder / "scene.tif", color_pixels(channels))
    return Dataset(
        name="squares",
        title="",
        about="",
        train=scene,
        test=scene,
        labels=write_squares(folder / "labels.gpkg", channels, count=60),
        options=LabelOptions(
            class_field="class", unlabelled="background", ignore_classes=("water",)
        ),
        crop_px=56,
        forest_block_px=64,
    )


def test_a_smaller_share_of_polygons_is_part_of_a_larger_one_and_all_of_them_are_all_labels(
    dataset, tmp_path
):
    scene = open_scene(dataset.train)
    whole = open_labels(dataset.labels, scene.geobox, options=dataset.options)
    before, counts = np.full((scene.height, scene.width), IGNORE), []
    for share in (0.1, 0.4, 1.0):
        counts.append(fewer_polygons(dataset, share, tmp_path / f"{share}.tif", seed=3))
        fewer = open_labels(tmp_path / f"{share}.tif", scene.geobox)
        channels = read(fewer, scene)
        assert fewer.legend.names == whole.legend.names
        assert {"background", *NAMES} - {"water"} == set(fewer.legend.names)
        known = channels != IGNORE
        assert (channels[known] == read(whole, scene)[known]).all()
        assert (channels[before != IGNORE] == before[before != IGNORE]).all()
        before = channels
    assert counts[0] < counts[1] < counts[2]
    assert (before == read(whole, scene)).all()


def test_patches_of_a_label_raster_are_taken_as_polygons_are(dataset, tmp_path):
    fewer_polygons(dataset, 1.0, tmp_path / "all.tif", seed=0)
    of_raster = replace(dataset, labels=tmp_path / "all.tif", options=LabelOptions())
    scene = open_scene(dataset.train)
    whole = read(open_labels(of_raster.labels, scene.geobox), scene)
    before = np.full_like(whole, IGNORE)
    for share in (0.1, 0.5, 1.0):
        assert fewer_labels(of_raster, share, tmp_path / f"{share}.tif", seed=3) > 0
        channels = read(open_labels(tmp_path / f"{share}.tif", scene.geobox), scene)
        known = channels != IGNORE
        assert (channels[known] == whole[known]).all()
        assert (channels[before != IGNORE] == before[before != IGNORE]).all()
        assert known.sum() > (before != IGNORE).sum()
        before = channels
    assert (before == whole).all()


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_that_of_its_definition(pairs):
    confidence = np.array([percent for percent, _ in pairs]) / 100
    right = np.array([is_right for _, is_right in pairs])
    bins = np.minimum((confidence * 20).astype(int), 19)
    expected = sum(
        abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(20)
    ) / len(pairs)
    result = binned(confidence, right)
    assert_allclose(result["ece"], expected, atol=1e-12)
    assert sum(result["pixels"]) == len(pairs)


def test_a_unet_comes_near_the_size_that_is_asked_for_and_takes_any_shape():
    import torch

    for parameters in (1_000_000, 3_500_000):
        assert parameters_of(unet_of_size(9, 4, parameters=parameters)) == pytest.approx(
            parameters, rel=0.15
        )
    logits = UNet(2, 3, width=2).eval()(torch.zeros(1, 2, 37, 70))
    assert logits.shape == (1, 3, 37, 70)


def test_a_resampled_scene_lies_where_the_scene_does(tmp_path, dataset):
    fine = open_scene(resampled(dataset.train, 3, tmp_path / "fine.tif"))
    scene = open_scene(dataset.train)
    corner = (scene.width, scene.height)
    assert (fine.width, fine.height) == (3 * scene.width, 3 * scene.height)
    assert_allclose(
        fine.geobox.transform @ (3 * corner[0], 3 * corner[1]), scene.geobox.transform @ corner
    )
