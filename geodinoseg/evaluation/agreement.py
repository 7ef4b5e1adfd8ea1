"""Where a map is correct, as a picture: exact counts in a raster small enough to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.plots.preview import decimated
from geodinoseg.windows import Window

LONGEST_PX = 720
"""Pixels of the picture's longer side, at most."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Agreement:
    """For each pixel of a picture, how many pixels of the map were compared and are wrong."""

    geobox: GeoBox
    """Of the picture."""
    compared: NDArray[np.int64]
    """(height, width) pixels that have a label and a class."""
    wrong: NDArray[np.int64]
    """(height, width) those of them whose class is not the label's."""


class AgreementSums:
    """Sums up the picture of a map, window by window."""

    def __init__(self, geobox: GeoBox) -> None:
        self._geobox = geobox
        self._small = decimated(geobox, longest_px=LONGEST_PX)
        shape = (self._small.height, self._small.width)
        self._compared = np.zeros(shape, dtype=np.int64)
        self._wrong = np.zeros(shape, dtype=np.int64)

    def add(self, window: Window, reference: NDArray[Any], mapped: NDArray[Any]) -> None:
        """Count a window.

        Args:
            window: of the map.
            reference: (height, width) class indices, below 0 where the pixel is not compared.
            mapped: as `reference`.
        """
        rows = _small_pixels(
            window.row_off, window.row_end, self._geobox.height, self._small.height
        )
        cols = _small_pixels(window.col_off, window.col_end, self._geobox.width, self._small.width)
        block = np.ix_(np.unique(rows), np.unique(cols))
        compared = reference >= 0
        self._compared[block] += _summed(compared, rows, cols)
        self._wrong[block] += _summed(compared & (reference != mapped), rows, cols)

    def result(self) -> Agreement:
        """The picture."""
        return Agreement(geobox=self._small, compared=self._compared, wrong=self._wrong)


def _small_pixels(start: int, end: int, length: int, small_length: int) -> NDArray[np.int64]:
    """The row or column of the picture that each row or column of the map falls in."""
    return np.arange(start, end, dtype=np.int64) * small_length // length


def _summed(
    marked: NDArray[np.bool_], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Marked pixels by row and column of the picture; `rows` and `cols` ascend."""
    first_rows, first_cols = (np.flatnonzero(np.diff(axis, prepend=-1)) for axis in (rows, cols))
    across = np.add.reduceat(marked, first_cols, axis=1, dtype=np.int64)
    summed: NDArray[np.int64] = np.add.reduceat(across, first_rows, axis=0, dtype=np.int64)
    return summed
