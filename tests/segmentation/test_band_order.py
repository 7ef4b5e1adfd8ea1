"""A scene whose bands are described in another order than those of the training."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import rasterio
from rasters import read_raster, write_raster
from trainings import small_segmentor

from geodinoseg.errors import SceneError
from geodinoseg.model.folder import load_model, save_model
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

NAMES = ("B02", "B03", "B04")


@pytest.fixture(scope="module")
def model(backbone):
    return dataclasses.replace(small_segmentor(backbone), band_names=NAMES)


@pytest.fixture
def scene(tmp_path):
    def make(*names):
        rng = np.random.default_rng(0)
        path = tmp_path / "s.tif"
        write_raster(path, rng.integers(1, 255, (len(names), 30, 40)).astype(np.uint8))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = names
        return path

    return make


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("B04", "B03", "B02"), "3,2,1"),
        (("b4", "B3 ", "B2"), "3,2,1"),
        (("B01", "B02", "B03", "B04"), "2,3,4"),
    ],
)
def test_bands_in_another_order_are_refused_with_the_right_one(
    names, bands, model, scene, tmp_path
):
    with pytest.raises(SceneError, match=f"trained on B02, B03, B04; give --bands {bands}, or"):
        segment_scene(scene(*names), model, tmp_path / "m.tif", device="cpu")
    assert not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize(
    "names",
    [NAMES, ("B2", "B3", "B4"), ("", "", ""), ("B03", "B04", "B08"), ("B04", "B04", "B02")],
)
def test_other_descriptions_are_no_reason_to_refuse(names, model, scene, tmp_path, caplog):
    segment_scene(scene(*names), model, tmp_path / "m.tif", device="cpu")
    assert "described" not in caplog.text


def test_bands_that_were_chosen_are_read_with_a_warning(model, scene, tmp_path, caplog):
    path, right, wrong = scene("B04", "B03", "B02"), tmp_path / "r.tif", tmp_path / "w.tif"
    with caplog.at_level(logging.WARNING):
        segment_scene(path, model, right, settings=SegmentationSettings(bands=(3, 2, 1)))
        assert "described" not in caplog.text
        segment_scene(path, model, wrong, settings=SegmentationSettings(bands=(1, 2, 3)))
    assert "s.tif: bands 1,2,3 are described as B04, B03, B02, but" in caplog.text
    assert (read_raster(right) != read_raster(wrong)).any()


def test_names_are_in_the_model_folder(model, scene, tmp_path):
    folder = save_model(model, tmp_path / "a.model")
    assert load_model(folder, device="cpu").band_names == NAMES
    assert "Bands 1 (B02), 2 (B03), 3 (B04) of uint8" in (folder / "README.md").read_text()
    with pytest.raises(SceneError, match="give --bands 3,2,1"):
        segment_scene(scene("B04", "B03", "B02"), folder, tmp_path / "m.tif")
