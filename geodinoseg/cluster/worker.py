"""What runs in a worker: load the model once, compare the run with the manifest, write parts.

Imports no Dask, and no torch before the first task. A task is plain values; it is safe to repeat.
"""

from __future__ import annotations

import logging
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override

from geodinoseg.errors import ClusterError, GeodinosegError, one_line
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import no_progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.job import Job, Workers
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import Run, join_parts
from geodinoseg.segmentation.parts.store import store_at
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.settings import SegmentationSettings

LogLine = tuple[int, str]
"""Level and text of something that was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One segmentation as plain values that cross to other machines."""

    scene: Scene
    """Under a path or address where every worker finds it."""
    model: str | bytes
    """A model folder that every worker finds, or a pickled `TileModel`."""
    files: MapFiles
    """What the map will hold."""
    settings: SegmentationSettings
    device: str
    """Of each worker: `auto`, `cpu`, `cuda` or `cuda:N`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plan that all workers follow."""

    plan: Plan
    run: Run
    log: tuple[LogLine, ...]
    """Warnings that were logged while it was made."""


def decide(request: Request) -> Decision:
    """Make the plan, on a worker: the client may have no GPU."""
    with _PROCESS.one_task(), _captured_warnings() as log:
        job = _PROCESS.job(request, key=None)
    return Decision(plan=job.plan, run=job.run, log=tuple(log))


def segment_chunks(
    request: Request, indexes: Sequence[int], place: str, key: str
) -> tuple[LogLine, ...]:
    """Write the missing parts of chunks, each as soon as it is whole.

    Args:
        request: the segmentation, its batch size decided.
        indexes: of the chunks in the plan; neighbours share the tile rows that cross their cuts.
        place: folder or address of the parts.
        key: of the run.

    Returns:
        Warnings that were logged meanwhile.
    """
    with _PROCESS.one_task(), _captured_warnings() as log:
        job = _PROCESS.job(request, key=key)
        plan = job.plan
        parts = join_parts(store_at(place), job.run, plan.layers, nodata=plan.legend.nodata)
        missing = parts.missing(plan.chunks[index] for index in indexes)
        if missing:
            job.write_parts(missing, parts, no_progress)
    return tuple(log)


class _WorkerProcess:
    """What a process keeps between tasks: the model, and the last job."""

    def __init__(self) -> None:
        self._segmenter: Workers | None = None
        # A worker with several threads would hold the device's memory several times over.
        self._lock = threading.Lock()
        self._last: tuple[Request, str, Job] | None = None

    @contextmanager
    def one_task(self) -> Iterator[None]:
        """Run one task at a time; an error says on which host it happened."""
        with self._lock:
            try:
                yield
            except GeodinosegError as error:
                error.add_note(f"(On the worker host {socket.gethostname()}.)")
                raise

    def job(self, request: Request, *, key: str | None) -> Job:
        """The job of a request; the last one where request and key are the same."""
        if self._last is not None and self._last[:2] == (request, key):
            return self._last[2]
        self._last = None
        if self._segmenter is None:
            from geodinoseg.segmentation.runner import ThisProcess  # noqa: PLC0415 (torch)

            self._segmenter = ThisProcess()
        job = self._segmenter.prepare(
            request.scene,
            _load(request.model),
            request.files,
            request.settings,
            device=request.device,
        )
        self._last = (request, job.run.key, job)
        return job


def _load(model: str | bytes) -> str | TileModel:
    if isinstance(model, str):
        return model
    # From the client, which is trusted: Dask pickles functions and arguments anyway.
    try:
        unpickled: TileModel = pickle.loads(model)  # noqa: S301
    except Exception as error:  # anything a user's __setstate__ raises; no such GPU
        raise ClusterError(
            f"the model cannot be loaded here ({one_line(error)}); save it as a model folder and "
            f"pass that folder."
        ) from error
    return unpickled


@contextmanager
def _captured_warnings() -> Iterator[list[LogLine]]:
    """Collect our own warnings, for the client to log: nobody reads a worker's log."""
    lines: list[LogLine] = []

    class Collector(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelno, record.getMessage()))

    collector = Collector(logging.WARNING)
    ours = logging.getLogger("geodinoseg")
    ours.addHandler(collector)
    try:
        yield lines
    finally:
        ours.removeHandler(collector)


_PROCESS = _WorkerProcess()
