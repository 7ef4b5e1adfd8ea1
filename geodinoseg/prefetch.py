"""Items produced by a background thread and consumed one by one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.1


def prefetch(
    produce: Callable[[], Generator[T, Any, Any]], *, ahead: int
) -> Generator[T, Any, Any]:
    """Yield the items of a generator that runs in a background thread.

    An error in the thread is raised in place of its item. When this generator is closed, the
    thread closes its own and ends.

    Args:
        produce: called in the thread; returns the generator.
        ahead: maximum number of items in the queue.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=ahead)
    closed = threading.Event()

    def offer(item: T | _End) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            with closing(produce()) as items:
                for item in items:
                    if not offer(item):
                        return
            offer(_End(None))
        except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
            offer(_End(error))

    thread = threading.Thread(target=run, name="geodinoseg-background", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        thread.join()


class _End:
    """Marks the end of the items, by an error or regularly."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
