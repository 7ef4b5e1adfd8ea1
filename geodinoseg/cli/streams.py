"""Streams that nobody listens to, or that lie on a full disk: no reason for a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


def say(line: str, *, err: bool = False) -> None:
    """A line for whoever listens; a reader who has gone, or a full disk, is no reason to fail."""
    try:
        click.echo(line, err=err)
    except OSError:
        _mute(sys.stderr if err else sys.stdout)


@contextmanager
def told_where_it_can_be() -> Iterator[None]:
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


def drop_deaf_streams() -> None:
    """Flush now: at exit Python would complain of what it could not write, with code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _mute(stream)


class Unfailing:
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
