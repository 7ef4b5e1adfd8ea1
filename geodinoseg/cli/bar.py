"""The progress of a command: a bar on a terminal, lines in a log, or JSON events."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

import click

from geodinoseg.cli.events import message_event
from geodinoseg.cli.process import BAR_IS_DRAWN, IgnoreWriteErrors, echo, printable
from geodinoseg.progress import Progress

_REDRAW_S = 0.1
_JSON_S = 0.5
_LINE_S = 30.0
_NARROWEST, _WIDEST = 5, 30
"""Limits of the number of cells of the bar between its brackets."""


@contextmanager
def progress_bar(label: str, *, json: bool = False) -> Iterator[Progress]:
    """Show progress as a bar on stderr with the time left, or as JSON events on stdout.

    The bar fits on one line of the terminal. If stderr is not a terminal, a line is printed every
    half minute. Yields the `Progress` to pass to the library.
    """
    if json:
        yield _seldom(_JSON_S, _json_event)
    elif sys.stderr and sys.stderr.isatty():  # None if it is closed
        with _terminal_bar(label) as progress:
            yield progress
    else:
        yield _lines(label)


def _json_event(fraction: float, message: str) -> None:
    message_event("progress", message, fraction=round(fraction, 4))


def _seldom(pause_s: float, progress: Progress) -> Progress:
    """Limit calls of a `Progress` to one per pause, and one at the end."""
    last = 0.0

    def reported(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= pause_s or fraction >= 1:
            last = now
            progress(fraction, message)

    return reported


def _lines(label: str) -> Progress:
    """Print a line every half minute; a shorter run prints none."""
    start = last = time.monotonic()
    first = None

    def progress(fraction: float, message: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        if first is None:  # above 0 if an interrupted run is resumed
            first = fraction
        if now - last < _LINE_S or fraction >= 1:
            return
        last = now
        done = fraction - first
        left = f", about {duration((now - start) * (1 - fraction) / done)} left" if done else ""
        echo(f"{label}: {fraction:.0%}{left}, {message}", err=True)

    return progress


def duration(seconds: float) -> str:
    """A duration as text, such as 12 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


@contextmanager
def _terminal_bar(label: str) -> Iterator[Progress]:
    bar: Any  # click loads its bar on this call
    with click.progressbar(
        length=1000,
        label=label,
        show_eta=True,
        show_percent=True,
        width=_bar_cells(),
        update_min_steps=0,  # the message may change while the fraction does not
        file=cast("TextIO", IgnoreWriteErrors(sys.stderr)),
        item_show_func=lambda message: message and fitted(message, _room(bar)),
    ) as bar:

        def draw(fraction: float, message: str) -> None:
            # The terminal may have become narrower; neither the bar nor its padding may wrap.
            bar.width = _bar_cells()
            bar.max_width = min(bar.max_width or 0, _columns() - 1)
            BAR_IS_DRAWN.set()
            bar.update(max(0, round(fraction * 1000) - bar.pos), message)

        try:
            yield _seldom(_REDRAW_S, draw)
        finally:
            BAR_IS_DRAWN.clear()


def _columns() -> int:
    """Number of columns of the terminal on stderr."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns or shutil.get_terminal_size().columns


def _bar_cells() -> int:
    """Number of cells for the bar; it grows with the width of the terminal."""
    return min(max((_columns() - 40) // 3, _NARROWEST), _WIDEST)


def _room(bar: Any) -> int:
    """Number of cells left for the message, which is the last part of click's line."""
    eta = bar.format_eta() if bar.eta_known and not bar.finished else ""
    parts = [f"{bar.label}  [{'':{bar.width}}]", "100%", *filter(None, [eta]), ""]
    return _columns() - 1 - len("  ".join(parts))


def fitted(message: str, cells: int) -> str:
    """Shorten a message to a number of cells: drop its last comma-separated parts, or cut it."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    text = printable(message).encode(encoding, "backslashreplace").decode(encoding)
    while _width(text) > cells and ", " in text:
        text = text.rpartition(", ")[0]
    if _width(text) <= cells:
        return text
    while text and _width(text) > cells - 3:
        text = text[:-1]
    return f"{text}..." if cells > 3 else ""


def _width(text: str) -> int:
    """Number of cells of a text; wide East Asian characters take two, combining accents none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
