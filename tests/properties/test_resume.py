"""Training that is stopped: what is left, and that going on gives what would have come anyway."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from rasters import write_raster
from safetensors.torch import load_file, save_file
from trainings import color_pixels, no_pictures, quick, write_few_squares

import geodinoseg.training.checkpoint
import geodinoseg.training.epochs
import geodinoseg.training.finetuning
import geodinoseg.training.head_stage
import geodinoseg.training.run
from geodinoseg.errors import ModelError, ModelFolderError, OutputError, OutputExistsError
from geodinoseg.model.folder import load_model, save_model
from geodinoseg.training.checkpoint import TrainingRecord
from geodinoseg.training.finetuning import FineTuning
from geodinoseg.training.train import train_model

SETTINGS = quick(
    stage="lora", epochs=2, steps_per_epoch=2, batch_size=2, cached_crops=6, learning_rate=0.002
)
CNN = {"linear_head": False, "channels": 16, "n_block": 2}


class KilledError(BaseException):
    """Nobody handles it: what is written afterwards was not written by a handler."""


class StopAt:
    """A progress that stops the work at a call."""

    def __init__(self, call, how=KeyboardInterrupt):
        self.calls, self.call, self.how = 0, call, how

    def __call__(self, fraction, message):
        self.calls += 1
        if self.calls == self.call:
            raise self.how


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch):
    """Are drawn where a test is about them alone: they take longer than such a training."""
    if request.node.name != "test_two_trainings_with_one_seed_give_the_same_folder":
        no_pictures(monkeypatch)


@pytest.fixture
def train(backbone, color_field, tmp_path):
    def run(
        output="a.model", *, settings=SETTINGS, scene=None, labels=None, network=CNN, **options
    ):
        return train_model(
            scene or color_field.scene,
            labels or color_field.many_labels,
            tmp_path / output,
            settings=settings,
            network={"backbone": backbone, "quantize": False, **network},
            **({"device": "cpu"} | options),
        )

    return run


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def calls_of(train):
    """How often progress is told in a whole training, and its folder's files."""
    whole = StopAt(None)
    train("whole.model", progress=whole)
    return whole.calls


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_wherever_a_training_stops_going_on_gives_the_same_bytes(
    step, train, tmp_path, monkeypatch
):
    # A checkpoint after every epoch, as if each took long.
    monkeypatch.setattr(geodinoseg.training.epochs, "_CHECKPOINT_S", 0)
    calls = calls_of(train)
    wanted = contents(tmp_path / "whole.model")
    assert "model.safetensors" in wanted
    for call in range(2, calls, step):
        how = KeyboardInterrupt if call % 2 else KilledError
        with pytest.raises(how):
            train(f"{call}.model", progress=StopAt(call, how))
        train(f"{call}.model", resume=True)
        assert contents(tmp_path / f"{call}.model") == wanted, f"stopped at {call} of {calls}"
        assert not (tmp_path / f"{call}.model.checkpoint").exists()


class StopAfter:
    """A progress that stops the work in the first step after an epoch of a stage, all of its folds.

    The stage of a message is what comes before the first comma.
    """

    def __init__(self, number):
        self.number, self.ended, self.epochs = number, 0, []

    def __call__(self, _, message):
        where = message.split(", loss")[0].split(", mean IoU")[0]
        if ", epoch " not in where or "on all labels" in where:
            return
        if self.epochs and self.epochs[-1] != where:
            self.ended += 1
            if self.ended == self.number:
                raise KilledError
        if not self.epochs or self.epochs[-1] != where:
            self.epochs.append(where)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("are_few", "kept"), [(False, "further"), (False, "lora"), (True, "further"), (True, "lora")]
)
def test_a_training_goes_on_to_the_same_bytes_after_each_epoch_of_each_stage(
    are_few, kept, train, tmp_path, monkeypatch
):
    monkeypatch.setattr(geodinoseg.training.epochs, "_CHECKPOINT_S", 0)
    monkeypatch.setattr(geodinoseg.training.run, "choose", keeping(kept))
    options = {"labels": write_few_squares(tmp_path / "few.gpkg") if are_few else None}
    options["settings"] = replace(SETTINGS, epochs=6 if are_few else 2)
    whole = StopAfter(None)
    assert train("whole.model", progress=whole, **options).training["kept"] == kept
    assert len(whole.epochs) == 6, "two of each stage"
    for number in range(1, 6):
        with pytest.raises(KilledError):
            train(f"{number}.model", progress=StopAfter(number), **options)
        train(f"{number}.model", resume=True, **options)
        assert contents(tmp_path / f"{number}.model") == contents(tmp_path / "whole.model")


def keeping(stage):
    """A choice whose outcome is known."""
    return lambda scores: (next((s for s in scores if s.stage == stage), scores[0]), "as told")


@pytest.mark.slow
def test_a_training_may_be_stopped_again_and_again(train, tmp_path, monkeypatch):
    monkeypatch.setattr(geodinoseg.training.epochs, "_CHECKPOINT_S", 0)
    train("whole.model")
    for _ in range(5):
        with pytest.raises(KilledError):
            train(resume=True, progress=StopAfter(1))
    train(resume=True)
    assert contents(tmp_path / "a.model") == contents(tmp_path / "whole.model")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.5, 3.0])
