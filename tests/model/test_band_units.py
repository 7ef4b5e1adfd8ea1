"""Scale and offset of bands: what one scene stores, as another would store it."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from model_fixtures import raw_tile, small_network, small_segmentor
from numpy.testing import assert_allclose
from torch.testing import assert_close

from geodinoseg.errors import ModelFolderError
from geodinoseg.model.band_units import BandUnits
from geodinoseg.model.folder import load_model, save_model

OLD = BandUnits(scales=(1e-4,) * 3, offsets=(0.0,) * 3)
NEW = BandUnits(scales=(1e-4,) * 3, offsets=(-0.1,) * 3)
"""Of Sentinel-2 before and from baseline 04.00 on."""
NONE = BandUnits(scales=(1.0,) * 3, offsets=(0.0,) * 3)

scales = st.lists(st.floats(1e-6, 10), min_size=2, max_size=2).map(tuple)
offsets = st.lists(st.floats(-100, 100), min_size=2, max_size=2).map(tuple)


@given(own=st.tuples(scales, offsets), other=st.tuples(scales, offsets), seed=st.integers(0, 99))
def test_a_converted_value_stands_for_the_same_measurement(own, other, seed):
    here, there = (
        BandUnits(scales=own[0], offsets=own[1]),
        BandUnits(scales=other[0], offsets=other[1]),
    )
    values = np.random.default_rng(seed).integers(0, 9000, (2, 3, 5))
    gain, shift = (n[:, None, None] for n in here.conversion_to(there))
    measured = [
        v * np.array(u.scales)[:, None, None] + np.array(u.offsets)[:, None, None]
        for v, u in ((values, here), (values * gain + shift, there))
    ]
    assert_allclose(*measured, rtol=1e-7, atol=1e-6)
    assert_allclose(here.convert(values, there), values * gain + shift, rtol=1e-6, atol=1e-2)


def test_units_that_were_only_written_in_another_way_are_the_same():
    short = BandUnits.of(np.float32([1e-4] * 3), np.float32([-0.1] * 3))
    assert short != NEW
    assert short.equals(NEW)
    assert not NEW.equals(OLD)
    assert not BandUnits(scales=(1e-4, 1e-4, 2e-4), offsets=(0,) * 3).equals(OLD)


@pytest.mark.parametrize("scale", [0.0, math.nan, math.inf])
def test_a_scale_that_can_be_none_counts_as_none(scale):
    assert BandUnits.of((scale, 1, 1), (5.0, 0, 0)) == NONE
    assert BandUnits.of((1, 1, 1), (0, math.nan, 0)) == NONE
    assert not NONE.has_tags
    assert OLD.has_tags


def test_only_told_units_of_one_direction_can_be_brought_to_each_other():
    assert NEW.can_be_converted_to(OLD)
    assert not NEW.can_be_converted_to(NONE)
    assert not NONE.can_be_converted_to(OLD)
    assert not BandUnits(scales=(-1.0,) * 3, offsets=(0.0,) * 3).can_be_converted_to(OLD)


def test_what_is_done_is_said_in_words():
    assert str(NEW) == "scale 0.0001, offset -0.1"
    assert NEW.conversion_text(OLD) == "value - 1000"
    half = BandUnits(scales=(5e-5, 1e-4, 1e-4), offsets=(0.0,) * 3)
    assert half.conversion_text(OLD) == "value * 0.5/1/1"


def model_of(units):
    plain = small_segmentor()
    return dataclasses.replace(plain, statistics=dataclasses.replace(plain.statistics, units=units))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_model_says_the_same_of_the_same_measurements(scale):
    model = dataclasses.replace(model_of(OLD), scale=scale)
    pixels, valid = raw_tile()
    pixels = pixels.to(torch.int32)
    expected = model.probabilities(pixels, valid)
    assert_close(
        model.for_units(NEW).probabilities(pixels + 1000, valid), expected, atol=1e-5, rtol=1e-4
    )
    half = BandUnits(scales=(5e-5, 1e-4, 2e-4), offsets=(0.0, -0.1, 0.0))
    stored = pixels.float() * torch.tensor([2.0, 1, 0.5])[:, None, None]
    stored += torch.tensor([0.0, 1000, 0])[:, None, None]
    assert_close(model.for_units(half).probabilities(stored, valid), expected, atol=1e-5, rtol=1e-4)
    assert model.for_units(NEW).fingerprint != model.fingerprint


def test_a_folder_holds_the_units_only_where_there_are_any(tmp_path):
    network = small_network()
    plain = save_model(small_segmentor(network), tmp_path / "plain.model")
    stored = json.loads((plain / "config.json").read_text())["statistics"]
    assert stored.keys() == {"mean", "std", "low", "high", "dtype"}
    told = save_model(dataclasses.replace(model_of(NEW), network=network), tmp_path / "told.model")
    assert json.loads((told / "config.json").read_text())["statistics"]["offset"] == [-0.1] * 3
    assert load_model(plain, device="cpu").statistics.units is None
    assert load_model(told, device="cpu").statistics.units == NEW
    assert "scale 0.0001, offset -0.1" in (told / "README.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": [1e-4] * 3},
        {"offset": [0.0] * 3},
        {"scale": [1e-4] * 2, "offset": [0.0] * 3},
        {"scale": [1e-4] * 3, "offset": [0.0] * 4},
        {"scale": [0, 1, 1], "offset": [0.0] * 3},
        {"scale": [1, 1, None], "offset": [0.0] * 3},
        {"scale": "abc", "offset": [0.0] * 3},
        {"scale": [1, 1, 1e99], "offset": [0.0] * 3},
    ],
    ids=str,
)
def test_units_that_cannot_be_are_refused(changes, tmp_path):
    folder = save_model(small_segmentor(), tmp_path / "a.model")
    config = json.loads((folder / "config.json").read_text())
    config["statistics"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="incomplete or damaged"):
        load_model(folder, device="cpu")
