"""Tasks on Dask workers, watched from the client: which have ended, how many workers are left."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from geodinoseg.cluster.connect import distributed
from geodinoseg.errors import ClusterError, SchedulerError, one_line

logger = logging.getLogger(__name__)

_POLL_S = 1.0


class TaskPool:
    """Tasks under way; those that are left when the block ends are cancelled.

    A lost scheduler raises SchedulerError; workers that cannot be restarted raise ClusterError.
    """

    def __init__(self, client: Any, name: str) -> None:
        """Begin with no task; messages call the workers of a `distributed.Client` by a name."""
        self._client = client
        self._name = name
        self._token = uuid.uuid4().hex
        self._submitted = 0
        self._tags: dict[Any, Any] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._last_count = 0.0
        self.workers = 0
        """Worker processes, when they were last counted."""
        self._count_workers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        futures = list(self._tags)
        self._tags.clear()
        if futures and self._client.status == "running":
            # A scheduler that is lost just now has nothing left to cancel.
            with suppress(Exception, asyncio.CancelledError):
                self._client.cancel(futures, force=True)

    @property
    def running(self) -> int:
        """Number of tasks under way."""
        return len(self._tags)

    def submit(self, tag: Any, function: Any, *arguments: Any) -> None:
        """Have a worker call a function; `completed` gives the tag back."""
        name = f"geodinoseg-{function.__name__}-{self._token}-{self._submitted}"
        self._submitted += 1
        with self._scheduler_errors():
            future = self._client.submit(function, *arguments, key=name, pure=False)
        self._tags[future] = tag
        future.add_done_callback(self._finished.put)

    def completed(self) -> list[tuple[Any, Any]]:
        """Tag and future of each task that has ended, waiting up to a second for the first."""
        self._count_workers()
        found = []
        try:
            future = self._finished.get(timeout=_POLL_S)
            while True:
                found.append((self._tags.pop(future), future))
                future = self._finished.get_nowait()
        except queue.Empty:
            return found

    def result(self, future: Any, what: str) -> Any:
        """Return what a task returned, or raise its error; one about workers names the task."""
        if future.status in {"cancelled", "lost"}:
            raise self._scheduler_lost()
        with self._scheduler_errors():
            error = future.exception()
            if error is None:
                return future.result()
        if isinstance(error, distributed().KilledWorker):
            raise ClusterError(
                f"{what} killed {error.allowed_failures + 1} workers, one after the other (the "
                f"last was {error.last_worker.address}). Most likely they lack memory: give them "
                f"more, or set a smaller --max-memory, --batch-size or --tile; their logs may say "
                f"more."
            ) from error
        if isinstance(error, (ImportError, AttributeError)) and "geodinoseg" in str(error):
            raise ClusterError(
                f"{self._name}: its workers have no geodinoseg, or an old one "
                f"({one_line(error)}); install the same version there as here."
            ) from error
        raise error

    def _count_workers(self) -> None:
        """Count the workers, at most once a second: they may come and go."""
        now = time.monotonic()
        if now - self._last_count < _POLL_S:
            return
        if self._client.status != "running":
            raise self._scheduler_lost()
        with self._scheduler_errors():
            count = len(self._client.nthreads())
        if count == 0 and self._none_will_start():
            raise ClusterError(
                f"{self._name}: all have ended and cannot be restarted; check free memory and the "
                f"free space for temporary files."
            )
        if count == 0 and (self.workers or not self._last_count):
            logger.warning("%s: has no worker at the moment; waiting for one.", self._name)
        self.workers, self._last_count = count, now

    def _none_will_start(self) -> bool:
        """Whether no worker will be started; unknown, so False, of a cluster that is not ours."""
        cluster = self._client.cluster
        return cluster is not None and not any(
            nanny.status.name == "running" for nanny in cluster.workers.values()
        )

    @contextmanager
    def _scheduler_errors(self) -> Iterator[None]:
        """Whatever Dask raises while its scheduler goes away becomes a SchedulerError."""
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            lost = (OSError, asyncio.CancelledError, distributed().comm.CommClosedError)
            if self._client.status == "running" and not isinstance(error, lost):
                raise
            raise self._scheduler_lost() from error

    def _scheduler_lost(self) -> SchedulerError:
        return SchedulerError(f"{self._name}: the Dask scheduler is gone.")
