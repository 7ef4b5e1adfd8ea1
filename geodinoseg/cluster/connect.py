"""Connections to a Dask scheduler: its address, and Dask's own messages kept off the terminal."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geodinoseg.errors import ClusterError, SchedulerError, one_line

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


_KNOCK_S = 5
_OVER_TCP = {"tcp", "tls", "ws", "wss"}
_LARGEST_FILE_BYTES = 16 << 20


def check_scheduler(address: str) -> None:
    """Knock at a Dask scheduler; Dask itself goes on knocking for ten seconds.

    Args:
        address: such as `tcp://node1:8786`, or the file in which a scheduler wrote it.

    Raises:
        SchedulerError: it is no address, or nobody listens there.
    """
    place = _written_in(Path(address)) if _is_file(address) else address
    parts = urlsplit(place if "://" in place else f"tcp://{place}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise SchedulerError(
            f"{address}: is no address of a scheduler; give one such as tcp://node1:8786, or the "
            f"file that 'dask scheduler --scheduler-file' wrote."
        )
    if parts.scheme not in _OVER_TCP:
        return  # Dask knows how to knock there
    try:
        socket.create_connection((host, port), timeout=_KNOCK_S).close()
    except OSError as error:
        raise SchedulerError(
            f"{address}: no Dask scheduler answers there ({one_line(error)}); check address and "
            f"port, and that it runs."
        ) from error


def _is_file(address: str) -> bool:
    """Whether an address is a file's name, of one that may be missing."""
    return "://" not in address and ("/" in address or Path(address).is_file())


def _written_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return str(json.loads(file.read(_LARGEST_FILE_BYTES))["address"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SchedulerError(
            f"{path}: is no file that a Dask scheduler wrote ({one_line(error)}); give that, or an "
            f"address such as tcp://node1:8786."
        ) from error
