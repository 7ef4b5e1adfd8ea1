"""Signals and standard streams of the process: a command stops cleanly, within seconds."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib.util
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

STOP_REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated, as its terminal was closed",
}
# Control characters, line and paragraph separators, and those that change the writing direction.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
BAR_IS_DRAWN = threading.Event()
"""Set while a progress bar is shown in the last line of the terminal."""
_CLEAR_LINE = "\r\x1b[K"
_GRACE_S = 10
"""How long a clean stop may take; a single call into PyTorch or GDAL can take minutes."""


class _SignalInterrupt(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP was received."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def signal_of(interrupt: KeyboardInterrupt) -> signal.Signals:
    """The signal behind an interrupt."""
    return signal.Signals(getattr(interrupt, "number", signal.SIGINT))


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP stop the work as Ctrl-C does, so that temporary files are removed.

    Python runs a handler between two of its own instructions, so a long call into PyTorch or GDAL
    delays it. A thread that receives the signal at once removes temporary files and ends the
    process if it has not ended by itself. After the first signal all others are
    ignored, also while Python exits.
    """
    received = False

    def stop(number: int, _: object) -> NoReturn:
        nonlocal received
        received = True
        # A second Ctrl-C must not disturb the cleaning up, nor Python's exit, which would then end
        # by the signal and not with our exit code.
        _ignore_signals(before)
        raise _SignalInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    # Ignored signals stay ignored: a command under `nohup` shall survive its terminal.
    before = {
        number: handler
        for number in STOP_REASONS
        if (handler := signal.getsignal(number)) != signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, stop)
    try:
        with _watch_signals():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            atexit.register(_ignore_signals, before)


def _ignore_signals(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _watch_signals() -> Iterator[None]:
    ended = threading.Event()
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)

    def watch() -> None:
        while number := os.read(receiver, 1)[0]:
            if number in STOP_REASONS and not ended.wait(_GRACE_S):
                reason = STOP_REASONS[signal.Signals(number)]
                _write_unbuffered(
                    f"Error: {reason} during a long step; run the same command again: segment "
                    f"resumes, train resumes with --resume, and other commands start over."
                )
                _remove_unfinished()
                os._exit(128 + number)

    thread = threading.Thread(target=watch, name="geodinoseg-signals", daemon=True)
    old = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        ended.set()
        os.write(sender, b"\0")  # no signal has this number: the thread ends
        thread.join()
        os.close(receiver)
        os.close(sender)


def _remove_unfinished() -> None:
    """Remove temporary files, if the module that makes them is in use."""
    if (files := sys.modules.get("geodinoseg.files.atomic")) is not None:
        files.remove_unfinished()


def _write_unbuffered(line: str) -> None:
    """Write to stderr without Python's buffers, whose lock the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))


def printable(text: str) -> str:
    """Escape line breaks and other control characters as Python does, so that text is one line.

    File names and messages of other libraries may contain them, and could send commands to a
    terminal.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def quiet_projections() -> None:
    """Set PROJ_DATA to rasterio's database, so that GDAL prints no message about missing units.

    GDAL's GeoTIFF reader looks up rare units, such as the kilometre, and does not find rasterio's
    database by itself. It then prints a message and takes the unit from the file. Other users of
    the database are given its path. Only for commands, since programs started by a script would
    inherit the variable.
    """
    if {"PROJ_DATA", "PROJ_LIB"} & os.environ.keys():
        return
    rasterio = importlib.util.find_spec("rasterio")
    for folder in (rasterio and rasterio.submodule_search_locations) or ():
        data = os.path.join(folder, "proj_data")
        if os.path.isdir(data):
            os.environ["PROJ_DATA"] = data


def echo(line: str, *, err: bool = False) -> None:
    """Print one line, which may contain any file name.

    The command does not fail if the stream is closed, the disk is full, or a name cannot be written
    in the encoding of the stream.
    """
    text = printable(line)
    if BAR_IS_DRAWN.is_set():
        IgnoreWriteErrors(sys.stderr).write(_CLEAR_LINE)
    try:
        try:
            click.echo(text, err=err)
        except UnicodeEncodeError:
            click.echo(text.encode("ascii", "backslashreplace"), err=err)
    except OSError:
        _discard_output(sys.stderr if err else sys.stdout)


@contextmanager
def exit_on_write_errors() -> Iterator[None]:
    """Handle errors of stdout where click writes help and version itself.

    A closed pipe ends the command silently with exit code 0, a full disk with one line on stderr
    and exit code 1.
    """
    try:
        yield
    except OSError as error:
        # An error of a stream has no file name; others are not handled here.
        if error.filename is not None or _is_writable(sys.stdout):
            raise
        _discard_output(sys.stdout)
        if error.errno == errno.EPIPE:
            sys.exit(0)
        echo(f"Error: standard output: cannot be written ({error.strerror}).", err=True)
        sys.exit(1)


def flush_or_discard() -> None:
    """Flush the standard streams now: at exit Python would fail with code 120 where it cannot."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _discard_output(stream)


class IgnoreWriteErrors:
    """A stream whose reader may disappear, such as a terminal that is closed."""

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


def _is_writable(stream: Any) -> bool:
    try:
        if stream is not None:
            stream.write("\n")
            stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _discard_output(stream: Any) -> None:
    """Redirect a stream to /dev/null, including what is still in its buffer."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
