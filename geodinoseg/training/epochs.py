"""The epochs of a stage: trained, scored, recorded, until they are done, idle or out of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from geodinoseg.errors import LabelError
from geodinoseg.training.batches import CropSource
from geodinoseg.training.budget import Budget, Meter
from geodinoseg.training.checkpoint import TrainingRecord, random_state, set_random_state
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import Scorer, Tensors, restore
from geodinoseg.training.settings import Stage

_FEWEST_IDLE_EPOCHS = 10
"""Without a gain before a stage ends; half of its epochs where that is more."""
_CHECKPOINT_S = 20.0
"""Between checkpoints in stage one, whose epochs are short."""


class Learner(Protocol):
    """What a stage does; see `HeadStage` and `FineTuning`."""

    name: Stage

    def has_time(self) -> bool:
        """Whether another epoch ends in time."""

    def train_epoch(self, epoch: int) -> float:
        """Train for an epoch, from 0; the mean loss."""

    def validate(self) -> Scorer:
        """Score on the validation crops."""

    def tensors(self) -> Tensors:
        """What is trained, not copied."""

    def optimizer_state(self) -> Tensors:
        """What the optimizer remembers."""

    def load_optimizer_state(self, state: Tensors) -> None:
        """Take up what `optimizer_state` gave."""


@dataclass(kw_only=True)
class EpochLoop:
    """Runs the epochs of stages, and keeps a record that a later run can go on from."""

    source: CropSource
    """Data and device."""
    record: TrainingRecord
    """How far it is; empty for a new training."""
    checkpoint: Path
    """Where the record is kept."""
    budget: Budget
    """Time."""
    meter: Meter
    """Told how far it is."""
    on_epoch: Callable[[EpochScore], None] = lambda _: None
    """Told every epoch."""
    _written_s: float = field(init=False, default=-math.inf)

    def run(self, learner: Learner, epochs: int) -> None:
        """The epochs of a stage that are still to be done.

        Args:
            learner: of the stage.
            epochs: how many there are at most, those of an interrupted run included.
        """
        done = self.record.epochs_of(learner.name)
        if done:
            self._take_up(learner)
        while len(done) < epochs and not self._is_over(learner, done, epochs):
            self.meter.begin_epoch(learner.name, len(done), epochs)
            loss = learner.train_epoch(len(done))
            self._end_epoch(learner, loss)
            done = self.record.epochs_of(learner.name)
        if not self.record.is_stage_over:
            self.record.is_stage_over = True
            self._write(at_once=True)

    def _is_over(self, learner: Learner, done: list[EpochScore], epochs: int) -> bool:
        if not done:
            return False
        return self.record.is_stage_over or stalled(done, epochs) or not learner.has_time()

    def _take_up(self, learner: Learner) -> None:
        record = self.record
        restore(learner.tensors(), record.weights)
        learner.load_optimizer_state(record.optimizer)
        set_random_state(record.random, self.source.device)
        self.meter.skip_epochs(learner.name, len(record.epochs_of(learner.name)))

    def _end_epoch(self, learner: Learner, loss: float) -> None:
        """Score the epoch; its weights are kept if they are the best of their stage."""
        if loss == 0:  # Label smoothing leaves it out of reach where a pixel is labelled.
            raise LabelError(
                f"{self.source.data.splits[0].scene.path}: holds no data where it is labelled, so "
                f"there is nothing to learn; label other places, or check which value means nodata."
            )
        scorer = learner.validate()
        score = EpochScore(
            epoch=len(self.record.history) + 1,
            stage=learner.name,
            train_loss=loss,
            val_loss=scorer.loss,
            accuracy=scorer.accuracy,
        )
        # In one go: an interrupt may come between any two lines.
        self.record = self.record.after_epoch(
            score,
            learner.tensors(),
            learner.optimizer_state(),
            random_state(self.source.device),
        )
        self.record.validation_s = getattr(learner, "validation_s", self.record.validation_s)
        self.meter.end_epoch(score, self.record.best_score(learner.name))
        self.on_epoch(score)
        self._write(at_once=learner.name != "head")

    def _write(self, *, at_once: bool) -> None:
        self.record.used_s = self.budget.used_s
        if at_once or self.budget.used_s - self._written_s >= _CHECKPOINT_S:
            self.record.write(self.checkpoint)
            self._written_s = self.budget.used_s


def stalled(scores: Sequence[EpochScore], epochs: int) -> bool:
    """Whether a stage has gone on without a gain for half of its epochs, and for ten at least."""
    values = [score.mean_iou for score in scores]
    if any(map(math.isnan, values)):
        return False
    return len(values) - 1 - values.index(max(values)) >= max(_FEWEST_IDLE_EPOCHS, epochs // 2)
