"""The options --verbose and --log-file of every command, and the file that the latter names."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from typing_extensions import override

from geodinoseg.cli.process import echo, printable
from geodinoseg.errors import OutputError
from geodinoseg.redaction import redact
from geodinoseg.version import __version__

_VERBOSE, _LOG_FILE = "geodinoseg.verbose", "geodinoseg.log_file"
_TYPED, _HANDLER = "geodinoseg.typed", "geodinoseg.log_handler"
_PROBED_BYTES = 4096
"""Of an existing file, to see whether it is text."""


def log_options() -> list[click.Parameter]:
    """The two options, which take effect before or after the name of the command."""
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_remember_verbose,
            help="Print each step of the work.",
        ),
        click.Option(
            ["--log-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_remember_log_file,
            help="Append each step, warning and error to this file, with the time.",
        ),
    ]


def remember_typed(ctx: click.Context, args: Sequence[str]) -> None:
    """Remember the words of the command line, for the first line of a log."""
    ctx.meta[_TYPED] = list(args)


def is_verbose(ctx: click.Context) -> bool:
    """Whether each step is to be printed."""
    return bool(ctx.meta.get(_VERBOSE))


@contextmanager
def logged_run(ctx: click.Context) -> Iterator[None]:
    """Write what a command does to its log file, if it has one.

    The file stays open until the root context closes, so that `log_failure` can still write.

    Raises:
        OutputError: the file cannot be written, or is another file of this run.
    """
    path = ctx.meta.get(_LOG_FILE)
    if path is None:
        yield
        return
    _check_log_file(path, ctx)
    handler = _LogHandler(path)
    ctx.meta[_HANDLER] = handler
    ours = logging.getLogger("geodinoseg")
    ours.addHandler(handler)
    root = ctx.find_root()
    root.call_on_close(handler.close)
    root.call_on_close(lambda: ours.removeHandler(handler))
    began = time.monotonic()
    words = shlex.join(ctx.meta.get(_TYPED, []))
    handler.write(logging.INFO, f"geodinoseg {__version__} begins: geodinoseg {words}")
    yield
    handler.write(logging.INFO, f"finished in {time.monotonic() - began:.0f} s")


def log_failure(ctx: click.Context, message: str) -> None:
    """Write an error, or what a signal interrupted, to the log file if there is one."""
    handler = ctx.meta.get(_HANDLER)
    if handler is not None:
        handler.write(logging.ERROR, message)


def _remember_verbose(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta[_VERBOSE] = True


def _remember_log_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.meta[_LOG_FILE] = path


class _LogHandler(logging.FileHandler):
    """Appends a line with the time for each message; a full disk ends the log, not the run."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_open = path, True
        try:
            super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(
                f"{path}: the log cannot be written there ({error.strerror}); give another file "
                f"with --log-file."
            ) from error
        self.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._end_last_line()

    def write(self, level: int, message: str) -> None:
        """Write a line that no logger gave."""
        record = logging.LogRecord("geodinoseg.cli", level, "", 0, message, None, None)
        self.handle(record)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if self._is_open:
            super().emit(record)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        self._is_open = False
        echo(f"Warning: {self._path}: the log cannot be written any further.", err=True)

    @override
    def close(self) -> None:
        self._is_open = False
        with suppress(OSError):
            super().close()

    def _end_last_line(self) -> None:
        """End a last line that an editor or a killed program left without a line break."""
        with suppress(OSError), open(self._path, "rb") as file:
            if file.seekable() and file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n" and self.stream is not None:
                    self.stream.write("\n")


class _OneLine(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record)))


def _check_log_file(path: Path, ctx: click.Context) -> None:
    """Refuse to append to another file of this run, or to one that is not text."""
    if any(_is_same(path, other) for other in _paths(ctx.params.values())):
        raise OutputError(
            f"{path}: is an input or output of this run, and the log would be appended to it; give "
            f"another file with --log-file."
        )
    if path.is_file() and not _is_text(path):
        raise OutputError(
            f"{path}: is not a text file, and the log would be appended to it; give another file "
            f"with --log-file."
        )


def _paths(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            yield text
            yield text.rpartition("=")[2]
        elif isinstance(value, (list, tuple)):
            yield from _paths(value)


def _is_same(path: Path, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return os.path.abspath(path) == os.path.abspath(other)


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            probed = file.read(_PROBED_BYTES)
    except OSError:
        return True  # opening it for writing says what is wrong
    # A character may be cut at the end.
    return b"\0" not in probed and "\ufffd" not in probed.decode("utf-8", "replace")[:-3]
