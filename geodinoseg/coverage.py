"""The boundaries of a class raster, traced as one coverage: the edges of one band of rows.

A vertex stands at every corner and at every lattice point where three or more boundary edges
meet, so neighbours share every vertex of the border between them. Regions are 4-connected. All
coordinates are lattice points (col, row) of the whole raster; the affine is applied by others.

A boundary is walked with its region on the left, as seen with rows going down. A directed edge
is known by the vertex it leaves and by the cell round that vertex which it has on its left:
north has NW, east NE, south SE, west SW. The next edge is then a rule on the four cells round
the vertex where it arrives; no labelling is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.chains import END, Chains, follow, offsets_of, ragged_range
from geodinoseg.paths import SELF_TOUCH, Paths

if TYPE_CHECKING:
    from numpy.typing import NDArray

NW, NE, SE, SW = range(4)
"""The cells round a lattice point, clockwise; also the edges that have them on their left."""

NO_PORT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Class ids of some whole rows of a raster, with what lies round them."""

    cells: NDArray[Any]
    """(1 + rows, width + 2) integer: the row above, then the rows; outside columns on each side.

    The last band has an outside row below as well. Outside cells hold the outside value.
    """
    row_off: int
    """Row of the raster that cells[1] is."""
    outside: int
    """Value of what is no region: nodata and what lies round the raster."""
    weights_above: NDArray[np.int64]
    """(1 + rows,) weight of a pixel's area, summed over the rows above each lattice row."""
    integrals: tuple[NDArray[np.int64], ...] = ()
    """(1 + rows, width + 1) each: the sum of some pixel value over the band's pixels above and to
    the left of each lattice point."""

    @property
    def lattice_rows(self) -> int:
        """Number of lattice rows that belong to the band: those above each of its rows."""
        return self.cells.shape[0] - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Boundary chains of one band: closed rings, and open chains that go on in another band.

    A chain crosses the cut between two bands at a port: a column where the cut's lattice row is
    crossed by a boundary. Ports are numbered by ascending column.
    """

    paths: Paths
    """The vertices of each piece, in the direction of walking; may be none."""
    class_ids: NDArray[np.int64]
    """(pieces,) class of the region on the left."""
    closed: NDArray[np.bool_]
    """(pieces,) True = a ring; it starts at its first vertex in reading order."""
    from_above: NDArray[np.int32]
    """(pieces,) port of the upper cut where the chain comes in, or NO_PORT."""
    to_above: NDArray[np.int32]
    """(pieces,) port of the upper cut where it leaves, or NO_PORT."""
    from_below: NDArray[np.int32]
    """(pieces,) port of the lower cut where it comes in, or NO_PORT."""
    to_below: NDArray[np.int32]
    """(pieces,) port of the lower cut where it leaves, or NO_PORT."""
    links: NDArray[np.int32]
    """(links, 2) pieces of one region that no walk connects: a hole's, and one further up."""
    measures: NDArray[np.int64]
    """(pieces, 1 + integrals) area weight, then the sum of each integral's pixel value.

    Each is the piece's share: those of all pieces of a region add up to the region's sum.
    """

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.closed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """The vertices of a band in reading order, its ports among them as a row above and below."""

    cols: NDArray[np.int32]
    """(vertices,) lattice columns."""
    rows: NDArray[np.int32]
    """(vertices,) lattice rows within the band; -1 = upper ports, lattice_rows = lower ports."""
    around: NDArray[Any]
    """(vertices, 4) the cells NW, NE, SE, SW; at a port only those on the band's side count."""
    pattern: NDArray[np.uint8]
    """(vertices,) bit k = a boundary edge leaves in the direction of edge k."""
    by_column: NDArray[np.int64]
    """(vertices,) the vertices sorted by column, then row."""
    upper_ports: int
    """Number of upper ports: the first vertices."""
    lower_ports: int
    """Number of lower ports: the last vertices."""

    def __len__(self) -> int:
        """Number of vertices, ports counted."""
        return len(self.cols)

    @property
    def is_port(self) -> NDArray[np.bool_]:
        """(vertices,) True = no vertex but a place where the cut is crossed."""
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
    """(edges,) NW to SW: the cell on its left, and so its direction."""
    reaches: NDArray[np.int32]
    """(edges,) the vertex that it arrives at."""
    successor: NDArray[np.int32]
    """(edges,) the next edge of the boundary, or END at a port."""
    index: NDArray[np.int32]
    """(4 x vertices,) the edge that leaves vertex v in direction k, at 4 v + k."""


def trace_band(band: Band) -> Pieces:
    """Trace the boundaries of one band of rows."""
    boundary = band.cells[:, 1:] != band.cells[:, :-1]
    lattice = find_vertices(band, boundary)
    edges = link_edges(lattice, band.outside)
    chains = follow(edges.successor)
    return _pieces(band, boundary, lattice, edges, chains)


