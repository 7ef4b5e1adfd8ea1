from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

from geodinoseg.errors import SceneError
from geodinoseg.model.band_statistics import (
    BandStatistics,
    measure_statistics,
    principal_components,
)
from geodinoseg.model.segmentor import normalize

STATISTICS = BandStatistics(
    mean=(10.0, 20.0), std=(2.0, 4.0), low=(1.0, 2.0), high=(30.0, 40.0), dtype="uint16"
)


def test_statistics_are_those_of_valid_pixels_between_the_percentiles():
    rng = np.random.default_rng(0)
    pixels = rng.normal([[[100.0]], [[7.0]]], [[[15.0]], [[2.0]]], size=(2, 60, 90))
    pixels[:, 0, :10] = 60_000  # glint, less than a percent
    valid = np.ones((60, 90), dtype=np.bool_)
    valid[-20:] = False
    pixels[:, ~valid] = np.nan
    samples = [(pixels[:, :30], valid[:30]), (pixels[:, 30:], valid[30:])]
    measured = measure_statistics(iter(samples), dtype="float64", what="scene")
    kept = pixels[:, valid]
    low, high = np.percentile(kept, (1, 99), axis=1)
    clipped = np.clip(kept, low[:, None], high[:, None])
    assert_allclose(measured.mean, clipped.mean(axis=1))
    assert_allclose(measured.std, clipped.std(axis=1))
    assert_allclose((measured.low, measured.high), (low, high))
    assert_allclose(measured.mean, [100, 7], rtol=0.03)
    assert measured.dtype == "float64"


def test_a_constant_band_goes_in_as_zero():
    pixels = np.stack([np.full((5, 7), 9), np.arange(35).reshape(5, 7)])
    measured = measure_statistics([(pixels, np.ones((5, 7), bool))], dtype="int64", what="scene")
    assert (measured.mean[0], measured.std[0]) == (9, 1)


@pytest.mark.parametrize("value", [0.1, 1e-3, 65_535, -9.99, 1e30])
def test_a_constant_band_goes_in_as_zero_whatever_its_value(value):
    pixels = np.stack([np.full((300, 700), value), np.arange(210_000.0).reshape(300, 700)])
    measured = measure_statistics([(pixels, np.ones((300, 700), bool))], dtype="f", what="scene")
    assert (measured.mean[0], measured.std[0]) == (value, 1)


def test_a_band_that_is_nearly_all_one_value_keeps_what_it_has():
    pixels = np.zeros((1, 100, 100), np.uint16)
    pixels[0, :5, :10] = 3000  # half a percent
    measured = measure_statistics([(pixels, np.ones((100, 100), bool))], dtype="uint16", what="s")
    assert (measured.low[0], measured.high[0]) == (0, 3000)
    assert_allclose((measured.mean[0], measured.std[0]), (pixels.mean(), pixels.std()))


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [
        ("uint8", 255),
        ("uint16", 4095),
        ("uint16", 10_000),
        ("int16", 32_767),
        ("float32", 1.0),
        ("float64", 1e-6),
    ],
)
def test_whatever_the_units_the_network_sees_the_same(dtype, largest):
    """12 bit, reflectance or float: what goes in has mean 0 and deviation 1 of the middle 98%."""
    share = np.random.default_rng(2).beta(2, 5, (3, 120, 90))
    pixels = (share * largest).astype(dtype)
    pixels[:, 0, :5] = largest  # glint
    valid = np.ones((120, 90), bool)
    valid[:30, :40] = False
    measured = measure_statistics([(pixels, valid)], dtype=dtype, what="s")
    assert measured.dtype == dtype
    values = normalize(
        torch.from_numpy(pixels)[None],
        torch.from_numpy(valid)[None],
        torch.tensor(measured.mean),
        torch.tensor(measured.std),
    )[0].numpy()
    expected = (share - share[:, valid].mean(axis=1)[:, None, None]) / share[:, valid].std()
    inner = valid & (share < 0.8).all(axis=0) & (pixels < largest).all(axis=0)
    assert_allclose(values[:, inner], expected[:, inner], atol=0.15)
    assert (values[:, ~valid] == 0).all()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "scene.tif: no pixel holds data"),
        ([(np.zeros((2, 3, 4)), np.zeros((3, 4), bool))], "scene.tif: no pixel holds data"),
        (
            [(np.full((2, 3, 4), 5), np.ones((3, 4), bool))],
            "scene.tif: every labelled pixel has the same",
        ),
    ],
)
def test_nothing_to_measure_is_an_error(samples, message):
    with pytest.raises(SceneError, match=message):
        measure_statistics(samples, dtype="uint8", what="scene.tif")


