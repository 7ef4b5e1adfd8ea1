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

    def ending_before(self, seconds: float) -> TimeSlice:
        """The same, ending so many seconds earlier."""
        return replace(self, until_s=self.until_s - seconds)

    def has_room_for(self, seconds: float) -> bool:
        """Whether something that takes these seconds ends in time."""
        return self.budget.used_s + seconds <= self.until_s


STAGE_WORDS: dict[StageName, str] = {
    "head": "head",
    "fused": "fused head",
    "further": "further steps of the head",
    "lora": "LoRA",
    "full": "all weights",
}
"""In the progress and the log."""
PANEL_CROPS = 8
"""Most crops of the panel in the report on the finished model."""
REPORTED_CROPS = 128 + PANEL_CROPS
"""Most crops that the report predicts; those of the panel twice."""

_FORWARD = 1.0
"""Work of one forward pass of the backbone on a crop."""
STEP_WORK: dict[StageName, float] = {"head": 0.05, "fused": 0.5, "lora": 3.0, "full": 3.0}
"""Of a training step, per crop: the backward pass takes twice as long as the forward pass. Further
steps are those of a head."""
Phase = Literal["features", "head", "fused", "further", "lora", "full", "final", "report"]
_PHASES: tuple[Phase, ...] = get_args(Phase)
"""Of a training, in order; final is the kept head on all labels."""


class TrainingProgress:
    """Counts work, and reports the fraction done.

    Each piece of work adds its share of what is left to the fraction. So the fraction does not jump
    when less is left than expected: the rest counts for more.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        budget: Budget,
        progress: Progress,
        *,
        heads: Sequence[StageName] = ("head",),
        folds: int = 1,
    ) -> None:
        """Start at 0; if time is limited, the fraction used counts as well."""
        self._settings = settings
        self._budget = budget
        self._progress = progress
        self._fraction = 0.0
        self._where = self._last = ""
        self._phase: Phase = "features"
        self._step_work = 0.0
        self._heads, self._folds = tuple(heads), folds
        self._work: dict[StageName, float] = STEP_WORK | {"further": STEP_WORK[self._heads[-1]]}
        self._validation = 0
        self._left: dict[Phase, float] = dict.fromkeys(_PHASES, 0.0)
        self._left["features"] = _FORWARD * settings.crops_to_cache
        self._expect_epochs()

    def expect_validation(self, crops: int) -> None:
        """Account for crops to validate on."""
        self._validation = crops
        self._left["features"] += _FORWARD * crops
        self._left["report"] = _FORWARD * min(crops, REPORTED_CROPS)
        self._expect_epochs()

    def expect_further_steps(self, head: StageName) -> None:
        """Account for the steps of the head that goes on."""
        self._work["further"] = STEP_WORK[head]
        epochs = self._settings.epochs_to_choose("further", self._folds)
        self._left["further"] = epochs * self._epoch_work("further")

    def caching(self, crops: int) -> None:
        """Count crops whose features were computed."""
        self._add(_FORWARD * crops, "features of the frozen backbone")

    def validated(self, crops: int) -> None:
        """Count crops that were validated on after an epoch."""
        self._count(_FORWARD * crops)

    def begin_epoch(
        self, stage: StageName, epoch: int, epochs: int, *, is_final: bool = False
    ) -> None:
        """Begin an epoch, from 0; nothing is left of earlier phases.

        is_final is that of the kept head, on all labels.
        """
        self._begin("final" if is_final else stage)
        self._step_work = self._settings.batch_size * self._work[stage]
        of_what = f"{STAGE_WORDS[stage]} on all labels" if is_final else STAGE_WORDS[stage]
        self._where = f"{of_what}, epoch {epoch + 1}/{epochs}"

    def step(self, losses: Sequence[float]) -> None:
        """Count a step; losses are those of the epoch so far."""
        loss = float(np.mean(losses))
        self._add(self._step_work, f"{self._where}, loss {loss:.3f}{self._last}")

    def end_epoch(self, score: EpochScore) -> None:
        """Report the score of an epoch."""
        if not math.isnan(score.mean_iou):
            self._last = f", mean IoU {score.mean_iou:.3f}"
        self._add(0.0, f"{self._where}, loss {score.train_loss:.3f}{self._last}")

    def skip_epochs(self, stage: StageName, epochs: int) -> None:
        """Count epochs from before an interruption."""
        self.begin_epoch(stage, epochs - 1, epochs)
        self._count(epochs * self._epoch_work(stage))

    def reported(self, crops: int) -> None:
        """Count crops that the finished model predicted."""
        self._begin("report")
        self._add(_FORWARD * crops, f"{self._where}{self._last}")

    def finish(self) -> None:
        """Report the end."""
        self._fraction = 1.0
        self._progress(1.0, f"{self._where}{self._last}" or "done")

    def _begin(self, phase: Phase) -> None:
        self._phase = phase
        for earlier in _PHASES[: _PHASES.index(phase)]:
            self._left[earlier] = 0.0

    def _expect_epochs(self) -> None:
        settings = self._settings
        for stage in settings.stages(self._folds, self._heads):
            epochs = settings.epochs_to_choose(stage, self._folds)
            self._left[stage] = epochs * self._epoch_work(stage)
            if stage in self._heads and self._folds:
                self._left["final"] = settings.stage_one_epochs * self._steps_work(stage)

    def _epoch_work(self, stage: StageName) -> float:
        """Of one epoch of a stage with its validation; that of heads takes next to nothing."""
        work = max(self._folds, 1) * self._steps_work(stage)
        is_head = stage in (*self._heads, "further")
        return work if is_head else work + _FORWARD * self._validation

    def _steps_work(self, stage: StageName) -> float:
        return self._settings.steps_per_epoch * self._settings.batch_size * self._work[stage]

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