def find_vertices(band: Band, boundary: NDArray[np.bool_]) -> Lattice:
    """Find the lattice points of a band that are vertices, and the ports of its cuts.

    Args:
        band: the rows.
        boundary: (1 + rows, width + 1) True = the pixels left and right of a vertical edge differ.

    Returns:
        The vertices in reading order.
    """
    cells = band.cells
    rows, cols = _corner_points(boundary, cells[1:] != cells[:-1])
    upper, lower = np.flatnonzero(boundary[0]), np.flatnonzero(boundary[-1])
    around = np.concatenate(
        [
            _cells_at_cut(cells[0], upper),
            _cells_round(cells, rows, cols),
            _cells_at_cut(cells[-1], lower),
        ]
    )
    differs = around != np.roll(around, -1, axis=1)
    pattern = (differs @ np.array([1, 2, 4, 8], dtype=np.uint8)).astype(np.uint8)
    pattern[: len(upper)] = 1 << SE
    pattern[len(pattern) - len(lower) :] = 1 << NW
    all_cols = np.concatenate([upper, cols, lower])
    return Lattice(
        cols=all_cols.astype(np.int32),
        rows=np.concatenate(
            [np.full(len(upper), -1), rows, np.full(len(lower), band.lattice_rows)]
        ).astype(np.int32),
        around=around,
        pattern=pattern,
        by_column=_sorted_by_column(all_cols, cells.shape[1]),
        upper_ports=len(upper),
        lower_ports=len(lower),
    )


