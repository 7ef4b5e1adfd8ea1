"""From a class raster to batches of polygons: options checked, then traced band by band."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geodinoseg.errors import GridError, LegendError
from geodinoseg.legend import Legend, LegendClass
from geodinoseg.polygons.bands import (
    OpenRasters,
    Outside,
    cut_bands,
    open_rasters,
    outside_of,
    read_rows,
    regroup_rows,
)
from geodinoseg.polygons.coverage.join import CoverageJoin, LatticePolygons
from geodinoseg.polygons.coverage.minimum_area import MinimumArea, SizeRule
from geodinoseg.polygons.coverage.simplify import Tolerance
from geodinoseg.polygons.coverage.tracer import trace_band
from geodinoseg.polygons.ground import area_weights, check_metres, outline_tolerance
from geodinoseg.polygons.settings import check_sizes
from geodinoseg.polygons.table import PolygonTable
from geodinoseg.progress import Progress
from geodinoseg.rasters.class_raster import ClassRaster

_CHUNK_PX = 2_000_000
"""Pixels traced at once: arrays of tens of megabytes, and few cuts."""
_SIMPLIFIED_BAND_PX = 4_000_000
"""Pixels of the bands within which boundaries are simplified; more would only take memory."""
_LOWEST_SIMPLIFIED_BAND = 64
"""Fewest rows of such a band, however wide the raster."""
_AREA_SLACK = 1 - 1e-9
"""A polygon of exactly the minimum area stays, although 25 / 0.1**2 is a little over 2500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonOptions:
    """Further options of `polygonize` and `write_polygons`."""

    classes: Sequence[int | str] | None = None
    """Class ids or names to make polygons of; None = all. A number may also be a class name."""
    keep_classes: Sequence[int | str] = ()
    """Class ids or names whose polygons stay, however small."""
    fill_holes_m2: float = 0.0
    """Holes of nodata below this area are filled as small polygons are merged."""
    simplify_m: float | None = None
    """The tolerance in metres; replaces simplify_px."""
    dissolve: bool = False
    """One multipolygon per class, ordered by class id; all are held in memory."""
    chunk_rows: int | None = None
    """Rows traced at once; None = about 2 million pixels. The result does not depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonStream:
    """A raster and how its polygons are made, checked and in pixels."""

    raster: ClassRaster
    table: PolygonTable
    outside: Outside
    size_rule: SizeRule | None
    """None = every region stays."""
    left_out: NDArray[np.int64] | None
    """Class ids without polygons; None = no class is left out."""
    simplify_px: float
    """Tolerance in pixels; 0 = not simplified, or simplified by simplify_m."""
    simplify_m: float
    """Tolerance in metres; 0 = not simplified, or simplified by simplify_px."""
    dissolve: bool
    chunk_rows: int

    @classmethod
    def of(
        cls,
        raster: ClassRaster,
        *,
        in_lonlat: bool = False,
        min_area_m2: float,
        simplify_px: float,
        options: PolygonOptions,
    ) -> PolygonStream:
        """Check the options of `polygonize`; `in_lonlat` is as in `PolygonTable`."""
        check_sizes(min_area_m2=min_area_m2, simplify_px=simplify_px)
        check_sizes(fill_holes_m2=options.fill_holes_m2, simplify_m=options.simplify_m)
        check_metres(
            raster.path,
            raster.geobox,
            min_area_m2=min_area_m2,
            fill_holes_m2=options.fill_holes_m2,
            simplify_m=options.simplify_m,
        )
        if options.chunk_rows is not None and options.chunk_rows < 1:
            raise GridError(f"chunk_rows is {options.chunk_rows}: give 1 or more, or None.")
        weights = area_weights(raster.geobox)
        outside = outside_of(raster)
        rule = SizeRule(
            least_weight=min_area_m2 / weights.unit_m2 * _AREA_SLACK,
            least_gap_weight=options.fill_holes_m2 / weights.unit_m2 * _AREA_SLACK,
            kept_classes=_class_ids(raster, options.keep_classes),
            outside=outside.value,
        )
        return cls(
            raster=raster,
            table=PolygonTable(raster=raster, weights=weights, in_lonlat=in_lonlat),
            outside=outside,
            size_rule=rule if min_area_m2 or options.fill_holes_m2 else None,
            left_out=_left_out(raster, options.classes),
            simplify_px=0.0 if options.simplify_m else simplify_px,
            simplify_m=options.simplify_m or 0.0,
            dissolve=options.dissolve,
            chunk_rows=options.chunk_rows or max(1, _CHUNK_PX // raster.width),
        )

    def batches(self, progress: Progress) -> Generator[pa.RecordBatch, None, None]:
        """The polygons in the order in which they are completed: a batch per band, or one in all.

        Close the generator in the thread that runs it, as the rasters are open meanwhile.
        """
        with open_rasters(self.raster) as rasters:
            finished = self._polygons(rasters, progress)
            if self.dissolve:
                yield self.table.dissolved(finished)
            else:
                yield from (self.table.batch(polygons) for polygons in finished)

    def _polygons(self, rasters: OpenRasters, progress: Progress) -> Iterator[LatticePolygons]:
        join = CoverageJoin(
            measures=self.table.measures, tolerance=self._tolerance(0, self.raster.height)
        )
        found = 0
        bands = cut_bands(
            self.raster,
            self._chunks(rasters),
            outside=self.outside,
            weights=self.table.weights,
            confidence=rasters.confidence,
        )
        for band in bands:
            tolerance = self._tolerance(band.row_off, band.row_end)
            wanted = replace(band, left_out=self.left_out, tolerance=tolerance)
            polygons = join.add(trace_band(wanted))
            found += len(polygons)
            progress(band.row_end / self.raster.height, f"{found:,} polygons")
            if len(polygons):
                yield polygons

    def _tolerance(self, first_row: int, end: int) -> Tolerance | None:
        """Tolerance of the outlines in some rows; None = outlines are not simplified."""
        if self.simplify_m:
            return outline_tolerance(
                self.raster.geobox, self.simplify_m, first_row=first_row, end=end
            )
        return Tolerance(distance=self.simplify_px) if self.simplify_px else None

    def _chunks(self, rasters: OpenRasters) -> Iterator[NDArray[Any]]:
        """The rows that are traced at once, without small regions."""
        height, chunk_rows = self.raster.height, self.chunk_rows
        rows = read_rows(self.raster, rasters.classes, chunk_rows=chunk_rows)
        if self.size_rule is not None:
            above = self.table.weights.above
            rows = MinimumArea(self.size_rule, height=height, weights_above=above).run(rows)
        if self.simplify_px or self.simplify_m:
            # Cuts are fixed points of a simplified boundary, so they must not depend on chunk_rows.
            chunk_rows = max(_LOWEST_SIMPLIFIED_BAND, _SIMPLIFIED_BAND_PX // self.raster.width)
        return regroup_rows(rows, chunk_rows=chunk_rows, height=height)


def _class_ids(raster: ClassRaster, classes: Sequence[int | str]) -> NDArray[np.int64]:
    """Ids of classes given by id or by name."""
    known: dict[int | str, LegendClass] = {}
    for entry in raster.legend:
        known |= {entry.class_id: entry, entry.name: entry}
    found = [known.get(wanted) or known.get(str(wanted)) for wanted in classes]
    if None in found:
        raise LegendError(
            f"{raster.path}: has no class {classes[found.index(None)]!r}; it has "
            f"{_listed(raster.legend)}."
        )
    return np.array([entry.class_id for entry in found if entry], dtype=np.int64)


def _left_out(raster: ClassRaster, classes: Sequence[int | str] | None) -> NDArray[np.int64] | None:
    """Ids of the other classes of the legend; ids that it lacks stay, so that they are reported."""
    if classes is None:
        return None
    return np.setdiff1d(raster.legend.class_ids, _class_ids(raster, classes))


def _listed(legend: Legend) -> str:
    shown = ", ".join(f"{entry.class_id} ({entry.name})" for entry in legend.classes[:12])
    return shown if len(legend) <= 12 else f"{shown}, ..."
