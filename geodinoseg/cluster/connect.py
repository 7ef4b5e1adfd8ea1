"""Dask, imported when it is asked for, and its talk to programmers kept off the user's terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geodinoseg.errors import ClusterError

_SILENT = logging.CRITICAL + 1


def distributed() -> Any:
    """The module `distributed`.

    Raises:
        ClusterError: it is not installed.
    """
    try:
        import distributed as module  # noqa: PLC0415 (an extra; half a second)
    except ImportError as error:
        raise ClusterError(
            'workers need Dask, which is not installed: pip install "geodinoseg[cluster]".'
        ) from error
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of Dask and its server while the block runs.

    What matters of it, a lost worker or scheduler, is said in our words.
    """
    names = [
        name
        for name in logging.root.manager.loggerDict
        if name.partition(".")[0] in {"distributed", "tornado", "bokeh", "asyncio"}
    ]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(_SILENT)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
