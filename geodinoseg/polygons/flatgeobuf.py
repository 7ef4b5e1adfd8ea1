"""The spatial index of a FlatGeobuf: a packed Hilbert R-tree, then the features in its order.

GDAL builds it in one call that hears no signal and holds all features' places in memory. So GDAL
writes the features without an index, and they are put in order here, some at a time.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

_MAGIC_BYTES = 8
_NODE_FIELD, _NODE_SIZE = 9, 16
"""Number of the header's field `index_node_size`, and its value."""
_NODE = np.dtype([("box", "<f8", 4), ("offset", "<u8")])
"""West, south, east, north, and where the child is."""
_HILBERT_BITS = 16
_AT_ONCE = _NODE_SIZE * 4096
_SCAN_BYTES = 1 << 22


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
            boxes = shapely.bounds(
                shapely.from_wkb(batch.column(-1).to_numpy(zero_copy_only=False))
            )
            if len(boxes):
                self._file.write(np.ascontiguousarray(boxes, dtype="<f8").tobytes())
                self.count += len(boxes)
                self.extent[:2] = np.minimum(self.extent[:2], boxes[:, :2].min(axis=0))
                self.extent[2:] = np.maximum(self.extent[2:], boxes[:, 2:].max(axis=0))
            yield batch
        self._file.flush()

    def of(self, features: NDArray[np.int64]) -> NDArray[np.float64]:
        """(features, 4) boxes of some features."""
        handle = self._file.fileno()
        found = [os.pread(handle, 32, 32 * index) for index in features.tolist()]
        return np.frombuffer(b"".join(found), dtype="<f8").reshape(-1, 4)

    def hilbert_order(self) -> NDArray[np.int64]:
        """(count,) the features along a Hilbert curve through the centres of their boxes."""
        places = np.empty(self.count, dtype=np.uint32)
        for start in range(0, self.count, _AT_ONCE):
            stop = min(start + _AT_ONCE, self.count)
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


def write_indexed(plain: Path, indexed: Path, boxes: FeatureBoxes) -> None:
    """Write the features of a FlatGeobuf in the order of an index, and the index before them.

    Takes about 25 bytes of memory per feature, and as much of the disk again as the features.

    Args:
        plain: a file without an index, as GDAL writes it.
        indexed: the file to write.
        boxes: of its features; without any, there is no index.
    """
    if not boxes.count:
        shutil.copyfile(plain, indexed)
        return
    with plain.open("rb") as source, indexed.open("wb") as target:
        target.write(_indexed_header(source))
        index_start = target.tell()
        features = _Features.after_header(source, boxes.count)
        levels = _level_sizes(boxes.count)
        target.truncate(index_start + sum(levels) * _NODE.itemsize)
        target.seek(0, os.SEEK_END)
        with indexed.open("r+b") as index:
            index.seek(index_start + sum(levels[:-1]) * _NODE.itemsize)
            parents = _copy_features(features, boxes, target, index)
            _write_inner_nodes(index, index_start, levels, parents)


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of an open file without an index."""

    source: IO[bytes]
    starts: NDArray[np.int64]
    """(count + 1,) where they begin, each with its size in 4 bytes first."""

    @classmethod
    def after_header(cls, source: IO[bytes], count: int) -> _Features:
        """Those that follow the place up to which the file was read."""
        starts, start = np.empty(count + 1, dtype=np.int64), source.tell()
        read_size, block, position = struct.Struct("<I").unpack_from, b"", 0
        for number in range(count):
            starts[number] = start
            if position + 4 > len(block):
                source.seek(start)
                block, position = source.read(_SCAN_BYTES), 0
            size = 4 + read_size(block, position)[0]
            position += size
            start += size
        starts[count] = start
        return cls(source, starts)

    def sizes(self, some: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of some of them."""
        return np.asarray(self.starts[some + 1] - self.starts[some], dtype=np.int64)

    def read(self, some: NDArray[np.int64]) -> Iterator[bytes]:
        """Some of them, one by one."""
        handle = self.source.fileno()
        for size, start in zip(self.sizes(some).tolist(), self.starts[some].tolist(), strict=True):
            yield os.pread(handle, size, start)


def _indexed_header(source: IO[bytes]) -> bytes:
    """Magic bytes and header of a file, which now says that it has an index."""
    head = bytearray(source.read(_MAGIC_BYTES + 4))
    (size,) = struct.unpack_from("<I", head, _MAGIC_BYTES)
    head += source.read(size)
    root = _MAGIC_BYTES + 4
    table = root + struct.unpack_from("<I", head, root)[0]
    fields = table - struct.unpack_from("<i", head, table)[0] + 4
    (place,) = struct.unpack_from("<H", head, fields + 2 * _NODE_FIELD)
    struct.pack_into("<H", head, table + place, _NODE_SIZE)
    return bytes(head)


def _copy_features(
    features: _Features, boxes: FeatureBoxes, target: IO[bytes], index: IO[bytes]
) -> NDArray[np.float64]:
    """Copy the features in order, write the lowest nodes, and return the boxes above them."""
    order, offset = boxes.hilbert_order(), 0
    parents = []
    for first in range(0, len(order), _AT_ONCE):
        some = order[first : first + _AT_ONCE]
        target.writelines(features.read(some))
        sizes = features.sizes(some)
        nodes = np.empty(len(some), dtype=_NODE)
        nodes["box"] = boxes.of(some)
        nodes["offset"] = offset + np.cumsum(sizes) - sizes
        index.write(nodes.tobytes())
        parents.append(_grouped(nodes["box"]))
        offset += int(sizes.sum())
    return np.concatenate(parents)


def _write_inner_nodes(
    index: IO[bytes], start: int, levels: list[int], boxes: NDArray[np.float64]
) -> None:
    """Write the levels above the lowest one, whose children's boxes are given, from below."""
    for depth in range(len(levels) - 2, -1, -1):
        nodes = np.empty(levels[depth], dtype=_NODE)
        nodes["box"] = boxes
        # The number of the first child, counted from the root.
        nodes["offset"] = sum(levels[: depth + 1]) + _NODE_SIZE * np.arange(levels[depth])
        index.seek(start + sum(levels[:depth]) * _NODE.itemsize)
        index.write(nodes.tobytes())
        boxes = _grouped(boxes)


def _level_sizes(count: int) -> list[int]:
    """The numbers of nodes of each level, the root first; there are at least two levels."""
    levels = [count]
    while len(levels) == 1 or levels[0] > 1:
        levels.insert(0, -(-levels[0] // _NODE_SIZE))
    return levels


def _grouped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box around each of as many boxes as a node holds."""
    firsts = np.arange(0, len(boxes), _NODE_SIZE, dtype=np.int64)
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
