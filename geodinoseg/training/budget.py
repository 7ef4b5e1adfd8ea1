"""The time that a training may take, and its progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from geodinoseg.progress import Progress
from geodinoseg.training.history import EpochScore
from geodinoseg.training.settings import TrainingSettings

Clock = Callable[[], float]
"""Seconds since some moment, never falling; `time.monotonic` is one."""

STAGE_ONE_SHARE = 1 / 3
"""Of the time, where a stage two follows; caching of features included."""
_CACHING_SHARE = 2 / 3
"""Of the time of stage one: for features, the rest is for the head."""
_SAVING_SHARE = 0.03
"""Of all the time, kept for writing the model and its pictures."""


class Budget:
    """Time from the start of a training, what an interrupted run had used before included."""

    def __init__(self, minutes: float | None, clock: Clock) -> None:
        """Start to count.

        Args:
            minutes: what there is; None for no bound.
            clock: tells the time.
        """
        self._clock = clock
        self._began = clock()
        self.total_s = math.inf if minutes is None else 60 * minutes

    def add(self, used_s: float) -> None:
        """Count seconds that an interrupted run had used before."""
        self._began -= used_s

    @property
    def used_s(self) -> float:
        """Seconds so far."""
        return self._clock() - self._began

    @property
    def share(self) -> float:
        """Of the time that is used; 0 without a bound."""
        return self.used_s / self.total_s

    def of_stage_one(self, *, is_last: bool) -> TimeSlice:
        """From now to a third of all, or to the end where nothing follows."""
        return self._until((1.0 if is_last else STAGE_ONE_SHARE) * self.total_s)

    def of_caching(self, *, is_last: bool) -> TimeSlice:
        """From now on, for the features of stage one."""
        stage_s = (1.0 if is_last else STAGE_ONE_SHARE) * self.total_s
        return self._until(_CACHING_SHARE * stage_s)

    def of_the_rest(self) -> TimeSlice:
        """From now to the end."""
        return self._until(self.total_s)

    def _until(self, end_s: float) -> TimeSlice:
        last_s = (1 - _SAVING_SHARE) * self.total_s
        return TimeSlice(budget=self, from_s=self.used_s, until_s=min(end_s, last_s))


@dataclass(frozen=True, kw_only=True)
class TimeSlice:
    """A stretch of the time."""

    budget: Budget
    """What it is a part of."""
    from_s: float
    """Its begin, in seconds of the budget."""
    until_s: float
    """Its end; infinite without a bound."""

    @property
    def share(self) -> float:
        """Of the stretch that is over, 0 to 1; 0 without a bound."""
        if math.isinf(self.until_s):
            return 0.0
        length_s = max(self.until_s - self.from_s, 1e-9)
        return min((self.budget.used_s - self.from_s) / length_s, 1.0)

    def first(self, part: float) -> TimeSlice:
        """The first part of it, such as a half."""
        length_s = self.until_s - self.from_s
        return replace(self, until_s=self.from_s + part * length_s)

    def has_room_for(self, seconds: float) -> bool:
        """Whether something that takes so long ends in time."""
        return self.budget.used_s + seconds <= self.until_s


_WORDS = {"head": "head", "lora": "LoRA", "full": "all weights"}
# Work by the crop, as multiples of one pass through the backbone: backwards it takes twice as long
# as forwards, and a head is small beside it.
_FORWARD, _TRAINED, _HEAD_ALONE = 1.0, 3.0, 0.05
_ALL = 1.0


class TrainingProgress:
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
