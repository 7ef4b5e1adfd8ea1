"""Warnings and errors of a command, as text or as JSON events."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from typing_extensions import override

from geodinoseg.cli.events import message_event, wants_json
from geodinoseg.cli.log import is_verbose, log_failure
from geodinoseg.cli.process import (
    STOP_REASONS,
    echo,
    exit_on_write_errors,
    flush_or_discard,
    printable,
    quiet_projections,
    signal_of,
    signals_as_interrupts,
)
from geodinoseg.errors import GeodinosegError
from geodinoseg.redaction import redact

_EXIT_FAILURE = 1


@contextmanager
def report_errors(ctx: click.Context) -> Iterator[None]:
    """Run a command: a `GeodinosegError` ends it with one line on stderr and exit code 1.

    Usage errors are printed by click, also on one line. Ctrl-C ends the command with one line and
    exit code 130, SIGTERM with 143, SIGHUP with 129. All other errors are bugs and propagate.
    Closed streams, and full disks that they write to, are tolerated.
    """
    quiet_projections()
    with _print_messages(ctx), signals_as_interrupts():
        try:
            with exit_on_write_errors():
                yield
        except GeodinosegError as error:
            _fail(ctx, error, " ".join([str(error), *_notes(error)]), _EXIT_FAILURE)
        except click.UsageError as error:
            report_usage_error(error, json_=wants_json(ctx))
            raise click.UsageError(printable(error.format_message()), error.ctx) from error
        except Exception:
            log_failure(ctx, traceback.format_exc())
            raise
        except KeyboardInterrupt as interrupt:
            number = signal_of(interrupt)
            _fail(ctx, interrupt, _interrupt_message(STOP_REASONS[number], interrupt), 128 + number)
        finally:
            flush_or_discard()


def report_usage_error(error: click.UsageError, *, json_: bool) -> None:
    """Print a usage error as a JSON event; click itself prints it on stderr."""
    if json_:
        message_event("error", error.format_message(), exit_code=error.exit_code)


def _interrupt_message(reason: str, error: BaseException) -> str:
    """The reason and what was kept, which is noted on the error."""
    notes = _notes(error)
    return f"{reason}. {' '.join(notes)}" if notes else f"{reason}; no unfinished file was left."


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


class _MessageHandler(logging.Handler):
    """Prints each message of geodinoseg once, and drops those of other libraries."""

    def __init__(self, ctx: click.Context) -> None:
        super().__init__(logging.INFO)
        self._ctx = ctx
        self._printed: set[str] = set()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        message = redact(record.getMessage())
        if record.name.partition(".")[0] != "geodinoseg" or message in self._printed:
            return
        if getattr(record, "is_step", False) and not is_verbose(self._ctx):
            return
        self._printed.add(message)
        is_warning = record.levelno >= logging.WARNING
        if wants_json(self._ctx):
            message_event("warning" if is_warning else "note", message)
        echo(f"Warning: {message}" if is_warning else message, err=True)


@contextmanager
def _print_messages(ctx: click.Context) -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("geodinoseg")
    handler, level = _MessageHandler(ctx), ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        ours.setLevel(level)
        root.removeHandler(handler)


def _fail(ctx: click.Context, error: BaseException, message: str, code: int) -> NoReturn:
    log_failure(ctx, message)
    if wants_json(ctx):
        message_event("error", message, exit_code=code, **getattr(error, "facts", {}))
    echo(f"Error: {message}", err=True)
    sys.exit(code)