def link_edges(lattice: Lattice, outside: int) -> Edges:
    """Give every directed edge the one that follows it.

    An edge that arrives keeps its region on the left: of the edges that leave, it takes the first
    clockwise from the one with the same cell on its left. Where two cells of a region touch at a
    corner only, this keeps their interiors apart.

    Args:
        lattice: the vertices.
        outside: value of the cells that are no region.

    Returns:
        The edges that have a region on their left.
    """
    present = (lattice.around != outside) & ((lattice.pattern[:, None] >> np.arange(4)) & 1 == 1)
    places = np.flatnonzero(present)
    index = np.cumsum(present.ravel(), dtype=np.int32) - np.int32(1)
    leaves, direction = (places >> 2).astype(np.int32), (places & 3).astype(np.uint8)
    reaches = _reached_vertices(lattice).ravel()[places]
    turn = _NEXT_EDGE[lattice.pattern[reaches], (direction + 3) & 3]
    successor = index[4 * reaches.astype(np.int64) + turn]
    successor[lattice.is_port[reaches]] = END
    return Edges(
        leaves=leaves, direction=direction, reaches=reaches, successor=successor, index=index
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


def _corner_points(
    boundary: NDArray[np.bool_], divide: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the lattice points where a boundary turns or forks.

    Args:
        boundary: (1 + rows, width + 1) vertical edges.
        divide: (rows, width + 2) horizontal edges.
    """
    up, down, left, right = boundary[:-1], boundary[1:], divide[:, :-1], divide[:, 1:]
    # Straight on is up and down alone, or left and right alone.
    corner = (up ^ down) | (left ^ right) | (up & left)
    points = np.flatnonzero(corner)
    return np.divmod(points, corner.shape[1])


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
    """The cells left and right of ports, as if both rows at the cut were the same, (ports, 4)."""
    left, right = cells[cols], cells[cols + 1]
    return np.stack([left, right, right, left], axis=1)


def _sorted_by_column(cols: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    # numpy sorts 16-bit numbers by radix, several times faster than by comparison.
    keys = cols.astype(np.uint16) if width < 1 << 16 else cols
    return np.argsort(keys, kind="stable")


def _reached_vertices(lattice: Lattice) -> NDArray[np.int32]:
    """Where the edges of each vertex arrive, (vertices, 4); nonsense where there is no edge."""
    vertices = np.arange(len(lattice), dtype=np.int32)
    reached = np.empty((len(lattice), 4), dtype=np.int32)
    reached[:, NE] = vertices + 1
    reached[:, SW] = vertices - 1
    order = lattice.by_column
    reached[order[1:], NW] = order[:-1]
    reached[order[:-1], SE] = order[1:]
    return reached


def _pieces(
    band: Band, boundary: NDArray[np.bool_], lattice: Lattice, edges: Edges, chains: Chains
) -> Pieces:
    heads = chains.order[chains.offsets[:-1]]
    starts = edges.leaves[heads]
    ends = edges.reaches[chains.order[chains.offsets[1:] - 1]]
    first_lower = len(lattice) - lattice.lower_ports
    leaves = edges.leaves[chains.order]
    is_vertex = ~lattice.is_port[leaves]
    vertices = leaves[is_vertex]
    return Pieces(
        paths=Paths(
            cols=lattice.cols[vertices],
            rows=lattice.rows[vertices] + np.int32(band.row_off),
            flags=_self_touches(lattice)[vertices],
            offsets=offsets_of(is_vertex)[chains.offsets],
        ),
        class_ids=lattice.around[starts, edges.direction[heads]].astype(np.int64),
        closed=chains.closed,
        from_above=_port_numbers(starts, 0, lattice.upper_ports),
        to_above=_port_numbers(ends, 0, lattice.upper_ports),
        from_below=_port_numbers(starts, first_lower, len(lattice)),
        to_below=_port_numbers(ends, first_lower, len(lattice)),
        links=_link_holes(boundary, lattice, edges, chains),
        measures=_measure(band, lattice, edges, chains),
    )


def _port_numbers(vertices: NDArray[np.int32], first: int, past: int) -> NDArray[np.int32]:
    """The number of each vertex among the ports first to past, or NO_PORT."""
    inside = (vertices >= first) & (vertices < past)
    return np.where(inside, vertices - first, NO_PORT).astype(np.int32)


def _self_touches(lattice: Lattice) -> NDArray[np.uint8]:
    """SELF_TOUCH where cells on a diagonal have one class and both others have another."""
    around = lattice.around
    diagonal = (around[:, NW] == around[:, SE]) | (around[:, NE] == around[:, SW])
    return np.where(diagonal & (lattice.pattern == 15), SELF_TOUCH, np.uint8(0))


def _link_holes(
    boundary: NDArray[np.bool_], lattice: Lattice, edges: Edges, chains: Chains
) -> NDArray[np.int32]:
    """Pairs of pieces of one region: each hole, and the boundary to the left of the pixel over it.

    The first vertex of a hole in reading order is left eastwards, with the region above. The run
    of the region's pixels that passes over it begins, further left, at a boundary that reaches
    further up than the hole: link by link, every hole so finds its way to the exterior.
    """
    first_edges, pieces = _first_edges(lattice, edges, chains)
    over_hole = edges.direction[first_edges] == NE
    first_edges, pieces = first_edges[over_hole], pieces[over_hole]
    vertices = edges.leaves[first_edges]
    rows = lattice.rows[vertices].astype(np.int64)
    run_starts = np.flatnonzero(boundary)
    width = boundary.shape[1]
    # boundary[r] is the pixel row above lattice row r, since it begins with the row above.
    place = np.searchsorted(run_starts, rows * width + lattice.cols[vertices], side="right") - 1
    cols = run_starts[place] - rows * width
    above = _vertex_above(lattice, cols, rows - 1)
    piece_of = np.empty(len(edges.leaves), dtype=np.int32)
    piece_of[chains.order] = np.repeat(np.arange(len(chains), dtype=np.int32), chains.lengths)
    return np.stack([pieces, piece_of[edges.index[4 * above + SE]]], axis=1)


def _first_edges(
    lattice: Lattice, edges: Edges, chains: Chains
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The edge at the first vertex, in reading order, of each piece that does not come from above.

    Returns:
        The edges and their pieces.
    """
    rings = np.flatnonzero(chains.closed)
    heads = chains.order[chains.offsets[rings]]
    # Edges are numbered in the reading order of their vertices, so the smallest is the first.
    open_chains = np.flatnonzero(~chains.closed)
    spans = chains.offsets[open_chains], chains.lengths[open_chains]
    elements = chains.order[ragged_range(*spans)]
    lowest = np.minimum.reduceat(elements, offsets_of(spans[1])[:-1]) if len(elements) else elements
    ends = edges.reaches[chains.order[chains.offsets[open_chains + 1] - 1]]
    below_only = (edges.leaves[lowest] >= lattice.upper_ports) & (ends >= lattice.upper_ports)
    first_edges = np.concatenate([heads, lowest[below_only]])
    return first_edges, np.concatenate([rings, open_chains[below_only]]).astype(np.int32)


def _vertex_above(
    lattice: Lattice, cols: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The last vertex of a column at or above a lattice row."""
    height = int(lattice.rows[-1]) + 3 if len(lattice) else 3
    order = lattice.by_column
    keys = lattice.cols[order].astype(np.int64) * height + lattice.rows[order] + 1
    place = np.searchsorted(keys, cols * height + rows + 1, side="right") - 1
    return order[place]


def _measure(
    band: Band, lattice: Lattice, edges: Edges, chains: Chains
) -> NDArray[np.int64]:
    """Sums over each region's pixels by Green's theorem, as the shares of the pieces.

    The sum of f over a region is that of F[start] - F[end] over its vertical edges, walked with
    the region on the left, where F is the integral of f above and to the left.
    """
    vertical = (edges.direction & 1) == 0  # NW and SE: north and south
    # At the upper cut the band's share of an edge begins on its first lattice row.
    rows = np.maximum(lattice.rows, 0)
    starts, ends = edges.leaves[vertical], edges.reaches[vertical]
    above = band.weights_above[rows]
    shares = [lattice.cols[starts] * (above[starts] - above[ends])]
    for integral in band.integrals:
        values = integral[rows, lattice.cols]
        shares.append(values[starts] - values[ends])
    measures = np.empty((len(chains), len(shares)), dtype=np.int64)
    column = np.zeros(len(edges.leaves), dtype=np.int64)
    for place, share in enumerate(shares):
        column[vertical] = share
        measures[:, place] = np.add.reduceat(column[chains.order], chains.offsets[:-1]) if len(chains) else 0
    return measures
