"""Tasks that workers do, watched by the one who asked: what came back, who died, who is left."""

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
    """Tasks under way; those that are not wanted any more are called back at the end."""

    def __init__(self, client: Any, name: str) -> None:
        """Begin with none.

        Args:
            client: a `distributed.Client`.
            name: what to call its workers in messages.

        Raises:
            SchedulerError: its scheduler is gone.
            ClusterError: its workers have ended, and nobody starts others.
        """
        self._client = client
        self._name = name
        self._token = uuid.uuid4().hex
        self._sent = 0
        self._running: dict[Any, Any] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._looked = 0.0
        self.workers = 0
        """Processes at work, as far as was last known."""
        self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        futures = list(self._running)
        self._running.clear()
        if futures and self._client.status == "running":
            # A scheduler that goes just now has nothing to call back any more.
            with suppress(Exception, asyncio.CancelledError):
                self._client.cancel(futures, force=True)

    @property
    def count(self) -> int:
        """Tasks under way."""
        return len(self._running)

    def send(self, what: Any, function: Any, *arguments: Any) -> None:
        """Have a worker call a function; `done` gives `what` back.

        Raises:
            SchedulerError: the scheduler is gone.
        """
        name = f"geodinoseg-{function.__name__}-{self._token}-{self._sent}"
        self._sent += 1
        with self._scheduler_there():
            future = self._client.submit(function, *arguments, key=name, pure=False)
        self._running[future] = what
        future.add_done_callback(self._finished.put)

    def done(self) -> list[tuple[Any, Any]]:
        """What was sent and came back, waiting a moment for some.

        Raises:
            SchedulerError: the scheduler is gone.
            ClusterError: its workers have ended, and nobody starts others.
        """
        self._look()
        found = []
        try:
            future = self._finished.get(timeout=_POLL_S)
            while True:
                found.append((self._running.pop(future), future))
                future = self._finished.get_nowait()
        except queue.Empty:
            return found

    def result(self, future: Any, what: str) -> Any:
        """What a task gave.

        Raises:
            SchedulerError: its scheduler is gone.
            ClusterError: its workers died, or know no geodinoseg.
        """
        if future.status in {"cancelled", "lost"}:
            raise self._scheduler_gone()
        with self._scheduler_there():
            error = future.exception()
            if error is None:
                return future.result()
        if isinstance(error, distributed().KilledWorker):
            raise ClusterError(
                f"{what} killed {error.allowed_failures + 1} workers, one after the other (the "
                f"last was {error.last_worker.address}). Most likely they lack memory: give them "
                f"more, or a smaller --max-memory, --batch-size or --tile; their logs may tell "
                f"more."
            ) from error
        if isinstance(error, (ImportError, AttributeError)) and "geodinoseg" in str(error):
            raise ClusterError(
                f"{self._name}: its workers have no geodinoseg, or an old one "
                f"({one_line(error)}); install there what is installed here."
            ) from error
        raise error

    def _look(self) -> None:
        """Count the workers, now and then: they may come and go."""
        now = time.monotonic()
        if now - self._looked < _POLL_S:
            return
        if self._client.status != "running":
            raise self._scheduler_gone()
        with self._scheduler_there():
            count = len(self._client.nthreads())
        if count == 0 and self._none_will_come():
            raise ClusterError(
                f"{self._name}: have ended, and cannot be started again; look whether memory and "
                f"the disk of temporary files have room."
            )
        if count == 0 and (self.workers or not self._looked):
            logger.warning("%s: has no worker at the moment; waiting for one.", self._name)
        self.workers, self._looked = count, now

    def _none_will_come(self) -> bool:
        """Whether nobody starts workers any more; of a cluster of others nothing is known."""
        cluster = self._client.cluster
        return cluster is not None and not any(
            nanny.status.name == "running" for nanny in cluster.workers.values()
        )

    @contextmanager
    def _scheduler_there(self) -> Iterator[None]:
        """Whatever Dask raises while its scheduler goes means just that.

        Raises:
            SchedulerError: the scheduler is gone.
        """
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            gone = (OSError, asyncio.CancelledError, distributed().comm.CommClosedError)
            if self._client.status == "running" and not isinstance(error, gone):
                raise
            raise self._scheduler_gone() from error

    def _scheduler_gone(self) -> SchedulerError:
        return SchedulerError(f"{self._name}: the Dask scheduler is gone.")
