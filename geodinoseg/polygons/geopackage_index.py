"""The spatial index of a GeoPackage: SQLite's R-tree, its nodes packed along a Hilbert curve.

GDAL creates the tables and triggers in an empty file. The nodes are written as SQLite stores them
(https://www.sqlite.org/rtree.html), which is several times as fast as inserting boxes one by one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.feature_boxes import BOXES_AT_ONCE, FeatureBoxes, boxes_around

_CELL = np.dtype([("id", ">i8"), ("box", ">f4", 4)])
"""Number of a feature or node, and its west, east, south, north."""
_HEADER = np.dtype([("height", ">u2"), ("cells", ">u2")])
_ROOT = 1


@cache
def has_rtree() -> bool:
    """Whether the SQLite of this Python supports R-trees; almost all do."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE tree USING rtree(id, low, high)")
        except sqlite3.OperationalError:
            return False
    return True


def add_spatial_index(path: Path, empty: Path, layer: str, boxes: FeatureBoxes) -> None:
    """Add the index to a GeoPackage without one.

    Takes about 20 bytes of memory per feature.

    Args:
        path: the file; its features have the numbers 1, 2, ... in the order of their boxes.
        empty: a file written by GDAL with the same layer, indexed but without features.
        layer: name of the layer.
        boxes: bounding boxes of the features.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # the file is not in use yet
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        _copy_tables(database, empty)
        if boxes.count:
            _Tree(database, f"rtree_{layer}_geom").fill(boxes)
        # Last, since the triggers call functions that only GDAL provides.
        _copy_triggers(database, empty)
        database.execute("COMMIT")


def _copy_tables(database: sqlite3.Connection, empty: Path) -> None:
    with closing(sqlite3.connect(empty)) as source:
        tables = "name = 'gpkg_extensions' OR sql LIKE 'CREATE VIRTUAL TABLE%'"
        for (sql,) in source.execute(f"SELECT sql FROM sqlite_master WHERE {tables}"):  # noqa: S608
            database.execute(sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1))
        rows = "extension_name = 'gpkg_rtree_index'"
        for row in source.execute(f"SELECT * FROM gpkg_extensions WHERE {rows}"):  # noqa: S608
            database.execute("INSERT INTO gpkg_extensions VALUES (?, ?, ?, ?, ?)", row)


def _copy_triggers(database: sqlite3.Connection, empty: Path) -> None:
    with closing(sqlite3.connect(empty)) as source:
        triggers = "type = 'trigger' AND name LIKE 'rtree%'"
        for (sql,) in source.execute(f"SELECT sql FROM sqlite_master WHERE {triggers}"):  # noqa: S608
            database.execute(sql)


class _Tree:
    """The empty R-tree of a database, to be filled level by level, the lowest first."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database = database
        self._name = name
        # SQLite gives all nodes the size of the empty root.
        query = f"SELECT length(data) FROM {self._table('node')} WHERE nodeno = {_ROOT}"  # noqa: S608
        ((self._node_bytes,),) = database.execute(query)
        self._capacity = (self._node_bytes - _HEADER.itemsize) // _CELL.itemsize

    def fill(self, boxes: FeatureBoxes) -> None:
        """Write the nodes of all features."""
        levels = self._first_nodes(boxes.count)
        height = len(levels) - 1
        self._database.execute(f"DELETE FROM {self._table('node')}")  # noqa: S608
        node_of = np.empty(boxes.count, dtype=np.int32)
        order, above = boxes.hilbert_order(), []
        step = BOXES_AT_ONCE // self._capacity * self._capacity
        for start in range(0, boxes.count, step):
            some = order[start : start + step]
            node = levels[0] + start // self._capacity
            node_of[some] = node + np.arange(len(some), dtype=np.int32) // self._capacity
            above.append(self._write_nodes(node, some + 1, boxes.of(some), height=height))
        self._write_pairs("rowid", 1, node_of)
        self._write_inner(levels, np.concatenate(above))

    def _first_nodes(self, count: int) -> list[int]:
        """The number of the first node of each level, the lowest first; that of the root is 1."""
        sizes = [-(-count // self._capacity)]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // self._capacity))
        return [_ROOT + sum(sizes[level + 1 :]) for level in range(len(sizes))]

    def _write_inner(self, levels: list[int], boxes: NDArray[np.float64]) -> None:
        """Write the levels above the lowest one; `boxes` are those of the lowest nodes."""
        for below, node in pairwise(levels):
            children = below + np.arange(len(boxes), dtype=np.int64)
            parents = node + np.arange(len(boxes), dtype=np.int64) // self._capacity
            self._write_pairs("parent", below, parents)
            boxes = self._write_nodes(node, children, boxes, height=len(levels) - 1)

    def _write_nodes(
        self, node: int, ids: NDArray[np.int64], boxes: NDArray[np.float64], *, height: int
    ) -> NDArray[np.float64]:
        """Write consecutive nodes, and return their bounding boxes.

        Args:
            node: number of the first node.
            ids: (cells,) numbers of features or nodes.
            boxes: (cells, 4) west, south, east, north.
            height: number of levels below the root, recorded in the root.
        """
        capacity, count = self._capacity, -(-len(ids) // self._capacity)
        cells = np.zeros(count * capacity, dtype=_CELL)
        cells["id"][: len(ids)] = ids
        cells["box"][: len(ids), 0::2] = _rounded(boxes[:, :2], -np.inf)
        cells["box"][: len(ids), 1::2] = _rounded(boxes[:, 2:], np.inf)
        headers = np.zeros(count, dtype=_HEADER)
        headers["cells"] = np.minimum(capacity, len(ids) - capacity * np.arange(count))
        headers["height"] = height if node == _ROOT else 0
        blobs = (
            (header.tobytes() + some.tobytes()).ljust(self._node_bytes, b"\0")
            for header, some in zip(headers, cells.reshape(count, capacity), strict=True)
        )
        insert = f"INSERT INTO {self._table('node')} VALUES (?, ?)"  # noqa: S608
        self._database.executemany(insert, zip(range(node, node + count), blobs, strict=True))
        return boxes_around(boxes, capacity)

    def _write_pairs(self, part: str, first: int, values: NDArray[np.integer[Any]]) -> None:
        """Write rows with consecutive numbers from `first` on, each with a value."""
        insert = f"INSERT INTO {self._table(part)} VALUES (?, ?)"  # noqa: S608
        for start in range(0, len(values), BOXES_AT_ONCE):
            some = values[start : start + BOXES_AT_ONCE].tolist()
            numbers = range(first + start, first + start + len(some))
            self._database.executemany(insert, zip(numbers, some, strict=True))

    def _table(self, part: str) -> str:
        name = f"{self._name}_{part}".replace('"', '""')
        return f'"{name}"'


def _rounded(values: NDArray[np.float64], towards: float) -> NDArray[np.float32]:
    """Round values to float32 outwards, so that a box does not shrink."""
    found = values.astype(np.float32)
    inside = found > values if towards < 0 else found < values
    found[inside] = np.nextafter(found[inside], np.float32(towards))
    return found
