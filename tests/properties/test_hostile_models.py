"""Model folders are data: nothing outside them is read, and no size is believed."""

from __future__ import annotations

import json
import resource
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from geodinoseg.errors import ModelFolderError
from geodinoseg.model.config import read_model_config
from geodinoseg.model.folder import _checksums, load_model


@pytest.fixture
def folder(small_model, tmp_path):
    return shutil.copytree(small_model, tmp_path / "a.model")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renew_checksums(folder):
    """As whoever made the folder would."""
    sums = {name: value for name, value in _checksums(folder).items() if name != "config.json"}
    edit_json(folder / "config.json", sha256=sums)


def refused(folder, words):
    with pytest.raises(ModelFolderError, match=words) as caught:
        load_model(folder, device="cpu")
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "backbone/model.safetensors", "backbone"])
def test_a_link_that_leads_out_of_the_folder_is_refused(name, folder, tmp_path):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, f"{name} is a link to a file outside the folder")
    with pytest.raises(ModelFolderError, match="outside the folder"):
        read_model_config(folder)


def test_a_link_within_the_folder_does_no_harm(folder):
    (folder / "backbone" / "model.safetensors").rename(folder / "backbone" / "blob")
    (folder / "backbone" / "model.safetensors").symlink_to("blob")
    assert load_model(folder, device="cpu").bands == (1, 2, 3)


@pytest.mark.parametrize(
    "name",
    ["/etc", "../b", "a/../b", "..", "a/b/c", "~/b", "./b", "https://host/a/b", "", "a", "a/..b"],
)
def test_a_backbone_is_named_on_the_hub_and_by_no_path(name, folder):
    edit_json(folder / "config.json", backbone={"name": name, "revision": None})
    refused(folder, "backbone: name cannot be")


def test_weights_without_a_checksum_are_refused(folder):
    shutil.copy(folder / "backbone" / "model.safetensors", folder / "backbone" / "m2.safetensors")
    refused(folder, "m2.safetensors has no checksum")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_backbone_with_weights_that_are_no_numbers_is_refused(value, folder):
    path = folder / "backbone" / "model.safetensors"
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, {"format": "pt"})
    renew_checksums(folder)
    refused(folder, f"backbone/model.safetensors holds {name}, which is not finite")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 16_384},
        {"num_hidden_layers": 256},
        {"hidden_size": 8_192, "num_hidden_layers": 40, "num_attention_heads": 8},
        {"image_size": 14_000},
        {"num_channels": 60_000},
    ],
)
def test_a_backbone_that_claims_more_than_its_file_holds_takes_no_memory(changes, folder):
    edit_json(folder / "backbone" / "config.json", **changes)
    renew_checksums(folder)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    refused(folder, "that of a backbone of|that of another model|cannot be loaded")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9},
        {"hidden_size": "32"},
        {"hidden_size": None},
        {"hidden_size": 0},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": True},
        {"patch_size": 0},
        {"patch_size": [14, 14]},
        {"mlp_ratio": float("inf")},
        {"mlp_ratio": float("nan")},
        {"num_attention_heads": -1},
        {"image_size": 1.5},
        {"hidden_act": "a" * 5_000},
        {"id2label": {str(i): "a" for i in range(5_000)}},
        {"hidden_act": "no_such"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_backbone_config_of_other_types_or_sizes_is_refused(changes, folder):
    edit_json(folder / "backbone" / "config.json", **changes)
    renew_checksums(folder)
    refused(folder, "cannot be loaded")


@pytest.mark.parametrize("value", [True, "x", [], [["stem"]], {"a": 1}, None])
def test_which_layers_come_out_is_for_the_head_to_choose(value, folder):
    edit_json(
        folder / "backbone" / "config.json",
        out_indices=value,
        out_features=value,
        stage_names=value,
    )
    renew_checksums(folder)
    tiles = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    shares = load_model(folder, device="cpu").probabilities(
        tiles, torch.ones(1, 28, 28, dtype=bool)
    )
    assert shares.isfinite().all()
