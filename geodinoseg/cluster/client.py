"""The client side: sends chunks to Dask workers, a bounded number at a time, and watches them."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import override

from geodinoseg.cluster.connect import check_scheduler, distributed, quiet
from geodinoseg.cluster.tasks import TaskPool
from geodinoseg.cluster.worker import Decision, LogLine, Request, decide, segment_chunks
from geodinoseg.errors import ClusterError, OutputError, SchedulerError, one_line
from geodinoseg.files.atomic import PathLike
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress, log_step
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.job import Job, Workers
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import Parts
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk, first_run

logger = logging.getLogger(__name__)

_CONNECT_S, _CLOSE_S = 10, 3
_POLL_S, _LIST_S = 1.0, 2.0
_MAX_TILE_ROWS = 32
"""Of a task: the tile rows across its cuts, which both neighbours compute, are then 4% of it."""
_VISIBLE_WITHIN_S = 60
"""How long a network file system may take to show a file that another machine wrote."""
_LARGEST_MODEL_BYTES = 16 << 20
"""Of a model in memory: it is sent with each task."""


@contextmanager
def connect_workers(address: PathLike) -> Iterator[DaskWorkers]:
    """Connect to the workers of a running Dask cluster, for as long as the block runs.

    Args:
        address: of its scheduler, such as `tcp://node1:8786`, or the file that
            `dask scheduler --scheduler-file` wrote.

    Raises:
        SchedulerError: no scheduler answers there.
        ClusterError: Dask is not installed.
    """
    dask = distributed()
    check_scheduler(address)
    address = os.fspath(address)
    with quiet():
        try:
            keyword = "scheduler_file" if Path(address).is_file() else "address"
            client = dask.Client(**{keyword: address}, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise SchedulerError(
                f"{address}: no Dask scheduler answers there ({one_line(error)}); check address "
                f"and port, and that it is running."
            ) from error
        try:
            yield DaskWorkers(client, address)
        finally:
            with suppress(TimeoutError):
                client.close(timeout=_CLOSE_S)


class DaskWorkers(Workers):
    """Workers behind a Dask client; made by `connect_workers` and `local_workers`."""

    def __init__(self, client: Any, name: str) -> None:
        """Keep a `distributed.Client` and what messages call its workers."""
        self._client = client
        self._name = name

    @override
    def prepare(
        self,
        scene: Scene,
        model: str | Path | TileModel,
        files: MapFiles,
        settings: SegmentationSettings,
        *,
        device: str,
    ) -> Job:
        request = Request(
            scene=_absolute_scene(scene),
            model=_portable_model(model),
            files=files,
            settings=settings,
            device=device,
        )
        decision = self._decide(request)
        _log(decision.log)
        plan = decision.plan
        settings = dataclasses.replace(settings, batch_size=plan.batch_size)
        decided = dataclasses.replace(request, settings=settings)

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            self._write_parts(decided, plan, chunks, parts, progress)
            _wait_until_visible(parts, chunks)

        return Job(plan=plan, run=decision.run, write_parts=write_parts)

    def _decide(self, request: Request) -> Decision:
        with TaskPool(self._client, self._name) as pool:
            pool.submit(request, decide, request)
            while not (completed := pool.completed()):
                pass
            ((_, future),) = completed
            decision: Decision = pool.result(future, f"{request.scene.path}: its plan")
            return decision

    def _write_parts(
        self,
        request: Request,
        plan: Plan,
        chunks: Sequence[Chunk],
        parts: Parts,
        progress: Progress,
    ) -> None:
        reporter = _PartsProgress(plan, chunks, parts, progress)
        waiting, place = deque(chunks), _absolute(parts.store.place)
        with TaskPool(self._client, self._name) as pool:
            while waiting or pool.running:
                # Only one each: Dask blames a lost worker's death on all tasks that it was given.
                while waiting and pool.running < max(pool.workers, 1):
                    run = _next_run(waiting, plan, pool.workers)
                    indexes = tuple(chunk.index for chunk in run)
                    pool.submit(run, segment_chunks, request, indexes, place, parts.key)
                reporter.report(pool.workers)
                for run, future in pool.completed():
                    unfinished = (parts.absent(run) or run)[0]
                    what = f"{request.scene.path}: {_rows_and_columns(unfinished)}"
                    _log(pool.result(future, what))
                    for chunk in run:
                        count = len(plan.chunks)
                        log_step(logger, "part %d of %d is written.", chunk.index + 1, count)


class _PartsProgress:
    """Reports the fraction of pixels whose parts are there, with a rate."""

    def __init__(
        self, plan: Plan, chunks: Sequence[Chunk], parts: Parts, progress: Progress
    ) -> None:
        self._parts = parts
        self._progress = progress
        self._total_px = plan.grid.height * plan.grid.width
        self._chunks = tuple(chunks)
        self._requested_px = _pixels(chunks)
        self._start = time.monotonic()
        self._last_listing = -_LIST_S

    def report(self, workers: int) -> None:
        """List the parts and report; returns at once where they were listed a moment ago."""
        now = time.monotonic()
        if now - self._last_listing < _LIST_S:
            return
        self._last_listing = now
        absent = self._parts.absent(self._chunks)
        left_px = _pixels(absent)
        rate = (self._requested_px - left_px) / 1e6 / max(now - self._start, 1e-6)
        done, plural = len(self._chunks) - len(absent), "" if workers == 1 else "s"
        self._progress(
            1 - left_px / self._total_px,
            f"{rate:.2f} Mpx/s, {done} of {len(self._chunks)} parts, {workers} worker{plural}",
        )


def _next_run(waiting: deque[Chunk], plan: Plan, workers: int) -> tuple[Chunk, ...]:
    """Take the next chunks for one worker: neighbours, which share the tile rows across their cuts.

    Fewer towards the end, so that no worker computes the last of them while others are idle.
    """
    chunk_rows = max(1, waiting[0].core.height // plan.grid.stride_px)
    most = max(1, min(_MAX_TILE_ROWS // chunk_rows, len(waiting) // (2 * max(workers, 1))))
    run = first_run(list(islice(waiting, most)))
    for _ in run:
        waiting.popleft()
    return tuple(run)


def _wait_until_visible(parts: Parts, chunks: Sequence[Chunk]) -> None:
    end = time.monotonic() + _VISIBLE_WITHIN_S
    while absent := parts.absent(chunks):
        if time.monotonic() > end:
            raise OutputError(
                f"{parts.store.place}: {len(absent)} parts that workers wrote are not visible "
                f"here; put the parts on storage that all workers share."
            )
        time.sleep(_POLL_S)


def _pixels(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.core.width * chunk.core.height for chunk in chunks)


def _rows_and_columns(chunk: Chunk) -> str:
    core = chunk.core
    return (
        f"rows {core.row_off} to {core.row_end - 1}, columns {core.col_off} to "
        f"{core.col_end - 1} (part {chunk.index})"
    )


def _log(lines: Sequence[LogLine]) -> None:
    for level, text in lines:
        logger.log(level, "%s", text)


def _absolute_scene(scene: Scene) -> Scene:
    source = dataclasses.replace(scene.source, path=_absolute(scene.path))
    return dataclasses.replace(scene, source=source)


def _absolute(path: str) -> str:
    """A local file or folder by its whole path, as workers have other working directories.

    Links are kept, since they may lead to names of this host.
    """
    return os.path.abspath(path) if os.path.exists(path) else path


def _portable_model(model: str | Path | TileModel) -> str | bytes:
    """A model as a `Request` carries it: the path of its folder, or its pickle."""
    if isinstance(model, (str, Path)):
        return _absolute(os.fspath(model))
    name = type(model).__name__
    way_out = "save it as a model folder and pass that folder"
    try:
        packed = pickle.dumps(model)
    except Exception as error:  # anything a user's __reduce__ raises
        raise ClusterError(
            f"this {name} cannot be sent to workers ({one_line(error)}); {way_out}."
        ) from error
    if len(packed) > _LARGEST_MODEL_BYTES:
        raise ClusterError(
            f"this {name} of {len(packed) / 1e6:.0f} MB is too large to be sent to workers with "
            f"each chunk; {way_out}."
        )
    return packed
