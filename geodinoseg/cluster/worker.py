"""What a worker does: load the model once, check that it sees what it should, write a part.

Runs in the workers' processes; imports no Dask. A task is plain values, and repeating it is safe.
"""

from __future__ import annotations

import logging
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from geodinoseg.errors import GeodinosegError
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import no_progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.job import Job, Outputs, ThisProcess
from geodinoseg.segmentation.parts.run import Run, join_parts
from geodinoseg.segmentation.parts.store import store_at
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.settings import SegmentSettings

Remark = tuple[int, str]
"""Level and text of something that was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One segmentation, as it is asked for: plain values that cross to other machines."""

    scene: str | Scene
    """Under a path or address where every worker finds it."""
    model: str | bytes
    """A model folder that every worker finds, or a pickled `TileModel`."""
    targets: Outputs
    """What the map will hold; the parts lie beside it."""
    settings: SegmentSettings
    device: str
    """Of each worker: `auto`, `cpu`, `cuda` or `cuda:N`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plan that all workers follow."""

    plan: Plan
    run: Run
    remarks: tuple[Remark, ...]
    """What was logged meanwhile."""


def decide(order: Order) -> Decision:
    """Make the plan, on a worker: the one who asked may have no GPU.

    Raises:
        GeodinosegError: as `segment_scene`.
    """
    with _PROCESS.at_work(), _heard() as remarks:
        job = _PROCESS.job(order, key=None)
    return Decision(plan=job.plan, run=job.run, remarks=tuple(remarks))


def segment_chunks(
    order: Order, indexes: Sequence[int], place: str, key: str
) -> tuple[Remark, ...]:
    """Write the parts of chunks, each as soon as it is whole; those that are there stay.

    Args:
        order: the segmentation, its batch size decided.
        indexes: of the chunks in the plan. Those that follow each other down a panel share the tile
            rows that cross their cuts.
        place: where the parts lie.
        key: of the run.

    Returns:
        What was logged meanwhile.

    Raises:
        GeodinosegError: as `segment_scene`; or this worker sees another scene, model or version.
    """
    with _PROCESS.at_work(), _heard() as remarks:
        job = _PROCESS.job(order, key=key)
        plan = job.plan
        parts = join_parts(store_at(place), job.run, plan.layers, nodata=plan.legend.nodata)
        missing = parts.missing(plan.chunks[index] for index in indexes)
        if missing:
            job.write_parts(missing, parts, no_progress)
    return tuple(remarks)


class _WorkerProcess:
    """What a process keeps between tasks: the model, and the last run that was decided."""

    def __init__(self) -> None:
        self._segmenter = ThisProcess()
        # A worker with several threads would hold the device's memory several times over.
        self._lock = threading.Lock()
        self._held: tuple[Order, str, Job] | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """One task at a time; an error says on which host it happened."""
        with self._lock:
            try:
                yield
            except GeodinosegError as error:
                error.add_note(f"(On the worker host {socket.gethostname()}.)")
                raise

    def job(self, order: Order, *, key: str | None) -> Job:
        """The job of an order; decided anew where the last was another's, or had another key."""
        if self._held is not None and self._held[:2] == (order, key):
            return self._held[2]
        self._held = None
        job = self._segmenter.prepare(
            order.scene, _unpacked(order.model), order.targets, order.settings, device=order.device
        )
        self._held = (order, job.run.key, job)
        return job


def _unpacked(model: str | bytes) -> str | TileModel:
    if isinstance(model, str):
        return model
    # From whoever asked for the work: Dask pickles functions and arguments anyway.
    unpickled: TileModel = pickle.loads(model)  # noqa: S301
    return unpickled


@contextmanager
def _heard() -> Iterator[list[Remark]]:
    """Collect warnings of ours: on a worker nobody reads them."""
    remarks: list[Remark] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            remarks.append((record.levelno, record.getMessage()))

    listener = Listener(logging.WARNING)
    ours = logging.getLogger("geodinoseg")
    ours.addHandler(listener)
    try:
        yield remarks
    finally:
        ours.removeHandler(listener)


_PROCESS = _WorkerProcess()
