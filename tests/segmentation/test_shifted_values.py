"""Sentinel-2 before and after the offset of 1,000, where no tag says which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geodinoseg.model.band_statistics import measure_statistics
from geodinoseg.segmentation.shifted_values import shifted_values

SCENE = Path(__file__).parents[2] / "sample_data" / "lataseno_s2.tif"


@pytest.fixture(scope="module")
def pixels():
    with rasterio.open(SCENE) as dataset:
        return dataset.read()


def part(pixels, rng):
    """A rectangle of the scene, of any size and place."""
    height, width = (int(rng.integers(60, side)) for side in pixels.shape[1:])
    row, col = (
        int(rng.integers(side - length + 1))
        for side, length in zip(pixels.shape[1:], (height, width), strict=True)
    )
    return pixels[:, row : row + height, col : col + width]


def found(training, scene, *, dtype="uint16"):
    valid = np.ones(training.shape[1:], dtype=bool)
    statistics = measure_statistics([(training, valid)], dtype="uint16", what="training")
    return shifted_values(scene.reshape(len(scene), -1).astype(float), statistics, dtype=dtype)


@pytest.mark.parametrize("bands", [list(range(9)), [0, 1, 2], [0, 1, 2, 6]])
def test_the_offset_is_found_between_parts_of_a_scene_and_nothing_without_it(pixels, bands):
    rng = np.random.default_rng(len(bands))
    missed = 0
    for _ in range(60):
        one, other = (part(pixels[bands], rng) for _ in range(2))
        assert found(one, other) is None, "land differs, the offset does not"
        assert found(one + 1000, other + 1000) is None
        missed += found(one, other + 1000) is None
        missed += found(one + 1000, other) is None
    assert missed <= 2


def test_the_message_says_in_which_direction(pixels):
    assert "about 1,000 higher than in the training" in found(pixels, pixels + 1000)
    assert "about 1,000 lower than in the training" in found(pixels + 1000, pixels)


def test_other_types_and_few_bands_are_not_judged(pixels):
    assert found(pixels, pixels + 1000, dtype="float32") is None
    assert found(pixels[:2], pixels[:2] + 1000) is None
