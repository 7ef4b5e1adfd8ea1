"""The classes of a map as strata: how large they are, and pixels drawn from them at random.

Pixels are numbered by squares of the raster, and row by row within a square, so that what is drawn
depends on the seed alone and a square is all that is held.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.compare import ChannelTable, check_class_count
from geodinoseg.labels.classes import IGNORE
from geodinoseg.polygons.ground import area_weights
from geodinoseg.progress import Progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.dataset import RasterReader
from geodinoseg.windows import Window, windows_over

SQUARE_PX = 512
"""Side of a square: a block of a map of ours."""
_SQUARES_AT_ONCE = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class Strata:
    """How much of each class each square of a map holds. Made by `count_strata`."""

    raster: ClassRaster
    """The map."""
    pixels: NDArray[np.int64]
    """(classes,) pixels of each class of the legend."""
    square_weights: NDArray[np.int64]
    """(squares, classes) area in units of `unit_m2`; one unit a pixel where all have one size."""
    unit_m2: float
    """Square metres in a unit of area."""

    @cached_property
    def areas_m2(self) -> NDArray[np.float64]:
        """(classes,) square metres; in a projected CRS those of the map's plane."""
        return np.asarray(self.square_weights.sum(axis=0) * self.unit_m2, dtype=np.float64)

    @property
    def is_equal_area(self) -> bool:
        """Whether every pixel has the same area."""
        return bool((self.square_weights.sum(axis=0) == self.pixels).all())


