"""Bounding boxes of the features on their way into a file, for the spatial index at its end.

GDAL builds an index in one call that hears no signal, for minutes where features are millions; so
it is built here, some thousands at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

BOXES_AT_ONCE = 1 << 16
"""How many are in memory at once."""
_PARSED_AT_ONCE = 1 << 12
_HILBERT_BITS = 16


@dataclass(slots=True)
class FeatureBoxes:
    """The bounding boxes of features, collected in a file as the features pass."""

    _file: IO[bytes]
    extent: NDArray[np.float64] = field(
        default_factory=lambda: np.array([np.inf, np.inf, -np.inf, -np.inf], dtype=np.float64)
    )
    """West, south, east, north of all."""
    count: int = 0
    """Number of features."""

    @classmethod
    def beside(cls, path: Path) -> FeatureBoxes:
        """Without features, in an unnamed file in the folder of another."""
        return cls(tempfile.TemporaryFile(dir=path.parent))

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, whose last column is WKB, while their boxes are noted."""
        for batch in batches:
            for first in range(0, len(batch), _PARSED_AT_ONCE):
                self._note(batch.column(-1).slice(first, _PARSED_AT_ONCE))
            yield batch
        self._file.flush()

    def _note(self, polygons: pa.Array) -> None:
        boxes = shapely.bounds(shapely.from_wkb(polygons.to_numpy(zero_copy_only=False)))
        self._file.write(np.ascontiguousarray(boxes, dtype="<f8").tobytes())
        self.count += len(boxes)
        self.extent[:2] = np.minimum(self.extent[:2], boxes[:, :2].min(axis=0))
        self.extent[2:] = np.maximum(self.extent[2:], boxes[:, 2:].max(axis=0))

    def of(self, features: NDArray[np.int64]) -> NDArray[np.float64]:
        """(features, 4) boxes of some features."""
        handle = self._file.fileno()
        found = [os.pread(handle, 32, 32 * index) for index in features.tolist()]
        return np.frombuffer(b"".join(found), dtype="<f8").reshape(-1, 4)

    def hilbert_order(self) -> NDArray[np.int64]:
        """(count,) the features along a Hilbert curve through the centres of their boxes."""
        places = np.empty(self.count, dtype=np.uint32)
        for start in range(0, self.count, BOXES_AT_ONCE):
            stop = min(start + BOXES_AT_ONCE, self.count)
            data = os.pread(self._file.fileno(), 32 * (stop - start), 32 * start)
            places[start:stop] = self._places(np.frombuffer(data, dtype="<f8").reshape(-1, 4))
        return np.argsort(places, kind="stable")

    def _places(self, boxes: NDArray[np.float64]) -> NDArray[np.uint32]:
        sides = np.maximum(self.extent[2:] - self.extent[:2], np.finfo(np.float64).tiny)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        cells = (centres - self.extent[:2]) / sides * ((1 << _HILBERT_BITS) - 1)
        x, y = cells.astype(np.uint32).T
        return _hilbert_places(x, y)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def boxes_around(boxes: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The box around each of so many boxes; the last may be around fewer."""
    firsts = np.arange(0, len(boxes), size, dtype=np.int64)
    return np.hstack(
        [np.minimum.reduceat(boxes[:, :2], firsts), np.maximum.reduceat(boxes[:, 2:], firsts)]
    )


def _hilbert_places(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """How far along a Hilbert curve cells of a square grid are."""
    x, y = x.copy(), y.copy()
    places = np.zeros_like(x)
    for bit in range(_HILBERT_BITS - 1, -1, -1):
        right, top = (x >> bit) & 1, (y >> bit) & 1
        places |= ((3 * right) ^ top) << np.uint32(2 * bit)
        # Each quarter holds the same curve, turned so that its ends meet those of its neighbours.
        mirrored = (top == 0) & (right == 1)
        x[mirrored], y[mirrored] = ~x[mirrored], ~y[mirrored]
        swapped = top == 0
        x[swapped], y[swapped] = y[swapped], x[swapped]
    return places
