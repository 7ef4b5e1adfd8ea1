"""The lattice of a band of class rows: where boundaries turn or fork, and how edges connect.

A boundary is followed with its region on the left, rows going down. A directed edge is identified
by the vertex it leaves and by the cell around that vertex on its left: north has NW, east NE,
south SE, west SW. The next edge then depends only on the four cells around the vertex where it
arrives; no labelling is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import END

NW, NE, SE, SW = range(4)
"""The cells around a lattice point, clockwise; also the edges that have them on their left.

Those edges go north, east, south and west.
"""

_BITS = np.array([1, 2, 4, 8], dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """The vertices of a band in reading order, including its ports as a row above and below."""

    cols: NDArray[np.int32]
    """(vertices,) lattice columns."""
    rows: NDArray[np.int32]
    """(vertices,) lattice rows within the band; -1 = upper ports, lattice_rows = lower ports."""
    around: NDArray[Any]
    """(vertices, 4) the cells NW, NE, SE, SW; at a port only those on the band's side are valid."""
    pattern: NDArray[np.uint8]
    """(vertices,) bit k = a boundary edge leaves in the direction of edge k."""
    by_column: NDArray[np.int64]
    """(vertices,) the vertices sorted by column, then row."""
    upper_ports: int
    """Number of upper ports: the first vertices."""
    lower_ports: int
    """Number of lower ports: the last vertices."""

    def __len__(self) -> int:
        """Number of vertices, ports included."""
        return len(self.cols)

    @property
    def is_port(self) -> NDArray[np.bool_]:
        """(vertices,) True = not a vertex but a point where a boundary crosses the cut."""
        ports = np.zeros(len(self), dtype=bool)
        ports[: self.upper_ports] = True
        ports[len(self) - self.lower_ports :] = True
        return ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """The directed edges of a band: those with a region on their left."""

    leaves: NDArray[np.int32]
    """(edges,) the vertex that the edge leaves, ascending."""
    direction: NDArray[np.uint8]
    """(edges,) NW to SW: the cell on its left, which gives its direction."""
    reaches: NDArray[np.int32]
    """(edges,) the vertex that it arrives at."""
    successor: NDArray[np.int32]
    """(edges,) the next edge of the boundary, or END at a port."""
    is_present: NDArray[np.bool_]
    """(4 x vertices,) True = an edge leaves vertex v in direction k, at 4 v + k."""
    index: NDArray[np.int32]
    """(4 x vertices,) that edge; undefined where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """The sides of pixels that separate two values. Pixel row 0 is the one above the band."""

    vertical: NDArray[np.bool_]
    """(1 + rows, width + 1) between a pixel and the one to its left."""
    horizontal: NDArray[np.bool_]
    """(rows, width + 2) between a pixel and the one above it, outside columns included."""

    def passed_points(self) -> NDArray[np.bool_]:
        """(rows, width + 1) True = a boundary passes the lattice point."""
        sideways = self.horizontal[:, :-1] | self.horizontal[:, 1:]
        return self.vertical[:-1] | self.vertical[1:] | sideways

    def corner_points(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the lattice points where a boundary turns or forks."""
        up, down = self.vertical[:-1], self.vertical[1:]
        left, right = self.horizontal[:, :-1], self.horizontal[:, 1:]
        # Straight on is up and down alone, or left and right alone.
        corner = (up ^ down) | (left ^ right) | (up & left)
        rows, cols = np.divmod(np.flatnonzero(corner), corner.shape[1])
        return rows, cols


def find_walls(cells: NDArray[Any]) -> Walls:
    """The walls of a band's cells, (1 + rows, width + 2)."""
    return Walls(vertical=cells[:, 1:] != cells[:, :-1], horizontal=cells[1:] != cells[:-1])


