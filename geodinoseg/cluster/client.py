"""The one who asks: sends chunks to Dask workers, a bounded number at a time, and watches them."""

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

from geodinoseg.cluster.connect import check_scheduler, distributed, quiet
from geodinoseg.cluster.tasks import TaskPool
from geodinoseg.cluster.worker import Decision, Order, Remark, decide, segment_chunks
from geodinoseg.errors import ClusterError, OutputError, SchedulerError, one_line
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene, ScenePath, scene_path
from geodinoseg.segmentation.job import Job, Outputs
from geodinoseg.segmentation.parts.run import Parts
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.runner import first_run
from geodinoseg.segmentation.settings import SegmentSettings
from geodinoseg.segmentation.tile_grid import Chunk

logger = logging.getLogger(__name__)

_CONNECT_S, _CLOSE_S = 10, 3
_POLL_S, _LIST_S = 1.0, 2.0
_TILE_ROWS_AT_ONCE = 32
"""Of a task, at most: the rows that cross its cuts, computed by both neighbours, are 4% of them."""
_SEEN_WITHIN_S = 60
"""How long a network file system may keep it from us that a file is there."""
_LARGEST_MODEL_BYTES = 16 << 20
"""Of a model in memory: it goes along with each task."""


@contextmanager
def connect_workers(address: str) -> Iterator[DaskWorkers]:
    """The workers of a Dask cluster that runs already.

    Args:
        address: of its scheduler, such as `tcp://node1:8786`; or the file in which it wrote its
            address (`dask scheduler --scheduler-file`).

    Raises:
        SchedulerError: nobody answers there.
        ClusterError: Dask is not installed.
    """
    dask = distributed()
    check_scheduler(address)
    with quiet():
        try:
            place = "scheduler_file" if Path(address).is_file() else "address"
            client = dask.Client(**{place: address}, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise SchedulerError(
                f"{address}: no Dask scheduler answers there ({one_line(error)}); check address "
                f"and port, and that it runs."
            ) from error
        try:
            yield DaskWorkers(client, address)
        finally:
            with suppress(TimeoutError):
                client.close(timeout=_CLOSE_S)


class DaskWorkers:
    """Workers behind a Dask client: a `Workers` for `segment_scene`."""

    def __init__(self, client: Any, name: str) -> None:
        """Made by `connect_workers` and `local_workers`.

        Args:
            client: a `distributed.Client`.
            name: what to call them in messages.
        """
        self._client = client
        self._name = name

    def prepare(
        self,
        scene: ScenePath | Scene,
        model: str | Path | TileModel,
        targets: Outputs,
        settings: SegmentSettings,
        *,
        device: str,
    ) -> Job:
        """Have a worker decide; see `segmentation.Workers.prepare`.

        Raises:
            ClusterError: the model cannot be sent, or the workers cannot be used.
            GeodinosegError: as `segment_scene`.
        """
        order = Order(
            scene=_seen_by_all(scene),
            model=_sendable(model),
            targets=_absolute_targets(targets),
            settings=settings,
            device=device,
        )
        decision = self._decision(order)
        _tell(decision.remarks)
        plan = decision.plan
        settings = dataclasses.replace(settings, batch_size=plan.batch_size)
        decided = dataclasses.replace(order, settings=settings)

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            told = _Told(plan, chunks, parts, progress)
            with TaskPool(self._client, self._name) as pool:
                self._write_parts(pool, decided, plan, chunks, told)
            _await_sight(parts, chunks)

        return Job(plan=plan, run=decision.run, write_parts=write_parts)

    def _decision(self, order: Order) -> Decision:
        with TaskPool(self._client, self._name) as pool:
            pool.send(order, decide, order)
            while True:
                for _, future in pool.done():
                    decision: Decision = pool.result(future, f"{scene_path(order.scene)}: its plan")
                    return decision

    def _write_parts(
        self,
        pool: TaskPool,
        order: Order,
        plan: Plan,
        chunks: Sequence[Chunk],
        told: _Told,
    ) -> None:
        waiting, parts = deque(chunks), told.parts
        place = _absolute_place(parts.store.place)
        while waiting or pool.count:
            # No more than one each: Dask blames a lost worker's death on all that it was given.
            while waiting and pool.count < max(pool.workers, 1):
                run = _next_run(waiting, plan, pool.workers)
                indexes = tuple(chunk.index for chunk in run)
                pool.send(run, segment_chunks, order, indexes, place, parts.key)
            told.tell(pool.workers)
            for run, future in pool.done():
                left = parts.absent(run) or run
                _tell(pool.result(future, _place(scene_path(order.scene), left[0])))


class _Told:
    """Counts the parts that have appeared, and tells the share that is done with a rate."""

    def __init__(
        self, plan: Plan, chunks: Sequence[Chunk], parts: Parts, progress: Progress
    ) -> None:
        self.parts = parts
        self._progress = progress
        self._total = plan.grid.height * plan.grid.width
        self._chunks = tuple(chunks)
        self._asked = sum(map(_pixels, chunks))
        self._began = time.monotonic()
        self._looked = -_LIST_S

    def tell(self, workers: int) -> None:
        """Say how far it is; lists the folder, but not too often."""
        now = time.monotonic()
        if now - self._looked < _LIST_S:
            return
        self._looked = now
        absent = self.parts.absent(self._chunks)
        left = sum(map(_pixels, absent))
        rate = (self._asked - left) / 1e6 / max(now - self._began, 1e-6)
        done, plural = len(self._chunks) - len(absent), "" if workers == 1 else "s"
        self._progress(
            1 - left / self._total,
            f"{rate:.2f} Mpx/s, {done} of {len(self._chunks)} parts, {workers} worker{plural}",
        )


def _next_run(waiting: deque[Chunk], plan: Plan, workers: int) -> tuple[Chunk, ...]:
    """Take the next chunks for one worker: neighbours, that share the tile rows across their cuts.

    As many as it takes to make what is computed twice a twentieth, and fewer towards the end, so
    that nobody is left with the last of them while others are idle.
    """
    chunk_rows = max(1, waiting[0].core.height // plan.grid.stride_px)
    most = max(1, min(_TILE_ROWS_AT_ONCE // chunk_rows, len(waiting) // (2 * max(workers, 1))))
    run = first_run(list(islice(waiting, most)))
    for _ in run:
        waiting.popleft()
    return tuple(run)


def _await_sight(parts: Parts, chunks: Sequence[Chunk]) -> None:
    """Wait until all parts are seen from here.

    Raises:
        OutputError: some are not.
    """
    end = time.monotonic() + _SEEN_WITHIN_S
    while absent := parts.absent(chunks):
        if time.monotonic() > end:
            raise OutputError(
                f"{parts.store.place}: {len(absent)} parts that workers wrote are not seen here; "
                f"they must lie on storage that all workers share."
            )
        time.sleep(_POLL_S)


def _pixels(chunk: Chunk) -> int:
    return chunk.core.width * chunk.core.height


def _place(scene: str, chunk: Chunk) -> str:
    core = chunk.core
    return (
        f"{scene}: rows {core.row_off} to {core.row_end - 1}, columns {core.col_off} to "
        f"{core.col_end - 1} (part {chunk.index})"
    )


def _tell(remarks: Sequence[Remark]) -> None:
    for level, text in remarks:
        logger.log(level, "%s", text)


def _seen_by_all(scene: ScenePath | Scene) -> str | Scene:
    path = _absolute(scene_path(scene))
    return dataclasses.replace(scene, path=path) if isinstance(scene, Scene) else path


def _absolute(path: str) -> str:
    """A local file by its whole path, as workers have other working directories."""
    return os.path.abspath(path) if os.path.exists(path) else path


def _absolute_targets(targets: Outputs) -> Outputs:
    paths = {name: getattr(targets, name) for name in targets.__slots__}
    return Outputs(
        **{name: path and Path(_absolute_place(os.fspath(path))) for name, path in paths.items()}
    )


def _absolute_place(place: str) -> str:
    """A folder or file by its whole path; an address as it is."""
    if "://" in place:
        return place
    return os.path.abspath(place)  # resolve would follow links to names of this host


def _sendable(model: str | Path | TileModel) -> str | bytes:
    """A model as workers take it.

    Raises:
        ClusterError: a model in memory that cannot be pickled, or is too large to go along.
    """
    if isinstance(model, (str, Path)):
        return _absolute(os.fspath(model))
    name = type(model).__name__
    way_out = "save it as a model folder, and give that"
    try:
        packed = pickle.dumps(model)
    except Exception as error:  # whatever a stranger's __reduce__ raises
        raise ClusterError(
            f"this {name} cannot be sent to workers ({one_line(error)}); {way_out}."
        ) from error
    if len(packed) > _LARGEST_MODEL_BYTES:
        raise ClusterError(
            f"this {name} of {len(packed) / 1e6:.0f} MB is too large to be sent to workers with "
            f"each chunk; {way_out}."
        )
    return packed
