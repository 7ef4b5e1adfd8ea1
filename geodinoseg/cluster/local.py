"""Workers on this machine: processes of their own, one per GPU where there are several."""

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
_NO_DASHBOARD = {"dashboard": False, "dashboard_address": f"{_LOOPBACK}:0"}
"""Dask serves some pages even without its dashboard: on the loopback address and a free port."""
_RUN_SETTINGS = {"distributed.deploy.lost-worker-timeout": "1000 days"}
"""Dask gives up on a worker that is not back 15 s after its death, which importing PyTorch may take
on a busy machine; without the last worker a run would wait for ever."""
_DEATHS_ALLOWED = 2  # the third names the chunk
_TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGHUP}


@contextmanager
def local_workers(count: int, *, device: str = "auto") -> Iterator[DaskWorkers]:
    """Start worker processes on this machine; they end with the block, however it ends.

    On a CPU they share its cores; of several GPUs each takes its own. A script that calls this must
    be guarded by `if __name__ == "__main__"`, as with Python's multiprocessing.

    Args:
        count: number of processes.
        device: as `segment_scene` will be given.

    Raises:
        ClusterError: Dask is not installed, or the workers cannot be started.
    """
    dask = distributed()
    from dask import config  # noqa: PLC0415 (an extra)

    # Dask's spill folder, which stays empty; removed even where workers were killed.
    scratch = tempfile.TemporaryDirectory(prefix="geodinoseg-workers-", ignore_cleanup_errors=True)
    with quiet(), scratch as folder, config.set(_RUN_SETTINGS):
        with config.set(_start_settings(count, folder)):
            cluster = _start_cluster(dask, count, device)
        client = None
        try:
            client = dask.Client(cluster, timeout=_CONNECT_S, set_as_default=False)
            yield DaskWorkers(client, f"{count} local workers")
        finally:
            # Their current chunks are not waited for: a part is whole or absent.
            _kill(cluster)
            for closing in (client, cluster):
                if closing is not None:
                    with suppress(TimeoutError):
                        closing.close(timeout=_CLOSE_S)


def _start_cluster(dask: Any, count: int, device: str) -> Any:
    scheduler = {
        "cls": dask.Scheduler,
        "options": {"host": _LOOPBACK, "port": 0, **_NO_DASHBOARD},
    }
    workers = {
        number: {"cls": dask.Nanny, "options": _nanny_options(environment)}
        for number, environment in enumerate(_environments(count, device))
    }
    try:
        with _blocked_terminal_signals():
            return dask.SpecCluster(
                workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"local workers could not be started: {one_line(error)}.") from error


def _nanny_options(environment: dict[str, str]) -> dict[str, Any]:
    return {
        "host": _LOOPBACK,
        "nthreads": 1,
        **_NO_DASHBOARD,
        "silence_logs": logging.CRITICAL,
        "env": environment,
        # All import PyTorch at the same time, before they are given work.
        "preload": ["geodinoseg.cluster.worker"],
        # Dask's default, memory by cores, would end a worker that holds a large model.
        "memory_limit": 0,
    }


def _start_settings(count: int, folder: str) -> dict[str, Any]:
    """Dask's settings while workers are started; the user's environment takes precedence."""
    threads = max(len(os.sched_getaffinity(0)) // count, 1)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "distributed.scheduler.allowed-failures": _DEATHS_ALLOWED,
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
        "temporary-directory": folder,
    }


def _environments(count: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each worker: which GPU it sees."""
    if device not in {"auto", "cuda"}:
        return [{} for _ in range(count)]
    import torch  # noqa: PLC0415 (workers on a CPU are started without it)

    found = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",")[:found] if visible else [str(number) for number in range(found)]
    if not names:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": names[number % len(names)]} for number in range(count)]


@contextmanager
def _blocked_terminal_signals() -> Iterator[None]:
    """Threads and processes started in the block do not receive Ctrl-C or SIGHUP.

    The command receives them and ends its workers in order; on their own they would end with
    tracebacks, and the nannies would restart them.
    """
    resource_tracker.ensure_running()  # it would undo the mask on its first use
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL_SIGNALS)
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
