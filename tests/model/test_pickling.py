"""A model in a pickle is the same model, in another process too."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import cloudpickle
import pytest
import torch
from model_fixtures import (
    KINDS,
    backbone_folder,
    randomize_lora,
    raw_tile,
    small_network,
    small_segmentor,
)

from geodinoseg.model.folder import load_model


def with_lora(**settings):
    network = small_network(peft=True, **settings)
    randomize_lora(network)
    return network


MODELS = {
    **{kind: lambda kind=kind: small_network(backbone=backbone_folder(kind)) for kind in KINDS},
    "more bands, CNN head": lambda: small_network(bands=5, n_features=2, linear_head=False),
    "LoRA": with_lora,
    "4 bit": lambda: small_network(quantize=True),
    "4 bit with LoRA": lambda: with_lora(quantize=True),
}
WAYS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "copy": copy.deepcopy,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_gives_the_same_probabilities_before_and_after_use(name):
    model = small_segmentor(MODELS[name]())
    tile = raw_tile(bands=model.network.bands)
    fresh = [way(model) for way in WAYS.values()]
    expected = model.probabilities(*tile)
    used = [way(model) for way in WAYS.values()]
    for found in [*fresh, *used, pickle.loads(pickle.dumps(fresh[0]))]:
        assert torch.equal(found.probabilities(*tile), expected)
    assert torch.equal(model.probabilities(*tile), expected), "the model itself is not changed"


def test_all_that_predictions_depend_on_is_in_a_pickle(small_model):
    model = load_model(small_model, device="cpu").at_pixel_size(0.3)
    model.probabilities(*raw_tile(height=28, width=28))
    found = pickle.loads(pickle.dumps(model))
    assert found.fingerprint == model.fingerprint
    assert found.scale == model.scale != 1
    assert found.training == model.training
    assert not found.network.training
    assert not any(p.requires_grad for p in found.network.parameters())


@pytest.mark.slow
def test_a_process_that_built_no_backbone_gets_the_same_model(tmp_path):
    model = small_segmentor(with_lora())
    tile = raw_tile()
    torch.save((*tile, model.probabilities(*tile)), tmp_path / "tile.pt")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    code = (
        "import pickle, torch; model = pickle.load(open('model.pkl', 'rb'));"
        "*tile, expected = torch.load('tile.pt');"
        "assert torch.equal(model.probabilities(*tile), expected)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
