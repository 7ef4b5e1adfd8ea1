"""Labels on the pixel grid of a scene: a plain value that reads and counts them by windows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.legend import Legend
from geodinoseg.rasters.scene import Scene, SceneReader
from geodinoseg.windows import Window, windows_over


class LabelSource(Protocol):
    """Where labels come from: polygons, a raster, a chip, or one of these inside an extent."""

    @property
    def fill(self) -> int:
        """Class index of pixels without a label, or IGNORE."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class indices of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labels on the pixel grid of a scene. A plain value; made by `open_labels`."""

    path: str
    """The file they come from."""
    geobox: GeoBox
    """The scene."""
    legend: Legend
    """The classes; a class index is a position in it."""
    source: LabelSource
    """Polygons or a raster."""
    scene: Scene | None = None
    """Whose missing pixels are not counted; None counts them all."""

    def on(self, scene: Scene) -> Labels:
        """The same labels, where a pixel without data in the scene does not count."""
        may_miss_pixels = bool(scene.validity) or scene.dtype.kind == "f"
        return replace(self, scene=scene if may_miss_pixels else None)

    def read(self, window: Window) -> NDArray[Any]:
        """Labels of a window, whether or not the scene has data there.

        Returns:
            (height, width) int16 (int32 past 32,767 classes): class index 0 to classes - 1,
            IGNORE where there is no label.

        Raises:
            LabelError: a label raster cannot be read.
        """
        return self.source.read(window)

    def class_blocks(self, block_px: int) -> NDArray[np.int64]:
        """Count the labelled pixels with scene data, for each block and class.

        Blocks without a polygon cost nothing; a label raster is read through once.

        Args:
            block_px: side of a block; the last ones end at the scene's edge.

        Returns:
            (block rows, block columns, classes).
        """
        height, width = self.geobox.height, self.geobox.width
        shape = (-(-height // block_px), -(-width // block_px), len(self.legend))
        counts = np.zeros(shape, dtype=np.int64)
        with nullcontext() if self.scene is None else self.scene.reader() as scene:
            for block in windows_over(height=height, width=width, rows=block_px, cols=block_px):
                at = block.row_off // block_px, block.col_off // block_px
                counts[at] = self._count(block, scene)
        return counts

    def _count(self, window: Window, scene: SceneReader | None) -> NDArray[np.int64]:
        if not self.source.reaches(window):
            return self._count_fill(window, scene)
        class_indices = self.source.read(window)
        known = class_indices != IGNORE
        if scene is not None:
            known &= scene.read(window)[1]
        return np.bincount(class_indices[known], minlength=len(self.legend))

    def _count_fill(self, window: Window, scene: SceneReader | None) -> NDArray[np.int64]:
        counts = np.zeros(len(self.legend), dtype=np.int64)
        if self.source.fill != IGNORE:
            pixels = window.height * window.width
            counts[self.source.fill] = pixels if scene is None else scene.read(window)[1].sum()
        return counts