def test_statistics_survive_json():
    assert BandStatistics.from_json(json.loads(json.dumps(STATISTICS.to_json()))) == STATISTICS


@pytest.mark.parametrize(
    "changes",
    [{"std": [0, 1]}, {"std": [-1, 1]}, {"mean": [math.nan, 1]}, {"mean": [1]}, {"low": ["a", 1]}],
)
def test_statistics_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError):
        BandStatistics.from_json(STATISTICS.to_json() | changes)


def test_published_rgb_statistics_are_for_8_bit_rgb_only():
    three = BandStatistics(
        mean=(1.0,) * 3, std=(1.0,) * 3, low=(0.0,) * 3, high=(2.0,) * 3, dtype="uint8"
    )
    changed = three.with_rgb([0.5, 0.4, 0.2], [0.2, 0.2, 0.1])
    assert_allclose(changed.mean, [127.5, 102, 51])
    assert_allclose(changed.std, [51, 51, 25.5])
    assert changed.low == three.low
    assert STATISTICS.with_rgb([0.5] * 3, [0.2] * 3) is STATISTICS


@given(
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.int16, torch.float32, torch.float64]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_pixels_go_in_as_deviations_from_the_mean(dtype, height, width):
    pixels = torch.randint(0, 120, (2, 2, height, width)).to(dtype)
    valid = torch.rand(2, height, width) > 0.3
    mean, std = torch.tensor([10.0, 20.0]), torch.tensor([20.0, 40.0])
    values = normalize(pixels, valid, mean, std)
    assert values.dtype == torch.float32
    expected = (pixels.double().numpy() - [[[10]], [[20]]]) / [[[20]], [[40]]]
    assert_allclose(values.numpy(), np.where(valid[:, None], expected, 0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e38])
def test_whatever_an_invalid_pixel_holds_goes_in_as_the_mean(value):
    pixels = torch.full((1, 1, 2, 2), 5.0)
    pixels[0, 0, 0, 0] = value
    valid = pixels[:, 0] == 5
    values = normalize(pixels, valid, torch.tensor([3.0]), torch.tensor([2.0]))
    assert values.tolist() == [[[[0.0, 1.0], [1.0, 1.0]]]]


def test_the_pixels_that_came_in_are_left_as_they_were():
    pixels = torch.full((1, 1, 1, 2), 1e6)
    normalize(pixels, torch.ones(1, 1, 2, dtype=torch.bool), torch.zeros(1), torch.ones(1))
    assert pixels.tolist() == [[[[1e6, 1e6]]]]


def test_far_values_stay_within_ten_deviations():
    pixels = torch.tensor([[[[1e6, -1e6, 3.0]]]])
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    values = normalize(pixels, valid, torch.zeros(1), torch.ones(1))
    assert values.tolist() == [[[[10.0, -10.0, 3.0]]]]


def correlated(bands, pixels=3000, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(bands, bands)) @ rng.normal(size=(bands, pixels))
    return (100 * mixed + 2000).reshape(bands, pixels, 1), np.ones((pixels, 1), dtype=bool)


def components_of(pixels, valid):
    statistics = measure_statistics([(pixels, valid)], dtype="float64", what="scene")
    return principal_components([(pixels, valid)], statistics), statistics


def normalized(pixels, statistics):
    low, high, mean, std = (
        np.array(getattr(statistics, name))[:, None] for name in ("low", "high", "mean", "std")
    )
    return (np.clip(pixels[..., 0], low, high) - mean) / std


def test_principal_components_are_those_of_scikit_learn():
    pixels, valid = correlated(9)
    components, statistics = components_of(pixels, valid)
    values = normalized(pixels, statistics)
    expected = PCA(whiten=True).fit_transform(values.T).T
    found = components @ values
    signs = np.sign((found * expected).sum(axis=1))[:, None]
    assert_allclose(found, expected * signs, atol=1e-4)
    assert (np.take_along_axis(components, abs(components).argmax(1)[:, None], 1) > 0).all()


@pytest.mark.parametrize("bands", [1, 2, 5, 200])
def test_principal_components_are_uncorrelated_and_of_variance_one(bands):
    pixels, valid = correlated(bands)
    components, statistics = components_of(pixels, valid)
    assert components.shape == (bands, bands)
    covariance = np.cov(components @ normalized(pixels, statistics))
    assert_allclose(np.atleast_2d(covariance), np.eye(bands), atol=1e-3)


def test_constant_and_repeated_bands_add_no_component():
    pixels, valid = correlated(3)
    pixels = np.concatenate([pixels, np.full_like(pixels[:1], 7.0), pixels[:1]])
    assert components_of(pixels, valid)[0].shape == (3, 5)