def test_a_training_that_was_killed_goes_on_to_the_same_bytes(
    backbone, color_field, tmp_path, seconds
):
    def command(output, *more):
        return [
            sys.executable,
            "-m",
            "geodinoseg",
            "train",
            color_field.scene,
            "--labels",
            color_field.labels,
            "-o",
            tmp_path / output,
            "--backbone",
            backbone,
            "--no-quantize",
            "--crop",
            "56",
            "--epochs",
            "12",
            "--steps-per-epoch",
            "6",
            "--batch-size",
            "2",
            "--device",
            "cpu",
            *more,
        ]

    subprocess.run(command("whole.model"), check=True)
    process = subprocess.Popen(command("killed.model"))
    checkpoint = tmp_path / "killed.model.checkpoint"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    refused = subprocess.run(command("killed.model"), capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "continue with --resume, or start over with --overwrite" in refused.stderr
    subprocess.run(command("killed.model", "--resume"), check=True)
    assert contents(tmp_path / "killed.model") == contents(tmp_path / "whole.model")
    left = {path.name for path in tmp_path.iterdir() if "model" in path.name}
    assert left == {"whole.model", "killed.model"}


def test_an_interrupt_leaves_the_best_so_far_as_a_model_that_is_not_finished(train, tmp_path):
    calls = calls_of(train)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(progress=StopAt(calls - 1))
    model = load_model(tmp_path / "a.model", device="cpu")
    assert model.training["finished"] is False
    assert model.scores["mean_iou"] > 0
    (note,) = stop.value.__notes__
    assert note.startswith("The model so far (epoch ")
    assert note.endswith("a.model, unfinished; continue with --resume.")
    assert (tmp_path / "a.model.checkpoint").exists()
    with pytest.raises(OutputExistsError, match=r"an interrupted training is at .*checkpoint"):
        train()
    assert train(resume=True).training["finished"] is True


def test_an_interrupt_before_the_first_epoch_leaves_nothing(train, tmp_path):
    with pytest.raises(KeyboardInterrupt) as stop:
        train(progress=StopAt(2))
    assert stop.value.__notes__ == [
        "No epoch was finished, so nothing is kept; the same command starts over."
    ]
    assert not list(tmp_path.iterdir())


def test_a_finished_model_stays_until_the_new_one_is_whole(train, tmp_path, small_model):
    old = save_model(load_model(small_model, device="cpu"), tmp_path / "a.model")
    before = contents(old)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(overwrite=True, progress=StopAt(20))
    assert contents(old) == before
    assert "is kept at" in stop.value.__notes__[0]
    with pytest.raises(OutputExistsError, match="a model of another training is there"):
        train(resume=True)
    assert contents(old) == before
    train(resume=True, overwrite=True)
    train("whole.model")
    assert contents(old) == contents(tmp_path / "whole.model")


def test_to_go_on_where_nothing_was_begun_is_to_begin(train, tmp_path):
    train(resume=True)
    train("whole.model")
    assert contents(tmp_path / "a.model") == contents(tmp_path / "whole.model")


def test_to_go_on_with_what_is_finished_is_to_do_nothing(train, tmp_path, caplog):
    train()
    before = contents(tmp_path / "a.model")
    model = train(resume=True, progress=StopAt(1))
    assert "this training is finished already" in caplog.text
    assert model.legend.names == ("field", "roof", "water")
    assert contents(tmp_path / "a.model") == before


@pytest.mark.parametrize(
    "what", ["settings", *(pytest.param(w, marks=pytest.mark.slow) for w in ("network", "scene"))]
)
def test_a_checkpoint_of_another_training_is_refused(what, train, tmp_path, color_field):
    with pytest.raises(KilledError):
        train(progress=StopAt(14, KilledError), settings=quick(stage="head", epochs=1))
    assert not (tmp_path / "a.model.checkpoint").exists(), "killed before the first checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(progress=StopAt(20))
    pixels = color_pixels(color_field.channels, seed=9)
    other = {
        "settings": {"settings": quick(stage="head")},
        "network": {"network": {}},
        "scene": {"scene": write_raster(tmp_path / "other.tif", pixels)},
    }[what]
    checkpoint = tmp_path / "a.model.checkpoint"
    before = checkpoint.read_bytes()
    with pytest.raises(ModelFolderError, match="belongs to another training") as refusal:
        train(resume=True, **other)
    assert "\n" not in str(refusal.value)
    assert checkpoint.read_bytes() == before
    train(overwrite=True, **other)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "damage",
    ["cut", "plain tensors", *(pytest.param(d, marks=pytest.mark.slow) for d in ("empty", "text"))],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(damage, train, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(progress=StopAt(20))
    checkpoint = tmp_path / "a.model.checkpoint"
    whole = checkpoint.read_bytes()
    if damage == "plain tensors":
        save_file({"a": torch.zeros(3)}, checkpoint)
    else:
        spoilt = {"cut": whole[:-100], "empty": b"", "text": b"not a checkpoint at all"}
        checkpoint.write_bytes(spoilt[damage])
    with pytest.raises(
        ModelFolderError, match="is not a checkpoint that this version can read"
    ) as error:
        train(resume=True)
    assert "\n" not in str(error.value)


def test_a_checkpoint_gives_back_what_it_was_given(train, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(progress=StopAt(23))
    path = tmp_path / "a.model.checkpoint"
    record = geodinoseg.training.checkpoint.read_record(path)
    assert record.history
    record.write(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert b"pickle" not in path.read_bytes()
    assert any(name.endswith("exp_avg") for name in load_file(path))


@pytest.mark.parametrize("stage", ["head", "lora"])
def test_a_loss_that_is_no_number_leaves_the_best_so_far(stage, train, tmp_path, monkeypatch):
    module = geodinoseg.training.head_stage if stage == "head" else geodinoseg.training.finetuning
    good, calls = module.loss_of_members, iter(range(99))
    monkeypatch.setattr(
        module,
        "loss_of_members",
        lambda logits, labels: good(logits, labels) * (float("nan") if next(calls) == 3 else 1),
    )
    with pytest.raises(ModelError, match="no longer finite") as fault:
        train()
    model = load_model(tmp_path / "a.model", device="cpu")
    assert model.training["finished"] is False
    assert model.training["kept"] in {"head", stage}
    assert "is kept at" in fault.value.__notes__[0]


def test_a_full_disk_in_the_middle_leaves_the_last_checkpoint(train, tmp_path, monkeypatch):
    written = []

    def write_until_full(tensors, path, metadata):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(geodinoseg.training.checkpoint, "save_file", write_until_full)
    with pytest.raises(OutputError, match=r"could not be written: .*No space left") as fault:
        train()
    assert "\n" not in str(fault.value)
    (note,) = fault.value.__notes__
    assert note.endswith("a.model.checkpoint; continue with --resume.")
    monkeypatch.setattr(geodinoseg.training.checkpoint, "save_file", save_file)
    train(resume=True)
    train("whole.model")
    assert contents(tmp_path / "a.model") == contents(tmp_path / "whole.model")


def test_a_disk_without_room_for_features_is_one_clear_line(train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"has no room for .* GB of features .*--cached-crops"):
        train(settings=quick(cache_bytes=0))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_trainings_with_one_seed_give_the_same_folder(train, tmp_path):
    torch.manual_seed(11)
    train("a.model")
    torch.manual_seed(12)
    train("b.model")
    assert contents(tmp_path / "a.model") == contents(tmp_path / "b.model")


@pytest.mark.slow
def test_an_interrupt_while_an_epoch_is_recorded_leaves_a_whole_record(
    train, tmp_path, monkeypatch
):
    train("whole.model")
    after, calls = TrainingRecord.after_epoch, iter(range(9))

    def stopped(record, *values):
        fresh = after(record, *values)
        if next(calls) == 3:
            raise KeyboardInterrupt
        return fresh

    monkeypatch.setattr(TrainingRecord, "after_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.setattr(TrainingRecord, "after_epoch", after)
    train(resume=True)
    assert contents(tmp_path / "a.model") == contents(tmp_path / "whole.model")


def test_what_is_learnt_in_stage_two_goes_on_from_the_checkpoint(train, monkeypatch):
    """Not from the start: a resumed training does the epochs that are left and no others."""
    epochs = []
    once = FineTuning.train_epoch

    def counted(stage, epoch):
        epochs.append(epoch)
        return once(stage, epoch)

    monkeypatch.setattr(FineTuning, "train_epoch", counted)

    def stop_in_the_second(_, message):
        if message.startswith("LoRA, epoch 2/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(progress=stop_in_the_second)
    assert epochs == [0, 1]
    train(resume=True)
    assert epochs == [0, 1, 1]


def test_facts_of_a_model_hold_nothing_that_a_second_run_would_not(train, tmp_path):
    train()
    facts = json.loads((tmp_path / "a.model" / "config.json").read_text())["training"]
    assert facts["finished"] is True
    assert not {"minutes", "cache_bytes", "seconds", "date"} & facts.keys()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["head", "lora"])
def test_both_heads_go_on_to_the_same_bytes(stage, train, tmp_path, monkeypatch):
    monkeypatch.setattr(geodinoseg.training.epochs, "_CHECKPOINT_S", 0)
    settings = quick(
        stage=stage, epochs=2, steps_per_epoch=2, batch_size=2, cached_crops=6, learning_rate=0.002
    )
    whole = StopAt(None)
    train("whole.model", settings=settings, network={}, progress=whole)
    for call in range(2, whole.calls, 5):
        with pytest.raises(KilledError):
            train(
                f"{call}.model",
                settings=settings,
                network={},
                progress=StopAt(call, KilledError),
            )
        train(f"{call}.model", settings=settings, network={}, resume=True)
        assert contents(tmp_path / f"{call}.model") == contents(tmp_path / "whole.model")
