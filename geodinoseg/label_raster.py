"""Labels from a class raster, on the scene's grid or any other: the nearest pixel counts.

Resampled here, not by GDAL's warp: that places pixels to within 1/8 px only, and differently in
every window, so that on a noisy raster it gave 8 of 100 pixels another class than the exact way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj

from geodinoseg.class_raster import ClassRaster, open_class_raster
from geodinoseg.errors import GeodinosegError, LabelError, one_line
from geodinoseg.grid import Window
from geodinoseg.label_classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.label_place import PixelSpace, bounds_of, elsewhere, pixel_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geodinoseg.class_raster import ClassRasterReader
    from geodinoseg.geobox import GeoBox

# Positions are projected at every 16th pixel of the scene and interpolated between: off by at
# most (16 px)^2 / 8 earth radii, 0.005 px where a pixel is a kilometre.
_LATTICE_PX = 16
# Where the centre of a pixel lies on an edge between two, rounding must not decide.
_TIE_PX = 1e-6
# Of labels much finer than the scene at most so many pixels are read at once (here 4,096 squared).
_MOST_PIXELS_AT_ONCE = 1 << 24
_VALUES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSource:
    """Labels that are read from a class raster when a window is."""

    raster: ClassRaster
    """The labels, on their own grid."""
    scene: GeoBox
    """The scene."""
    space: PixelSpace
    """From the scene's coordinates to pixels of the raster."""
    channels: NDArray[np.int64]
    """(65,536,) channel of each value of the raster; IGNORE where it is no class in use."""
    fill: int
    """Channel of pixels outside the raster, or without data in it, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""
        cols, rows = _projected(self.space, self.scene, _lattice(window)).reshape(-1, 2).T
        height, width = self.raster.geobox.height, self.raster.geobox.width
        known = np.isfinite(cols) & np.isfinite(rows)
        if not known.any():
            return False
        cols, rows = cols[known], rows[known]
        return bool(
            cols.max() >= 0 and cols.min() <= width and rows.max() >= 0 and rows.min() <= height
        )

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window.

        Raises:
            LabelError: the raster cannot be read.
        """
        labels = np.full((window.height, window.width), self.fill, dtype=self.dtype)
        cols, rows = nearest_pixels(self.space, self.scene, window)
        try:
            with self.raster.reader() as reader:
                self._look_up(reader, cols, rows, labels)
        except GeodinosegError as error:
            raise LabelError(str(error)) from error
        return labels

    def _look_up(
        self,
        reader: ClassRasterReader,
        cols: NDArray[np.int64],
        rows: NDArray[np.int64],
        labels: NDArray[Any],
    ) -> None:
        """Write the channel of each pixel of the raster into `labels`, in pieces that fit."""
        inside = cols >= 0
        if not inside.any():
            return
        window = _window_of(cols[inside], rows[inside])
        if window.width * window.height > _MOST_PIXELS_AT_ONCE and labels.size > 1:
            axis = int(np.argmax(labels.shape))
            halves = (np.array_split(array, 2, axis=axis) for array in (cols, rows, labels))
            for piece in zip(*halves, strict=True):
                self._look_up(reader, *piece)
            return
        values = reader.read(window)[rows[inside] - window.row_off, cols[inside] - window.col_off]
        labels[inside] = self._channels_of(values)

    def _channels_of(self, values: NDArray[Any]) -> NDArray[np.int64]:
        known = (values >= 0) & (values < _VALUES)
        channels = np.where(known, self.channels[np.where(known, values, 0)], IGNORE)
        if self.raster.nodata is not None:
            channels[values == self.raster.nodata] = self.fill
        return channels


def raster_on(path: str, raster: ClassRaster, geobox: GeoBox) -> PixelSpace:
    """The way from a scene's coordinates to the pixels of a label raster.

    Raises:
        LabelError: the raster lies elsewhere, or its CRS does not lead to the scene's.
    """
    crs = None if raster.geobox.crs is None else pyproj.CRS.from_user_input(raster.geobox.crs)
    there = pixel_space(path, crs, geobox)
    left, bottom, right, top = bounds_of(raster.geobox)
    scene_left, scene_bottom, scene_right, scene_top = there.scene_bounds()
    beside = right <= scene_left or left >= scene_right
    if beside or top <= scene_bottom or bottom >= scene_top:
        raise elsewhere(path, there, (left, bottom, right, top))
    scene_crs = None if there.crs is None else pyproj.CRS.from_user_input(geobox.crs)
    return PixelSpace(geobox=raster.geobox, crs=scene_crs)


def nearest_pixels(
    space: PixelSpace, scene: GeoBox, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixel of another raster under the centre of each pixel of a window.

    Args:
        space: from the scene's coordinates to pixels of the other raster.
        scene: whose window it is. Each pixel gets the same answer in whatever window it is asked.
        window: inside the scene.

    Returns:
        columns, rows: (height, width) each; both -1 where the other raster has no pixel.
    """
    corners = _projected(space, scene, _lattice(window))
    down, down_part = _places(window.row_off, window.height)
    across, across_part = _places(window.col_off, window.width)
    along = _between(corners, across, across_part[:, None], axis=1)
    cols, rows = np.moveaxis(_between(along, down, down_part[:, None, None], axis=0), 2, 0)
    inside = np.isfinite(cols) & np.isfinite(rows)
    inside &= (cols >= -_TIE_PX) & (cols + _TIE_PX < space.geobox.width)
    inside &= (rows >= -_TIE_PX) & (rows + _TIE_PX < space.geobox.height)
    return _floored(cols, inside), _floored(rows, inside)


def _lattice(window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of the scene's lattice that enclose a window."""
    cols = np.arange(window.col_off // _LATTICE_PX, (window.col_end - 1) // _LATTICE_PX + 2)
    rows = np.arange(window.row_off // _LATTICE_PX, (window.row_end - 1) // _LATTICE_PX + 2)
    return cols * float(_LATTICE_PX), rows * float(_LATTICE_PX)


def _projected(
    space: PixelSpace, scene: GeoBox, lattice: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Pixels of the other raster at the points of a lattice, (rows, columns, 2): column, row."""
    cols, rows = np.meshgrid(*lattice)
    affine = scene.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    points = np.column_stack([x.ravel(), y.ravel()])
    return space.to_pixels(points).reshape(*cols.shape, 2)


def _places(offset: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each pixel of an axis the lattice interval that its centre lies in, and how far along."""
    pixels = np.arange(offset, offset + length, dtype=np.int64)
    intervals = pixels // _LATTICE_PX
    part = (pixels - intervals * _LATTICE_PX + 0.5) / _LATTICE_PX
    return intervals - intervals[0], part


def _between(
    values: NDArray[np.float64],
    intervals: NDArray[np.int64],
    part: NDArray[np.float64],
    *,
    axis: int,
) -> NDArray[np.float64]:
    before, after = np.take(values, intervals, axis), np.take(values, intervals + 1, axis)
    with np.errstate(invalid="ignore"):  # infinite where a projection has no place for a point
        return np.asarray(before + (after - before) * part, dtype=np.float64)


def _floored(positions: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.floor(np.where(inside, positions + _TIE_PX, -1.0)).astype(np.int64)


def _window_of(cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Window:
    col_off, row_off = int(cols.min()), int(rows.min())
    return Window(
        col_off=col_off,
        row_off=row_off,
        width=int(cols.max()) + 1 - col_off,
        height=int(rows.max()) + 1 - row_off,
    )
