"""The rows of a map: its layers, rows as the model produces them, and whole block rows of them.

A raster is written in block rows, so that each block is written once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import GridError
from geodinoseg.legend import Legend
from geodinoseg.windows import Window

BLOCK_PX = 512
"""Side of a block."""

Checksums = dict[tuple[int, int], int]
"""CRC-32 of the pixels of each block, all bands together, by its first row and first column."""

LayerName = Literal["classes", "confidence", "probabilities"]
"""Content of a raster of a map."""

PERCENT_NODATA = 255
"""Nodata value of the confidence and probability rasters."""
PROBABILITY_STEPS = 250
"""Stored value of a probability of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRows:
    """Classes, confidence and probabilities of a window."""

    window: Window
    """Position in the raster."""
    class_ids: NDArray[Any]
    """(height, width) in the legend's dtype; the nodata value where there is no class."""
    confidence: NDArray[np.uint8] | None = None
    """(height, width) uint8, probability of the predicted class in percent; 255 is nodata."""
    probabilities: NDArray[np.uint8] | None = None
    """(classes, height, width) uint8, in 1/250; 255 is nodata."""
    disagrees: NDArray[np.bool_] | None = None
    """(height, width), True where tiles differ in their most probable class; in no raster."""

    def __post_init__(self) -> None:
        """Raise GridError if an array does not have the size of the window."""
        size = (self.window.height, self.window.width)
        for pixels in (self.class_ids, self.confidence, self.probabilities, self.disagrees):
            if pixels is not None and pixels.shape[-2:] != size:
                raise GridError(f"rows of shape {pixels.shape} do not fit {self.window}.")

    def cropped(self, window: Window) -> ClassRows:
        """The rows inside a smaller window; views, not copies."""
        moved = window.shifted_by(rows=-self.window.row_off, cols=-self.window.col_off)
        inside = (..., *moved.slices)
        return ClassRows(
            window=window,
            class_ids=self.class_ids[inside],
            confidence=None if self.confidence is None else self.confidence[inside],
            probabilities=None if self.probabilities is None else self.probabilities[inside],
            disagrees=None if self.disagrees is None else self.disagrees[inside],
        )

    def of_layer(self, name: LayerName) -> NDArray[Any]:
        """The pixels (bands, height, width) of a layer."""
        if name == "classes":
            return self.class_ids[None]
        pixels = self.confidence if name == "confidence" else self.probabilities
        if pixels is None:
            raise GridError(f"rows at {self.window} have no {name}.")
        return pixels[None] if name == "confidence" else pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One raster of a map."""

    name: LayerName
    """Content."""
    dtype: np.dtype[Any]
    """Dtype of the pixels."""
    bands: int
    """Number of bands: 1, or one per class."""


def map_layers(legend: Legend, *, confidence: bool, probabilities: bool) -> tuple[Layer, ...]:
    """The rasters of a map, class raster first."""
    layers = [Layer(name="classes", dtype=legend.dtype, bands=1)]
    percent = np.dtype(np.uint8)
    if confidence:
        layers.append(Layer(name="confidence", dtype=percent, bands=1))
    if probabilities:
        layers.append(Layer(name="probabilities", dtype=percent, bands=len(legend)))
    return tuple(layers)


class BlockRows:
    """Gathers the rows of column panels, one panel after the other.

    Holds at most one block row of a panel. Panels start and end at block columns, or at the
    raster's last column.
    """

    def __init__(
        self,
        sink: Callable[[Window, NDArray[Any]], None],
        *,
        height: int,
        width: int,
        bands: int,
        dtype: np.dtype[Any],
    ) -> None:
        """Gather rows of a raster of this shape and dtype.

        Args:
            sink: called with the window of a block row, at most 512 rows of a panel, and its
                pixels (bands, height, width), which it must not keep.
            height: rows of the raster.
            width: columns of the raster.
            bands: bands of the raster.
            dtype: dtype of the pixels.
        """
        self._sink = sink
        self._height, self._width, self._bands, self._dtype = height, width, bands, dtype
        self.checksums: Checksums = {}
        """Checksums of the blocks passed to the sink, by first row and first column."""
        self._panel = (0, 0)
        self._next_row = 0
        self._gathered = np.empty((bands, 0, 0), dtype=dtype)

    @property
    def missing_blocks(self) -> int:
        """Number of blocks not yet passed to the sink."""
        return -(-self._height // BLOCK_PX) * -(-self._width // BLOCK_PX) - len(self.checksums)

    def write(self, window: Window, pixels: NDArray[Any]) -> None:
        """Add the next rows of a panel, or the first rows of another.

        Args:
            window: continues the previous window downwards, with the same columns, or starts at
                the first row of a block. Anything else, or a window written before, is a GridError.
            pixels: (bands, height, width) of the window.
        """
        self._check_pixels(window, pixels)
        if (window.col_off, window.width) != self._panel or window.row_off != self._next_row:
            self._start_at(window)
        done = 0
        while done < window.height:
            row = window.row_off + done
            count = min(BLOCK_PX - row % BLOCK_PX, window.height - done)
            self._add(row, pixels[:, done : done + count])
            done += count
        self._next_row = window.row_end

    def _check_pixels(self, window: Window, pixels: NDArray[Any]) -> None:
        shape = (self._bands, window.height, window.width)
        if pixels.shape != shape or pixels.dtype != self._dtype:
            raise GridError(
                f"rows of {pixels.dtype} {pixels.shape} do not fit the raster, which takes "
                f"{self._dtype} {shape} at {window}."
            )
        if window.row_end > self._height or window.col_end > self._width:
            raise GridError(f"{window} exceeds the raster of {self._width} x {self._height} px.")

    def _start_at(self, window: Window) -> None:
        whole = self._next_row % BLOCK_PX == 0 or self._next_row == self._height
        begins = window.row_off % BLOCK_PX == 0 and window.col_off % BLOCK_PX == 0
        ends = window.col_end % BLOCK_PX == 0 or window.col_end == self._width
        if not (whole and begins and ends):
            raise GridError(
                f"{window} neither continues its panel at row {self._next_row} nor starts and "
                f"ends at blocks of {BLOCK_PX} px."
            )
        self._panel = (window.col_off, window.width)

    def _add(self, row: int, pixels: NDArray[Any]) -> None:
        """Pass a whole block row to the sink, or keep its rows until it is complete."""
        start = row % BLOCK_PX
        end = start + pixels.shape[1]
        whole = end == BLOCK_PX or row + pixels.shape[1] == self._height
        if start == 0 and whole:
            self._flush(row, pixels)
            return
        if self._gathered.shape[2] != self._panel[1]:
            shape = (self._bands, BLOCK_PX, self._panel[1])
            self._gathered = np.empty(shape, dtype=self._dtype)
        self._gathered[:, start:end] = pixels
        if whole:
            self._flush(row - start, self._gathered[:, :end])

    def _flush(self, row: int, pixels: NDArray[Any]) -> None:
        window = Window(
            col_off=self._panel[0], row_off=row, width=pixels.shape[2], height=pixels.shape[1]
        )
        checksums = block_checksums(window, pixels)
        if not checksums.keys().isdisjoint(self.checksums):
            raise GridError(f"{window} has already been written.")
        self._sink(window, pixels)
        self.checksums |= checksums


def block_checksums(window: Window, pixels: NDArray[Any]) -> Checksums:
    """The checksum of each block in a window.

    Args:
        window: starts at the first row and column of a block and is at most one block high.
        pixels: (bands, height, width) of the window.
    """
    return {
        (window.row_off, window.col_off + col): zlib.crc32(
            np.ascontiguousarray(pixels[:, :, col : col + BLOCK_PX]).data
        )
        for col in range(0, window.width, BLOCK_PX)
    }
