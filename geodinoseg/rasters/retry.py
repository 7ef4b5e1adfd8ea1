"""Rasters on servers: which paths lead there, and how long a server that stumbles is waited for."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from geodinoseg.errors import SceneError
from geodinoseg.redaction import redact_path

logger = logging.getLogger(__name__)

DEADLINE_S = 120.0
"""After so many seconds of faults no further try is begun; the run ends with an error."""
DEADLINE_VARIABLE = "GEODINOSEG_REMOTE_DEADLINE"
"""Environment variable: other seconds."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_HANDLERS = re.compile(r"/?vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]")
_LOCAL_SCHEMES = {"file", "zip", "tar", "gzip"}

_T = TypeVar("_T")


def is_remote(path: str) -> bool:
    """Whether reading a path asks a server: `https://`, `s3://`, `/vsicurl/` and the like."""
    if path.startswith("/vsi"):
        return _HANDLERS.search(path) is not None
    scheme, separator, _ = path.partition("://")
    return bool(separator) and not set(scheme.lower().split("+")) <= _LOCAL_SCHEMES


def with_patience(
    attempt: Callable[[float], _T],
    *,
    path: str,
    faults: tuple[type[Exception], ...],
    deadline_s: float = math.inf,
) -> _T:
    """Try until it works or the deadline is over; pauses double from half a second to 15.

    Args:
        attempt: must start from the beginning each time; told the seconds that are left.
        path: what is read, for the log.
        faults: the errors after which another try may help.
        deadline_s: where it shall be less than `DEADLINE_S`.

    Raises:
        Exception: one of the faults, when no time is left; what the last try raised.
    """
    give_up = time.monotonic() + min(_deadline_s(), deadline_s)
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return attempt(give_up - time.monotonic())
        except faults as error:
            if time.monotonic() + pause_s >= give_up:
                raise
            logger.info("%s: %s; trying again in %.1f s", redact_path(path), error, pause_s)
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
