"""Kill loops for clusters: workers that die, and schedulers."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from kill_case import FORK, Case, KnownModel, fresh, processes_left, untouched

from geodinoseg.cluster.local import local_workers
from geodinoseg.model.folder import save_model
from geodinoseg.segmentation.settings import SegmentationSettings

_DEATHS_A_RUN = 2
"""Dask's third of one chunk ends a run, and here every run shall go on by itself."""


def kill_workers(case: Case, times: int, rng: random.Random) -> str:
    """Kill worker processes, one or both of two, at random moments of runs."""
    case = replace(case, model=KnownModel(pause_s=0.01))
    whole, _ = untouched(case)
    kills = runs = 0
    with local_workers(2, device="cpu") as workers:
        seconds = 0.0
        while kills < times:
            await_workers(2)
            case = fresh(case)
            # The first says how long a run takes.
            count = min(rng.randint(1, _DEATHS_A_RUN), times - kills) if runs else 0
            moments = sorted(rng.uniform(0, seconds) for _ in range(count))
            if count == 2 and rng.random() < 0.25:
                moments[1] = moments[0]
            began = time.monotonic()
            with killer(moments, rng) as killed:
                case.segment(workers=workers)
            took = time.monotonic() - began
            seconds = seconds or took
            case.check(whole)
            kills += len(killed)
            runs += 1
            print(f"run {runs}: {took:.1f} s, workers killed after {killed} s", flush=True)
    return f"{kills} workers killed in {runs} runs, {seconds:.1f} s long without a death"


@contextmanager
def killer(moments: list[float], rng: random.Random) -> Iterator[list[float]]:
    """Kill a worker process at each moment of the block; what it gives says when it did."""
    killed: list[float] = []
    over = threading.Event()
    began = time.monotonic()

    def kill_some() -> None:
        for moment in moments:
            if over.wait(max(began + moment - time.monotonic(), 0)):
                return
            found = worker_processes()
            if found:
                rng.choice(found).kill()
                killed.append(round(time.monotonic() - began, 2))

    thread = threading.Thread(target=kill_some)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def worker_processes() -> list[psutil.Process]:
    """Those of `local_workers`; one that is just being started is among them."""
    return [p for p in processes_left() if "spawn_main" in " ".join(p.cmdline())]


def await_workers(count: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while len(worker_processes()) < count:
        if time.monotonic() > end:
            sys.exit(f"a worker that was killed was not started again within {seconds} s")
        time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A scheduler and two workers, each a process of its own."""

    scheduler: BaseProcess
    workers: tuple[BaseProcess, ...]
    file: Path
    """In which the scheduler wrote its address."""


def kill_schedulers(case: Case, times: int, rng: random.Random) -> str:
    """Kill the scheduler of a command at random moments, and repeat the command with another."""
    # What the processes need is imported before they are forked.
    import distributed.cli.dask_scheduler
    import distributed.cli.dask_worker  # noqa: F401
    from trainings import small_segmentor, write_backbone

    import geodinoseg.cli.segment  # noqa: F401

    folder = case.scene.parent
    model = save_model(small_segmentor(write_backbone(folder / "backbone")), folder / "small.model")
    settings = SegmentationSettings(tile_px=84, overlap_px=10)
    case = replace(case, model=model, settings=settings)
    whole, _ = untouched(case)
    kills = runs = commands = 0
    seconds, stray = 0.0, []
    while kills < times:
        case, ended, found = fresh(case), False, []
        while not ended:
            commands += 1
            moment = rng.uniform(0, 1.05 * seconds) if runs and kills < times else None
            with cluster_in(folder, name=f"cluster-{commands}") as cluster:
                code, said, took = run_command(case, cluster, kill_after_s=moment)
                stray += cluster.workers
            ended = code == 0
            if not ended:
                check_said(code, said)
                kills += 1
                found.append(len(case.parts))
        if not found:  # the first also fills caches
            seconds = min(seconds or took, took)
        case.check(whole)
        runs += 1
        print(f"run {runs}: parts after each death of the scheduler {found}", flush=True)
    for worker in stray:  # they have lost their scheduler, and end by themselves
        worker.join(timeout=60)
    return f"{kills} schedulers killed in {runs} runs of {commands} commands"


@contextmanager
def cluster_in(folder: Path, *, name: str) -> Iterator[Cluster]:
    """A new cluster; its scheduler is killed at the end, its workers end without one."""
    import dask
    from distributed.cli.dask_scheduler import main as dask_scheduler
    from distributed.cli.dask_worker import main as dask_worker

    file, log = folder / f"{name}.json", folder / f"{name}.log"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    # Without a death timeout, workers whose scheduler died before they met it wait for ever.
    own = ["--nthreads", "1", "--memory-limit", "0", "--no-nanny", "--death-timeout", "5"]

    def started(main: Callable[..., Any], *words: str) -> BaseProcess:
        # Dask leaves its folder of temporary files there; the command itself must leave nothing.
        with dask.config.set({"temporary-directory": str(folder)}):
            return command(main, [*common, *words], log)

    scheduler = started(dask_scheduler, "--host", "127.0.0.1", "--port", "0")
    try:
        end = time.monotonic() + 60
        while not file.exists():
            if time.monotonic() > end:
                sys.exit(f"no scheduler could be started: {log.read_text()}")
            time.sleep(0.01)
        workers = tuple(started(dask_worker, *own) for _ in range(2))
        yield Cluster(scheduler=scheduler, workers=workers, file=file)
    finally:
        scheduler.kill()
        scheduler.join()


def command(main: Callable[..., Any], words: list[str], log: Path) -> BaseProcess:
    """A process that does what a command would, and has nothing to import any more."""

    def run() -> None:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        main(words)

    process = FORK.Process(target=run)
    process.start()
    return process


def run_command(
    case: Case, cluster: Cluster, *, kill_after_s: float | None
) -> tuple[int | None, str, float]:
    """Run the command, and kill its scheduler; exit code, what it said, and its seconds."""
    from geodinoseg.cli import main

    options = {
        "--model": case.model,
        "-o": case.output,
        **{f"--{layer}": case.folder / f"map_{layer}.tif" for layer in case.layers},
        "--tile": case.settings.tile_px,
        "--overlap": case.settings.overlap_px,
        "--scheduler": cluster.file,
    }
    words = [str(word) for pair in options.items() for word in pair]
    log = cluster.file.with_suffix(".said")
    began = time.monotonic()
    process = command(main, ["segment", str(case.scene), *words], log)
    process.join(kill_after_s)
    cluster.scheduler.kill() if kill_after_s is not None else None
    process.join(timeout=120)
    return process.exitcode, log.read_text(), time.monotonic() - began


def check_said(code: int | None, said: str) -> None:
    """Stop the loop where a command without a scheduler did not end in one line."""
    lines = [line for line in said.splitlines() if "parts were done before" not in line]
    # Where it died while it was being connected to, nobody answers.
    known = ("the Dask scheduler is gone", "no Dask scheduler answers there")
    if code != 1 or len(lines) != 1 or not any(words in lines[0] for words in known):
        sys.exit(f"exit {code}: {said}")
