"""Signals and standard streams of the process: a command ends in order, within seconds."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

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
        _ignore_signals(before)
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
            atexit.register(_ignore_signals, heard)


def _ignore_signals(numbers: Iterable[int]) -> None:
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


def say(line: str, *, err: bool = False) -> None:
    """A line for whoever listens; a reader who has gone, or a full disk, is no reason to fail."""
    try:
        click.echo(line, err=err)
    except OSError:
        _mute(sys.stderr if err else sys.stdout)


@contextmanager
def exit_on_write_errors() -> Iterator[None]:
    """Help and version, which click writes itself: a reader who has gone ends it in silence.

    A full disk ends it as one line on stderr and exit code 1.
    """
    try:
        yield
    except OSError as error:
        # Of a stream there is no name; any other file's error is not about this.
        if error.filename is not None or _takes_text(sys.stdout):
            raise
        _mute(sys.stdout)
        if error.errno == errno.EPIPE:
            sys.exit(0)
        say(f"Error: standard output: cannot be written ({error.strerror}).", err=True)
        sys.exit(1)


def flush_or_discard() -> None:
    """Flush now: at exit Python would complain of what it could not write, with code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _mute(stream)


class IgnoreWriteErrors:
    """A stream whose other end may go away, as a terminal that is closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write, or do nothing."""
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def _takes_text(stream: Any) -> bool:
    """Whether a stream still takes what is written; those that were closed do."""
    try:
        if stream is not None:
            stream.write("\n")
            stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _mute(stream: Any) -> None:
    """Let a stream write into nothing, what waits in its buffer included."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
