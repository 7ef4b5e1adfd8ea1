"""Workers on this machine: processes of their own, one a GPU where there are several."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

from geodinoseg.cluster.client import DaskWorkers
from geodinoseg.cluster.connect import distributed, quiet
from geodinoseg.errors import ClusterError, one_line

_CLOSE_S = 5
_CONNECT_S = 30
_LOOPBACK = "127.0.0.1"
_NO_PAGES = {"dashboard": False, "dashboard_address": f"{_LOOPBACK}:0"}
"""Dask serves some even without its dashboard: out of reach from elsewhere, on a free port."""
_NEVER = "1000 days"
_DEATHS_ALLOWED = 2  # the third names the chunk
_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}


@contextmanager
def local_workers(count: int, *, device: str = "auto") -> Iterator[DaskWorkers]:
    """Worker processes on this machine, for as long as the block runs.

    On a CPU they share its cores; of several GPUs each takes its own. Whatever ends the block ends
    them, too. A script that calls this must be guarded by `if __name__ == "__main__"`, as with
    Python's multiprocessing.

    Args:
        count: number of processes.
        device: as `segment_scene` will be given.

    Raises:
        ClusterError: Dask is not installed, or they cannot be started.
    """
    dask = distributed()
    with quiet(), _scratch_folder() as folder, _none_given_up():
        with _settings(count, folder):
            cluster = _started(dask, count, device)
        client = None
        try:
            client = dask.Client(cluster, timeout=_CONNECT_S, set_as_default=False)
            yield DaskWorkers(client, f"{count} local workers")
        finally:
            # Nobody waits for what they have in hand: a part is whole or absent.
            _kill(cluster)
            for ending in (client, cluster):
                if ending is not None:
                    with suppress(TimeoutError):
                        ending.close(timeout=_CLOSE_S)


def _scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Where Dask keeps what it never has here; removed even where workers were killed."""
    return tempfile.TemporaryDirectory(prefix="geodinoseg-workers-", ignore_cleanup_errors=True)


def _started(dask: Any, count: int, device: str) -> Any:
    scheduler = {
        "cls": dask.Scheduler,
        "options": {"host": _LOOPBACK, "port": 0, **_NO_PAGES},
    }
    workers = {
        number: {"cls": dask.Nanny, "options": _options(environment)}
        for number, environment in enumerate(_environments(count, device))
    }
    try:
        with _out_of_reach_of_the_terminal():
            return dask.SpecCluster(
                workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"local workers could not be started: {one_line(error)}.") from error


def _options(environment: dict[str, str]) -> dict[str, Any]:
    return {
        "host": _LOOPBACK,
        "nthreads": 1,
        **_NO_PAGES,
        "silence_logs": logging.CRITICAL,
        "env": environment,
        # All import PyTorch at once, and before they are given work.
        "preload": ["geodinoseg.cluster.worker"],
        # Dask's guess, memory by cores, would end a worker that holds a large model.
        "memory_limit": 0,
    }


@contextmanager
def _settings(count: int, folder: str) -> Iterator[None]:
    """Dask's settings while workers are started; those of a user's environment come first."""
    import dask  # noqa: PLC0415 (an extra)

    threads = max(len(os.sched_getaffinity(0)) // count, 1)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = dict.fromkeys(names, threads)
    with dask.config.set(
        {
            "distributed.scheduler.allowed-failures": _DEATHS_ALLOWED,
            "distributed.nanny.pre-spawn-environ": environment,
            "temporary-directory": folder,
        }
    ):
        yield


@contextmanager
def _none_given_up() -> Iterator[None]:
    """While the block runs, Dask starts a worker that died anew for however long it takes.

    It ends those for good that are not back 15 s after their death, which the import of PyTorch may
    take on a busy machine; the last one would leave a run that waits for ever.
    """
    import dask  # noqa: PLC0415 (an extra)

    with dask.config.set({"distributed.deploy.lost-worker-timeout": _NEVER}):
        yield


def _environments(count: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each worker: which GPU it sees."""
    if device not in {"auto", "cuda"}:
        return [{} for _ in range(count)]
    import torch  # noqa: PLC0415 (workers on a CPU are started without it)

    found = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",")[:found] if told else [str(number) for number in range(found)]
    if not names:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": names[number % len(names)]} for number in range(count)]


@contextmanager
def _out_of_reach_of_the_terminal() -> Iterator[None]:
    """Threads and processes begun in the block never hear of Ctrl-C or a closed terminal.

    The one who asked hears of it and ends them in order; of themselves they would end with
    tracebacks, and the nannies would start them anew.
    """
    resource_tracker.ensure_running()  # it would undo the mask on its first use
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(cluster: Any) -> None:
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        process: Any = getattr(nanny.process, "process", None)
        with suppress(AttributeError, OSError, ValueError):
            process.kill()
