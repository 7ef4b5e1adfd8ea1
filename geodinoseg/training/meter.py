"""How far a training is: one line with stage, epoch, loss and mean IoU, and a share of the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from geodinoseg.progress import Progress
    from geodinoseg.training.budget import Budget
    from geodinoseg.training.history import EpochScore
    from geodinoseg.training.settings import TrainingSettings

_WORDS = {"head": "head", "lora": "LoRA", "full": "all weights"}
# Work by the crop, as multiples of one pass through the backbone: backwards it takes twice as long
# as forwards, and a head is small beside it.
_FORWARD, _TRAINED, _HEAD_ALONE = 1.0, 3.0, 0.05
_ALL = 1.0


class Meter:
    """Counts work, and tells how much of it is done."""

    def __init__(self, settings: TrainingSettings, budget: Budget, progress: Progress) -> None:
        """Start at nothing.

        Args:
            settings: how much there is to do.
            budget: where time is bounded, it counts as well.
            progress: is told.
        """
        self._settings = settings
        self._budget = budget
        self._progress = progress
        self._done = self._told = 0.0
        self._where = ""
        self._last = ""
        step = settings.batch_size
        head_step, tuning_step = _HEAD_ALONE * step, _TRAINED * step
        self._step = 0.0
        self._of = {"head": head_step, "lora": tuning_step, "full": tuning_step}
        head_steps = settings.stage_one_epochs * settings.steps_per_epoch
        tuning_steps = settings.epochs * settings.steps_per_epoch * (settings.stage != "head")
        self._all = (
            _FORWARD * settings.crops_to_cache + head_step * head_steps + tuning_step * tuning_steps
        )

    def expect_validation(self, crops: int, *, heads: int) -> None:
        """Say how many crops a validation has, and how many heads are trained side by side.

        Args:
            crops: stage two reads them after each epoch.
            heads: more than one where folds take turns, and no stage two follows.
        """
        settings = self._settings
        if heads == 1:
            self._all += _FORWARD * crops * settings.epochs * (settings.stage != "head")
            return
        steps = settings.stage_one_epochs * settings.steps_per_epoch
        self._all = self._done + _FORWARD * settings.crops_to_cache
        self._all += (heads + 1) * steps * self._of["head"]

    def caching(self, crops: int) -> None:
        """Features of crops were computed."""
        self._add(_FORWARD * crops, "features of the frozen backbone")

    def validated(self, crops: int) -> None:
        """Crops went through the network after an epoch."""
        self._done += _FORWARD * crops

    def begin_epoch(self, stage: str, epoch: int, epochs: int) -> None:
        """An epoch begins; from 0."""
        self._step = self._of[stage]
        self._where = f"{_WORDS[stage]}, epoch {epoch + 1}/{epochs}"

    def step(self, losses: Sequence[float]) -> None:
        """A step was made; losses are those of the epoch so far."""
        self._add(self._step, f"{self._where}, loss {float(np.mean(losses)):.3f}{self._last}")

    def end_epoch(self, score: EpochScore, best: EpochScore | None) -> None:
        """An epoch has its score."""
        if best is not None and not math.isnan(best.mean_iou):
            self._last = f", mean IoU {score.mean_iou:.3f} (best {best.mean_iou:.3f})"
        self._add(0.0, f"{self._where}, loss {score.train_loss:.3f}{self._last}")

    def skip_epochs(self, stage: str, epochs: int) -> None:
        """Epochs were done before an interruption."""
        self._done += epochs * self._settings.steps_per_epoch * self._of[stage]

    def finish(self) -> None:
        """All is done."""
        self._told = _ALL
        self._progress(_ALL, f"{self._where}{self._last}" or "done")

    def _add(self, work: float, message: str) -> None:
        self._done += work
        share = max(self._done / self._all if self._all else 0.0, self._budget.share)
        # Never back, and 1 only when all is written.
        self._told = max(self._told, min(share, 0.99))
        self._progress(self._told, message)
