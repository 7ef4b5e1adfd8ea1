"""Encodes many polygons at once as well-known binary (WKB), from coordinate arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.chains import offsets_of

_LITTLE_ENDIAN = 1
_POLYGON, _MULTIPOLYGON = 3, 6
_HEADER_BYTES = 9
"""Byte order, type and number of parts."""
_POINT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedPolygons:
    """Polygons in coordinates of a CRS; rings do not repeat their first point."""

    xs: NDArray[np.float64]
    """(points,) eastings or longitudes."""
    ys: NDArray[np.float64]
    """(points,) northings or latitudes."""
    ring_offsets: NDArray[np.int64]
    """(rings + 1,): ring i has the points ring_offsets[i] to ring_offsets[i + 1]."""
    polygon_offsets: NDArray[np.int64]
    """(polygons + 1,): polygon i has the rings polygon_offsets[i] to polygon_offsets[i + 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipart:
    """Encoded polygons, each with one part or more."""

    parts: pa.Array
    """(parts,) parts as WKB polygons, in the order of the polygons."""
    counts: NDArray[np.int64]
    """(polygons,) number of parts of each polygon."""

    @property
    def geometries(self) -> pa.Array:
        """(polygons,) WKB, a polygon if it has one part, else a multipolygon."""
        is_single = self.counts == 1
        if is_single.all():
            return self.parts
        of_single = np.repeat(is_single, self.counts)
        several = encode_multipolygons(
            self.parts.filter(pa.array(~of_single)), self.counts[~is_single]
        )
        joined = pa.concat_arrays([self.parts.filter(pa.array(of_single)), several])
        order = np.empty(len(self.counts), dtype=np.int64)
        order[np.concatenate([np.flatnonzero(is_single), np.flatnonzero(~is_single)])] = np.arange(
            len(self.counts), dtype=np.int64
        )
        return joined.take(pa.array(order))


def encode_polygons(polygons: RaggedPolygons) -> pa.Array:
    """Polygons as WKB, (polygons,) large_binary; each ring is closed with its first point."""
    points = np.diff(polygons.ring_offsets) + 1
    rings = np.diff(polygons.polygon_offsets)
    ring_bytes = 4 + _POINT_BYTES * points
    ring_ends = offsets_of(ring_bytes)
    polygon_bytes = np.diff(ring_ends[polygons.polygon_offsets]) + _HEADER_BYTES
    offsets = offsets_of(polygon_bytes)
    data = np.empty(offsets[-1], dtype=np.uint8)
    _write_headers(data, offsets[:-1], _POLYGON, rings)
    shift = np.repeat(_HEADER_BYTES * np.arange(1, len(rings) + 1, dtype=np.int64), rings)
    ring_starts = ring_ends[:-1] + shift
    _at_any_byte(data, np.uint32)[ring_starts] = points
    _write_points(data, ring_starts + 4, polygons)
    return _binary_array(data, offsets)


def encode_multipolygons(polygons: pa.Array, counts: NDArray[np.integer[Any]]) -> pa.Array:
    """Collect polygons into multipolygons, as WKB, (multipolygons,) large_binary.

    Args:
        polygons: WKB, those of the first multipolygon first.
        counts: (multipolygons,) number of polygons of each.
    """
    offsets, source = _offsets_and_data(polygons)
    bounds = offsets[offsets_of(counts)]
    lengths = np.diff(bounds) + _HEADER_BYTES
    starts = offsets_of(lengths)
    data = np.empty(starts[-1], dtype=np.uint8)
    _write_headers(data, starts[:-1], _MULTIPOLYGON, counts)
    for end, first, last in zip(starts[1:], bounds[:-1], bounds[1:], strict=True):
        data[end - (last - first) : end] = source[first:last]
    return _binary_array(data, starts)


def _write_headers(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    geometry_type: int,
    parts: NDArray[np.integer[Any]],
) -> None:
    words = _at_any_byte(data, np.uint32)
    data[starts] = _LITTLE_ENDIAN
    words[starts + 1] = geometry_type
    words[starts + 5] = parts


def _write_points(
    data: NDArray[np.uint8], ring_starts: NDArray[np.int64], polygons: RaggedPolygons
) -> None:
    """Write the points of the rings, closing each ring with its first point."""
    lengths = np.diff(polygons.ring_offsets)
    # A point is two adjacent doubles: one complex number.
    points = np.empty(len(polygons.xs), dtype="<c16")
    points.real, points.imag = polygons.xs, polygons.ys
    view = _at_any_byte(data, points.dtype)
    index = np.arange(len(points), dtype=np.int64)
    shift = ring_starts - _POINT_BYTES * polygons.ring_offsets[:-1]
    view[_POINT_BYTES * index + np.repeat(shift, lengths)] = points
    closing = ring_starts + _POINT_BYTES * lengths
    view[closing] = points[polygons.ring_offsets[:-1]]


def _at_any_byte(data: NDArray[np.uint8], dtype: Any) -> NDArray[Any]:
    """A view whose element i is the value that begins at byte i, as WKB is not aligned."""
    kind = np.dtype(dtype).newbyteorder("<")
    count = max(len(data) - kind.itemsize + 1, 0)
    return np.ndarray((count,), dtype=kind, buffer=data, strides=(1,))


def _binary_array(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _offsets_and_data(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)
    bounds = bounds[array.offset : array.offset + len(array) + 1]
    empty = np.empty(0, dtype=np.uint8)
    return bounds, empty if data is None else np.frombuffer(data, dtype=np.uint8)
