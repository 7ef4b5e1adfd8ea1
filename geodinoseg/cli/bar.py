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
    last = time.monotonic()
    time_left = TimeLeft()

    def progress(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        seconds = time_left.seconds(fraction)
        if now - last < _LINE_S or fraction >= 1:
            return
        last = now
        left = "" if seconds is None else f", about {duration(seconds)} left"
        echo(f"{label}: {fraction:.0%}{left}, {message}", err=True)

    return progress


class TimeLeft:
    """Estimates the time left from the speed since the first progress.

    What comes before it does not count: loading a model and the first batch can take as long as
    thirty others. Neither does what an interrupted run has done.
    """

    def __init__(self) -> None:
        self._from: tuple[float, float] | None = None

    def seconds(self, fraction: float) -> float | None:
        """The time left at a fraction done; None as long as the speed is unknown."""
        now = time.monotonic()
        if self._from is None:
            if fraction > 0:
                self._from = (now, fraction)
            return None
        began, first = self._from
        done = fraction - first
        return (now - began) * (1 - fraction) / done if done > 0 else None


def duration(seconds: float) -> str:
    """A duration as text, such as 12 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


@contextmanager
def _terminal_bar(label: str) -> Iterator[Progress]:
    time_left = TimeLeft()
    bar: Any  # click loads its bar on this call
    with click.progressbar(
        length=1000,
        label=label,
        show_eta=False,  # click's counts from the start
        show_percent=True,
        width=_bar_cells(),
        update_min_steps=0,  # the message may change while the fraction does not
        file=cast("TextIO", IgnoreWriteErrors(sys.stderr)),
        item_show_func=lambda text: text,
    ) as bar:
        BAR_IS_DRAWN.set()

        def draw(fraction: float, message: str) -> None:
            seconds = time_left.seconds(fraction)
            eta = "" if seconds is None or fraction >= 1 else _clock(seconds)
            # The terminal may have become narrower; neither the bar nor its padding may wrap.
            bar.width = _bar_cells()
            text = "  ".join(filter(None, (eta, fitted(message, _room(bar, eta)))))
            # click pads by characters, of which some take two cells.
            widest = _columns() - 1 - (_width(text) - len(text))
            bar.max_width = min(bar.max_width or 0, widest)
            bar.update(max(0, round(fraction * 1000) - bar.pos), text)

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


def _clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds, as in click's bar."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hours:02}:{minutes:02}:{rest:02}"


def _room(bar: Any, eta: str) -> int:
    """Number of cells left for the message, which is the last part of the line."""
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
