"""Backbones by name: the cache first, the hub once and for seconds, and what is said without it."""

from __future__ import annotations

import json
import time

import pytest
import torch
from fake_hub import COMMIT, as_downloaded, fake_hub, silent_hub, use_hub
from model_fixtures import backbone_folder, save_quietly, small_segmentor, transformers_model

from geodinoseg.errors import GeodinosegError, ModelError, ModelFolderError
from geodinoseg.model import hub as hub_module
from geodinoseg.model.backbone import pretrained_rgb, read_backbone_config
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.folder import load_model, save_model
from geodinoseg.model.hub import backbone_folder as files_of
from geodinoseg.model.parameters import check_backbone_source

NAME = "somebody/dino"


def network(**options):
    torch.manual_seed(5)
    return DinoV2Segmentor(backbone=NAME, quantize=False, peft=False, **options)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "hub"


@pytest.fixture
def nobody(monkeypatch, cache):
    """A hub that may not be asked: whoever asks it fails the test."""

    def ask(*_, **__):
        raise AssertionError("the hub was asked")

    use_hub(monkeypatch, "http://127.0.0.1:9", cache)
    monkeypatch.setattr(hub_module, "HfApi", ask)
    monkeypatch.setattr(hub_module, "hf_hub_download", ask)
    # Neither may transformers by itself.
    monkeypatch.setattr("socket.socket.connect", ask)


def test_weights_in_the_cache_are_not_asked_for_and_nor_are_files_that_are_not_needed(
    nobody, cache, tmp_path
):
    as_downloaded(NAME, backbone_folder(), cache)
    built = network()
    assert (built.source, built.revision) == (NAME, COMMIT)
    assert pretrained_rgb(NAME) is None
    folder = save_model(small_segmentor(built), tmp_path / "a.model")
    assert json.loads((folder / "config.json").read_text())["backbone"]["revision"] == COMMIT
    loaded = load_model(folder, device="cpu")
    weights = built.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in loaded.network.state_dict().items())


def test_a_pinned_commit_needs_no_branch_in_the_cache(nobody, cache):
    as_downloaded(NAME, backbone_folder(), cache)
    (cache / "models--somebody--dino" / "refs" / "main").unlink()
    assert network(revision=COMMIT).revision == COMMIT


def test_weights_in_several_files_are_found_in_the_cache(nobody, cache, tmp_path):
    transformers_model("dinov2").save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    as_downloaded(NAME, tmp_path / "parts", cache)
    assert network().patch_px == 14


def test_what_is_not_in_the_cache_is_fetched_once(monkeypatch, cache, tmp_path, caplog):
    save_quietly(transformers_model("dinov2"), tmp_path / "published")
    for other in ("pytorch_model.bin", "README.md", "flax_model.msgpack"):
        (tmp_path / "published" / other).write_text("not needed")
    with fake_hub(NAME, tmp_path / "published") as hub:
        use_hub(monkeypatch, hub.root, cache)
        read_backbone_config(NAME)
        assert not any("safetensors" in line for line in hub.asked), "the configuration alone"
        with caplog.at_level("INFO"):
            assert network().revision == COMMIT
        asked = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
        assert asked == {"config.json", "model.safetensors"}
        hub.asked.clear()
        network()
        assert hub.asked == []
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("geodinoseg")]
    assert len(ours) == 1
    assert "fetching it from the hub" in ours[0]


def test_a_name_that_the_hub_does_not_know_is_said_to_be_so(monkeypatch, cache, tmp_path):
    with fake_hub("somebody/else", backbone_folder()) as hub:
        use_hub(monkeypatch, hub.root, cache)
        with pytest.raises(ModelError, match="has no model of that name") as caught:
            network()
    assert "\n" not in str(caught.value)


def test_a_hub_that_stays_silent_is_given_up_within_seconds(monkeypatch, cache, capfd, caplog):
    monkeypatch.setattr(hub_module, "_ASK_S", 1.0)
    with silent_hub() as hub:
        use_hub(monkeypatch, hub.root, cache)
        began = time.monotonic()
        with pytest.raises(ModelError) as caught:
            network()
        assert time.monotonic() - began < 8
    check_sentence(str(caught.value), cache)
    assert "cannot be reached" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_name_server_that_stays_silent_is_given_up_too(monkeypatch, cache):
    monkeypatch.setattr(hub_module, "_ANSWER_S", 0.2)
    monkeypatch.setattr(hub_module.HfApi, "model_info", lambda *_, **__: time.sleep(5))
    use_hub(monkeypatch, "http://127.0.0.1:9", cache)
    began = time.monotonic()
    with pytest.raises(ModelError, match="cannot be reached"):
        network()
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_one_whole_sentence_says_where_to_get_it(monkeypatch, cache, offline):
    use_hub(monkeypatch, "http://127.0.0.1:9", cache)
    monkeypatch.setattr(hub_module.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ModelError) as caught:
        network()
    check_sentence(str(caught.value), cache)


def check_sentence(text, cache):
    assert text.startswith(f"backbone {NAME}: is not in the hub's cache, {cache} (set HF_HOME ")
    assert text.endswith("--backbone a folder that holds config.json and model.safetensors.")
    assert "HF_HUB_OFFLINE" in text
    assert "\n" not in text


def test_a_model_whose_backbone_is_nowhere_is_named(monkeypatch, cache, tmp_path):
    use_hub(monkeypatch, "http://127.0.0.1:9", cache)
    as_downloaded(NAME, backbone_folder(), cache)
    folder = save_model(small_segmentor(network()), tmp_path / "a.model")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "empty")
    with pytest.raises(ModelFolderError, match="cannot be loaded: backbone somebody/dino: is not"):
        load_model(folder)


def test_the_colours_of_published_backbones_do_not_depend_on_the_cache(nobody, cache):
    as_downloaded("facebook/dinov2-base", backbone_folder(), cache)
    assert pretrained_rgb("facebook/dinov2-base") == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    as_downloaded("facebook/other", backbone_folder(), cache)
    assert pretrained_rgb("facebook/other") is None


@pytest.mark.parametrize(
    "name",
    ["", "a" * 100_000, "a/" + "b" * 4_000, "x y", "a/b?c", "ü" * 90],
    ids=lambda name: name[:5],
)
def test_a_name_that_can_be_none_is_refused_at_once(nobody, name):
    began = time.monotonic()
    with pytest.raises(GeodinosegError, match=r"^backbone '?.{0,400}$"):
        check_backbone_source(name)
    assert time.monotonic() - began < 1
    with pytest.raises(GeodinosegError):
        files_of(name)


@pytest.mark.parametrize(
    ("name", "revision", "is_asked"),
    [
        ("facebook/dinov2-bse", None, True),
        ("facebook/dinov2-base", None, True),
        ("someone/else", None, True),
        ("somebody/else", None, False),
        ("somebody/else", "main", True),
        ("sombody/dno", None, False),
        ("dinov2-base", None, False),
        ("dinov2-base", "main", False),
        ("./somebody/else", "main", False),
    ],
)
def test_only_what_cannot_be_a_mistyped_folder_is_a_name_on_the_hub(
    name, revision, is_asked, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody" / "dino").mkdir(parents=True)
    (tmp_path / "facebook").mkdir()
    if is_asked:
        check_backbone_source(name, revision=revision)
        return
    with pytest.raises(ModelError, match=f"^backbone {name}: no such folder; "):
        check_backbone_source(name, revision=revision)
