"""What TensorBoard reads back of a training."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from geodinoseg.errors import ModelError
from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.training.history import EpochScore
from geodinoseg.training.tensorboard import EventLog, check_event_log

NAMES = ("field", "roof", "open water")


def score(epoch, matrix=None, val_loss=math.nan):
    accuracy = None if matrix is None else Accuracy(np.array(matrix))
    return EpochScore(
        epoch=epoch, stage="head", train_loss=1 / epoch, val_loss=val_loss, accuracy=accuracy
    )


def read_back(folder):
    """Tag to (steps, values), by TensorBoard's own reader."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: ([e.step for e in events.Scalars(tag)], [e.value for e in events.Scalars(tag)])
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_losses_and_scores_by_class(tmp_path):
    pytest.importorskip("tensorboard")
    matrix = [[5, 1, 0], [2, 6, 0], [0, 0, 0]]
    check_event_log()
    with EventLog(tmp_path / "log", names=NAMES) as log:
        log.epoch(score(1))
        log.epoch(score(2, matrix, val_loss=0.7))
    with EventLog(tmp_path / "log", names=NAMES) as log:  # gone on with
        log.epoch(score(3, matrix, val_loss=0.6))
    found = read_back(tmp_path / "log")
    assert set(found) == {"loss/training", "loss/validation", "mean IoU", "IoU/field", "IoU/roof"}
    assert found["loss/training"][0] == [1, 2, 3]
    assert_allclose(found["loss/training"][1], [1, 1 / 2, 1 / 3])
    assert found["loss/validation"][0] == [2, 3]
    assert_allclose(found["loss/validation"][1], [0.7, 0.6], rtol=1e-6)
    assert_allclose(found["IoU/field"][1], 5 / 8)
    assert_allclose(found["IoU/roof"][1], 6 / 9)
    assert_allclose(found["mean IoU"][1], (5 / 8 + 6 / 9) / 2)


def test_what_was_logged_can_be_read_before_the_end(tmp_path):
    pytest.importorskip("tensorboard")
    log = EventLog(tmp_path)
    log.epoch(score(1))
    assert read_back(tmp_path)["loss/training"] == ([1], [1.0])
    log.close()


def test_without_tensorboard_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for fails in (check_event_log, lambda: EventLog(tmp_path / "log")):
        with pytest.raises(ModelError, match=r"pip install tensorboard\.$"):
            fails()
    assert not (tmp_path / "log").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelError, match="cannot be written there"):
        EventLog(tmp_path / "file" / "log")
