"""Where labelling is complete: inside these polygons pixels without a label are background.

Outside them pixels without a label are unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.coverage import covers_center
from geodinoseg.labels.features import read_areas
from geodinoseg.labels.labels import LabelSource
from geodinoseg.labels.paths import VectorFile, check_is_there
from geodinoseg.labels.polygon_source import (
    PolygonSource,
    intersecting_scene,
    outside_scene_error,
    polygon_source,
    to_pixel_space,
)
from geodinoseg.windows import Window

_log = logging.getLogger(__name__)
NO_LABEL = -2
"""Fill of labels inside an extent: no label, which is not the same as a label to ignore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtentSource:
    """Labels whose gaps are background inside an extent and unknown outside it."""

    labels: LabelSource
    """The labels, with `NO_LABEL` where there is none."""
    extent: PolygonSource
    """1 inside, 0 outside."""
    background: int
    """Class index of the background."""

    @property
    def fill(self) -> int:
        """Outside the extent nothing is known."""
        return IGNORE

    @property
    def polygons(self) -> Any:
        """Of the labels, where they are polygons: a split keeps each of them together."""
        return getattr(self.labels, "polygons", None)

    @property
    def class_indices(self) -> Any:
        """Of those polygons."""
        return getattr(self.labels, "class_indices", None)

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold a label or a part of the extent."""
        return self.labels.reaches(window) or self.extent.reaches(window)

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class indices of a window."""
        class_indices = self.labels.read(window)
        unlabelled = class_indices == NO_LABEL
        inside = self.extent.read(window) == 1
        class_indices[unlabelled] = IGNORE
        class_indices[unlabelled & inside] = self.background
        return class_indices


def extent_sources(
    file: VectorFile, geoboxes: Sequence[GeoBox], *, allow_external: bool
) -> list[PolygonSource]:
    """The extent on the grid of each scene; it must intersect one of them at least."""
    check_is_there(file)
    crs, polygons = read_areas(file, allow_external=allow_external)
    path = str(file)
    in_pixels = [to_pixel_space(path, crs, polygons, geobox) for geobox in geoboxes]
    kept = [
        pixels[intersecting_scene(pixels, geobox)]
        for pixels, geobox in zip(in_pixels, geoboxes, strict=True)
    ]
    if not any(map(len, kept)):
        raise outside_scene_error(path, crs, polygons, geoboxes[0])
    _warn_of_lost(path, kept, geoboxes)
    return [
        polygon_source(
            pixels, np.ones(len(pixels), dtype=np.int64), fill=0, dtype=np.dtype(np.uint8)
        )
        for pixels in kept
    ]


def _warn_of_lost(path: str, kept: Sequence[NDArray[Any]], geoboxes: Sequence[GeoBox]) -> None:
    """Warn of polygons that cover no pixel centre, with one count over all scenes."""
    covering = [covers_center(*pair) for pair in zip(kept, geoboxes, strict=True)]
    lost = sum(int((~covers).sum()) for covers in covering)
    if lost:
        _log.warning(
            "%s: %d of its %d polygons cover no pixel's centre, so they have no effect.",
            path,
            lost,
            sum(map(len, kept)),
        )
