"""The epochs of a stage: trained, scored and recorded until done, stalled or out of time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
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

_FEWEST_IDLE_EPOCHS = 10
"""Without improvement before a stage ends; half of its epochs if that is more."""
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
        log_step(logger, "%s: up to %d epochs.", STAGE_WORDS[stage.name], epochs)
        while len(done) < epochs and not self._is_over(stage, done, epochs):
            expected = last_epoch(done, epochs) - len(done)
            self.progress.expect_epochs(stage.name, expected)
            self.progress.begin_epoch(stage.name, len(done), epochs)
            loss = stage.train_epoch(len(done))
            self._end_epoch(stage, loss)
            done = self.record.epochs_of(stage.name)
        self.progress.expect_epochs(stage.name, 0)
        if not self.record.is_stage_over:
            _log_end(stage.name, done, epochs)
            self.record.is_stage_over = True
            self._write(at_once=True)

    def _is_over(self, stage: Stage, done: list[EpochScore], epochs: int) -> bool:
        if not done:
            return False
        return self.record.is_stage_over or stalled(done, epochs) or not stage.has_time()

    def _restore(self, stage: Stage) -> None:
        record = self.record
        restore(stage.tensors(), record.weights)
        stage.load_optimizer_state(record.optimizer)
        set_random_state(record.random, self.source.device)
        self.progress.skip_epochs(stage.name, len(record.epochs_of(stage.name)))

    def _end_epoch(self, stage: Stage, loss: float) -> None:
        """Score the epoch; keep its weights if they are the best of their stage."""
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
        )
        # In one assignment: an interrupt may come between any two lines.
        self.record = self.record.after_epoch(
            score,
            stage.tensors(),
            stage.optimizer_state(),
            random_state(self.source.device),
        )
        self.record.validation_s = getattr(stage, "validation_s", self.record.validation_s)
        best = self.record.best_score(stage.name)
        self.progress.end_epoch(score, best)
        _log_epoch(score, best)
        self.on_epoch(score)
        self._write(at_once=stage.name != "head")

    def _write(self, *, at_once: bool) -> None:
        self.record.used_s = self.budget.used_s
        if at_once or self.budget.used_s - self._written_s >= _CHECKPOINT_S:
            self.record.write(self.checkpoint)
            self._written_s = self.budget.used_s


def stalled(scores: Sequence[EpochScore], epochs: int) -> bool:
    """Whether a stage has not improved for half of its epochs, and for ten at least."""
    return bool(scores) and len(scores) >= _end_without_improvement(scores, epochs)


def last_epoch(scores: Sequence[EpochScore], epochs: int) -> int:
    """Number of epochs after which a stage ends if none of those to come is better."""
    return int(min(epochs, _end_without_improvement(scores, epochs)))


def _end_without_improvement(scores: Sequence[EpochScore], epochs: int) -> float:
    """Number of epochs after which a stage has stalled; infinite without any scores."""
    values = [score.mean_iou for score in scores]
    if not values or any(map(math.isnan, values)):
        return math.inf
    return values.index(max(values)) + 1 + max(_FEWEST_IDLE_EPOCHS, epochs // 2)


def _log_epoch(score: EpochScore, best: EpochScore | None) -> None:
    scored = ""
    if best is not None and not math.isnan(best.mean_iou):
        scored = f", mean IoU {score.mean_iou:.3f} (best {best.mean_iou:.3f}, epoch {best.epoch})"
    words = STAGE_WORDS[score.stage]
    log_step(logger, "epoch %d, %s: loss %.3f%s.", score.epoch, words, score.train_loss, scored)


def _log_end(stage: StageName, done: Sequence[EpochScore], epochs: int) -> None:
    why = "out of time"
    if len(done) >= epochs:
        why = "all are done"
    elif stalled(done, epochs):
        why = f"no improvement in {max(_FEWEST_IDLE_EPOCHS, epochs // 2)}"
    words = STAGE_WORDS[stage]
    log_step(logger, "%s: ends after %d of %d epochs, %s.", words, len(done), epochs, why)
