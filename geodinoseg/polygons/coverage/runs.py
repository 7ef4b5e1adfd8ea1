"""Rows of class ids as runs of equal pixels, and where runs touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs of equal pixels within rows, in reading order."""

    starts: NDArray[np.int64]
    """(runs,) first pixel, counted in reading order from the first row's first pixel."""
    lengths: NDArray[np.int64]
    """(runs,) pixels."""
    values: NDArray[Any]
    """(runs,) class id or nodata."""
    width: int
    """Pixels in a row."""

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(runs,) row, from 0."""
        return self.starts // self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Contacts:
    """Stretches where two runs touch."""

    first: NDArray[np.int64]
    """(contacts,) a run."""
    second: NDArray[np.int64]
    """(contacts,) the run to its right or below it."""
    length_px: NDArray[np.int64]
    """(contacts,) sides of pixels."""

    def take(self, chosen: NDArray[Any]) -> Contacts:
        """The chosen ones."""
        return Contacts(
            first=self.first[chosen], second=self.second[chosen], length_px=self.length_px[chosen]
        )


def find_runs(cells: NDArray[Any]) -> Runs:
    """The runs of some rows, (rows, width)."""
    begins = _begins(cells)
    starts = np.flatnonzero(begins)
    return Runs(
        starts=starts,
        lengths=np.diff(starts, append=cells.size),
        values=cells.ravel()[starts],
        width=cells.shape[1],
    )


def find_contacts(runs: Runs, cells: NDArray[Any]) -> Contacts:
    """All contacts between the runs of some rows: side by side, then one above the other."""
    rows = runs.rows
    beside = np.flatnonzero(rows[1:] == rows[:-1])
    begins = _begins(cells)
    # Below one run lies one run up to where either of them ends.
    stretches = np.flatnonzero(begins[1:] | begins[:-1])
    lengths = np.diff(stretches, append=cells.size - runs.width)
    run_of_pixel = np.cumsum(begins, dtype=np.int64) - 1
    return Contacts(
        first=np.concatenate([beside, run_of_pixel[stretches]]),
        second=np.concatenate([beside + 1, run_of_pixel[stretches + runs.width]]),
        length_px=np.concatenate([np.ones(len(beside), dtype=np.int64), lengths]),
    )


def _begins(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a run begins: in the first column, and where the pixel to the left differs."""
    begins = np.ones(cells.shape, dtype=bool)
    np.not_equal(cells[:, 1:], cells[:, :-1], out=begins[:, 1:])
    return begins
