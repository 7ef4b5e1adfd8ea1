"""Scenes whose bands have another scale or offset than the training: one map, or a line."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rasters import ConstantModel, read_raster, write_raster
from trainings import small_segmentor

from geodinoseg.model.band_statistics import measure_statistics
from geodinoseg.model.band_units import BandUnits
from geodinoseg.rasters.scene import open_scene
from geodinoseg.segmentation.band_units import in_training_units
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.runner import ThisProcess
from geodinoseg.segmentation.segment import plan_segmentation, segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

SHAPE = (3, 100, 130)


def measured(seed=0):
    """Bands that are stored as 900 to 3,300, in patches as of fields."""
    rng = np.random.default_rng(seed)
    land = rng.integers(900, 3300, (3, 10, 13)).repeat(10, axis=1).repeat(10, axis=2)
    return (land + rng.integers(-60, 60, SHAPE)).astype(np.uint16)


def write_scene(path, pixels, scale=None, offset=0.0):
    write_raster(path, pixels)
    if scale is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (scale,) * 3, (offset,) * 3
    return path


@pytest.fixture
def model(backbone):
    """As trained on the pixels, which told a scale of 0.0001."""
    model = small_segmentor(backbone)
    pixels = measured(seed=1)
    statistics = measure_statistics(
        [(pixels, np.ones(SHAPE[1:], bool))], dtype="uint16", what="training"
    )
    units = BandUnits(scales=(1e-4,) * 3, offsets=(0.0,) * 3)
    return dataclasses.replace(model, statistics=dataclasses.replace(statistics, units=units))


@pytest.fixture
def mapped(tmp_path, model, caplog):
    """The map of a scene, and the lines that were said before the run."""

    def run(pixels, *units, model=model):
        scene = write_scene(tmp_path / "s.tif", pixels, *units)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="geodinoseg"):
            segment_scene(scene, model, tmp_path / "map.tif", overwrite=True)
        ours = [r for r in caplog.records if "its bands have" in r.getMessage()]
        return read_raster(tmp_path / "map.tif"), ours

    return run


@pytest.fixture
def expected(mapped):
    plain, said = mapped(measured(), 1e-4)
    assert said == []
    assert len(np.unique(plain)) > 1
    return plain


@pytest.mark.parametrize(
    ("change", "units"),
    [
        (lambda pixels: pixels + 1000, (1e-4, -0.1)),
        (lambda pixels: pixels * 2, (5e-5, 0.0)),
        (lambda pixels: pixels * 2 + 1000, (5e-5, -0.05)),
        (lambda pixels: (pixels * 1e-4).astype(np.float64), (0.99999999999, 1e-12)),
    ],
    ids=["offset", "scale", "both", "reflectance"],
)
def test_values_that_mean_the_same_give_the_same_map(change, units, mapped, expected):
    found, said = mapped(change(measured()), *units)
    assert_array_equal(found, expected)
    assert [record.levelno for record in said] == [logging.INFO]
    assert "values are converted: value" in said[0].getMessage()


@pytest.mark.parametrize("units", [(1e-4, -0.1), (5e-5, 0.0)])
def test_tags_that_differ_where_values_do_not_are_said_and_do_not_block(units, mapped, expected):
    found, said = mapped(measured(), *units)
    assert_array_equal(found, expected)
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "used as stored" in said[0].getMessage()


def test_tags_on_one_side_alone_are_said(mapped, model, expected):
    untagged = dataclasses.replace(
        model, statistics=dataclasses.replace(model.statistics, units=None)
    )
    for pixels, units, known in (
        (measured(), (), model),
        (measured() + 1000, (1e-4, -0.1), untagged),
    ):
        _, said = mapped(pixels, *units, model=known)
        assert [record.levelno for record in said] == [logging.WARNING]
        assert "no scale and offset" in said[0].getMessage()
        assert "without comparable tags" in said[0].getMessage()
    assert "(1000 higher than without an offset)" in said[0].getMessage()
    assert mapped(measured(), model=untagged)[1] == []


def test_other_models_and_other_bands_are_left_alone(tmp_path, mapped, model):
    assert mapped(measured(), 1e-4, -0.1, model=ConstantModel((0.4, 0.6)))[1] == []
    scene = open_scene(tmp_path / "s.tif", bands=(1, 2))
    assert in_training_units(scene, model) is model


def test_it_is_said_in_a_dry_run_too(tmp_path, model, caplog):
    scene = write_scene(tmp_path / "s.tif", measured() + 1000, 1e-4, -0.1)
    with caplog.at_level(logging.INFO, logger="geodinoseg"):
        plan_segmentation(scene, model, tmp_path / "map.tif")
    assert "values are converted: value - 1000." in caplog.text


def test_an_interrupted_run_of_other_tags_is_not_resumed(tmp_path, model, mapped):
    """The parts of one scene are not those of another that stores the same numbers."""
    keys = set()
    for units in ((1e-4, 0.0), (1e-4, -0.1), (5e-5, 0.0)):
        scene = open_scene(write_scene(tmp_path / "s.tif", measured() + 1000, *units))
        files = MapFiles.named(
            tmp_path / "map.tif", confidence=False, probabilities=False, polygons=()
        )
        job = ThisProcess().prepare(scene, model, files, SegmentationSettings(), device="cpu")
        keys.add(job.run.key)
        keys.add(str(job.run.settings["band_units"]))
    assert len(keys) == 6
