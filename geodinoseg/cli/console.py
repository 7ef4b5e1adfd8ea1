"""Progress, results and errors of a command, as text or as JSON events."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import click
from typing_extensions import override

from geodinoseg.cli.process import (
    STOP_REASONS,
    IgnoreWriteErrors,
    echo,
    exit_on_write_errors,
    flush_or_discard,
    printable,
    signal_of,
    signals_as_interrupts,
)
from geodinoseg.errors import GeodinosegError, SceneError
from geodinoseg.progress import Progress, no_progress
from geodinoseg.redaction import redact

_EXIT_FAILURE = 1
_REDRAW_S = 0.1
_JSON_REDRAW_S = 0.5
_WANTS_JSON = "geodinoseg.json"


@contextmanager
def report_errors(ctx: click.Context) -> Iterator[None]:
    """Run a command: a `GeodinosegError` ends it with one line on stderr and exit code 1.

    A wrong use is printed by click, on one line, too. Ctrl-C ends the command with one line and
    exit code 130, SIGTERM with 143, SIGHUP with 129; all other errors are bugs and propagate.
    Closed streams and full disks under them are tolerated.
    """
    with _log_to_stderr(), signals_as_interrupts():
        try:
            with exit_on_write_errors():
                yield
        except GeodinosegError as error:
            _fail(ctx, " ".join([str(error), *_notes(error)]), _EXIT_FAILURE)
        except click.UsageError as error:
            raise click.UsageError(printable(error.format_message()), error.ctx) from error
        except KeyboardInterrupt as interrupt:
            number = signal_of(interrupt)
            _fail(ctx, _interrupt_message(STOP_REASONS[number], interrupt), 128 + number)
        finally:
            flush_or_discard()


def remember_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
    """Callback of --json, so that errors are printed as JSON events, too."""
    ctx.meta[_WANTS_JSON] = wanted
    return wanted


@contextmanager
def progress_bar(label: str, *, json: bool = False) -> Iterator[Progress]:
    """Show progress as a bar on stderr with the time left, or as JSON events on stdout.

    Without a terminal no bar is drawn. Yields the `Progress` to pass to the library.
    """
    if json:
        yield _json_progress()
        return
    if not (sys.stderr and sys.stderr.isatty()):  # None if it is closed
        yield no_progress
        return
    with click.progressbar(
        length=1000,
        label=label,
        show_eta=True,
        show_percent=True,
        width=30,
        file=cast("TextIO", IgnoreWriteErrors(sys.stderr)),
        item_show_func=lambda message: message and printable(message),
    ) as bar:
        last = 0.0

        def progress(fraction: float, message: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _REDRAW_S and fraction < 1:
                return
            last = now
            bar.update(max(0, round(fraction * 1000) - bar.pos), message)

        yield progress


def report_done(
    json_: bool,
    outputs: Sequence[Path],
    lines: Sequence[str],
    *,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Print the outputs and the result: lines of text, or the last JSON event."""
    if json_:
        found = {} if result is None else {"result": result}
        event(event="done", outputs=[str(path) for path in outputs], **found)
        return
    for line in lines:
        echo(line)


def report_plan(plan: Any, *, json_: bool) -> None:
    """Print the plan of a dry run: lines of text, or one JSON event."""
    from geodinoseg.segmentation.plan import plan_facts

    if json_:
        costs = {"memory_bytes": plan.memory_bytes, "output_bytes": plan.output_bytes}
        event(
            event="plan",
            scene=plan.scene.path,
            seconds=round(plan.seconds, 1),
            parts=len(plan.chunks),
            **costs,
            **plan_facts(plan),
        )
        return
    for line in plan.lines():
        echo(line)
    echo(f"time      about {_duration(plan.seconds)} for the network on this device")


def report_facts(facts: dict[str, Any], *, json_: bool, indent: int = 0) -> None:
    """Print facts, one per line, or as one JSON object."""
    if json_:
        echo(json.dumps(facts))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        echo(f"{'':{indent}}{name:{width}}  {_formatted(value)}")


def _interrupt_message(reason: str, error: BaseException) -> str:
    """The reason and what was kept, which is noted on the error."""
    notes = _notes(error)
    return f"{reason}. {' '.join(notes)}" if notes else f"{reason}; no unfinished file was left."


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


class _StderrHandler(logging.Handler):
    """Prints each message of geodinoseg once on stderr; those of other libraries are dropped."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._printed: set[str] = set()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        message = redact(record.getMessage())
        if record.name.partition(".")[0] == "geodinoseg" and message not in self._printed:
            self._printed.add(message)
            is_warning = record.levelno >= logging.WARNING
            echo(f"Warning: {message}" if is_warning else message, err=True)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("geodinoseg")
    handler, level = _StderrHandler(logging.INFO), ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        ours.setLevel(level)
        root.removeHandler(handler)


def _formatted(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_formatted(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_formatted, value))
    return "none" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _json_progress() -> Progress:
    last = 0.0

    def progress(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _JSON_REDRAW_S or fraction >= 1:
            last = now
            event(event="progress", fraction=round(fraction, 4), message=printable(message))

    return progress


def event(**values: Any) -> None:
    """Print one JSON event as a line on stdout."""
    # In ASCII, since a file name may not be valid UTF-8.
    echo(json.dumps(values))


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    if ctx.meta.get(_WANTS_JSON):
        event(event="error", message=printable(message))
    echo(f"Error: {message}", err=True)
    sys.exit(code)


def report_scene(result: Any, *, json_: bool) -> None:
    """Print the result of one scene: a line, or a JSON event."""
    if json_:
        event(
            event="scene",
            scene=result.scene,
            status=result.status,
            outputs=[str(path) for path in result.outputs],
            error=result.error,
        )
        return
    outputs = ", ".join(str(path) for path in result.outputs)
    detail = f"{result.scene}: {result.error}" if result.error else outputs
    echo(f"{result.status}: {detail}")


def report_failed_plan(scene: str, error: Exception, *, json_: bool) -> None:
    """Print why a scene of a dry run cannot be segmented."""
    if json_:
        event(event="scene", scene=scene, status="failed", outputs=[], error=str(error))
        return
    echo(f"failed: {scene}: {error}")


def report_summary(results: Sequence[Any], *, json_: bool) -> None:
    """Print the numbers of scenes; SceneError if some failed."""
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("done", "skipped", "failed")
    }
    failed = [result.scene for result in results if result.status == "failed"]
    if json_:
        outputs = [str(path) for result in results for path in result.outputs]
        event(event="done", outputs=outputs, failed=failed, scenes=counts)
    else:
        echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    if failed:
        raise SceneError(
            f"{len(failed)} of {len(results)} scenes failed: {', '.join(failed)}. Run the same "
            f"command again to retry them; finished maps are kept."
        )


def report_totals(
    scenes: int, seconds: float, output_bytes: int, *, failed: Sequence[str], json_: bool
) -> None:
    """Print the totals of a dry run over many scenes; SceneError if some failed."""
    if json_:
        event(event="total", scenes=scenes, seconds=round(seconds, 1), output_bytes=output_bytes)
    else:
        echo(
            f"total     {scenes} scenes, about {_duration(seconds)} for the network on this device"
        )
        echo(f"          {output_bytes / 1e6:,.0f} MB of class rasters before compression")
    if failed:
        raise SceneError(
            f"{len(failed)} of {scenes + len(failed)} scenes cannot be segmented: "
            f"{', '.join(failed)}."
        )
