"""What a connection to Dask needs: the module, a checked scheduler address, quiet loggers.

Imports neither Dask nor PyTorch by itself, so that a mistyped address is reported at once.
"""

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
from geodinoseg.files.arguments import path_text
from geodinoseg.files.atomic import PathLike

_SILENT = logging.CRITICAL + 1
_CONNECT_S = 5
_OVER_TCP = {"tcp", "tls", "ws", "wss"}
_LARGEST_FILE_BYTES = 16 << 20


def distributed() -> Any:
    """The module `distributed`; raises ClusterError where it is not installed."""
    try:
        import distributed as module  # noqa: PLC0415 (an extra; half a second)
    except ImportError as error:
        raise ClusterError(
            "workers need Dask, which is not installed: pip install dask distributed."
        ) from error
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of Dask and its server while the block runs.

    A lost worker or scheduler is reported by geodinoseg itself.
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


def check_scheduler(address: PathLike) -> None:
    """Check that a Dask scheduler listens; Dask itself goes on trying for ten seconds.

    Args:
        address: such as `tcp://node1:8786`, or the file to which a scheduler wrote it.

    Raises:
        SchedulerError: it is not an address, or nothing listens there.
    """
    address = path_text(
        address,
        "address",
        "the address of a scheduler",
        error=SchedulerError,
        way_out="give one such as tcp://node1:8786; a cluster's own is its scheduler_address",
    )
    url = _read_address(Path(address)) if _is_file(address) else address
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise SchedulerError(
            f"{address}: is not a scheduler address; give one such as tcp://node1:8786, or the "
            f"file that 'dask scheduler --scheduler-file' wrote."
        )
    if parts.scheme not in _OVER_TCP:
        return  # Dask knows how to connect to it
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise SchedulerError(
            f"{address}: no Dask scheduler answers there ({one_line(error)}); check address and "
            f"port, and that it is running."
        ) from error


def _is_file(address: str) -> bool:
    """Whether an address names a file, which may be missing."""
    return "://" not in address and ("/" in address or Path(address).is_file())


def _read_address(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return str(json.loads(file.read(_LARGEST_FILE_BYTES))["address"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SchedulerError(
            f"{path}: is not a file that a Dask scheduler wrote ({one_line(error)}); give one, or "
            f"an address such as tcp://node1:8786."
        ) from error
