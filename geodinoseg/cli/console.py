"""What a person, or a program that asked for JSON, sees while a command runs and when it ends."""

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

from geodinoseg.cli.process import (
    STOP_REASONS,
    IgnoreWriteErrors,
    exit_on_write_errors,
    flush_or_discard,
    say,
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
    """Run a command: what a user can mend ends as one line on stderr and exit code 1.

    Ctrl-C ends as one line and exit code 130, SIGTERM with 143, SIGHUP with 129; everything else is
    a bug and goes up. Streams that nobody listens to, or that lie on a full disk, do no harm.
    """
    with _warnings_in_words(), signals_as_interrupts():
        try:
            with exit_on_write_errors():
                yield
        except GeodinosegError as error:
            _fail(ctx, " ".join([str(error), *_notes(error)]), _EXIT_FAILURE)
        except KeyboardInterrupt as interrupt:
            number = signal_of(interrupt)
            _fail(ctx, _stopped(STOP_REASONS[number], interrupt), 128 + number)
        finally:
            flush_or_discard()


def remember_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
    """Callback of --json: an error is an event, too."""
    ctx.meta[_WANTS_JSON] = wanted
    return wanted


@contextmanager
def progress_bar(label: str, *, json: bool = False) -> Iterator[Progress]:
    """A bar on stderr with the time left, or one JSON event a line on stdout.

    Without a terminal nothing is drawn. Gives a `Progress` to hand to the library.
    """
    if json:
        yield _json_progress()
        return
    if not (sys.stderr and sys.stderr.isatty()):  # None where it was closed
        yield no_progress
        return
    with click.progressbar(
        length=1000,
        label=label,
        show_eta=True,
        show_percent=True,
        width=30,
        file=cast("TextIO", IgnoreWriteErrors(sys.stderr)),
        item_show_func=lambda message: message,
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
    """Say what was written and found: lines for a person, or the last JSON event."""
    if json_:
        found = {} if result is None else {"result": result}
        event(event="done", outputs=[str(path) for path in outputs], **found)
        return
    for line in lines:
        say(line)


def report_plan(plan: Any, *, json_: bool) -> None:
    """What a dry run found: lines for a person, or one JSON event."""
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
    say(str(plan))
    say(f"time      about {spoken(plan.seconds)} in the network on this device")


def report_facts(facts: dict[str, Any], *, json_: bool, indent: int = 0) -> None:
    """Facts for a person, a line each, or as one JSON object."""
    if json_:
        say(json.dumps(facts))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(f"{'':{indent}}{name:{width}}  {_shown(value)}")


def _stopped(how: str, error: BaseException) -> str:
    """What a stop from outside left behind; whoever kept something noted it on the error."""
    notes = _notes(error)
    return f"{how}. {' '.join(notes)}" if notes else f"{how}; no unfinished file was left."


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


class _Words(logging.Handler):
    """Our own warnings as a line on stderr, once each; other libraries talk to programmers."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = redact(record.getMessage())
        if record.name.partition(".")[0] == "geodinoseg" and message not in self._said:
            self._said.add(message)
            is_warning = record.levelno >= logging.WARNING
            say(f"Warning: {message}" if is_warning else message, err=True)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    root, ours, words = logging.getLogger(), logging.getLogger("geodinoseg"), _Words(logging.INFO)
    level = ours.level
    root.addHandler(words)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        ours.setLevel(level)
        root.removeHandler(words)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "none" if value is None else str(value)


def spoken(seconds: float) -> str:
    """A duration as a person says it."""
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
            event(event="progress", fraction=round(fraction, 4), message=message)

    return progress


def event(**values: Any) -> None:
    """One JSON event, a line on stdout."""
    # In ASCII, as a name that is no UTF-8 would not pass otherwise; click flushes.
    say(json.dumps(values))


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    if ctx.meta.get(_WANTS_JSON):
        event(event="error", message=message)
    say(f"Error: {message}", err=True)
    sys.exit(code)


def report_scene(result: Any, *, json_: bool) -> None:
    """What became of one scene: a line, or a JSON event."""
    if json_:
        event(
            event="scene",
            scene=result.scene,
            status=result.status,
            outputs=[str(path) for path in result.outputs],
            error=result.error,
        )
        return
    told = result.error or ", ".join(str(path) for path in result.outputs)
    say(f"{result.status}: {result.scene}: {told}" if result.error else f"{result.status}: {told}")


def report_unfit(scene: str, error: Exception, *, json_: bool) -> None:
    """Why a scene of a dry run could not be segmented."""
    if json_:
        event(event="scene", scene=scene, status="failed", outputs=[], error=str(error))
        return
    say(f"failed: {scene}: {error}")


def report_summary(results: Sequence[Any], *, json_: bool) -> None:
    """How many were done, skipped and failed."""
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("done", "skipped", "failed")
    }
    failed = [result.scene for result in results if result.status == "failed"]
    if json_:
        outputs = [str(path) for result in results for path in result.outputs]
        event(event="done", outputs=outputs, failed=failed, scenes=counts)
    else:
        say(", ".join(f"{count} {status}" for status, count in counts.items()))
    if failed:
        raise SceneError(
            f"{len(failed)} of {len(results)} scenes failed: {', '.join(failed)}. Run the same "
            f"command again to try them again; what is done stays."
        )


def report_totals(
    scenes: int, seconds: float, output_bytes: int, *, failed: Sequence[str], json_: bool
) -> None:
    """What a dry run over many scenes adds up to."""
    if json_:
        event(event="total", scenes=scenes, seconds=round(seconds, 1), output_bytes=output_bytes)
    else:
        say(f"in all    {scenes} scenes, about {spoken(seconds)} in the network on this device")
        say(f"          {output_bytes / 1e6:,.0f} MB of class rasters before compression")
    if failed:
        raise SceneError(
            f"{len(failed)} of {scenes + len(failed)} scenes cannot be segmented: "
            f"{', '.join(failed)}."
        )
