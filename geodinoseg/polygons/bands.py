"""A class raster as input of the tracer: bands of whole rows, each with the row above it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.polygons.coverage.tracer import Band
from geodinoseg.polygons.ground import AreaWeights
from geodinoseg.rasters.class_raster import ClassRaster, confidence_reader
from geodinoseg.rasters.class_reader import ClassReader
from geodinoseg.rasters.dataset import RasterReader
from geodinoseg.windows import Window, windows_over

_CONFIDENCE_NODATA = 255
_KEPT_BLOCK_ROWS = 1.25
_SMALLEST_CACHE_BYTES, _LARGEST_CACHE_BYTES = 8 << 20, 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The value of pixels of no region, and a dtype that holds it and every class id."""

    value: int
    """The raster's nodata, or a value that no pixel has."""
    dtype: np.dtype[Any]
    """The raster's, or a wider one."""


def outside_of(raster: ClassRaster) -> Outside:
    """Nodata if there is one, else one below the minimum of the raster's dtype."""
    if raster.nodata is not None:
        return Outside(value=raster.nodata, dtype=raster.dtype)
    if raster.dtype.itemsize == 8:
        # There is no wider integer; an id this large is not a class anyway.
        return Outside(value=int(np.iinfo(raster.dtype).max), dtype=raster.dtype)
    value = int(np.iinfo(raster.dtype).min) - 1
    return Outside(value=value, dtype=np.promote_types(raster.dtype, np.min_scalar_type(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRasters:
    """An open class raster and its confidence, for use in the thread that opened them."""

    classes: ClassReader
    """The class ids."""
    confidence: RasterReader | None
    """Confidence, percent; None if the class raster has no usable confidence raster."""


@contextmanager
def open_rasters(raster: ClassRaster) -> Iterator[OpenRasters]:
    """Open a class raster and its confidence for one pass from top to bottom."""
    with ExitStack() as stack:
        classes = stack.enter_context(raster.reader())
        confidence = stack.enter_context(confidence_reader(raster))
        stack.enter_context(raster.source.settings(cache_bytes=_cache_bytes(raster)))
        yield OpenRasters(classes=classes, confidence=confidence)


def _cache_bytes(raster: ClassRaster) -> int:
    """The size of the block row in which one chunk ends and the next begins.

    With less, blocks would be decoded twice; with more, the cache would hold blocks of no use.
    """
    block_row_bytes = raster.block_shape[0] * raster.width * raster.dtype.itemsize
    if raster.confidence_path is not None:
        block_row_bytes *= 2
    kept_bytes = round(_KEPT_BLOCK_ROWS * block_row_bytes)
    return min(max(kept_bytes, _SMALLEST_CACHE_BYTES), _LARGEST_CACHE_BYTES)


def read_rows(
    raster: ClassRaster, reader: ClassReader, *, chunk_rows: int
) -> Iterator[NDArray[Any]]:
    """The class ids from top to bottom, (chunk_rows, width) each, in the raster's dtype."""
    for window in windows_over(
        height=raster.height, width=raster.width, rows=chunk_rows, cols=raster.width
    ):
        yield reader.read(window)


def regroup_rows(
    rows: Iterator[NDArray[Any]], *, chunk_rows: int, height: int
) -> Iterator[NDArray[Any]]:
    """The same rows in chunks of chunk_rows; the last chunk may be smaller."""
    held: list[NDArray[Any]] = []
    held_rows = passed = 0
    for some in rows:
        held.append(some)
        held_rows += len(some)
        while held_rows >= chunk_rows or (held_rows and passed + held_rows == height):
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            chunk, rest = joined[:chunk_rows], joined[chunk_rows:]
            yield chunk
            passed += len(chunk)
            held, held_rows = ([rest] if len(rest) else []), len(rest)


def cut_bands(
    raster: ClassRaster,
    chunks: Iterator[NDArray[Any]],
    *,
    outside: Outside,
    weights: AreaWeights,
    confidence: RasterReader | None,
) -> Iterator[Band]:
    """Bands for the tracer from chunks of rows, (rows, width) each, top to bottom."""
    above = np.full(raster.width + 2, outside.value, dtype=outside.dtype)
    row = 0
    for chunk in chunks:
        end = row + len(chunk)
        cells = _with_surroundings(chunk, above, outside, is_last=end == raster.height)
        window = Window(col_off=0, row_off=row, width=raster.width, height=len(chunk))
        yield Band(
            cells=cells,
            row_off=row,
            outside=outside.value,
            weights_above=weights.above[row : end + 1],
            integrals=() if confidence is None else _integrals(confidence.read(window)),
        )
        above = cells[len(chunk)].copy()
        row = end


def _with_surroundings(
    chunk: NDArray[Any], above: NDArray[Any], outside: Outside, *, is_last: bool
) -> NDArray[Any]:
    rows, width = chunk.shape
    cells = np.empty((1 + rows + is_last, width + 2), dtype=outside.dtype)
    cells[0] = above
    cells[1 : rows + 1, 1:-1] = chunk
    cells[1:, [0, -1]] = outside.value
    cells[1 + rows :] = outside.value
    return cells


def _integrals(percent: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Integral images of the confidence, and of the number of pixels that have one."""
    has_value = percent != _CONFIDENCE_NODATA
    return _integral(np.where(has_value, percent, 0)), _integral(has_value)


def _integral(values: NDArray[Any]) -> NDArray[np.int64]:
    """(rows, width) -> (rows + 1, width + 1): sums above and left of each lattice point."""
    rows, width = values.shape
    integral = np.zeros((rows + 1, width + 1), dtype=np.int64)
    np.cumsum(values, axis=1, dtype=np.int64, out=integral[1:, 1:])
    np.cumsum(integral[1:], axis=0, out=integral[1:])
    return integral
