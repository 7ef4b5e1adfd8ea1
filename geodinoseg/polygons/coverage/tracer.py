"""The boundaries of a class raster, traced as one coverage, a band of rows at a time.

There is a vertex at every corner and at every lattice point where three or more boundary edges
meet, so neighbours share every vertex of the border between them. Regions are 4-connected. All
coordinates are lattice points (col, row) of the whole raster, without its affine transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import Chains, follow, offsets_of, ragged_range
from geodinoseg.polygons.coverage.lattice import (
    NE,
    NW,
    SE,
    SW,
    Edges,
    Lattice,
    Walls,
    find_vertices,
    find_walls,
    link_edges,
)
from geodinoseg.polygons.coverage.paths import CUT_POINT, SELF_TOUCH, Paths
from geodinoseg.polygons.coverage.simplify import Tolerance, kept_vertices

NO_PORT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Class ids of some whole rows of a raster, with their surroundings."""

    cells: NDArray[Any]
    """(1 + rows, width + 2) integer: the row above, then the rows; outside columns on each side.

    The last band has an outside row below as well. Outside cells hold the outside value.
    """
    row_off: int
    """Row of the raster that cells[1] is."""
    outside: int
    """Value of pixels of no region: nodata and the surroundings of the raster."""
    weights_above: NDArray[np.int64]
    """(1 + rows,) sum of the pixel area weights of the rows above each lattice row."""
    left_out: NDArray[np.integer[Any]] | None = None
    """Values whose regions are left out; they still separate the others."""
    tolerance: Tolerance | None = None
    """Largest distance of a vertex to the simplified boundary; None = all vertices stay."""
    integrals: tuple[NDArray[np.int64], ...] = ()
    """(1 + rows, width + 1) each: the sum of some pixel value over the band's pixels above and to
    the left of each lattice point."""

    @property
    def row_end(self) -> int:
        """First row of the raster past the band."""
        return self.row_off + len(self.weights_above) - 1

    @property
    def frame_rows(self) -> tuple[int, ...]:
        """The band's lattice rows that are the raster's upper or lower edge."""
        rows = len(self.weights_above) - 1
        is_last = len(self.cells) > 1 + rows
        return ((0,) if self.row_off == 0 else ()) + ((rows,) if is_last else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Boundary chains of one band: closed rings, and open chains that continue in another band.

    A chain crosses the cut between two bands at a port: a column where the cut's lattice row is
    crossed by a boundary. Ports are numbered by ascending column.
    """

    paths: Paths
    """The vertices of each piece, in the direction of the boundary; may be none."""
    class_ids: NDArray[np.int64]
    """(pieces,) class of the region on the left."""
    closed: NDArray[np.bool_]
    """(pieces,) True = a ring; it starts at its first vertex in reading order."""
    from_above: NDArray[np.int32]
    """(pieces,) port of the upper cut where the chain enters, or NO_PORT."""
    to_above: NDArray[np.int32]
    """(pieces,) port of the upper cut where it leaves, or NO_PORT."""
    from_below: NDArray[np.int32]
    """(pieces,) port of the lower cut where it enters, or NO_PORT."""
    to_below: NDArray[np.int32]
    """(pieces,) port of the lower cut where it leaves, or NO_PORT."""
    links: NDArray[np.int32]
    """(links, 2) pieces of one region that no chain connects: a hole's, and one further up."""
    measures: NDArray[np.int64]
    """(pieces, 1 + integrals) area weight, then the sum of each integral's pixel value.

    The contributions of all pieces of a region add up to the region's sum.
    """

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.closed)


def trace_band(band: Band) -> Pieces:
    """Trace the boundaries of one band of rows."""
    walls = find_walls(band.cells)
    lattice = find_vertices(band.cells, walls)
    edges = link_edges(lattice, band.outside, band.left_out)
    chains = follow(edges.successor)
    heads = chains.order[chains.offsets[:-1]]
    starts = edges.leaves[heads]
    ends = edges.reaches[chains.order[chains.offsets[1:] - 1]]
    first_lower = len(lattice) - lattice.lower_ports
    return Pieces(
        paths=_paths(band, walls, lattice, edges, chains),
        class_ids=lattice.around[starts, edges.direction[heads]].astype(np.int64),
        closed=chains.closed,
        from_above=_port_numbers(starts, 0, lattice.upper_ports),
        to_above=_port_numbers(ends, 0, lattice.upper_ports),
        from_below=_port_numbers(starts, first_lower, len(lattice)),
        to_below=_port_numbers(ends, first_lower, len(lattice)),
        links=_link_holes(walls.vertical, lattice, edges, chains),
        measures=_measure(band, lattice, edges, chains),
    )


def _paths(band: Band, walls: Walls, lattice: Lattice, edges: Edges, chains: Chains) -> Paths:
    """The vertices of each chain; if simplified, with its ports as cut points."""
    if band.tolerance is None:
        vertices, offsets = edges.leaves[chains.order], chains.offsets
        kept = ~lattice.is_port
    else:
        last = edges.reaches[chains.order[chains.offsets[1:] - 1]]
        is_open = ~chains.closed
        vertices = np.insert(edges.leaves[chains.order], chains.offsets[1:][is_open], last[is_open])
        offsets = np.add(chains.offsets, offsets_of(is_open))
        kept = kept_vertices(
            lattice,
            edges,
            walls.passed_points(),
            frame_rows=band.frame_rows,
            tolerance=band.tolerance,
        )
    stays = kept[vertices]
    vertices = vertices[stays]
    return Paths(
        cols=lattice.cols[vertices],
        rows=np.maximum(lattice.rows[vertices], 0) + np.int32(band.row_off),
        flags=_flags(lattice)[vertices],
        offsets=offsets_of(stays)[offsets],
    )


def _port_numbers(vertices: NDArray[np.int32], first: int, past: int) -> NDArray[np.int32]:
    """The number of each vertex among the ports first to past, or NO_PORT."""
    inside = (vertices >= first) & (vertices < past)
    return np.where(inside, vertices - first, NO_PORT).astype(np.int32)


def _flags(lattice: Lattice) -> NDArray[np.uint8]:
    """CUT_POINT for ports; SELF_TOUCH where only the cells of a diagonal have the same class."""
    around = lattice.around
    diagonal = (around[:, NW] == around[:, SE]) | (around[:, NE] == around[:, SW])
    flags = np.where(diagonal & (lattice.pattern == 15), SELF_TOUCH, np.uint8(0))
    flags[lattice.is_port] = CUT_POINT
    return flags


def _link_holes(
    boundary: NDArray[np.bool_], lattice: Lattice, edges: Edges, chains: Chains
) -> NDArray[np.int32]:
    """Pairs of pieces of one region: each hole, and the boundary to the left of the pixel above it.

    The boundary leaves the first vertex of a hole, in reading order, eastwards, with the region
    above. The run of the region's pixels above it starts, further left, at a boundary that reaches
    further up than the hole: link by link, every hole is connected to the exterior.
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


def _measure(band: Band, lattice: Lattice, edges: Edges, chains: Chains) -> NDArray[np.int64]:
    """Sums over each region's pixels by Green's theorem, as contributions of the pieces.

    The sum of f over a region is that of F[start] - F[end] over its vertical edges, followed with
    the region on the left, where F is the integral of f above and to the left.
    """
    vertical = (edges.direction & 1) == 0  # NW and SE: north and south
    # At the upper cut the band's part of an edge begins on its first lattice row.
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
        measures[:, place] = (
            np.add.reduceat(column[chains.order], chains.offsets[:-1]) if len(chains) else 0
        )
    return measures
