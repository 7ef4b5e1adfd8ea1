"""Rows and columns of the crops of a scene: squares on the ground, whatever the pixels."""

from __future__ import annotations

import math

from geodinoseg.geobox import GeoBox
from geodinoseg.model.resampling import about_one


def crop_shape(geobox: GeoBox, side: float) -> tuple[int, int]:
    """Rows and columns of a square on the ground that has the area of side x side pixels.

    Segmentation resamples the tiles of a scene whose pixels are not square by a factor for each
    axis; crops of such a scene are resampled in the same way. `side` twice if its pixels are about
    square, or if its ground resolution is unknown.
    """
    if geobox.pixel_size_m is None:
        return max(1, round(side)), max(1, round(side))
    stretch = math.sqrt(about_one(geobox.pixel_aspect))
    return max(1, round(side * stretch)), max(1, round(side / stretch))
