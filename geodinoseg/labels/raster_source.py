"""Labels from a class raster, on the scene's grid or any other: the nearest pixel counts.

Resampled here, not by GDAL's warp: that places pixels to within 1/8 px only, by an approximation
that differs from window to window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.labels.paths import VECTOR_SUFFIXES
from geodinoseg.labels.pixel_space import (
    PixelSpace,
    bounds_of,
    elsewhere,
    may_meet,
    nearest_pixels,
    pixel_space,
)
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.dataset import RasterReader, open_dataset
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

# Of labels much finer than the scene at most so many pixels are read at once (here 4,096 squared).
_MOST_PIXELS_AT_ONCE = 1 << 24
_VALUES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRasterSource:
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
        return may_meet(self.space, self.scene, window)

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
        except SceneError as error:
            raise LabelError(str(error)) from error
        return labels

    def _look_up(
        self,
        reader: RasterReader,
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


def is_raster(path: str, *, allow_external: bool = False) -> bool:
    """Whether GDAL opens a file as a raster; one that is named as vectors are is not tried."""
    if path.lower().endswith(VECTOR_SUFFIXES):
        return False
    try:
        with open_dataset(RasterSource(path, allow_external)):
            return True
    except SceneError:
        return False


def open_label_raster(
    path: str,
    *,
    ignore_classes: Sequence[str],
    legend_names: Mapping[int, str] | None = None,
    style_names: Mapping[int, str] | None = None,
    allow_external: bool = False,
) -> tuple[ClassRaster, FeatureClasses]:
    """A class raster, and its classes in the order of its legend.

    Args:
        path: of the raster.
        ignore_classes: names of classes to be taken for unknown.
        legend_names: names of class numbers that come before those of the file.
        style_names: names of class numbers that have none in the file.
        allow_external: as in `open_scene`.

    Raises:
        LabelError: it is no class raster, or lacks a class that is to be ignored.
    """
    try:
        raster = open_class_raster(path, allow_external=allow_external)
    except SceneError as error:
        raise LabelError(str(error)) from error
    classes = feature_classes(
        path,
        "value",
        raster.legend.class_ids.tolist(),
        names=raster.legend.names,
        ignore_classes=ignore_classes,
        legend_names=legend_names,
        style_names=style_names,
    )
    return raster, classes


def raster_source(
    raster: ClassRaster,
    geobox: GeoBox,
    channels: NDArray[np.int64],
    *,
    fill: int,
    dtype: np.dtype[Any],
) -> LabelRasterSource:
    """A class raster made ready to be read on a scene's grid.

    Args:
        raster: the labels.
        geobox: the scene.
        channels: (classes,) channel of each class of the raster's legend, or IGNORE.
        fill: channel of pixels without a label, or IGNORE.
        dtype: of the channels.

    Raises:
        LabelError: the raster lies elsewhere, or its CRS does not lead to the scene's.
    """
    by_value = np.full(_VALUES, IGNORE, dtype=np.int64)
    by_value[raster.legend.class_ids] = channels
    return LabelRasterSource(
        raster=raster,
        scene=geobox,
        space=_space_of(raster, geobox),
        channels=by_value,
        fill=fill,
        dtype=dtype,
    )


def _space_of(raster: ClassRaster, geobox: GeoBox) -> PixelSpace:
    """The way from a scene's coordinates to the pixels of a label raster that reaches it."""
    path = str(raster.path)
    crs = None if raster.geobox.crs is None else pyproj.CRS.from_user_input(raster.geobox.crs)
    there = pixel_space(path, crs, geobox)
    bounds = left, bottom, right, top = bounds_of(raster.geobox)
    scene_left, scene_bottom, scene_right, scene_top = there.scene_bounds()
    beside = right <= scene_left or left >= scene_right
    if beside or top <= scene_bottom or bottom >= scene_top:
        raise elsewhere(path, there, bounds)
    scene_crs = None if there.crs is None else pyproj.CRS.from_user_input(geobox.crs)
    return PixelSpace(geobox=raster.geobox, crs=scene_crs)


def _window_of(cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Window:
    col_off, row_off = int(cols.min()), int(rows.min())
    return Window(
        col_off=col_off,
        row_off=row_off,
        width=int(cols.max()) + 1 - col_off,
        height=int(rows.max()) + 1 - row_off,
    )
