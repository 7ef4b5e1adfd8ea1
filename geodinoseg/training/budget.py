"""The time that a training may take, and how much of it is left for what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

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

    def of_stage_one(self, *, is_last: bool) -> Allowance:
        """From now to a third of all, or to the end where nothing follows."""
        return self._until((1.0 if is_last else STAGE_ONE_SHARE) * self.total_s)

    def of_caching(self, *, is_last: bool) -> Allowance:
        """From now on, for the features of stage one."""
        stage_s = (1.0 if is_last else STAGE_ONE_SHARE) * self.total_s
        return self._until(_CACHING_SHARE * stage_s)

    def of_the_rest(self) -> Allowance:
        """From now to the end."""
        return self._until(self.total_s)

    def _until(self, end_s: float) -> Allowance:
        last_s = (1 - _SAVING_SHARE) * self.total_s
        return Allowance(budget=self, from_s=self.used_s, until_s=min(end_s, last_s))


@dataclass(frozen=True, kw_only=True)
class Allowance:
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

    def first(self, part: float) -> Allowance:
        """The first part of it, such as a half."""
        length_s = self.until_s - self.from_s
        return replace(self, until_s=self.from_s + part * length_s)

    def has_room_for(self, seconds: float) -> bool:
        """Whether something that takes so long ends in time."""
        return self.budget.used_s + seconds <= self.until_s
