"""Labels from a class raster, on the scene's grid or any other: the nearest pixel counts.

Resampled here, not by GDAL's warp: its approximation is accurate to 1/8 px only, and differs from
window to window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE, FeatureClasses, feature_classes
from geodinoseg.labels.meridian import turns_between
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import VECTOR_SUFFIXES
from geodinoseg.labels.pixel_space import (
    PixelSpace,
    bounds_of,
    may_overlap,
    nearest_pixels,
    outside_error,
)
from geodinoseg.rasters.class_raster import ClassRaster, describe_class_raster
from geodinoseg.rasters.class_reader import ClassReader
from geodinoseg.rasters.dataset import open_dataset
from geodinoseg.rasters.source import RasterSource
from geodinoseg.transformations import parsed_crs
from geodinoseg.windows import Window

# Pixels of labels much finer than the scene that are read at once, at most (4,096 squared).
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
    class_indices: NDArray[np.int64]
    """(65,536,) class index of each value of the raster; IGNORE where it is not a class in use."""
    fill: int
    """Class index of pixels outside the raster, or without data in it, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""
        return may_overlap(self.space, self.scene, window)

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class indices of a window."""
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
        reader: ClassReader,
        cols: NDArray[np.int64],
        rows: NDArray[np.int64],
        labels: NDArray[Any],
    ) -> None:
        """Write the class indices of raster pixels into `labels`, in pieces that fit."""
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
        labels[inside] = self._class_indices_of(values)

    def _class_indices_of(self, values: NDArray[Any]) -> NDArray[np.int64]:
        known = (values >= 0) & (values < _VALUES)
        found = np.where(known, self.class_indices[np.where(known, values, 0)], IGNORE)
        if self.raster.nodata is not None:
            found[values == self.raster.nodata] = self.fill
        return found


def is_raster(path: str, options: LabelOptions) -> bool:
    """Whether GDAL opens a file as a raster; a file with a vector suffix is not tried."""
    if path.lower().endswith(VECTOR_SUFFIXES):
        return False
    try:
        with open_dataset(RasterSource(path, options.allow_external)):
            return True
    except SceneError:
        return False


def open_label_raster(
    path: str,
    options: LabelOptions,
    *,
    legend_names: Mapping[int, str],
    style_names: Mapping[int, str] | None,
) -> tuple[ClassRaster, FeatureClasses]:
    """A class raster, and its classes in the order of its legend; names as in `feature_classes`."""
    try:
        source = RasterSource(path, options.allow_external)
        raster = describe_class_raster(source, with_styles=False)
    except SceneError as error:
        raise LabelError(str(error)) from error
    classes = feature_classes(
        path,
        "value",
        raster.legend.class_ids.tolist(),
        names=raster.legend.names,
        ignore_classes=options.ignore_classes,
        legend_names=legend_names,
        style_names=style_names,
    )
    return raster, classes


def raster_source(
    raster: ClassRaster,
    geobox: GeoBox,
    class_indices: NDArray[np.int64],
    *,
    fill: int,
    dtype: np.dtype[Any],
) -> LabelRasterSource:
    """A class raster ready to be read on a scene's grid.

    `class_indices` has the class index of each class of the raster's legend, or IGNORE.
    """
    by_value = np.full(_VALUES, IGNORE, dtype=np.int64)
    by_value[raster.legend.class_ids] = class_indices
    return LabelRasterSource(
        raster=raster,
        scene=geobox,
        space=_space_of(raster, geobox),
        class_indices=by_value,
        fill=fill,
        dtype=dtype,
    )


def _space_of(raster: ClassRaster, geobox: GeoBox) -> PixelSpace:
    """From a scene's coordinates to the pixels of a label raster that intersects it."""
    path = str(raster.path)
    to_scene = PixelSpace.for_labels(path, parsed_crs(raster.geobox.crs), geobox, is_raster=True)
    bounds = left, bottom, right, top = bounds_of(raster.geobox)
    scene_left, scene_bottom, scene_right, scene_top = to_scene.scene_bounds()
    beside = right <= scene_left or left >= scene_right
    if to_scene.turn is not None:
        fewest, most = turns_between((left, right), (scene_left, scene_right), to_scene.turn)
        beside = bool(fewest > most)
    if beside or top <= scene_bottom or bottom >= scene_top:
        raise outside_error(path, to_scene, bounds)
    scene_crs = None if to_scene.crs is None else parsed_crs(geobox.crs)
    return PixelSpace(geobox=raster.geobox, crs=scene_crs)


def _window_of(cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Window:
    col_off, row_off = int(cols.min()), int(rows.min())
    return Window(
        col_off=col_off,
        row_off=row_off,
        width=int(cols.max()) + 1 - col_off,
        height=int(rows.max()) + 1 - row_off,
    )
