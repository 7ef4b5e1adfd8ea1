"""Side of the crops of a training, and their rows and columns in a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


_SIDES_PX = (224, 112, 84, 56)
"""To choose from; backbones of another patch take the nearest multiples."""
_COARSE_M = 5.0
_FEWEST_BLOCKS = 10
"""Of two crops a side: with fewer there is no fixed validation part."""
_OF_ALL_PATCHES = (224, 112)
"""Multiples of 14 and of 16."""


def default_crop_px(geoboxes: Sequence[GeoBox], *, patch_px: int | None) -> int:
    """Side of training crops by the resolution and size of the scenes.

    The largest of 224, 112, 84 and 56 px that leaves at least ten blocks to choose a validation
    part from; at 5 m and coarser, where an object is a few pixels, the smallest.

    Args:
        geoboxes: grids of the scenes.
        patch_px: of the backbone; None if unknown.
    """
    sizes = [box.pixel_size_m for box in geoboxes if box.pixel_size_m is not None]
    pixels = sum(box.height * box.width for box in geoboxes)
    sides = _OF_ALL_PATCHES if patch_px is None else _SIDES_PX
    if sizes and min(sizes) >= _COARSE_M:
        side = sides[-1]
    else:
        enough = [side for side in sides if pixels >= _FEWEST_BLOCKS * (2 * side) ** 2]
        side = enough[0] if enough else sides[-1]
    return side if patch_px is None else max(round(side / patch_px), 1) * patch_px
