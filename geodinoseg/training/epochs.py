"""The epochs of a stage: trained, scored and recorded until done or out of time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from geodinoseg.errors import LabelError
from geodinoseg.model.weights import Tensors
from geodinoseg.progress import log_step
from geodinoseg.training.batches import CropSource
from geodinoseg.training.budget import STAGE_WORDS, Budget, TrainingProgress
from geodinoseg.training.checkpoint import TrainingRecord, random_state, set_random_state
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import Scorer, restore
from geodinoseg.training.settings import StageName

logger = logging.getLogger(__name__)
_CHECKPOINT_S = 20.0
"""Between checkpoints in stage one, whose epochs are short."""


class Stage(Protocol):
    """A stage of training: `HeadStage` or `FineTuning`."""

    name: StageName

    def has_time(self) -> bool:
        """Whether another epoch ends in time."""

    def train_epoch(self, epoch: int) -> float:
        """Train for an epoch, from 0; the mean loss."""

    def validate(self) -> Scorer:
        """Score on the validation crops."""

    def tensors(self) -> Tensors:
        """The trained tensors, not copied."""

    def optimizer_state(self) -> Tensors:
        """The state of the optimizer."""

    def load_optimizer_state(self, state: Tensors) -> None:
        """Restore what `optimizer_state` returned."""


@dataclass(kw_only=True)
class EpochLoop:
    """Runs the epochs of stages, and keeps a record that a later run can resume from."""

    source: CropSource
    record: TrainingRecord
    """Empty for a new training."""
    checkpoint: Path
    """The file of the record."""
    budget: Budget
    progress: TrainingProgress
    on_epoch: Callable[[EpochScore], None] = lambda _: None
    """Called after every epoch."""
    _written_s: float = field(init=False, default=-math.inf)

    def run(self, stage: Stage, epochs: int) -> None:
        """Run the epochs of a stage, at most so many with those of an interrupted run."""
        done = self.record.epochs_of(stage.name)
        if done:
            self._restore(stage)
        log_step(logger, "%s: %d epochs.", STAGE_WORDS[stage.name], epochs)
        while len(done) < epochs and not self._is_over(stage, done):
            self.progress.begin_epoch(stage.name, len(done), epochs)
            loss = stage.train_epoch(len(done))
            self._end_epoch(stage, loss)
            done = self.record.epochs_of(stage.name)
        if not self.record.is_stage_over:
            if len(done) < epochs:
                words = STAGE_WORDS[stage.name]
                log_step(logger, "%s: out of time after %d epochs.", words, len(done))
            self.record.is_stage_over = True
            self._write(at_once=True)

    def _is_over(self, stage: Stage, done: list[EpochScore]) -> bool:
        if not done:
            return False
        return self.record.is_stage_over or not stage.has_time()

    def _restore(self, stage: Stage) -> None:
        record = self.record
        restore(stage.tensors(), record.weights[stage.name])
        stage.load_optimizer_state(record.optimizer)
        set_random_state(record.random, self.source.device)
        self.progress.skip_epochs(stage.name, len(record.epochs_of(stage.name)))

    def _end_epoch(self, stage: Stage, loss: float) -> None:
        """Score the epoch and record its weights."""
        if loss == 0:  # Label smoothing leaves it out of reach where a pixel is labelled.
            raise LabelError(
                f"{self.source.data.splits[0].scene.path}: holds no data where it is labelled, so "
                f"there is nothing to learn; label other places, or check its nodata value."
            )
        scorer = stage.validate()
        score = EpochScore(
            epoch=len(self.record.history) + 1,
            stage=stage.name,
            train_loss=loss,
            val_loss=scorer.loss,
            accuracy=scorer.accuracy,
            losses=scorer.losses,
        )
        # In one assignment: an interrupt may come between any two lines.
        self.record = self.record.after_epoch(
            score,
            stage.tensors(),
            stage.optimizer_state(),
            random_state(self.source.device),
        )
        self.record.validation_s = getattr(stage, "validation_s", self.record.validation_s)
        self.progress.end_epoch(score)
        _log_epoch(score)
        self.on_epoch(score)
        self._write(at_once=stage.name in {"lora", "full"})

    def _write(self, *, at_once: bool) -> None:
        self.record.used_s = self.budget.used_s
        if at_once or self.budget.used_s - self._written_s >= _CHECKPOINT_S:
            self.record.write(self.checkpoint)
            self._written_s = self.budget.used_s


def _log_epoch(score: EpochScore) -> None:
    scored = "" if math.isnan(score.mean_iou) else f", mean IoU {score.mean_iou:.3f}"
    words = STAGE_WORDS[score.stage]
    log_step(logger, "epoch %d, %s: loss %.3f%s.", score.epoch, words, score.train_loss, scored)