def count_strata(
    raster: ClassRaster, *, progress: Progress, squares_at_once: int = _SQUARES_AT_ONCE
) -> Strata:
    """Read a map through and count.

    Args:
        raster: the map.
        progress: told the share of the map read.
        squares_at_once: side by side, in one read.

    Raises:
        SceneError: the map cannot be read.
    """
    classes, table = len(raster.legend), ChannelTable(raster)
    weights = area_weights(raster.geobox)
    row_weights = np.diff(weights.above)
    across = -(-raster.width // SQUARE_PX)
    pixels = np.zeros(classes, dtype=np.int64)
    squares = np.zeros((-(-raster.height // SQUARE_PX) * across, classes), dtype=np.int64)
    size = {"height": raster.height, "width": raster.width}
    reads = list(windows_over(**size, rows=SQUARE_PX, cols=SQUARE_PX * squares_at_once))
    with raster.reader() as reader:
        for done, read in enumerate(reads, start=1):
            channels = table.of(reader.read(read))
            # Pixels past a pole have no area, so none of them is ever drawn.
            channels[row_weights[read.row_off : read.row_end] == 0] = IGNORE
            first = read.row_off // SQUARE_PX * across + read.col_off // SQUARE_PX
            for position, col in enumerate(range(0, read.width, SQUARE_PX)):
                counts = _counts_by_row(channels[:, col : col + SQUARE_PX], classes)
                pixels += counts.sum(axis=0)
                squares[first + position] = row_weights[read.row_off : read.row_end] @ counts
            progress(done / len(reads), "counting pixels")
    return Strata(raster=raster, pixels=pixels, square_weights=squares, unit_m2=weights.unit_m2)


def draw_pixels(
    strata: Strata, points: NDArray[np.int64], *, seed: int, progress: Progress
) -> list[NDArray[np.int64]]:
    """Draw pixels of each class, each with a chance in proportion to its area.

    Where all pixels have one area this is a simple random sample without replacement. In degrees
    a pixel that is drawn twice is replaced by a further draw.

    Args:
        strata: the map.
        points: (classes,) how many, no more than there are pixels.
        seed: of the random numbers; a class has its own, by its id.
        progress: told the share of the classes done.

    Returns:
        For each class (points, 2) int64 rows and columns, in the order drawn.

    Raises:
        SceneError: the map cannot be read.
    """
    drawn = []
    with strata.raster.reader() as reader:
        finder = _PixelFinder(strata, reader)
        for channel, class_id in enumerate(strata.raster.legend.class_ids.tolist()):
            generator = np.random.default_rng([seed, class_id])
            drawn.append(_drawn(finder, channel, int(points[channel]), generator))
            progress((channel + 1) / len(points), "drawing points")
    return drawn


def _drawn(
    finder: _PixelFinder, channel: int, wanted: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    total = int(finder.strata.square_weights[:, channel].sum())
    if finder.strata.is_equal_area:
        if not wanted:
            return np.empty((0, 2), dtype=np.int64)
        return finder.pixels_at(channel, generator.choice(total, size=wanted, replace=False))
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < wanted:
        places = generator.integers(total, size=wanted - len(found))
        found = np.concatenate([found, finder.pixels_at(channel, places)])
        found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
    return found


class _PixelFinder:
    """Finds the pixel at a place along all the area of its class."""

    def __init__(self, strata: Strata, reader: RasterReader) -> None:
        self.strata = strata
        self._reader = reader
        self._table = ChannelTable(strata.raster)
        self._row_weights = np.diff(area_weights(strata.raster.geobox).above)

    def pixels_at(self, channel: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows and columns (places, 2) of places, each below the area of the class in units."""
        ends = np.cumsum(self.strata.square_weights[:, channel])
        squares = np.searchsorted(ends, places, side="right")
        pixels = np.empty((len(places), 2), dtype=np.int64)
        for square in np.unique(squares).tolist():
            here = np.flatnonzero(squares == square)
            start = int(ends[square - 1]) if square else 0
            pixels[here] = self._pixels_in(square, channel, places[here] - start)
        return pixels

    def _pixels_in(self, square: int, channel: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        window = _square_window(self.strata.raster, square)
        marked = self._table.of(self._reader.read(window)) == channel
        weights = self._row_weights[window.row_off : window.row_end]
        ends = np.cumsum(marked.sum(axis=1, dtype=np.int64) * weights)
        rows = np.searchsorted(ends, places, side="right")
        starts = np.where(rows > 0, ends[rows - 1], 0)
        along = (places - starts) // weights[rows]
        cols = [np.flatnonzero(marked[row])[nth] for row, nth in zip(rows, along, strict=True)]
        return np.column_stack([rows + window.row_off, np.array(cols) + window.col_off])


def read_pixels(raster: ClassRaster, pixels: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Channels (pixels,) of a few pixels, given as row and column; below 0 where there is none.

    Raises:
        SceneError: the map cannot be read.
    """
    table = ChannelTable(raster)
    channels = np.empty(len(pixels), dtype=np.int64)
    with raster.reader() as reader:
        for index in sorted(range(len(pixels)), key=lambda index: pixels[index]):
            row, col = pixels[index]
            window = Window(col_off=col, row_off=row, width=1, height=1)
            channels[index] = table.of(reader.read(window))[0, 0]
    return channels


def _counts_by_row(channels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(rows, classes) pixels of each class in each row."""
    rows, cols = np.nonzero(channels >= 0)
    flat = rows * classes + channels[rows, cols]
    return np.bincount(flat, minlength=len(channels) * classes).reshape(-1, classes)


def _square_window(raster: ClassRaster, square: int) -> Window:
    row, col = divmod(square, -(-raster.width // SQUARE_PX))
    row_off, col_off = row * SQUARE_PX, col * SQUARE_PX
    return Window(
        col_off=col_off,
        row_off=row_off,
        width=min(SQUARE_PX, raster.width - col_off),
        height=min(SQUARE_PX, raster.height - row_off),
    )


FilePath = str | os.PathLike[str]
_M2_IN_HA = 10_000
_STRETCH_WARNED = 0.01
_log = logging.getLogger(__name__)


def open_with_areas(class_raster: FilePath | ClassRaster) -> ClassRaster:
    """Open a map whose classes are to have areas; warns where those are not true.

    Raises:
        SceneError: it cannot be read, has no place, or more classes than can be told apart.
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    check_class_count(raster)
    if not raster.geobox.is_georeferenced:
        raise SceneError(
            f"{raster.path}: does not say where it lies, so points and areas of it cannot; give it "
            f"a georeference, for instance with gdal_translate -a_srs -a_ullr."
        )
    if raster.geobox.crs is None:
        _log.warning("%s: has no CRS; its coordinates are taken for metres.", raster.path)
    stretch = raster.geobox.areal_scale
    if abs(stretch - 1) > _STRETCH_WARNED:
        _log.warning(
            "%s: areas are in units of the map, %.2f times those on the ground; for true areas, "
            "warp the raster to an equal-area or local CRS first.",
            raster.path,
            stretch,
        )
    return raster


def hectares(areas_m2: Any) -> list[str]:
    """Areas for a person, hectares: four digits of the largest, the same decimals for all."""
    areas = np.asarray(areas_m2, dtype=np.float64) / _M2_IN_HA
    largest = float(np.max(np.abs(areas[np.isfinite(areas)]), initial=0.0))
    digits = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(4 - digits, 0), 6)
    return [f"{area:,.{decimals}f}" if math.isfinite(area) else "-" for area in areas.tolist()]
