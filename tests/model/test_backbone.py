from __future__ import annotations

import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from model_fixtures import (
    COMMIT,
    HIDDEN,
    KINDS,
    LAYERS,
    backbone_folder,
    published_backbone,
    save_quietly,
    small_network,
    transformers_model,
)
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from geodinoseg.errors import ModelError
from geodinoseg.model.backbone import (
    load_backbone,
    patch_embedding,
    pretrained_rgb,
    read_backbone_config,
    widen_patch_embedding,
)
from geodinoseg.model.quantization import is_quantized


def copied_backbone(tmp_path, kind="dinov2"):
    return shutil.copytree(backbone_folder(kind), tmp_path / "backbone")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reference_maps(kind, pixels, n_features, patch_px):
    """From transformers' model: hidden states, layer norm, only tokens of patches, last layers."""
    model = transformers_model(kind)
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states
        norm = model.norm if kind == "dinov3" else model.layernorm
        rows, cols = (side // patch_px for side in pixels.shape[-2:])
        maps = [norm(states)[:, -rows * cols :] for states in hidden[-n_features:]]
    return torch.cat(maps, dim=2).transpose(1, 2).unflatten(2, (rows, cols))


@pytest.mark.parametrize("n_features", [1, 2, LAYERS])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_normed_patch_tokens_of_the_last_layers_in_order(kind, n_features):
    network = small_network(backbone=backbone_folder(kind), n_features=n_features)
    pixels = torch.randn(2, 3, 3 * network.patch_px, 5 * network.patch_px)
    with torch.no_grad():
        features = network.features(pixels)
    assert features.shape == (2, n_features * HIDDEN, 3, 5)
    expected = reference_maps(kind, pixels, n_features, network.patch_px)
    assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_features_are_transformers_last_hidden_state(kind):
    network = small_network(backbone=backbone_folder(kind))
    pixels = torch.randn(1, 3, 4 * network.patch_px, 4 * network.patch_px)
    with torch.no_grad():
        features = network.features(pixels)
        tokens = transformers_model(kind)(pixels).last_hidden_state
    prefix = 1 if kind == "dinov2" else 4
    assert_close(features.flatten(2).transpose(1, 2), tokens[:, prefix:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "patch_px"), [("dinov2", 14), ("dinov3", 16)])
def test_the_patch_is_that_of_the_backbone(kind, patch_px):
    assert small_network(backbone=backbone_folder(kind)).patch_px == patch_px


@pytest.mark.parametrize("bands", [1, 2, 4, 6, 9])
@pytest.mark.parametrize("kind", ["dinov2", "dinov3"])
def test_a_grey_input_gives_the_same_tokens_whatever_the_number_of_bands(kind, bands):
    network = small_network(backbone=backbone_folder(kind), bands=bands)
    grey = torch.randn(1, 1, 3 * network.patch_px, 2 * network.patch_px)
    with torch.no_grad():
        few = small_network(backbone=backbone_folder(kind)).features(grey.expand(-1, 3, -1, -1))
        many = network.features(grey.expand(-1, bands, -1, -1))
    assert_close(many, few, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bands", [1, 2, 4, 9])
def test_bands_take_the_filters_in_turn_and_share_what_the_sum_lacks(bands):
    backbone = load_backbone(backbone_folder(), n_features=1)
    old = patch_embedding(backbone).weight.detach().clone()
    bias = patch_embedding(backbone).bias.detach().clone()
    widen_patch_embedding(backbone, bands)
    new = patch_embedding(backbone)
    turns = torch.stack([old[:, band % 3] * 3 / bands for band in range(bands)], dim=1)
    lack = (old.sum(dim=1) - turns.sum(dim=1)) / bands
    assert_close(new.weight.detach(), turns + lack[:, None])
    assert torch.equal(new.bias, bias)
    assert backbone.config.num_channels == bands


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_with_components_the_tokens_are_those_of_projected_bands(count):
    components = np.random.default_rng(2).normal(size=(count, 9)).astype(np.float32)
    backbone = load_backbone(backbone_folder(), n_features=1)
    wide = load_backbone(backbone_folder(), n_features=1)
    widen_patch_embedding(wide, 9, components)
    pixels = torch.randn(2, 9, 28, 42)
    own = torch.from_numpy(components[[0, 1 % count, 2 % count]])
    projected = torch.einsum("on,bnhw->bohw", own, pixels)
    with torch.no_grad():
        found, expected = wide(pixels).feature_maps[0], backbone(projected).feature_maps[0]
    assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_widened_patch_embedding_can_be_trained_under_lora():
    network = small_network(bands=4, peft=True, r=2)
    trained = [n for n, p in network.backbone.named_parameters() if p.requires_grad]
    assert [n.split(".patch_embeddings.")[-1] for n in trained if "lora_" not in n] == [
        "projection.weight",
        "projection.bias",
    ]
    plain = small_network(peft=True, r=2)
    assert all("lora_" in n for n, p in plain.backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_sizes_are_the_published_backbones(size):
    published_backbone(f"facebook/dinov2-{size}")
    network = small_network(backbone=None, size=size)
    assert (network.source, network.revision) == (f"facebook/dinov2-{size}", COMMIT)
    named = small_network(backbone=f"facebook/dinov2-{size}", revision="main")
    assert named.revision == COMMIT


def test_a_name_that_cannot_be_fetched_is_an_error_that_says_what_to_do():
    with pytest.raises(ModelError, match=r"not in the hub's cache.*folder") as caught:
        small_network(backbone="somebody/absent")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["./absent", "/absent/folder"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(source):
    with pytest.raises(ModelError, match="no such folder"):
        small_network(backbone=source)


def test_another_kind_of_network_is_refused_by_name(tmp_path):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    save_quietly(BertModel(config), tmp_path / "bert")
    with pytest.raises(ModelError, match="'bert'; these are known: dinov2"):
        small_network(backbone=tmp_path / "bert")


@pytest.mark.parametrize("kind", ["dinov2", "my_own"])
def test_code_that_a_config_names_is_never_run(tmp_path, kind):
    folder = copied_backbone(tmp_path)
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\n")
    auto_map = {"AutoConfig": "evil.C", "AutoBackbone": "evil.C"}
    edit_config(folder, auto_map=auto_map, model_type=kind)
    if kind == "dinov2":
        assert not hasattr(read_backbone_config(folder), "auto_map")
        small_network(backbone=folder)
    else:
        with pytest.raises(ModelError, match="'my_own'"):
            small_network(backbone=folder)
    assert not ran.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"dinov2"', '{"model_type": []}', '{"a": 1}', "\xff"]
)
def test_a_config_that_is_none_is_refused(tmp_path, text):
    folder = copied_backbone(tmp_path)
    (folder / "config.json").write_text(text, "latin-1")
    with pytest.raises(ModelError, match="backbone"):
        read_backbone_config(folder)


@pytest.mark.parametrize("changes", [{"hidden_size": "wide"}, {"num_hidden_layers": None}])
def test_a_config_with_values_of_another_type_is_refused(tmp_path, changes):
    folder = copied_backbone(tmp_path)
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match="damaged"):
        read_backbone_config(folder)


def test_more_features_than_layers_are_refused():
    with pytest.raises(ModelError, match="has 3 layers; give 1 to 3"):
        small_network(n_features=LAYERS + 1)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


def leave_one_out(path):
    tensors = load_file(path)
    tensors.pop(next(name for name in sorted(tensors) if "weight" in name))
    save_file(tensors, path, metadata={"format": "pt"})


def widen_one(path):
    tensors = load_file(path)
    tensors["layernorm.weight"] = torch.ones(2 * HIDDEN)
    save_file(tensors, path, metadata={"format": "pt"})


def make_a_pickle(path):
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, leave_one_out, widen_one, make_a_pickle])
def test_weights_that_are_damaged_or_lack_a_tensor_are_refused(tmp_path, damage):
    folder = copied_backbone(tmp_path)
    damage(folder / "model.safetensors")
    with pytest.raises(ModelError, match="its weights") as caught:
        small_network(backbone=folder)
    assert "\n" not in str(caught.value)


