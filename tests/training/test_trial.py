"""The estimated time of a training: which work is counted, and that no weights are needed."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import cli, events
from numpy.testing import assert_allclose
from trainings import quick

from geodinoseg.training import trial
from geodinoseg.training.plan import plan_training
from geodinoseg.training.trial import Speeds, planned_seconds

STEPS = {"head": 0.1, "fused": 0.4}
RECIPE = {"epochs": 3, "head_epochs": 2, "steps_per_epoch": 10, "batch_size": 4}


@pytest.mark.parametrize(
    ("changes", "folds", "seconds"),
    [
        # features, then both heads and the kept one on all labels, then as many further steps of a
        # head as stage two takes, and stage two with validation, the report
        ({"stage": "head"}, 1, (100 + 20) + 2 * 40 * (0.5 + 0.4) + 20),
        ({"stage": "lora"}, 1, (100 + 20) + 2 * 40 * 0.9 + 3 * 40 * 0.4 + 3 * 220 + 20),
        ({"stage": "full", "cached_crops": 32}, 1, (40 + 20) + 72 + 48 + 3 * 220 + 20),
        ({"stage": "lora", "head_epochs": 0}, 1, 3 * 220 + 20),
        # heads for each fold, which share the epochs, and one on all labels; then further steps and
        # stage two for each fold
        ({"stage": "head"}, 2, (80 + 20) + 40 * 2 * 0.5 + 2 * 40 * 0.4 + 20),
        ({"stage": "lora"}, 2, 100 + 72 + 2 * 2 * 40 * 0.4 + 2 * (2 * 40 * 5 + 20) + 20),
        ({"stage": "head", "validation_share": 0.0}, 0, (80 + 20) + 2 * 40 * 0.5 + 20),
    ],
)
def test_all_work_of_the_stages_is_counted(changes, folds, seconds):
    settings = quick(**(RECIPE | changes))
    tuning_step = 0.0 if settings.stage == "head" else 5.0
    speeds = Speeds(forward=1.0, head_steps=STEPS, tuning_step=tuning_step)
    assert_allclose(planned_seconds(settings, folds, 20, speeds), seconds)


@pytest.fixture
def without_weights(backbone, tmp_path):
    """The configuration of a backbone, as of one that was not fetched yet."""
    folder = tmp_path / "bones"
    folder.mkdir()
    shutil.copy(backbone / "config.json", folder)
    return folder


@pytest.mark.parametrize("stage", ["head", "lora", "full"])
@pytest.mark.parametrize("network", [{}, {"linear_head": False, "channels": 16, "n_features": 2}])
def test_the_trial_needs_no_weights(stage, network, color_field, without_weights):
    plan = plan_training(
        color_field.scene,
        color_field.labels,
        settings=quick(stage=stage, **RECIPE),
        network={"backbone": without_weights, **network},
        device="cpu",
    )
    assert 0 < plan.seconds < 600
    assert plan.to_json()["seconds"] == round(plan.seconds, 1)


def test_the_trial_changes_no_random_numbers(color_field, without_weights):
    import torch

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    plan_training(
        color_field.scene,
        color_field.labels,
        settings=quick(),
        network={"backbone": without_weights},
    )
    assert torch.equal(torch.rand(3), expected)


def test_a_dry_run_says_about_how_long_it_takes_and_from_what(workshop_words, monkeypatch):
    monkeypatch.setattr(
        trial, "_measured", lambda *_: Speeds(forward=1.0, head_steps=STEPS, tuning_step=5.0)
    )
    words, output = workshop_words
    text = cli(*words, "--dry-run").stdout
    assert "time  " in text
    assert "about " in text.splitlines()[-1]
    assert "for the network on this device, by a trial on a few crops" in text
    text = cli(*words, "--dry-run", "--minutes", "0.1").stdout
    assert text.splitlines()[-1].endswith("  about 6 s, the limit of --minutes")
    plan = events(cli(*words, "--dry-run", "--minutes", "0.1", "--json"))[-1]["result"]
    assert (plan["seconds"], plan["time_limit_s"]) == (6, 6)
    plan = events(cli(*words, "--dry-run", "--json"))[-1]["result"]
    assert plan["seconds"] > 6
    assert plan["time_limit_s"] is None
    assert not output.exists()


def test_a_device_without_memory_for_the_trial_is_no_error(workshop_words, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(trial, "_measured", full)
    words, _ = workshop_words
    assert "time" in cli(*words, "--dry-run").stdout
    assert "unknown: the memory" in cli(*words, "--dry-run").stdout
    last = cli(*words, "--dry-run", "--json").stdout.splitlines()[-1]
    assert json.loads(last)["result"]["seconds"] is None


@pytest.fixture
def workshop_words(color_field, without_weights, tmp_path):
    output = tmp_path / "new.model"
    words = ["train", color_field.scene, "--labels", color_field.labels, "-o", output]
    return [*words, "--backbone", without_weights, "--crop", 56, "--stage", "head"], output
