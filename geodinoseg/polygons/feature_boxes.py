"""Bounding boxes of the features written to a file, for the spatial index built afterwards.

GDAL builds an index in one call that cannot be interrupted and takes minutes for millions of
features. Here it is built for some thousands of features at a time.
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
"""Maximum number of boxes in memory at once."""
_PARSED_AT_ONCE = 1 << 12
_HILBERT_BITS = 16


@dataclass(slots=True)
class FeatureBoxes:
    """The bounding boxes of features, collected in a temporary file as features are written."""

    _file: IO[bytes]
    extent: NDArray[np.float64] = field(
        default_factory=lambda: np.array([np.inf, np.inf, -np.inf, -np.inf], dtype=np.float64)
    )
    """West, south, east, north of all boxes."""
    count: int = 0
    """Number of features."""

    @classmethod
    def beside(cls, path: Path) -> FeatureBoxes:
        """An empty collection, in an unnamed file in the folder of `path`."""
        return cls(tempfile.TemporaryFile(dir=path.parent))

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches, whose last column is WKB, and record their boxes."""
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
        """(features, 4) boxes of the features with these indexes."""
        handle = self._file.fileno()
        found = [os.pread(handle, 32, 32 * index) for index in features.tolist()]
        return np.frombuffer(b"".join(found), dtype="<f8").reshape(-1, 4)

    def hilbert_order(self) -> NDArray[np.int64]:
        """(count,) indexes of the features along a Hilbert curve, by the centres of their boxes."""
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
    """The box around each `size` consecutive boxes; the last may contain fewer."""
    firsts = np.arange(0, len(boxes), size, dtype=np.int64)
    return np.hstack(
        [np.minimum.reduceat(boxes[:, :2], firsts), np.maximum.reduceat(boxes[:, 2:], firsts)]
    )


def _hilbert_places(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Positions along a Hilbert curve of cells of a square grid."""
    x, y = x.copy(), y.copy()
    places = np.zeros_like(x)
    for bit in range(_HILBERT_BITS - 1, -1, -1):
        right, top = (x >> bit) & 1, (y >> bit) & 1
        places |= ((3 * right) ^ top) << np.uint32(2 * bit)
        # Each quarter has the same curve, turned so that its ends meet those of its neighbours.
        mirrored = (top == 0) & (right == 1)
        x[mirrored], y[mirrored] = ~x[mirrored], ~y[mirrored]
        swapped = top == 0
        x[swapped], y[swapped] = y[swapped], x[swapped]
    return places
