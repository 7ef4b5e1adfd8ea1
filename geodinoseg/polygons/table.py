"""Traced polygons as tables with attributes, in map coordinates, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.geobox import GeoBox
from geodinoseg.polygons.coverage.chains import offsets_of, ragged_range
from geodinoseg.polygons.coverage.join import LatticePolygons
from geodinoseg.polygons.coverage.paths import segment_ends
from geodinoseg.polygons.ground import AreaWeights, metres_fault, segment_lengths_m
from geodinoseg.polygons.lonlat import LonLatEncoder
from geodinoseg.polygons.wkb import (
    Multipart,
    RaggedPolygons,
    encode_multipolygons,
    encode_polygons,
)
from geodinoseg.rasters.class_raster import ClassRaster

GEOMETRY = "geometry"
"""Name of the geometry column."""


def polygon_schema(*, has_confidence: bool, has_metres: bool = True) -> pa.Schema:
    """Columns of a batch: the attributes, then the geometry as WKB."""
    fields = [pa.field("class_id", pa.int32()), pa.field("class_name", pa.string())]
    if has_metres:
        fields += [pa.field("area_m2", pa.float64()), pa.field("perim_m", pa.float64())]
    if has_confidence:
        fields.append(pa.field("conf_mean", pa.float64()))
    # The name by which GDAL and GeoPandas know WKB in an Arrow stream.
    wkb = {"ARROW:extension:name": "geoarrow.wkb"}
    return pa.schema([*fields, pa.field(GEOMETRY, pa.large_binary(), metadata=wkb)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonTable:
    """Converts traced polygons of one raster into record batches."""

    raster: ClassRaster
    """The raster that was traced."""
    weights: AreaWeights
    """The pixel areas used in tracing."""
    in_lonlat: bool = False
    """Whether coordinates are longitude and latitude, as in GeoJSON, not those of the raster."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the batches."""
        return polygon_schema(
            has_confidence=self.raster.confidence_path is not None, has_metres=self.has_metres
        )

    @property
    def has_metres(self) -> bool:
        """Whether lengths on the ground are known; if not, areas and perimeters are omitted."""
        return not metres_fault(self.raster.geobox)

    @property
    def measures(self) -> int:
        """Number of measures to trace: area, and with a confidence raster its sum and count."""
        return 1 if self.raster.confidence_path is None else 3

    def batch(self, polygons: LatticePolygons) -> pa.RecordBatch:
        """One row per polygon, in the same order."""
        geobox = self.raster.geobox
        return self._rows(
            polygons.class_ids,
            polygons.measures,
            _perimeters_m(polygons, geobox),
            self._encoded(polygons).geometries,
        )

    def dissolved(self, finished: Iterable[LatticePolygons]) -> pa.RecordBatch:
        """One multipolygon per class, by ascending class id."""
        geobox = self.raster.geobox
        many = [
            (one.class_ids, one.measures, _perimeters_m(one, geobox), self._encoded(one))
            for one in finished
        ]
        if not many:
            return pa.RecordBatch.from_pylist([], schema=self.schema)
        columns = list(zip(*many, strict=True))
        geometries = columns[3]
        class_ids = np.concatenate(columns[0])
        order = np.argsort(class_ids, kind="stable")
        present, starts = np.unique(class_ids[order], return_index=True)
        return self._rows(
            present,
            np.add.reduceat(np.concatenate(columns[1])[order], starts),
            np.add.reduceat(np.concatenate(columns[2])[order], starts),
            _collected(geometries, order, starts),
        )

    def _rows(
        self,
        class_ids: NDArray[np.int64],
        measures: NDArray[np.int64],
        perimeters_m: NDArray[np.float64],
        geometries: pa.Array,
    ) -> pa.RecordBatch:
        columns = [
            pa.array(class_ids.astype(np.int32)),
            self._names(class_ids),
        ]
        if self.has_metres:
            areas_m2 = measures[:, 0] * self.weights.unit_m2
            columns += [pa.array(areas_m2), pa.array(perimeters_m)]
        if self.raster.confidence_path is not None:
            columns.append(_mean(measures[:, 1], measures[:, 2]))
        return pa.record_batch([*columns, geometries], schema=self.schema)

    def _encoded(self, polygons: LatticePolygons) -> Multipart:
        geobox = self.raster.geobox
        in_map = _in_map_coordinates(polygons, geobox)
        if self.in_lonlat:
            return LonLatEncoder(path=self.raster.path, geobox=geobox).encode(in_map)
        ones = np.ones(len(polygons), dtype=np.int64)
        return Multipart(parts=encode_polygons(in_map), counts=ones)

    def _names(self, class_ids: NDArray[np.int64]) -> pa.Array:
        legend = self.raster.legend
        order = np.argsort(legend.class_ids)
        known = legend.class_ids[order]
        positions = np.searchsorted(known, class_ids).clip(max=len(known) - 1)
        lacking = known[positions] != class_ids
        if lacking.any():
            raise SceneError(
                f"{self.raster.path}: has pixels of value {class_ids[lacking][0]}, which is not a "
                f"class of its legend ({_listed(known)}); set them to the nodata value, or give "
                f"the raster a legend with this class."
            )
        return pa.array(np.array(legend.names, dtype=object)[order]).take(pa.array(positions))


def _in_map_coordinates(polygons: LatticePolygons, geobox: GeoBox) -> RaggedPolygons:
    """The polygons in coordinates of the CRS, exteriors counter-clockwise as seen on a map."""
    rings = polygons.rings
    cols, rows = rings.cols, rings.rows
    if geobox.transform.determinant > 0:  # south-up: the rings run the other way
        lengths = rings.lengths
        backwards = np.repeat(rings.offsets[:-1] + rings.offsets[1:] - 1, lengths)
        backwards -= ragged_range(rings.offsets[:-1], lengths)
        cols, rows = cols[backwards], rows[backwards]
    xs, ys = geobox.transform @ (cols.astype(np.float64), rows.astype(np.float64))
    return RaggedPolygons(
        xs=xs, ys=ys, ring_offsets=rings.offsets, polygon_offsets=polygons.polygon_offsets
    )


def _collected(
    polygons: Sequence[Multipart], order: NDArray[np.int64], starts: NDArray[np.int64]
) -> pa.Array:
    """Multipolygons of the polygons in a given order; each begins at one of `starts`."""
    parts = pa.concat_arrays([some.parts for some in polygons])
    counts = np.concatenate([some.counts for some in polygons])
    places = ragged_range(offsets_of(counts)[:-1][order], counts[order])
    return encode_multipolygons(
        parts.take(pa.array(places)), np.add.reduceat(counts[order], starts)
    )


def _perimeters_m(polygons: LatticePolygons, geobox: GeoBox) -> NDArray[np.float64]:
    """Length of all rings of each polygon, holes included."""
    rings = polygons.rings
    lengths = segment_lengths_m(geobox, rings.cols, rings.rows, segment_ends(rings.offsets))
    if not len(polygons):
        return lengths
    return np.add.reduceat(lengths, rings.offsets[polygons.polygon_offsets[:-1]])


def _mean(sums: NDArray[np.int64], counts: NDArray[np.int64]) -> pa.Array:
    """Null where the count is 0."""
    means = sums / np.maximum(counts, 1)
    return pa.array(means, mask=counts == 0)


def _listed(class_ids: NDArray[np.int64]) -> str:
    shown = ", ".join(str(class_id) for class_id in class_ids[:8])
    return shown if len(class_ids) <= 8 else f"{shown}, ..."