def test_the_rgb_of_a_published_backbone_is_read_where_it_is_given(tmp_path):
    folder = copied_backbone(tmp_path)
    assert pretrained_rgb(folder) is None
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}))
    assert pretrained_rgb(folder) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    path.write_text(json.dumps({"image_mean": None}))
    assert pretrained_rgb(folder) is None


@pytest.mark.parametrize("kind", KINDS)
def test_4_bit_features_are_close_to_those_in_full_precision(kind):
    full = small_network(backbone=backbone_folder(kind))
    packed = small_network(backbone=backbone_folder(kind), quantize=True)
    assert is_quantized(packed.backbone)
    pixels = torch.randn(2, 3, 3 * full.patch_px, 4 * full.patch_px)
    with torch.no_grad():
        expected, features = full.features(pixels), packed.features(pixels)
    assert features.dtype == torch.float32
    # Normed features have a spread of about 1; 16 levels a weight leave a tenth of it.
    assert 0 < float((features - expected).square().mean().sqrt()) < 0.1 * float(expected.std())


def test_without_bitsandbytes_there_is_one_warning_and_full_precision(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with caplog.at_level(logging.WARNING):
        network = small_network(quantize=True)
    assert [r.message for r in caplog.records if "4-bit" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1
    assert not is_quantized(network.backbone)
    pixels = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        assert_close(network(pixels), small_network()(pixels))


def test_layers_that_4_bit_blocks_do_not_fit_stay_in_full_precision(tmp_path, caplog):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    save_quietly(Dinov2Model(config), tmp_path / "narrow")
    network = small_network(backbone=tmp_path / "narrow", quantize=True)
    assert "is not a multiple of 64" in caplog.text
    assert not is_quantized(network.backbone)


@pytest.mark.parametrize(("quantize", "peft"), [(False, True), (True, True), (True, False)])
def test_building_says_nothing(capfd, caplog, quantize, peft):
    network = small_network(quantize=quantize, peft=peft, r=2)
    network(torch.randn(1, 3, 14, 14))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
