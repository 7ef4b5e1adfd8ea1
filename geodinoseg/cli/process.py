"""Signals that end a command: in order where it can, within seconds in any case."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

ENDED = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended from outside",
    signal.SIGHUP: "ended, as its terminal was closed",
}
_GRACE_S = 10
"""How long the work may take to stop in order; a single call into PyTorch or GDAL takes minutes."""


class _Ended(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def number_of(ended: KeyboardInterrupt) -> signal.Signals:
    """The signal behind an interrupt."""
    return signal.Signals(ended.number if isinstance(ended, _Ended) else signal.SIGINT)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP stop the work as Ctrl-C does, so that temporary files are removed.

    Python runs a handler between two of its own instructions, so a long call into PyTorch or GDAL
    would hold it up. A thread that hears of the signal at once ends the process if it has not ended
    by itself; what is left behind then is removed by the next run. Once one has come the block is
    about to end, and hears of no other; nor does Python at its exit.
    """
    ended = False

    def end(number: int, _: object) -> NoReturn:
        nonlocal ended
        ended = True
        # Who asks twice, as an impatient Ctrl-C, must not disturb the tidying up, nor Python on its
        # way out, which would end by the signal and not with our exit code.
        _hear_none_of(before)
        raise _Ended(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    # What is ignored stays so: `nohup` means to outlive its terminal.
    heard = [number for number in ENDED if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in heard}
    for number in heard:
        signal.signal(number, end)
    try:
        with _watched_signals():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if ended:
            atexit.register(_hear_none_of, heard)


def _hear_none_of(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _watched_signals() -> Iterator[None]:
    ended = threading.Event()
    listening, speaking = os.pipe()
    os.set_blocking(speaking, False)

    def watch() -> None:
        while number := os.read(listening, 1)[0]:
            if number in ENDED and not ended.wait(_GRACE_S):
                why = ENDED[signal.Signals(number)]
                _say_plainly(
                    f"Error: {why}, amid a long step; run the same command again to go on."
                )
                os._exit(128 + number)

    thread = threading.Thread(target=watch, name="geodinoseg-signals", daemon=True)
    old = signal.set_wakeup_fd(speaking, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        ended.set()
        os.write(speaking, b"\0")  # no signal has this number: the thread goes home
        thread.join()
        os.close(listening)
        os.close(speaking)


def _say_plainly(line: str) -> None:
    """Write to stderr past Python's buffers, which the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
