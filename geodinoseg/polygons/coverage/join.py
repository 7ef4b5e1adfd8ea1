"""Joins the boundary pieces of successive bands into polygons as soon as these are complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import (
    END,
    connected_sets,
    follow,
    offsets_of,
    ragged_range,
)
from geodinoseg.polygons.coverage.cut_points import straighten_cut_points
from geodinoseg.polygons.coverage.paths import (
    Paths,
    are_holes,
    concatenate,
    no_paths,
    split_at_self_touches,
    start_at_first,
)
from geodinoseg.polygons.coverage.simplify import Tolerance
from geodinoseg.polygons.coverage.tracer import NO_PORT, Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticePolygons:
    """Polygons whose vertices are lattice points, in order of their last row, then first pixel."""

    rings: Paths
    """Rings with the polygon on their left, rows going down; a polygon's exterior first, then its
    holes in reading order of their first points."""
    polygon_offsets: NDArray[np.int64]
    """(polygons + 1,): polygon i has the rings polygon_offsets[i] to polygon_offsets[i + 1]."""
    class_ids: NDArray[np.int64]
    """(polygons,) class ids."""
    measures: NDArray[np.int64]
    """(polygons, measures) sums over the polygon's pixels, as in `coverage.Pieces`."""

    def __len__(self) -> int:
        """Number of polygons."""
        return len(self.class_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenChains:
    """Chains that both start and end at the last cut and continue below it."""

    paths: Paths
    from_port: NDArray[np.int32]
    """(chains,) port of the cut where the chain enters."""
    to_port: NDArray[np.int32]
    """(chains,) port where it leaves."""
    regions: NDArray[np.int64]
    """(chains,) number of the region among those not finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rings:
    """Closed rings and the regions that they belong to."""

    paths: Paths
    regions: NDArray[np.int64]
    """(rings,) number of the region among those not finished."""

    def take(self, selection: NDArray[np.int64]) -> _Rings:
        return _Rings(paths=self.paths.take(selection), regions=self.regions[selection])


class CoverageJoin:
    """Takes the pieces of each band, top to bottom, and returns the polygons that are complete.

    It holds only the boundaries of the polygons that the last cut runs through. `tolerance` is the
    one with which they were simplified.
    """

    def __init__(self, *, measures: int, tolerance: Tolerance | None = None) -> None:
        self._tolerance = tolerance
        self._open = _OpenChains(
            paths=no_paths(),
            from_port=np.empty(0, dtype=np.int32),
            to_port=np.empty(0, dtype=np.int32),
            regions=np.empty(0, dtype=np.int64),
        )
        self._waiting: list[_Rings] = []
        self._class_ids = np.empty(0, dtype=np.int64)
        self._measures = np.empty((0, measures), dtype=np.int64)

    def add(self, pieces: Pieces) -> LatticePolygons:
        """Join the next band.

        Args:
            pieces: the band's pieces; the ports of its upper cut are those of the lower cut of
                the previous band.

        Returns:
            The polygons completed by this band.
        """
        regions = self._join_regions(pieces)
        rings = [self._close_chains(pieces, regions), self._closed_pieces(pieces, regions)]
        is_open = np.zeros(len(self._class_ids), dtype=bool)
        is_open[self._open.regions] = True
        self._waiting += [ring_set for ring_set in rings if len(ring_set.paths)]
        finished = self._take_rings(is_open)
        polygons = _polygons(finished, self._class_ids, self._measures)
        self._forget(is_open)
        return polygons

    def _join_regions(self, pieces: Pieces) -> NDArray[np.int64]:
        """Renumber the regions, merging those that the new pieces connect.

        Returns:
            (pieces,) the region of each piece.
        """
        known = len(self._class_ids)
        chain_at = _inverse(self._open.to_port)
        comes_in = np.flatnonzero(pieces.from_above != NO_PORT)
        goes_out = np.flatnonzero(pieces.to_above != NO_PORT)
        chain_from = _inverse(self._open.from_port)
        first: list[NDArray[Any]] = [
            self._open.regions[chain_at[pieces.from_above[comes_in]]],
            self._open.regions[chain_from[pieces.to_above[goes_out]]],
            known + pieces.links[:, 0],
        ]
        second: list[NDArray[Any]] = [
            known + comes_in,
            known + goes_out,
            known + pieces.links[:, 1],
        ]
        roots = connected_sets(known + len(pieces), np.concatenate(first), np.concatenate(second))
        representatives, region_of = np.unique(roots, return_inverse=True)
        class_ids = np.concatenate([self._class_ids, pieces.class_ids])[representatives]
        measures = np.zeros((len(representatives), self._measures.shape[1]), dtype=np.int64)
        np.add.at(measures, region_of, np.concatenate([self._measures, pieces.measures]))
        self._renumber(region_of[:known])
        self._class_ids, self._measures = class_ids, measures
        return region_of[known:]

    def _renumber(self, region_of: NDArray[np.int64]) -> None:
        """Apply the new region numbers to everything that is kept."""
        self._open = _OpenChains(
            paths=self._open.paths,
            from_port=self._open.from_port,
            to_port=self._open.to_port,
            regions=region_of[self._open.regions],
        )
        self._waiting = [
            _Rings(paths=rings.paths, regions=region_of[rings.regions]) for rings in self._waiting
        ]

    def _close_chains(self, pieces: Pieces, regions: NDArray[np.int64]) -> _Rings:
        """Extend the open chains by the new pieces, and take out those that became rings."""
        fresh = np.flatnonzero(~pieces.closed)
        items = concatenate([self._open.paths, pieces.paths.take(fresh)])
        item_regions = np.concatenate([self._open.regions, regions[fresh]])
        chains = follow(self._successors(pieces, fresh))
        points = items.take(chains.order)
        joined = Paths(
            cols=points.cols,
            rows=points.rows,
            flags=points.flags,
            offsets=points.offsets[chains.offsets],
        )
        heads, tails = chains.order[chains.offsets[:-1]], chains.order[chains.offsets[1:] - 1]
        known = len(self._open.regions)
        from_below, to_below = pieces.from_below[fresh], pieces.to_below[fresh]
        still_open, rings = np.flatnonzero(~chains.closed), np.flatnonzero(chains.closed)
        self._open = _OpenChains(
            paths=joined.take(still_open),
            from_port=from_below[heads[still_open] - known],
            to_port=to_below[tails[still_open] - known],
            regions=item_regions[heads[still_open]],
        )
        return self._whole_rings(joined.take(rings), item_regions[heads[rings]])

    def _successors(self, pieces: Pieces, fresh: NDArray[np.int64]) -> NDArray[np.int32]:
        """The successor of each open chain, then of each new open piece, among both."""
        known = len(self._open.regions)
        successor = np.full(known + len(fresh), END, dtype=np.int32)
        from_above, to_above = pieces.from_above[fresh], pieces.to_above[fresh]
        comes_in, goes_out = np.flatnonzero(from_above != NO_PORT), to_above != NO_PORT
        successor[_inverse(self._open.to_port)[from_above[comes_in]]] = known + comes_in
        successor[known:][goes_out] = _inverse(self._open.from_port)[to_above[goes_out]]
        return successor

    def _take_rings(self, is_open: NDArray[np.bool_]) -> _Rings:
        """Take out the waiting rings of finished regions."""
        finished: list[_Rings] = []
        waiting: list[_Rings] = []
        for rings in self._waiting:
            waits = is_open[rings.regions]
            if waits.all():
                waiting.append(rings)
                continue
            finished.append(rings.take(np.flatnonzero(~waits)))
            if waits.any():
                waiting.append(rings.take(np.flatnonzero(waits)))
        self._waiting = waiting
        return _Rings(
            paths=concatenate([rings.paths for rings in finished] or [no_paths()]),
            regions=np.concatenate(
                [rings.regions for rings in finished] or [np.empty(0, dtype=np.int64)]
            ),
        )

    def _closed_pieces(self, pieces: Pieces, regions: NDArray[np.int64]) -> _Rings:
        closed = np.flatnonzero(pieces.closed)
        return self._whole_rings(pieces.paths.take(closed), regions[closed])

    def _whole_rings(self, paths: Paths, regions: NDArray[np.int64]) -> _Rings:
        """Rings in their canonical form, independent of the cuts."""
        if not len(paths):
            return _Rings(paths=paths, regions=regions)
        straight = straighten_cut_points(paths, self._tolerance)
        whole, parents = split_at_self_touches(straight)
        return _Rings(paths=start_at_first(whole), regions=regions[parents])

    def _forget(self, is_open: NDArray[np.bool_]) -> None:
        """Drop the classes and measures of finished regions."""
        self._class_ids, self._measures = self._class_ids[is_open], self._measures[is_open]
        self._renumber(np.cumsum(is_open) - 1)


def _polygons(
    rings: _Rings, class_ids: NDArray[np.int64], measures: NDArray[np.int64]
) -> LatticePolygons:
    """Sort finished regions by last row, then first pixel; in each the exterior comes first."""
    paths, starts = rings.paths, rings.paths.offsets[:-1]
    first_rows, first_cols = paths.rows[starts], paths.cols[starts]
    by_region = np.lexsort((first_cols, first_rows, are_holes(paths), rings.regions))
    is_first = np.diff(rings.regions[by_region], prepend=-1) != 0
    exteriors = by_region[is_first]
    last_rows = np.maximum.reduceat(paths.rows, starts) if len(paths) else paths.rows
    order = np.lexsort((first_cols[exteriors], first_rows[exteriors], last_rows[exteriors]))
    firsts = np.append(np.flatnonzero(is_first), len(by_region))
    counts = np.diff(firsts)[order]
    ordered = by_region[ragged_range(firsts[:-1][order], counts)]
    regions = rings.regions[exteriors[order]]
    return LatticePolygons(
        rings=paths.take(ordered),
        polygon_offsets=offsets_of(counts),
        class_ids=class_ids[regions],
        measures=measures[regions],
    )


def _inverse(ports: NDArray[np.int32]) -> NDArray[np.int64]:
    """The index of each port number in an array of them, (largest port + 1,)."""
    places = np.zeros(int(ports.max(initial=-1)) + 1, dtype=np.int64)
    places[ports] = np.arange(len(ports), dtype=np.int64)
    return places
