"""A training without a backbone goes the way of every other: planned, stopped, resumed, described."""

from __future__ import annotations

import json

import pytest
from commands import cli
from trainings import no_pictures, quick

from geodinoseg.training.plan import plan_training
from geodinoseg.training.train import train_model

NONE = {"backbone": "none"}


@pytest.fixture
def train(color_field, tmp_path, monkeypatch):
    no_pictures(monkeypatch)

    def run(name, *, settings=(), **options):
        few = {"steps_per_epoch": 2, "cached_crops": 8, "validation_share": 0.1}
        settings = quick(backbone_learning_rate=None, **{"crop_px": 45} | few | dict(settings))
        given = {"settings": settings, "network": NONE, "device": "cpu"}
        train_model(color_field.scene, color_field.labels, tmp_path / name, **given | options)
        return (tmp_path / name / "model.safetensors").read_bytes()

    return run


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(train):
    def stop(_, message):
        if "epoch 2/2" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("stopped.model", progress=stop)
    assert train("stopped.model", resume=True) == train("whole.model")


def test_crops_in_a_file_give_the_same_bytes(train):
    on_disk = train("b.model", settings={"epochs": 1, "cache_bytes": 0})
    assert train("a.model", settings={"epochs": 1}) == on_disk


def test_the_plan_has_one_stage_and_caches_pixels_alone(color_field):
    settings = quick(backbone_learning_rate=None, cached_crops=40, crop_px=56, validation_share=0.0)
    plan = plan_training(color_field.scene, color_field.labels, settings=settings, network=NONE)
    assert plan.stages == ("head",)
    assert plan.cache_bytes == 40 * 56 * 56 * (2 * 3 + 1 + 1)
    assert plan.seconds is not None
    assert plan.seconds > 0


def test_the_command_trains_describes_and_segments(color_field, tmp_path, monkeypatch):
    no_pictures(monkeypatch)
    model = tmp_path / "a.model"
    words = ["train", color_field.scene, "--labels", color_field.labels, "-o", model]
    words += ["--backbone", "none", "--epochs", 1, "--steps-per-epoch", 2, "--crop", 40]
    result = cli(*map(str, words))
    assert result.exit_code == 0, result.stderr
    found = json.loads(cli("info", str(model), "--json").stdout.splitlines()[-1])["result"]
    assert (found["head"], found["backbone"]) == ("fused", {"name": "none", "revision": None})
    assert (found["training"]["stage"], found["training"]["crop_px"]) == ("head", 40)
    assert "backbone              none" in cli("info", str(model)).stdout
    words = ["segment", color_field.scene, "--model", model, "-o", tmp_path / "m.tif"]
    result = cli(*map(str, words), "--tile", "61")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "more",
    [("--head", "linear"), ("--head", "cnn"), ("--stage", "lora"), ("--band-projection", "widen")],
)
def test_options_of_a_backbone_are_refused_in_one_line(more, color_field, tmp_path):
    words = ["train", color_field.scene, "--labels", color_field.labels, "-o", tmp_path / "a.model"]
    result = cli(*map(str, words), "--backbone", "none", *more)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "backbone='none'" in result.stderr
