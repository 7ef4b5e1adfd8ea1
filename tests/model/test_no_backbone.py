"""A network without a backbone: the fused head sees the bands alone."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from model_fixtures import raw_tile, small_network, small_segmentor
from torch import nn
from torch.testing import assert_close

from geodinoseg.errors import ModelError, ModelFolderError
from geodinoseg.model.description import describe_model
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.folder import load_model, save_model

NONE = {"backbone": "none", "fused_head": True}


def network(**settings):
    return small_network(**NONE, **settings)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 9, 200])
def test_any_number_of_bands_and_any_size_are_taken(bands):
    for height, width in ((1, 1), (13, 30), (57, 8)):
        logits = network(bands=bands)(torch.randn(2, bands, height, width))
        assert logits.shape == (2, 3, height, width)
        assert logits.isfinite().all()


def test_there_are_no_features_no_tokens_and_nothing_to_quantize_or_adapt():
    plain = DinoV2Segmentor(**NONE)
    assert plain.features(torch.zeros(2, 3, 5, 7)).shape == (2, 0, 5, 7)
    assert not list(plain.backbone.parameters())
    assert not [name for name in plain.state_dict() if "tokens" in name]
    assert (plain.settings["quantize"], plain.settings["peft"], plain.patch_px) == (False, False, 1)


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_input_gives_a_mirrored_result(axis):
    """Nothing is shifted, not even by half a pixel."""
    plain = network().double()
    with torch.no_grad():
        for module in plain.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(axis)) / 2)
    pixels = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    assert_close(plain(pixels.flip(axis)), plain(pixels).flip(axis))


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_the_number_of_threads_changes_no_bit(scale):
    model = small_segmentor(network(), scale=scale)
    pixels, valid = raw_tile(height=133, width=140, batch=3)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(model.probabilities(pixels, valid))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(probabilities, found[0]) for probabilities in found)


def test_a_folder_or_a_pickle_gives_the_same_model_back(tmp_path):
    model = small_segmentor(network(bands=5))
    pixels, valid = raw_tile(bands=5)
    expected = model.probabilities(pixels, valid)
    folder = save_model(model, tmp_path / "a.model")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert "- backbone: none\n" in (folder / "README.md").read_text()
    assert describe_model(folder).tile_multiple == 1
    for same in (load_model(folder, device="cpu"), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same.probabilities(pixels, valid), expected)
        assert same.fingerprint == model.fingerprint


def test_a_folder_called_none_is_none(tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not network().source_is_folder
    with pytest.raises(ModelError, match=r"backbone \./none: .*config\.json"):
        DinoV2Segmentor(backbone="./none")


@pytest.mark.parametrize("given", [{}, {"linear_head": True}, {"linear_head": False}])
def test_heads_that_need_features_are_refused(given):
    with pytest.raises(ModelError, match="only the fused head works without features"):
        DinoV2Segmentor(backbone="none", **given)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["network"].pop("fused_head"),
        lambda config: config["backbone"].update(name="None"),
        lambda config: config.update(backbone=None),
        lambda config: config.update(band_names=["a"]),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(change, tmp_path):
    folder = save_model(small_segmentor(network()), tmp_path / "a.model")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=r"a\.model"):
        load_model(folder, device="cpu")
