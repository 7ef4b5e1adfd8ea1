"""JSON events for programs, one per line on stdout; `events.schema.json` describes them all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.process import echo, printable

_WANTS_JSON = "geodinoseg.json"


def expect_json(ctx: click.Context, args: Sequence[str]) -> None:
    """Remember whether --json is given, for errors in other arguments."""
    typed = args[: args.index("--")] if "--" in args else args
    ctx.meta[_WANTS_JSON] = "--json" in typed


def remember_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
    """Callback of --json, so that errors and warnings are printed as JSON events, too."""
    ctx.meta[_WANTS_JSON] = wanted
    return wanted


def wants_json(ctx: click.Context) -> bool:
    """Whether the command prints JSON events."""
    return bool(ctx.meta.get(_WANTS_JSON))


def event(kind: str, **values: Any) -> None:
    """Print one event."""
    # In ASCII, since a file name may not be valid UTF-8.
    echo(json.dumps({"event": kind, **_finite(values)}, allow_nan=False))


def message_event(kind: str, message: str, **values: Any) -> None:
    """Print an event with a message for people."""
    event(kind, message=printable(message), **values)


def report_done(
    json_: bool,
    outputs: Sequence[Path],
    lines: Sequence[str],
    *,
    result: Mapping[str, Any],
) -> None:
    """Print the outputs and the result: lines of text, or the last JSON event."""
    if json_:
        command = click.get_current_context().info_name
        event("done", command=command, outputs=[str(path) for path in outputs], result=result)
        return
    for line in lines:
        echo(line)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have, such as NaN, by None."""
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
