"""Where labelling is complete: inside these polygons land without a label is background.

Outside them it is unknown, whatever the labels themselves say they leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.features import read_areas
from geodinoseg.labels.labels import LabelSource
from geodinoseg.labels.paths import check_is_there
from geodinoseg.labels.polygon_source import PolygonSource, areas_on, misses, reaching
from geodinoseg.windows import Window

UNSAID = -2
"""Fill of labels inside an extent: no label, which is not the same as a label to ignore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtentSource:
    """Labels whose gaps are background inside an extent and unknown outside it."""

    labels: LabelSource
    """The labels, with `UNSAID` where there is none."""
    extent: PolygonSource
    """1 inside, 0 outside."""
    background: int
    """Channel of the background."""

    @property
    def fill(self) -> int:
        """Outside the extent nothing is known."""
        return IGNORE

    @property
    def polygons(self) -> Any:
        """Of the labels, where they are polygons: a split keeps each of them together."""
        return getattr(self.labels, "polygons", None)

    @property
    def channels(self) -> Any:
        """Of those polygons."""
        return getattr(self.labels, "channels", None)

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold a label or a part of the extent."""
        return self.labels.reaches(window) or self.extent.reaches(window)

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window."""
        channels = self.labels.read(window)
        unsaid = channels == UNSAID
        inside = self.extent.read(window) == 1
        channels[unsaid] = IGNORE
        channels[unsaid & inside] = self.background
        return channels


def extents_on(
    path: str, geoboxes: Sequence[GeoBox], *, allow_external: bool = False
) -> list[PolygonSource]:
    """An extent on the grids of scenes; it need not reach all of them.

    Args:
        path: polygons in any vector format and CRS; their columns do not count.
        geoboxes: the scenes.
        allow_external: as in `open_vector_layer`.

    Raises:
        LabelError: the file is missing or damaged, has no polygon, or lies outside all scenes.
    """
    check_is_there(path)
    crs, polygons = read_areas(path, allow_external=allow_external)
    placed = [areas_on(path, crs, polygons, geobox) for geobox in geoboxes]
    reached = [
        pixels[reaching(pixels, geobox)] for pixels, geobox in zip(placed, geoboxes, strict=True)
    ]
    if not any(map(len, reached)):
        raise misses(path, crs, polygons, geoboxes[0])
    return [
        PolygonSource(
            polygons=pixels,
            channels=np.ones(len(pixels), dtype=np.int64),
            tree=shapely.STRtree(pixels),
            fill=0,
            dtype=np.dtype(np.uint8),
        )
        for pixels in reached
    ]
