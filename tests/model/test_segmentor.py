from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, strategies as st
from model_fixtures import backbone_folder, raw_tile, small_network, small_segmentor
from torch.nn import functional
from torch.testing import assert_close

from geodinoseg.legend import Legend
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.band_units import BandUnits
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.model.tile_model import TileModel

SEGMENTOR = small_segmentor()
HEADS = {"linear": {}, "cnn": {"linear_head": False}, "fused": {"fused_head": True}}


def test_a_segmentor_is_a_tile_model():
    model: TileModel = SEGMENTOR
    assert model.bands == (1, 2, 3)
    assert model.device == torch.device("cpu")
    assert model.tile_multiple == 14
    assert model.legend.class_ids.tolist() == [0, 3, 7]


@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    scale=st.sampled_from([1.0, 0.4, 2.7]),
)
def test_probabilities_sum_to_one_on_the_scenes_own_grid(batch, height, width, scale):
    model = small_segmentor(SEGMENTOR.network, scale=scale)
    pixels, valid = raw_tile(height=height, width=width, batch=batch)
    probabilities = model.probabilities(pixels, valid)
    assert probabilities.shape == (batch, 3, height, width)
    assert probabilities.dtype == torch.float32
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert_close(probabilities.sum(dim=1), torch.ones(batch, height, width))


def test_probabilities_are_the_softmax_of_the_networks_logits():
    pixels, valid = raw_tile()
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (SEGMENTOR.statistics.mean, SEGMENTOR.statistics.std)
    )
    values = torch.where(valid[:, None], (pixels - mean) / std, 0.0)
    with torch.no_grad():
        expected = SEGMENTOR.network(values).softmax(dim=1)
    assert_close(SEGMENTOR.probabilities(pixels, valid), expected)


