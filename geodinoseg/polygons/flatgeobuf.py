"""The spatial index of a FlatGeobuf: a packed Hilbert R-tree, then the features in its order.

GDAL builds it in one call that cannot be interrupted and keeps the boxes of all features in memory.
Therefore GDAL writes the features without an index, and they are sorted here, some at a time.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.feature_boxes import FeatureBoxes, boxes_around

_MAGIC_BYTES = 8
_NODE_FIELD, _NODE_SIZE = 9, 16
"""Number of the header field `index_node_size`, and its value."""
_NODE = np.dtype([("box", "<f8", 4), ("offset", "<u8")])
"""West, south, east, north, and the offset of the child."""
_AT_ONCE = _NODE_SIZE * 4096
_SCAN_BYTES = 1 << 22


def write_indexed(plain: Path, indexed: Path, boxes: FeatureBoxes) -> None:
    """Write the index of a FlatGeobuf, followed by its features in the order of the index.

    Takes about 25 bytes of memory per feature, and the size of the features on disk once more.

    Args:
        plain: a file without an index, as GDAL writes it.
        indexed: the file to write.
        boxes: bounding boxes of the features; if there are none, no index is written.
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
    """(count + 1,) offset of each feature, which begins with its size in 4 bytes."""

    @classmethod
    def after_header(cls, source: IO[bytes], count: int) -> _Features:
        """The features from the current position of the file on."""
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
        """Sizes, in bytes, of the features with these indexes."""
        return np.asarray(self.starts[some + 1] - self.starts[some], dtype=np.int64)

    def read(self, some: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield the features with these indexes."""
        handle = self.source.fileno()
        for size, start in zip(self.sizes(some).tolist(), self.starts[some].tolist(), strict=True):
            yield os.pread(handle, size, start)


def _indexed_header(source: IO[bytes]) -> bytes:
    """Magic bytes and header of a file, changed to declare an index."""
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
    """Copy the features in order, write the leaf nodes, and return the boxes of their parents."""
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
        parents.append(boxes_around(nodes["box"], _NODE_SIZE))
        offset += int(sizes.sum())
    return np.concatenate(parents)


def _write_inner_nodes(
    index: IO[bytes], start: int, levels: list[int], boxes: NDArray[np.float64]
) -> None:
    """Write the levels above the leaves, bottom up; `boxes` are those of the lowest of them."""
    for depth in range(len(levels) - 2, -1, -1):
        nodes = np.empty(levels[depth], dtype=_NODE)
        nodes["box"] = boxes
        # Index of the first child, counted from the root.
        nodes["offset"] = sum(levels[: depth + 1]) + _NODE_SIZE * np.arange(levels[depth])
        index.seek(start + sum(levels[:depth]) * _NODE.itemsize)
        index.write(nodes.tobytes())
        boxes = boxes_around(boxes, _NODE_SIZE)


def _level_sizes(count: int) -> list[int]:
    """The numbers of nodes of each level, the root first; there are at least two levels."""
    levels = [count]
    while len(levels) == 1 or levels[0] > 1:
        levels.insert(0, -(-levels[0] // _NODE_SIZE))
    return levels
