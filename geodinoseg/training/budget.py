"""The time limit of a training, and its progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

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

    def has_room_for(self, seconds: float) -> bool:
        """Whether something that takes these seconds ends in time."""
        return self.budget.used_s + seconds <= self.until_s


STAGE_WORDS = {"head": "head", "lora": "LoRA", "full": "all weights"}
"""In the progress and the log."""
_FORWARD, _TRAINED, _HEAD_ALONE = 1.0, 3.0, 0.05
"""Work per crop, as multiples of one forward pass of the backbone: the backward pass takes twice as
long, and a head is small beside it."""
REPORTED_CROPS = 136
"""Most crops that the report on the finished model predicts."""
Phase = Literal["features", "head", "final", "tuning", "report"]
_PHASES: tuple[Phase, ...] = get_args(Phase)
"""Of a training, in order; final is the head on all blocks after a cross-validation."""


class TrainingProgress:
    """Counts work, and reports the fraction done.

    Each piece of work adds its share of what is left to the fraction. So the fraction does not jump
    when less is left than expected, as after an early stop: the rest counts for more.
    """

    def __init__(
        self, settings: TrainingSettings, budget: Budget, progress: Progress, *, folds: int = 1
    ) -> None:
        """Start at 0; if time is limited, the fraction used counts as well."""
        self._settings = settings
        self._budget = budget
        self._progress = progress
        self._fraction = 0.0
        self._where = self._last = ""
        self._phase: Phase = "features"
        self._heads = 1
        self._validation = 0
        stages = settings.stages(folds)
        self._left: dict[Phase, float] = dict.fromkeys(_PHASES, 0.0)
        self._left["features"] = _FORWARD * settings.crops_to_cache
        self.expect_epochs("head", settings.stage_one_epochs)
        self.expect_epochs(stages[-1], settings.epochs if stages[-1] != "head" else 0)

    def expect_validation(self, crops: int, *, heads: int) -> None:
        """Account for crops to validate on, and for heads trained in parallel.

        There is more than one head in cross-validation, which no stage two follows.
        """
        settings = self._settings
        self._validation, self._heads = crops, heads
        self._left["features"] += _FORWARD * crops
        self._left["report"] = _FORWARD * min(crops, REPORTED_CROPS)
        self.expect_epochs("head", settings.stage_one_epochs)
        if heads > 1:
            self._left["final"] = self._epoch_work("head") / heads * settings.stage_one_epochs
        elif self._left["tuning"]:
            self.expect_epochs(settings.stage, settings.epochs)

    def expect_epochs(self, stage: StageName, epochs: int) -> None:
        """Expect so many more epochs of a stage; 0 when it is over."""
        if stage == "head":
            self._left["head"] = epochs * self._epoch_work(stage)
        else:
            self._left["tuning"] = epochs * self._epoch_work(stage)

    def expect_final_head(self, epochs: int) -> None:
        """Expect one head to be trained on all blocks, after those of the folds."""
        self._heads = 1
        self._left["final"] = 0.0
        self.expect_epochs("head", epochs)

    def caching(self, crops: int) -> None:
        """Count crops whose features were computed."""
        self._add(_FORWARD * crops, "features of the frozen backbone")

    def validated(self, crops: int) -> None:
        """Count crops that were validated on after an epoch."""
        self._count(_FORWARD * crops)

    def begin_epoch(self, stage: StageName, epoch: int, epochs: int) -> None:
        """Begin an epoch, from 0; nothing is left of earlier stages."""
        self._phase = "head" if stage == "head" else "tuning"
        for earlier in _PHASES[: _PHASES.index(self._phase)]:
            if earlier != "final" or self._phase == "tuning":
                self._left[earlier] = 0.0
        self._where = f"{STAGE_WORDS[stage]}, epoch {epoch + 1}/{epochs}"

    def step(self, losses: Sequence[float]) -> None:
        """Count a step; losses are those of the epoch so far."""
        loss = float(np.mean(losses))
        self._add(self._step_work(self._phase), f"{self._where}, loss {loss:.3f}{self._last}")

    def end_epoch(self, score: EpochScore, best: EpochScore | None) -> None:
        """Report the score of an epoch."""
        if best is not None and not math.isnan(best.mean_iou):
            self._last = f", mean IoU {score.mean_iou:.3f} (best {best.mean_iou:.3f})"
        self._add(0.0, f"{self._where}, loss {score.train_loss:.3f}{self._last}")

    def skip_epochs(self, stage: StageName, epochs: int) -> None:
        """Count epochs from before an interruption."""
        self.begin_epoch(stage, epochs - 1, epochs)
        self._count(epochs * self._epoch_work(stage))

    def reported(self, crops: int) -> None:
        """Count crops that the finished model predicted."""
        for earlier in _PHASES[:-1]:
            self._left[earlier] = 0.0
        self._phase = "report"
        self._add(_FORWARD * crops, f"{self._where}{self._last}")

    def finish(self) -> None:
        """Report the end."""
        self._fraction = 1.0
        self._progress(1.0, f"{self._where}{self._last}" or "done")

    def _step_work(self, phase: Phase) -> float:
        return self._settings.batch_size * (_TRAINED if phase == "tuning" else _HEAD_ALONE)

    def _epoch_work(self, stage: StageName) -> float:
        """Of one epoch of a stage with its validation; that of heads takes next to nothing."""
        steps = self._settings.steps_per_epoch
        if stage == "head":
            return self._heads * steps * self._step_work("head")
        return steps * self._step_work("tuning") + _FORWARD * self._validation

    def _add(self, work: float, message: str) -> None:
        self._count(work)
        # 1 only when everything is written.
        self._progress(min(self._fraction, 0.99), message)

    def _count(self, work: float) -> None:
        before = sum(self._left.values())
        self._left[self._phase] = max(self._left[self._phase] - work, 0.0)
        if before:
            self._fraction = 1 - (1 - self._fraction) * sum(self._left.values()) / before
        self._fraction = max(self._fraction, self._budget.fraction)
