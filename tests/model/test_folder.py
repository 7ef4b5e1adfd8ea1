from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import (
    COMMIT,
    KINDS,
    backbone_folder,
    published_backbone,
    randomize_lora,
    raw_tile,
    small_network,
    small_segmentor,
)
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from geodinoseg.errors import ModelError, ModelFolderError, OutputError, OutputExistsError
from geodinoseg.model import folder as model_folder
from geodinoseg.model.config import is_model_folder, read_model_config
from geodinoseg.model.folder import (
    load_model,
    save_model,
)
from geodinoseg.model.quantization import is_quantized

HUB_NAME = "facebook/dinov2-small"


def model_with_lora(**settings):
    network = small_network(peft=True, r=4, **settings)
    randomize_lora(network)
    return small_segmentor(network)


def probabilities(model):
    return model.probabilities(*raw_tile(bands=len(model.bands)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model that tests copy before they damage it."""
    return save_model(model_with_lora(), tmp_path_factory.mktemp("saved") / "roofs.model")


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "roofs.model"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_part(folder, part, **changes):
    edit_config(folder, **{part: json.loads((folder / "config.json").read_text())[part] | changes})


def renew_checksums(folder):
    edit_config(folder, sha256=model_folder._checksums(folder) | {"config.json": "0" * 64})
    sums = json.loads((folder / "config.json").read_text())["sha256"]
    edit_config(folder, sha256={n: s for n, s in sums.items() if n.endswith(".safetensors")})


def edit_weights(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    renew_checksums(folder)


def assert_refused(folder, message):
    with pytest.raises(ModelFolderError, match=message) as caught:
        load_model(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder}: ")
    assert "\n" not in text


ROUND_TRIPS = {
    "plain": {},
    "cnn head, two features": {"linear_head": False, "n_features": 2, "channels": 16},
    "fused head": {"fused_head": True},
    "fused head, 9 bands, LoRA": {"fused_head": True, "bands": 9, "peft": True},
    "9 bands": {"bands": 9},
    "with registers": {"backbone": "with_registers"},
    "DINOv3": {"backbone": "dinov3"},
    "LoRA": {"peft": True},
    "LoRA, 4 bands": {"peft": True, "bands": 4},
    "LoRA, DINOv3": {"peft": True, "backbone": "dinov3"},
    "4-bit": {"quantize": True},
    "LoRA, 4-bit": {"peft": True, "quantize": True},
    "LoRA, 4-bit, 9 bands": {"peft": True, "quantize": True, "bands": 9},
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_loaded_model_gives_the_probabilities_of_the_saved_one(name, tmp_path):
    settings = {"r": 4, **ROUND_TRIPS[name]}
    settings["backbone"] = backbone_folder(settings.get("backbone", "dinov2"))
    network = small_network(**settings)
    if settings.get("peft"):
        randomize_lora(network)
    model = small_segmentor(network)
    expected = probabilities(model)
    loaded = load_model(save_model(model, tmp_path / "a.model"), device="cpu")
    assert_close(probabilities(loaded), expected, rtol=1e-4, atol=1e-5)
    quantized = bool(settings.get("quantize"))
    assert is_quantized(loaded.network.backbone) is quantized
    assert loaded.network.settings["peft"] is (quantized and bool(settings.get("peft")))
    assert not any(p.requires_grad for p in loaded.network.parameters())
    assert not any(module.training for module in loaded.network.head.modules())


def test_all_that_belongs_to_a_model_comes_back(saved):
    model, loaded = small_segmentor(), load_model(saved)
    for field in (
        "legend",
        "statistics",
        "bands",
        "trained_tile_px",
        "pixel_size_m",
        "training",
        "scores",
        "scale",
        "precision",
    ):
        assert getattr(loaded, field) == getattr(model, field), field


def test_a_model_is_safetensors_json_and_a_card(saved):
    files = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "backbone/config.json",
        "backbone/model.safetensors",
        "config.json",
        "model.safetensors",
    }
    card = (saved / "README.md").read_text()
    assert "| 3 | concrete |" in card
    assert "- mean iou: 0.5\n" in card
    assert "- scenes: a.tif\n" in card


def test_a_look_at_a_models_config_loads_no_torch(saved):
    code = (
        "import sys; from geodinoseg.model.config import read_model_config; "
        "read_model_config(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True)


def test_lora_is_not_in_the_backbone_of_the_folder(saved):
    stored = load_file(saved / "backbone" / "model.safetensors")
    original = load_file(backbone_folder() / "model.safetensors")
    # The mask token is for pretraining; it may stay away or come along.
    assert stored.keys() >= {name for name in original if "mask_token" not in name}
    for name, tensor in stored.items():
        assert torch.equal(tensor, original[name]), name


def test_facts_that_json_does_not_know_are_written_as_what_they_stand_for(tmp_path):
    facts = {
        "mean_iou": float("nan"),
        "iou": np.array([0.5, np.inf]),
        "path": Path("a.tif"),
        "count": np.int64(3),
        "pair": (1, None),
        5: True,
    }
    loaded = load_model(save_model(small_segmentor(scores=facts), tmp_path / "a.model"))
    assert loaded.scores == {
        "mean_iou": None,
        "iou": [0.5, None],
        "path": "a.tif",
        "count": 3,
        "pair": [1, None],
        "5": True,
    }


@pytest.mark.parametrize("settings", [{}, {"peft": True, "r": 2}, {"quantize": True, "peft": True}])
def test_a_backbone_on_the_hub_is_named_not_copied(tmp_path, settings):
    published_backbone(HUB_NAME)
    network = small_network(backbone=HUB_NAME, **settings)
    if settings.get("peft"):
        randomize_lora(network)
    model = small_segmentor(network)
    expected = probabilities(model)
    folder = save_model(model, tmp_path / "a.model")
    assert not (folder / "backbone").exists()
    assert read_model_config(folder)["backbone"] == {"name": HUB_NAME, "revision": COMMIT}
    loaded = load_model(folder)
    assert_close(probabilities(loaded), expected, rtol=1e-4, atol=1e-5)
    assert (loaded.network.source, loaded.network.revision) == (HUB_NAME, COMMIT)


def test_a_backbone_on_the_hub_with_other_bands_is_named_and_its_embedding_kept(tmp_path):
    published_backbone(HUB_NAME)
    model = small_segmentor(small_network(backbone=HUB_NAME, bands=5))
    folder = save_model(model, tmp_path / "a.model")
    assert not (folder / "backbone").exists()
    assert_close(probabilities(load_model(folder)), probabilities(model))


def test_a_backbone_that_somebody_trained_is_saved_though_nobody_said_so(tmp_path):
    published_backbone(HUB_NAME)
    network = small_network(backbone=HUB_NAME)
    with torch.no_grad():
        next(p for n, p in network.backbone.named_parameters() if "fc1.weight" in n).mul_(1.5)
    model = small_segmentor(network)
    folder = save_model(model, tmp_path / "a.model")
    assert read_model_config(folder)["backbone"] is None
    assert_close(probabilities(load_model(folder)), probabilities(model))


def test_a_backbone_that_is_no_longer_on_the_hub_is_an_error_that_says_so(copied):
    edit_config(copied, backbone={"name": "somebody/gone", "revision": None})
    assert_refused(copied, "cannot be loaded: backbone somebody/gone: is not in the hub's cache")


@pytest.mark.parametrize("quantize", [False, True])
def test_a_model_can_be_moved_and_saved_again_from_where_it_is(tmp_path, quantize):
    backbone = shutil.copytree(backbone_folder(), tmp_path / "backbone")
    model = model_with_lora(backbone=backbone, quantize=quantize)
    expected = probabilities(model)
    first = save_model(model, tmp_path / "first.model")
    shutil.rmtree(backbone)
    moved = first.rename(tmp_path / "moved.model")
    again = save_model(load_model(moved), tmp_path / "again.model")
    shutil.rmtree(moved)
    assert_close(probabilities(load_model(again)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantize", [False, True])
def test_a_loaded_model_can_be_saved_over_itself(tmp_path, quantize):
    model = model_with_lora(quantize=quantize)
    folder = save_model(model, tmp_path / "a.model")
    loaded = dataclasses.replace(load_model(folder), scores={"mean_iou": 0.75})
    assert save_model(loaded, folder, overwrite=True) == folder
    again = load_model(folder)
    assert again.scores == {"mean_iou": 0.75}
    assert_close(probabilities(again), probabilities(model), rtol=1e-4, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["a.model"]


def test_a_4_bit_model_whose_source_is_gone_cannot_be_saved_and_says_so(tmp_path):
    backbone = shutil.copytree(backbone_folder(), tmp_path / "backbone")
    model = small_segmentor(small_network(backbone=backbone, quantize=True))
    shutil.rmtree(backbone)
    with pytest.raises(ModelError, match="backbone"):
        save_model(model, tmp_path / "a.model")
    assert [p.name for p in tmp_path.iterdir()] == []


def test_merged_for_want_of_4_bit_a_model_keeps_its_lora_when_saved_again(tmp_path, monkeypatch):
    folder = save_model(model_with_lora(quantize=True), tmp_path / "a.model")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    loaded = load_model(folder)
    assert not is_quantized(loaded.network.backbone)
    again = load_model(save_model(loaded, tmp_path / "b.model"))
    assert_close(probabilities(again), probabilities(loaded))


def test_a_failure_while_saving_leaves_the_old_model_whole_and_nothing_else(copied, monkeypatch):
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}

    def fail(segmentor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "model_card", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_model(small_segmentor(), copied, overwrite=True)
    with pytest.raises(OutputError, match="No space left"):
        save_model(small_segmentor(), copied.parent / "new.model")
    assert {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()} == before
    assert [p.name for p in copied.parent.iterdir()] == ["roofs.model"]


def test_a_model_replaces_models_only_and_only_when_asked(copied, tmp_path):
    with pytest.raises(OutputExistsError):
        save_model(small_segmentor(), copied)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(OutputError, match="holds other things"):
        save_model(small_segmentor(), other, overwrite=True)
    assert is_model_folder(copied)
    assert not is_model_folder(other)


def test_loading_says_nothing(saved, capfd, caplog, tmp_path):
    folder = save_model(model_with_lora(quantize=True), tmp_path / "packed.model")
    with caplog.at_level(logging.INFO):
        probabilities(load_model(saved))
        probabilities(load_model(folder))
    assert capfd.readouterr() == ("", "")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_folder_that_is_missing_or_a_file_or_empty_is_refused(tmp_path):
    assert_refused(tmp_path / "absent.model", "no such model folder")
    (tmp_path / "a.model").write_text("x")
    assert_refused(tmp_path / "a.model", "is a file")
    (tmp_path / "b.model").mkdir()
    assert_refused(tmp_path / "b.model", "config.json is missing")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": "geodinoseg-model"', b"1" * 9000],
)
def test_a_config_that_is_not_json_is_refused(copied, content):
    (copied / "config.json").write_bytes(content)
    assert_refused(copied, "config.json cannot be read")
    assert not is_model_folder(copied)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"geodinoseg-model"', b"{}", b"3"])
def test_json_of_another_kind_is_refused(copied, content):
    (copied / "config.json").write_bytes(content)
    assert_refused(copied, "is not a geodinoseg model")
    assert not is_model_folder(copied)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_backbone_is_no_model_and_is_told_where_it_goes(kind):
    assert_refused(backbone_folder(kind), "of another kind.*--backbone")


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_refused_with_the_version_that_wrote_it(copied, version):
    edit_config(copied, format_version=version, geodinoseg_version="9.1")
    assert_refused(copied, r"format .* use the version that wrote it \(9.1\)")


TOP = [
    "legend",
    "bands",
    "statistics",
    "tile_px",
    "pixel_size_m",
    "network",
    "backbone",
    "training",
    "scores",
    "sha256",
]


@pytest.mark.parametrize("key", TOP)
def test_a_missing_key_is_named(copied, key):
    values = json.loads((copied / "config.json").read_text())
    values.pop(key)
    (copied / "config.json").write_text(json.dumps(values))
    assert_refused(copied, f"incomplete or damaged.*{key} is missing")


WRONG = ["x", -1, 1.5, True, [[]], [{}], {"a": 1}, 10**400, None]
RIGHT = {
    "pixel_size_m": [1.5, None],
    "backbone": [None],
    "training": [{"a": 1}],
    "scores": [{"a": 1}],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in TOP for value in WRONG if value not in RIGHT.get(key, [])],
    ids=lambda value: str(value)[:12],
)
def test_a_value_of_another_type_is_refused_in_words(copied, key, value):
    edit_config(copied, **{key: value})
    assert_refused(copied, "incomplete or damaged")


@pytest.mark.parametrize("value", ["x", 0, -1, 0.001, 1000, True, None, [1], 10**400])
def test_a_temperature_that_cannot_be_is_refused(copied, value):
    edit_config(copied, temperature=value)
    assert_refused(copied, "incomplete or damaged.*temperature cannot be")


def test_a_folder_from_before_calibration_loads_as_it_was(copied):
    values = json.loads((copied / "config.json").read_text())
    assert values.pop("temperature") == 1
    (copied / "config.json").write_text(json.dumps(values))
    assert load_model(copied, device="cpu").temperature == 1
    edit_config(copied, temperature=1.7)
    assert load_model(copied, device="cpu").temperature == 1.7


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("network", {"n_block": "4"}),
        ("network", {"n_block": 10**9}),
        ("network", {"channels": 10**12}),
        ("network", {"k_size": 4.0}),
        ("network", {"n_features": 0}),
        ("network", {"r": 10**9}),
        ("network", {"num_classes": 4}),
        ("network", {"num_classes": 10**9}),
        ("network", {"linear_head": "yes"}),
        ("network", {"quantize": 1}),
        ("network", {"lora_dropout": None}),
        ("network", {"size": 3}),
        ("network", {"activation": ["relu"]}),
        ("network", {"trust_remote_code": True}),
        ("network", {"backbone": "elsewhere"}),
        ("statistics", {"std": [0, 1, 1]}),
        ("statistics", {"mean": [1, 2]}),
        ("statistics", {"mean": [1, 2, None]}),
        ("statistics", {"low": "abc"}),
        ("statistics", {"dtype": 8}),
        ("sha256", {"../other.safetensors": "0" * 64}),
        ("sha256", {"/etc/passwd": "0" * 64}),
        ("sha256", {"model.safetensors": "abc"}),
        ("sha256", {"model.safetensors": 5}),
    ],
)
def test_values_within_that_cannot_be_are_refused(copied, part, changes):
    edit_part(copied, part, **changes)
    assert_refused(copied, "incomplete or damaged")


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": [0, 1, 2]},
        {"bands": [1, 2]},
        {"bands": [1, 2, 10**9]},
        {"tile_px": 10**9},
        {"pixel_size_m": -2},
        {"backbone": {"name": 5, "revision": None}},
        {"backbone": {"revision": None}},
        {"legend": [{"class_id": 0, "name": "a", "color": "red"}] * 3},
        {"legend": [{"class_id": 0, "name": "a", "color": "#ffffff"}] * 3},
        {"legend": [{"class_id": 0}] * 3},
    ],
)
def test_values_that_cannot_be_or_contradict_each_other_are_refused(copied, changes):
    edit_config(copied, **changes)
    assert_refused(copied, "incomplete or damaged")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(copied, number):
    path = copied / "config.json"
    values = json.loads(path.read_text())
    values["pixel_size_m"] = 424242
    path.write_text(json.dumps(values).replace("424242", number))
    assert_refused(copied, "pixel_size_m cannot be")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 16_384, "linear_head": False}, "another model"),
        ({"k_size": 31, "n_features": 3}, "another model"),
        ({"r": 4_096}, "another model"),
        ({"peft": False}, "another model"),
        ({"n_features": 200}, "another model"),
        ({"linear_head": False, "channels": 3}, "cannot be loaded: channels=3"),
        ({"activation": "gelu"}, "cannot be loaded: activation='gelu'"),
        ({"lora_dropout": 4}, "cannot be loaded: lora_dropout"),
        ({"size": "huge"}, "cannot be loaded: size='huge'"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused_before_memory_is_taken(
    copied, changes, message
):
    edit_part(copied, "network", **changes)
    assert_refused(copied, message)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "backbone/model.safetensors", "backbone/config.json"]
)
def test_a_file_that_is_not_the_one_that_was_saved_is_named(copied, name, damage):
    damage(copied / name)
    assert_refused(copied, f"{name} is not the file that was saved")


@pytest.mark.parametrize("name", ["model.safetensors", "backbone/model.safetensors", "backbone"])
def test_a_missing_file_is_named(copied, name):
    path = copied / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_refused(copied, f"{name}.* is missing; copy the whole folder again")


def test_weights_that_were_damaged_before_their_checksum_are_refused(copied):
    truncate(copied / "model.safetensors")
    renew_checksums(copied)
    assert_refused(copied, "model.safetensors is damaged")


def test_a_backbone_that_was_damaged_before_its_checksum_is_refused(copied):
    truncate(copied / "backbone" / "model.safetensors")
    renew_checksums(copied)
    assert_refused(copied, "cannot be loaded: backbone .* its weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["head.classify.bias", "lora.", "patch_embedding.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(copied, part, value):
    def spoil(tensors):
        name = next(name for name in tensors if name.startswith(part))
        tensors[name].view(-1)[3 if tensors[name].numel() > 3 else 0] = value

    edit_weights(copied, spoil)
    assert_refused(copied, "holds .*, which is not finite")


def rename(tensors):
    tensors["head.other"] = tensors.pop("head.classify.bias")


def drop_lora(tensors):
    for name in [name for name in tensors if name.startswith("lora.")]:
        del tensors[name]


def reshape_lora(tensors):
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    tensors[name] = torch.zeros(3, 4)


def drop_embedding(tensors):
    del tensors["patch_embedding.weight"]


@pytest.mark.parametrize("edit", [rename, drop_lora, reshape_lora, drop_embedding, dict.clear])
def test_weights_of_another_model_are_refused(copied, edit):
    edit_weights(copied, edit)
    assert_refused(copied, "is that of another model")


@pytest.mark.parametrize("name", ["weights.pt", "model.bin", "backbone/a.pkl", "x.CKPT", "m.pth"])
def test_a_folder_with_a_pickle_is_refused(copied, name):
    (copied / name).write_bytes(b"")
    assert_refused(copied, f"holds {Path(name).name}, a format that can run code")


def test_no_code_that_a_model_names_is_ever_run(copied, tmp_path):
    ran = tmp_path / "ran"
    (copied / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    shutil.copy(copied / "evil.py", copied / "backbone")
    auto_map = {"AutoConfig": "evil.C", "AutoModel": "evil.C", "AutoBackbone": "evil.C"}
    edit_config(copied, auto_map=auto_map)
    values = json.loads((copied / "backbone" / "config.json").read_text())
    (copied / "backbone" / "config.json").write_text(json.dumps(values | {"auto_map": auto_map}))
    renew_checksums(copied)
    load_model(copied)
    assert not ran.exists()
