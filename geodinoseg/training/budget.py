"""The time limit of a training, and its progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from geodinoseg.progress import Progress
from geodinoseg.training.history import EpochScore
from geodinoseg.training.settings import StageName, TrainingSettings

Clock = Callable[[], float]
"""Seconds, never decreasing, such as `time.monotonic`."""

_STAGE_ONE = 1 / 3
"""Fraction of the time for stage one, its features included, if a stage two follows."""
_CACHING = 2 / 3
"""Fraction of the time of stage one for features; the rest is for the head."""
_SAVING = 0.03
"""Fraction of the time for writing the model and its pictures."""


class Budget:
    """Time since the start of a training, including that of an interrupted run."""

    def __init__(self, minutes: float | None, clock: Clock) -> None:
        """Start to count; None minutes are no limit."""
        self._clock = clock
        self._began = clock()
        self.total_s = math.inf if minutes is None else 60 * minutes

    def add(self, used_s: float) -> None:
        """Count seconds that an interrupted run has used."""
        self._began -= used_s

    @property
    def used_s(self) -> float:
        """Seconds so far."""
        return self._clock() - self._began

    @property
    def fraction(self) -> float:
        """Fraction of the time that is used; 0 without a limit."""
        return self.used_s / self.total_s

    def of_stage_one(self, *, is_last: bool) -> TimeSlice:
        """From now to a third of the time, or to the end if nothing follows."""
        return self._until((1.0 if is_last else _STAGE_ONE) * self.total_s)

    def of_caching(self, *, is_last: bool) -> TimeSlice:
        """From now on, for the features of stage one."""
        stage_s = (1.0 if is_last else _STAGE_ONE) * self.total_s
        return self._until(_CACHING * stage_s)

    def of_the_rest(self) -> TimeSlice:
        """From now to the end."""
        return self._until(self.total_s)

    def _until(self, end_s: float) -> TimeSlice:
        last_s = (1 - _SAVING) * self.total_s
        return TimeSlice(budget=self, from_s=self.used_s, until_s=min(end_s, last_s))


@dataclass(frozen=True, kw_only=True)
class TimeSlice:
    """A part of the time, in seconds of the budget."""

    budget: Budget
    from_s: float
    until_s: float
    """Infinite without a limit."""

    @property
    def fraction(self) -> float:
        """Fraction of the slice that is over, 0 to 1; 0 without a limit."""
        if math.isinf(self.until_s):
            return 0.0
        length_s = max(self.until_s - self.from_s, 1e-9)
        return min((self.budget.used_s - self.from_s) / length_s, 1.0)

    def first(self, part: float) -> TimeSlice:
        """Its first part, such as 0.5."""
        length_s = self.until_s - self.from_s
        return replace(self, until_s=self.from_s + part * length_s)

    def ending_before(self, seconds: float) -> TimeSlice:
        """The same, ending so many seconds earlier."""
        return replace(self, until_s=self.until_s - seconds)

    def has_room_for(self, seconds: float) -> bool:
        """Whether something that takes these seconds ends in time."""
        return self.budget.used_s + seconds <= self.until_s


_WORDS = {"head": "head", "fused": "fused head", "lora": "LoRA", "full": "all weights"}
# Work per crop, as multiples of one forward pass of the backbone: the backward pass takes twice as
# long, and a linear head is small beside it.
_FORWARD, _TRAINED, _HEAD_ALONE, _FUSED_ALONE = 1.0, 3.0, 0.05, 0.5


class TrainingProgress:
    """Counts work, and reports the fraction done."""

    def __init__(
        self,
        settings: TrainingSettings,
        budget: Budget,
        progress: Progress,
        heads: Sequence[StageName] = ("head",),
    ) -> None:
        """Start at 0; if time is limited, the fraction used counts as well."""
        self._settings = settings
        self._budget = budget
        self._progress = progress
        self._done = self._reported = 0.0
        self._where = ""
        self._last = ""
        step = settings.batch_size
        tuning_step = _TRAINED * step
        self._step = 0.0
        self._of: dict[StageName, float] = {
            "head": _HEAD_ALONE * step,
            "fused": _FUSED_ALONE * step,
            "lora": tuning_step,
            "full": tuning_step,
        }
        head_steps = settings.stage_one_epochs * settings.steps_per_epoch
        self._heads_work = head_steps * sum(self._of[head] for head in heads)
        tuning_steps = settings.epochs * settings.steps_per_epoch * (settings.stage != "head")
        self._all = (
            _FORWARD * settings.crops_to_cache + self._heads_work + tuning_step * tuning_steps
        )

    def expect_validation(self, crops: int, *, folds: int) -> None:
        """Account for crops that stage two validates on, and for heads trained in parallel.

        There is a head for each fold in cross-validation, which no stage two follows.
        """
        settings = self._settings
        if folds == 1:
            self._all += _FORWARD * crops * settings.epochs * (settings.stage != "head")
            return
        self._all = self._done + _FORWARD * settings.crops_to_cache
        self._all += (folds + 1) * self._heads_work

    def caching(self, crops: int) -> None:
        """Count crops whose features were computed."""
        self._add(_FORWARD * crops, "features of the frozen backbone")

    def validated(self, crops: int) -> None:
        """Count crops that were validated on after an epoch."""
        self._done += _FORWARD * crops

    def begin_epoch(self, stage: StageName, epoch: int, epochs: int) -> None:
        """Begin an epoch, from 0."""
        self._step = self._of[stage]
        self._where = f"{_WORDS[stage]}, epoch {epoch + 1}/{epochs}"

    def step(self, losses: Sequence[float]) -> None:
        """Count a step; losses are those of the epoch so far."""
        self._add(self._step, f"{self._where}, loss {float(np.mean(losses)):.3f}{self._last}")

    def end_epoch(self, score: EpochScore) -> None:
        """Report the score of an epoch."""
        if not math.isnan(score.mean_iou):
            self._last = f", mean IoU {score.mean_iou:.3f}"
        self._add(0.0, f"{self._where}, loss {score.train_loss:.3f}{self._last}")

    def skip_epochs(self, stage: StageName, epochs: int) -> None:
        """Count epochs from before an interruption."""
        self._done += epochs * self._settings.steps_per_epoch * self._of[stage]

    def finish(self) -> None:
        """Report the end."""
        self._reported = 1.0
        self._progress(1.0, f"{self._where}{self._last}" or "done")

    def _add(self, work: float, message: str) -> None:
        self._done += work
        fraction = max(self._done / self._all if self._all else 0.0, self._budget.fraction)
        # Never back, and 1 only when everything is written.
        self._reported = max(self._reported, min(fraction, 0.99))
        self._progress(self._reported, message)