@pytest.fixture
def threads():
    """Sets how many threads PyTorch computes with; puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("head", ["linear", "cnn", "fused"])
def test_the_number_of_threads_changes_no_bit(head, scale, threads):
    network = small_network(**HEADS[head], n_features=2)
    model = small_segmentor(network, scale=scale)
    pixels, valid = raw_tile(height=266, width=280, batch=3)
    found = []
    for count in (1, 2, 3, 5):
        threads(count)
        found.append(model.probabilities(pixels, valid))
    assert all(torch.equal(probabilities, found[0]) for probabilities in found)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32, torch.float64]
)
def test_the_type_of_the_pixels_makes_no_difference(dtype):
    pixels, valid = raw_tile()
    expected = SEGMENTOR.probabilities(pixels, valid)
    assert_close(SEGMENTOR.probabilities(pixels.to(dtype), valid), expected)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e38])
@pytest.mark.parametrize("head", ["linear", "fused"])
def test_what_invalid_pixels_hold_makes_no_difference(head, value, scale):
    model = small_segmentor(small_network(**HEADS[head]), scale=scale)
    pixels, valid = raw_tile()
    broken = torch.where(valid[:, None], pixels.float(), value)
    assert_close(model.probabilities(broken, valid), model.probabilities(pixels, valid))


def test_a_tile_without_a_valid_pixel_gives_finite_probabilities():
    pixels, valid = raw_tile()
    assert SEGMENTOR.probabilities(pixels, torch.zeros_like(valid)).isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 0.4, 2.7])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_nearly_the_same_in_every_precision_at_every_scale(head, precision, scale):
    network = small_network(**HEADS[head])
    pixels, valid = raw_tile()
    model = small_segmentor(network, precision=precision, scale=scale)
    found = model.probabilities(pixels, valid)
    assert found.dtype == torch.float32
    expected = small_segmentor(network, scale=scale).probabilities(pixels, valid)
    assert float((found - expected).abs().mean()) < 0.03
    assert torch.equal(found, expected) == (precision == "float32")


def other_weights():
    network = small_network()
    with torch.no_grad():
        list(network.backbone.parameters())[-1].view(-1)[-1] += 1
    return network


STATISTICS = SEGMENTOR.statistics
OTHER_STATISTICS = {
    "mean": (100.0, 105.0, 111.0),
    "std": (40.0, 41.0, 43.0),
    "low": (10.0, 10.0, 11.0),
    "high": (240.0, 240.0, 241.0),
    "dtype": "int16",
    "units": BandUnits(scales=(1.0, 1.0, 2.0), offsets=(0.0,) * 3),
}
OTHERS = {
    "network": other_weights(),
    "legend": Legend.of_names({0: "background", 3: "concrete", 8: "tin"}),
    "statistics": None,  # each of its fields, see below
    "bands": (1, 3, 2),
    "band_names": ("red", "green", "blue"),
    "trained_tile_px": 70,
    "pixel_size_m": 0.2,
    "scale": 1.5,
    "aspect": 1.5,
    "temperature": 1.1,
    "precision": "bfloat16",
    "training": {"epochs": 3},
    "scores": {"mean_iou": 0.6},
}
NO_PREDICTIONS = {"training", "scores", "band_names"}  # what is told of a model


def test_whatever_changes_predictions_changes_the_fingerprint():
    assert OTHERS.keys() == {f.name for f in dataclasses.fields(Segmentor)}
    assert OTHER_STATISTICS.keys() == {f.name for f in dataclasses.fields(BandStatistics)}
    changed = {name: {name: value} for name, value in OTHERS.items() if name != "statistics"}
    changed |= {
        f"statistics.{name}": {"statistics": dataclasses.replace(STATISTICS, **{name: value})}
        for name, value in OTHER_STATISTICS.items()
    }
    seen = {SEGMENTOR.fingerprint}
    for name, changes in changed.items():
        found = dataclasses.replace(SEGMENTOR, **changes).fingerprint
        assert (found in seen) == (name in NO_PREDICTIONS), name
        seen.add(found)
    same = dataclasses.replace(SEGMENTOR, precision="float32")
    assert same.fingerprint == SEGMENTOR.fingerprint, "what auto means on a CPU"


@pytest.mark.parametrize(("scene_m", "scale"), [(0.05, 0.5), (0.2, 2.0), (0.07, 0.7)])
def test_another_ground_resolution_sets_the_scale(scene_m, scale):
    model = SEGMENTOR.at_pixel_size(scene_m)
    assert model.scale == pytest.approx(scale)
    assert model.network is SEGMENTOR.network
    assert model.tile_multiple == 1
    assert model.tile_px == round(SEGMENTOR.trained_tile_px / scale)


@pytest.mark.parametrize("scene_m", [None, 0.1, 0.097, 0.104])
def test_about_the_same_ground_resolution_is_left_alone(scene_m):
    model = SEGMENTOR.at_pixel_size(scene_m)
    assert (model.scale, model.tile_multiple, model.tile_px) == (1.0, 14, 56)


def test_a_model_without_a_ground_resolution_takes_any():
    model = small_segmentor(SEGMENTOR.network, pixel_size_m=None)
    assert model.at_pixel_size(3.0) is model


def test_the_scale_is_always_that_of_the_last_scene():
    assert SEGMENTOR.at_pixel_size(0.3).at_pixel_size(0.2).scale == pytest.approx(2.0)
    assert SEGMENTOR.at_pixel_size(0.3).at_pixel_size(0.1).scale == 1.0


@pytest.mark.parametrize("factor", [2, 3])
def test_a_finer_scene_gives_nearly_what_it_gives_when_resampled_beforehand(factor):
    own = torch.rand(1, 3, 4, 5) * 255  # smooth, as a scene is at a finer resolution than the model
    own = functional.interpolate(own, size=(56, 70), mode="bicubic").clamp(0, 255)
    fine = functional.interpolate(own, scale_factor=factor, mode="bilinear")
    beforehand = functional.interpolate(fine, size=(56, 70), mode="bilinear", antialias=True)
    valid = torch.ones(1, 56, 70, dtype=torch.bool)
    expected = SEGMENTOR.probabilities(beforehand, valid)
    model = SEGMENTOR.at_pixel_size(0.1 / factor)
    on_scene = model.probabilities(fine, torch.ones(1, 56 * factor, 70 * factor, dtype=torch.bool))
    back = functional.interpolate(on_scene, size=(56, 70), mode="bilinear", antialias=True)
    assert float((back - expected).abs().mean()) < 0.02
    assert (back.argmax(1) == expected.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize("aspect", [0.25, 0.5, 2.0, 4.0])
def test_pixels_that_are_not_square_give_nearly_what_square_ones_give(aspect):
    own = functional.interpolate(torch.rand(1, 3, 4, 5) * 255, size=(56, 70), mode="bicubic")
    stretched = (56, round(70 / aspect)) if aspect < 1 else (round(56 * aspect), 70)
    fine = functional.interpolate(own, size=stretched, mode="bilinear")
    beforehand = functional.interpolate(fine, size=(56, 70), mode="bilinear", antialias=True)
    expected = SEGMENTOR.probabilities(beforehand, torch.ones(1, 56, 70, dtype=torch.bool))
    longer = max(aspect, 1 / aspect)
    model = SEGMENTOR.at_pixel_size(0.1 / math.sqrt(longer), aspect=aspect)
    assert model.tile_multiple == 1
    found = model.probabilities(fine, torch.ones(1, *stretched, dtype=torch.bool))
    back = functional.interpolate(found, size=(56, 70), mode="bilinear", antialias=True)
    assert float((back - expected).abs().mean()) < 0.02
    assert (back.argmax(1) == expected.argmax(1)).float().mean() > 0.95


def test_about_square_pixels_are_left_alone():
    model = SEGMENTOR.at_pixel_size(0.1, aspect=1.04)
    assert (model.scale, model.aspect, model.tile_multiple) == (1.0, 1.0, 14)


def test_tiles_in_a_batch_do_not_see_each_other():
    pixels, valid = raw_tile(batch=3)
    together = SEGMENTOR.probabilities(pixels, valid)
    alone = [SEGMENTOR.probabilities(pixels[i : i + 1], valid[i : i + 1]) for i in range(3)]
    assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "patch_px"), [("dinov2", 14), ("dinov3", 16)])
def test_tiles_are_multiples_of_the_backbones_patch(kind, patch_px):
    model = small_segmentor(small_network(backbone=backbone_folder(kind)), trained_tile_px=100)
    assert model.tile_multiple == patch_px
    assert model.tile_px == 100 // patch_px * patch_px


def test_even_the_smallest_tile_is_a_patch():
    model = small_segmentor(SEGMENTOR.network, trained_tile_px=5)
    assert model.tile_px == 14
    assert model.at_pixel_size(1000).tile_px == 1
