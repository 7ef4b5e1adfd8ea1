"""Resampling of tiles with another ground resolution, or with pixels that are not square."""

from __future__ import annotations

WHOLLY_VALID = 0.999
"""Interpolated validity below this means that a missing pixel contributed."""
_SAME_SCALE = 0.95
"""Tiles with a scale between this and its inverse are not resampled; augmentation covers them."""


def resampling(
    pixel_size_m: float | None, own_pixel_size_m: float | None, aspect: float
) -> tuple[float, float]:
    """Scale and aspect at which a model resamples tiles.

    Args:
        pixel_size_m: ground resolution of the scene, metres; None if unknown.
        own_pixel_size_m: ground resolution of the model, metres; None if unknown.
        aspect: width of a pixel of the scene over its height, on the ground.

    Returns:
        Pixels of the model per pixel of the scene, and the aspect; each is 1 if it is about 1, and
        both are 1 if a resolution is unknown.
    """
    if pixel_size_m is None or own_pixel_size_m is None:
        return 1.0, 1.0
    aspect = about_one(aspect)
    scale = pixel_size_m / own_pixel_size_m
    return (about_one(scale) if aspect == 1.0 else scale), aspect


def about_one(ratio: float) -> float:
    """The ratio, or 1 if the scale augmentation covers the difference."""
    return 1.0 if _SAME_SCALE < ratio < 1 / _SAME_SCALE else ratio


def tile_multiple(patch_px: int, scale: float, aspect: float) -> int:
    """Side of a patch in pixels of the scene; 1 if tiles are resampled."""
    return patch_px if scale == aspect == 1.0 else 1


def scaled_tile_px(trained_tile_px: int, multiple: int, scale: float) -> int:
    """Side of the tiles of the training, in pixels of the scene."""
    return max(round(trained_tile_px / scale) // multiple * multiple, multiple)
