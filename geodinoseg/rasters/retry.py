"""Repeats failed requests to servers, with growing pauses and a deadline."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from geodinoseg.errors import SceneError
from geodinoseg.redaction import redact_path

logger = logging.getLogger(__name__)

DEADLINE_S = 120.0
"""Seconds of failures after which no further attempt is made."""
DEADLINE_VARIABLE = "GEODINOSEG_REMOTE_DEADLINE"
"""Environment variable that overrides `DEADLINE_S`."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_T = TypeVar("_T")


def retry(
    attempt: Callable[[float], _T],
    *,
    path: str,
    faults: tuple[type[Exception], ...],
    final: tuple[type[Exception], ...] = (),
    deadline_s: float = math.inf,
) -> _T:
    """Call until it succeeds, or raise its last error when the deadline has passed.

    Args:
        attempt: called with the seconds left; must start from the beginning each time.
        path: what is read, for the log.
        faults: the errors after which another attempt may succeed.
        final: those among them after which none will.
        deadline_s: a shorter deadline than `DEADLINE_S`.
    """
    give_up = time.monotonic() + min(_deadline_s(), deadline_s)
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return attempt(give_up - time.monotonic())
        except final:
            raise
        except faults as error:
            if time.monotonic() + pause_s >= give_up:
                raise
            logger.info("%s: %s; retrying in %.1f s", redact_path(path), error, pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _deadline_s() -> float:
    text = os.environ.get(DEADLINE_VARIABLE)
    if text is None:
        return DEADLINE_S
    try:
        return float(text)
    except ValueError as error:
        raise SceneError(f"{DEADLINE_VARIABLE}={text}: give a number of seconds.") from error
