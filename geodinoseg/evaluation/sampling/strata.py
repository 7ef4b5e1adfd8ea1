"""The classes of a map as strata: their areas, and pixels drawn from them at random.

Pixels are numbered by squares of the raster, and row by row within a square, so that the draw
depends on the seed alone and only one square is in memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.compare import ClassIndexTable, check_class_count
from geodinoseg.files.atomic import PathLike
from geodinoseg.labels.classes import IGNORE
from geodinoseg.polygons.ground import area_weights, metres_fault, warn_of_stretched_areas
from geodinoseg.progress import Progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.class_reader import ClassReader
from geodinoseg.windows import Window, windows_over

SQUARE_PX = 512
"""Side of a square: a block of our maps."""
_SQUARES_AT_ONCE = 16
_M2_IN_HA = 10_000
_log = logging.getLogger(__name__)


def open_with_areas(class_raster: PathLike | ClassRaster) -> ClassRaster:
    """Open a georeferenced map; warns where the areas of its classes are not true."""
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    check_class_count(raster)
    if not raster.geobox.is_georeferenced:
        raise SceneError(
            f"{raster.path}: is not georeferenced, so its points and areas would not be either; "
            f"{raster.geobox.advice}."
        )
    if fault := metres_fault(raster.geobox):
        _log.warning("%s: %s; its coordinates are taken as metres.", raster.path, fault)
    warn_of_stretched_areas(raster.path, raster.geobox)
    return raster


@dataclass(frozen=True, eq=False, kw_only=True)
class Strata:
    """Areas of the classes by square of a map. Made by `count_strata`."""

    raster: ClassRaster
    """The map."""
    pixels: NDArray[np.int64]
    """(classes,) pixels of each class of the legend."""
    square_weights: NDArray[np.int64]
    """(squares, classes) area in units of `unit_m2`; one unit per pixel where all are equal."""
    unit_m2: float
    """Square metres per unit of area."""

    @cached_property
    def areas_m2(self) -> NDArray[np.float64]:
        """(classes,) square metres; planimetric in a projected CRS."""
        return np.asarray(self.square_weights.sum(axis=0) * self.unit_m2, dtype=np.float64)

    @property
    def is_equal_area(self) -> bool:
        """Whether every pixel has the same area."""
        return bool((self.square_weights.sum(axis=0) == self.pixels).all())


def count_strata(
    raster: ClassRaster, *, progress: Progress, squares_at_once: int = _SQUARES_AT_ONCE
) -> Strata:
    """Count the pixels and areas of each class in one pass over a map.

    Args:
        raster: the map.
        progress: called with the fraction of the map read.
        squares_at_once: number of adjacent squares in one read.
    """
    classes, table = len(raster.legend), ClassIndexTable(raster)
    weights = area_weights(raster.geobox)
    row_weights = np.diff(weights.above)
    across = -(-raster.width // SQUARE_PX)
    pixels = np.zeros(classes, dtype=np.int64)
    squares = np.zeros((-(-raster.height // SQUARE_PX) * across, classes), dtype=np.int64)
    size = {"height": raster.height, "width": raster.width}
    reads = list(windows_over(**size, rows=SQUARE_PX, cols=SQUARE_PX * squares_at_once))
    with raster.reader() as reader:
        for done, read in enumerate(reads, start=1):
            indices = table.of(reader.read(read))
            # Pixels beyond a pole have no area, so none of them is ever drawn.
            indices[row_weights[read.row_off : read.row_end] == 0] = IGNORE
            first = read.row_off // SQUARE_PX * across + read.col_off // SQUARE_PX
            for position, col in enumerate(range(0, read.width, SQUARE_PX)):
                counts = _counts_by_row(indices[:, col : col + SQUARE_PX], classes)
                pixels += counts.sum(axis=0)
                squares[first + position] = row_weights[read.row_off : read.row_end] @ counts
            progress(done / len(reads), "counting pixels")
    return Strata(raster=raster, pixels=pixels, square_weights=squares, unit_m2=weights.unit_m2)


def draw_pixels(
    strata: Strata, points: NDArray[np.int64], *, seed: int, progress: Progress
) -> list[NDArray[np.int64]]:
    """Draw pixels of each class, each with a probability proportional to its area.

    Where all pixels have the same area this is a simple random sample without replacement. In
    degrees a pixel that is drawn twice is replaced by a further draw.

    Args:
        strata: the map.
        points: (classes,) number of pixels to draw, at most those of the class.
        seed: of the random numbers; each class has its own stream, by its id.
        progress: called with the fraction of the classes done.

    Returns:
        For each class (points, 2) int64 rows and columns, in the order drawn.
    """
    drawn = []
    with strata.raster.reader() as reader:
        finder = _PixelFinder(strata, reader)
        for class_index, class_id in enumerate(strata.raster.legend.class_ids.tolist()):
            generator = np.random.default_rng([seed, class_id])
            drawn.append(_drawn(finder, class_index, int(points[class_index]), generator))
            progress((class_index + 1) / len(points), "drawing points")
    return drawn


def _drawn(
    finder: _PixelFinder, class_index: int, wanted: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    total = int(finder.strata.square_weights[:, class_index].sum())
    if finder.strata.is_equal_area:
        if not wanted:
            return np.empty((0, 2), dtype=np.int64)
        return finder.pixels_at(class_index, generator.choice(total, size=wanted, replace=False))
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < wanted:
        positions = generator.integers(total, size=wanted - len(found))
        found = np.concatenate([found, finder.pixels_at(class_index, positions)])
        found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
    return found


class _PixelFinder:
    """Finds the pixel at a position along the cumulative area of its class."""

    def __init__(self, strata: Strata, reader: ClassReader) -> None:
        self.strata = strata
        self._reader = reader
        self._table = ClassIndexTable(strata.raster)
        self._row_weights = np.diff(area_weights(strata.raster.geobox).above)

    def pixels_at(self, class_index: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(positions, 2) rows and columns; each position is below the area of the class."""
        ends = np.cumsum(self.strata.square_weights[:, class_index])
        squares = np.searchsorted(ends, positions, side="right")
        pixels = np.empty((len(positions), 2), dtype=np.int64)
        for square in np.unique(squares).tolist():
            here = np.flatnonzero(squares == square)
            start = int(ends[square - 1]) if square else 0
            pixels[here] = self._pixels_in(square, class_index, positions[here] - start)
        return pixels

    def _pixels_in(
        self, square: int, class_index: int, positions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        window = _square_window(self.strata.raster, square)
        marked = self._table.of(self._reader.read(window)) == class_index
        weights = self._row_weights[window.row_off : window.row_end]
        ends = np.cumsum(marked.sum(axis=1, dtype=np.int64) * weights)
        rows = np.searchsorted(ends, positions, side="right")
        starts = np.where(rows > 0, ends[rows - 1], 0)
        along = (positions - starts) // weights[rows]
        cols = [np.flatnonzero(marked[row])[nth] for row, nth in zip(rows, along, strict=True)]
        return np.column_stack([rows + window.row_off, np.array(cols) + window.col_off])


def read_pixels(raster: ClassRaster, pixels: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(pixels,) class indices of pixels given as row and column; below 0 where there is none."""
    table = ClassIndexTable(raster)
    indices = np.empty(len(pixels), dtype=np.int64)
    with raster.reader() as reader:
        for index in sorted(range(len(pixels)), key=lambda index: pixels[index]):
            row, col = pixels[index]
            window = Window(col_off=col, row_off=row, width=1, height=1)
            indices[index] = table.of(reader.read(window))[0, 0]
    return indices


def _counts_by_row(indices: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(rows, classes) pixels of each class in each row."""
    rows, cols = np.nonzero(indices >= 0)
    flat = rows * classes + indices[rows, cols]
    return np.bincount(flat, minlength=len(indices) * classes).reshape(-1, classes)


def _square_window(raster: ClassRaster, square: int) -> Window:
    row, col = divmod(square, -(-raster.width // SQUARE_PX))
    window = Window(
        col_off=col * SQUARE_PX, row_off=row * SQUARE_PX, width=SQUARE_PX, height=SQUARE_PX
    )
    return window.clipped_to(height=raster.height, width=raster.width)


def hectares(areas_m2: Any) -> list[str]:
    """Areas as text in hectares: four digits of the largest, the same decimals for all."""
    areas = np.asarray(areas_m2, dtype=np.float64) / _M2_IN_HA
    largest = float(np.max(np.abs(areas[np.isfinite(areas)]), initial=0.0))
    digits = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(4 - digits, 0), 6)
    return [f"{area:,.{decimals}f}" if math.isfinite(area) else "-" for area in areas.tolist()]
