"""Rows and columns of the crops of a scene, which are square on the ground for any pixel shape."""

from __future__ import annotations

import math

from geodinoseg.geobox import GeoBox
from geodinoseg.model.resampling import about_one


def crop_shape(geobox: GeoBox, side: float) -> tuple[int, int]:
    """Rows and columns of a square on the ground with the area of side x side pixels.

    Both are `side` if the pixels are about square, or if the ground resolution is unknown.
    Segmentation resamples tiles of a scene with other pixels by a factor for each axis; crops are
    resampled in the same way.
    """
    if geobox.pixel_size_m is None:
        return max(1, round(side)), max(1, round(side))
    stretch = math.sqrt(about_one(geobox.pixel_aspect))
    return max(1, round(side * stretch)), max(1, round(side / stretch))
