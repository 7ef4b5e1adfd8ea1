"""Workers on this machine: processes of their own, one per GPU where there are several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
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
_SCRATCH_VARIABLE = "GEODINOSEG_WORKERS_FOLDER"
"""Tells a worker process where to say that it runs the script again; see `_leave_import`."""
_WITHOUT_GUARD = "without-guard"
_GUARD_TRIES, _GUARD_PAUSE_S = 20, 0.1
_GUARD_WORDS = ("__name__", "current_process")
"""A script with neither of these cannot tell a worker process from its first run."""
_GUARD_LINE = 'if __name__ == "__main__":'
_GUARD = f"worker processes import the script that starts them; put the call under {_GUARD_LINE}"
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
        ClusterError: the count is invalid, Dask is not installed, the script has no such guard, or
            the workers cannot be started.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ClusterError(f"{count!r} local workers: give a whole number of at least 1.")
    _leave_import()
    dask = distributed()
    _check_guard()
    from dask import config  # noqa: PLC0415 (an extra)

    # Dask's spill folder, which stays empty; removed even where workers were killed.
    scratch = tempfile.TemporaryDirectory(prefix="geodinoseg-workers-", ignore_cleanup_errors=True)
    with quiet(), scratch as folder, config.set(_RUN_SETTINGS):
        with config.set(_start_settings(count, folder)):
            cluster = _start_cluster(dask, count, device, Path(folder))
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


def _start_cluster(dask: Any, count: int, device: str, scratch: Path) -> Any:
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
        if _says_no_guard(scratch):
            raise _guard_error(_script()) from None
        hint = "." if _script() is None else f"; in a script, put the call under {_GUARD_LINE}"
        raise ClusterError(
            f"local workers could not be started: {one_line(error)}{hint}"
        ) from error


def _says_no_guard(scratch: Path) -> bool:
    """Whether a worker process found no guard; the first failure may come before its word."""
    for _ in range(_GUARD_TRIES):
        if (scratch / _WITHOUT_GUARD).exists():
            return True
        time.sleep(_GUARD_PAUSE_S)
    return False


def _leave_import() -> None:
    """End a worker process that runs the script's call again while it imports the script.

    Python would raise an error here in each worker, which speaks of multiprocessing alone; the
    process that started the workers reports it once.
    """
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    folder = os.environ.get(_SCRATCH_VARIABLE)
    if folder is not None and os.path.isdir(folder):
        (Path(folder) / _WITHOUT_GUARD).touch()
    raise SystemExit(1)


def _check_guard() -> None:
    """Refuse a call in the body of a script that holds no guard at all, before any process starts.

    A guard at another place of the script is noticed by the workers.
    """
    script = _script()
    if script is None or not _is_running(script):
        return
    try:
        text = script.read_text("utf-8", errors="replace")
    except OSError:
        return
    if not any(word in text for word in _GUARD_WORDS):
        raise _guard_error(script)


def _script() -> Path | None:
    """The script that worker processes import; None in a notebook, and of `python -m package`."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", "")
    file = getattr(main, "__file__", None)
    return None if file is None or name.endswith("__main__") else Path(file)


def _is_running(script: Path) -> bool:
    """Whether the body of the script is what calls us, rather than a prompt or a thread."""
    frame = sys._getframe()  # noqa: SLF001 (the documented way to the caller's frames)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and code.co_filename == os.fspath(script):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _guard_error(script: Path | None) -> ClusterError:
    place = "" if script is None else f"{script}: "
    return ClusterError(f"{place}{_GUARD}")


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
        "distributed.nanny.pre-spawn-environ": {
            **dict.fromkeys(names, threads),
            _SCRATCH_VARIABLE: folder,
        },
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