def find_vertices(cells: NDArray[Any], walls: Walls) -> Lattice:
    """Find the lattice points of a band that are vertices, and the ports of its cuts.

    Args:
        cells: (1 + rows, width + 2) the pixel row above the band, then its rows.
        walls: of these cells.

    Returns:
        The vertices in reading order.
    """
    rows, cols = walls.corner_points()
    upper, lower = np.flatnonzero(walls.vertical[0]), np.flatnonzero(walls.vertical[-1])
    around = np.concatenate(
        [
            _cells_at_cut(cells[0], upper),
            _cells_round(cells, rows, cols),
            _cells_at_cut(cells[-1], lower),
        ]
    )
    differs = around != np.roll(around, -1, axis=1)
    pattern = (differs @ _BITS).astype(np.uint8)
    pattern[: len(upper)] = 1 << SE
    pattern[len(pattern) - len(lower) :] = 1 << NW
    all_cols = np.concatenate([upper, cols, lower])
    return Lattice(
        cols=all_cols.astype(np.int32),
        rows=np.concatenate(
            [np.full(len(upper), -1), rows, np.full(len(lower), len(cells) - 1)]
        ).astype(np.int32),
        around=around,
        pattern=pattern,
        by_column=_sorted_by_column(all_cols, cells.shape[1]),
        upper_ports=len(upper),
        lower_ports=len(lower),
    )


def link_edges(
    lattice: Lattice, outside: int, left_out: NDArray[np.integer[Any]] | None = None
) -> Edges:
    """Find the successor of every directed edge.

    An arriving edge keeps its region on the left: of the edges that leave, its successor is the
    first clockwise from the one with the same cell on its left. Where two cells of a region touch
    only at a corner, this keeps their interiors apart.

    Args:
        lattice: the vertices.
        outside: value of the cells of no region.
        left_out: values whose regions are left out.

    Returns:
        The edges that have a region on their left.
    """
    present = (lattice.around != outside) & ((lattice.pattern[:, None] & _BITS) != 0)
    if left_out is not None:
        present &= ~np.isin(lattice.around, left_out)
    places = np.flatnonzero(present)
    index = np.cumsum(present.ravel(), dtype=np.int32) - np.int32(1)
    leaves, direction = (places >> 2).astype(np.int32), (places & 3).astype(np.uint8)
    reaches = _reached_vertices(lattice).ravel()[places]
    turn = _NEXT_EDGE[lattice.pattern[reaches], (direction + 3) & 3]
    successor = index[4 * reaches.astype(np.int64) + turn]
    successor[lattice.is_port[reaches]] = END
    return Edges(
        leaves=leaves,
        direction=direction,
        reaches=reaches,
        successor=successor,
        is_present=present.ravel(),
        index=index,
    )


def _next_edges() -> NDArray[np.uint8]:
    """[pattern, k]: the first direction clockwise from k whose bit is set in the pattern."""
    table = np.zeros((16, 4), dtype=np.uint8)
    for pattern in range(1, 16):
        for k in range(4):
            table[pattern, k] = next(
                (k + turn) % 4 for turn in range(4) if pattern >> (k + turn) % 4 & 1
            )
    return table


_NEXT_EDGE = _next_edges()


def _cells_round(
    cells: NDArray[Any], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[Any]:
    """The cells NW, NE, SE and SW of lattice points, (points, 4)."""
    width = cells.shape[1]
    northwest = rows * width + cols
    flat = cells.ravel()
    around = np.empty((len(rows), 4), dtype=cells.dtype)
    for cell, shift in ((NW, 0), (NE, 1), (SE, width + 1), (SW, width)):
        around[:, cell] = flat[northwest + shift]
    return around


def _cells_at_cut(cells: NDArray[Any], cols: NDArray[np.int64]) -> NDArray[Any]:
    """The cells left and right of ports, as if both rows at the cut were equal, (ports, 4)."""
    left, right = cells[cols], cells[cols + 1]
    return np.stack([left, right, right, left], axis=1)


def _sorted_by_column(cols: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    # NumPy sorts 16-bit numbers by radix, several times faster than by comparison.
    keys = cols.astype(np.uint16) if width < 1 << 16 else cols
    return np.argsort(keys, kind="stable")


def _reached_vertices(lattice: Lattice) -> NDArray[np.int32]:
    """Where the edges of each vertex arrive, (vertices, 4); undefined where there is no edge."""
    vertices = np.arange(len(lattice), dtype=np.int32)
    reached = np.empty((len(lattice), 4), dtype=np.int32)
    reached[:, NE] = vertices + 1
    reached[:, SW] = vertices - 1
    order = lattice.by_column
    reached[order[1:], NW] = order[:-1]
    reached[order[:-1], SE] = order[1:]
    return reached
