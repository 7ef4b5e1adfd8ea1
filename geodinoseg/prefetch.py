"""Work in a thread of its own, whose results are taken one by one."""

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
    """The items of a generator that runs in a thread of its own.

    An error in the thread is raised where its item would have come. When the items are no longer
    wanted, the thread closes its generator and ends.

    Args:
        produce: called in the thread; gives the generator.
        ahead: items that may wait to be taken.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=ahead)
    unwanted = threading.Event()

    def offer(item: T | _End) -> bool:
        while not unwanted.is_set():
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
        except BaseException as error:  # noqa: BLE001 (raised again where its item is awaited)
            offer(_End(error))

    thread = threading.Thread(target=run, name="geodinoseg-background", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


class _End:
    """No item comes any more, because of an error or because all came."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
