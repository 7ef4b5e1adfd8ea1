"""A class raster at reduced size, and the exact fraction of each class, from one pass over it.

Overviews are not read: another program may have made them by averaging, which invents classes, or
they may belong to an older raster of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.progress import Progress, no_progress
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.rasters.class_reader import block_windows

_READ_BYTES = 4 << 20


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SmallMap:
    """A class raster with larger pixels."""

    class_ids: NDArray[Any]
    """(height, width) class id at the centre of each larger pixel, in the raster's dtype."""
    fractions: dict[int, float]
    """Fraction of the classified area, 0 to 1, of each class of the legend, by class id."""


def read_small_map(
    raster: ClassRaster, small: GeoBox, *, progress: Progress = no_progress
) -> SmallMap:
    """Read a class raster once, in windows of its blocks.

    Args:
        raster: the class raster.
        small: grid of larger pixels over the same area.
        progress: called with the fraction of the raster read.

    Raises:
        SceneError: it cannot be read, or contains a value that is not in its legend.
    """
    rows = _centers(raster.height, small.height)
    cols = _centers(raster.width, small.width)
    class_ids = np.empty((small.height, small.width), dtype=raster.dtype)
    row_areas = raster.geobox.row_areas_m2
    areas = np.zeros(int(raster.legend.class_ids.max()) + 1, dtype=np.float64)
    windows = list(block_windows(raster.geobox, raster.block_shape, raster.dtype, _READ_BYTES))
    with raster.reader() as reader:
        for done, window in enumerate(windows, start=1):
            pixels = reader.read(window)
            _add_areas(areas, pixels, raster.nodata, row_areas[window.row_off : window.row_end])
            down, across = (
                _inside(rows, window.row_off, window.row_end),
                _inside(cols, window.col_off, window.col_end),
            )
            class_ids[down, across] = pixels[
                np.ix_(rows[down] - window.row_off, cols[across] - window.col_off)
            ]
            progress(done / len(windows), "counting pixels")
    total = float(areas.sum())
    shares = areas / total if total else areas
    return SmallMap(
        class_ids=class_ids,
        fractions={class_id: float(shares[class_id]) for class_id in raster.legend.by_id()},
    )


def _centers(length: int, small_length: int) -> NDArray[np.int64]:
    """Indexes, along an axis, of the pixels at the centres of the larger pixels; ascending."""
    middles = (np.arange(small_length, dtype=np.float64) + 0.5) * (length / small_length)
    return np.floor(middles).astype(np.int64).clip(max=length - 1)


def _inside(pixels: NDArray[np.int64], start: int, end: int) -> slice:
    """The slice of ascending pixel indexes that are in an interval."""
    first, last = np.searchsorted(pixels, [start, end])
    return slice(int(first), int(last))


def _add_areas(
    areas: NDArray[np.float64],
    pixels: NDArray[Any],
    nodata: int | None,
    row_areas: NDArray[np.float64],
) -> None:
    """Add to `areas` the area of each class in some rows."""
    if (row_areas == row_areas[0]).all():
        known = pixels.ravel() if nodata is None else pixels[pixels != nodata]
        counts = np.bincount(known.astype(np.intp), minlength=len(areas))
        areas += counts * float(row_areas[0])
        return
    weights = np.broadcast_to(row_areas[:, None], pixels.shape)
    is_known = np.ones(pixels.shape, dtype=np.bool_) if nodata is None else pixels != nodata
    areas += np.bincount(
        pixels[is_known].astype(np.intp), weights=weights[is_known], minlength=len(areas)
    )
