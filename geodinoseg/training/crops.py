"""A crop: pixels with their labels, and the ways to vary it that a map allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from geodinoseg.labels.classes import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.training.settings import Augmentation

_WHOLLY_VALID = 0.999
"""Of an interpolated pixel: below that, a missing pixel had a part in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A square of pixels with their labels; what lies outside the scene is not valid."""

    pixels: NDArray[Any]
    """(bands, side, side), raw, in the scene's dtype, or float32 where they were resampled."""
    valid: NDArray[np.bool_]
    """(side, side), True where the scene holds data."""
    labels: NDArray[np.int64]
    """(side, side), channel, or IGNORE; IGNORE where not valid."""


def padded(crop: Crop, side: int) -> Crop:
    """The crop as a square: what lies past the scene is 0, not valid and not labelled.

    The engine pads scenes that are smaller than a tile in the same way.
    """
    height, width = crop.labels.shape
    if (height, width) == (side, side):
        return crop
    past = ((0, side - height), (0, side - width))
    return Crop(
        pixels=np.pad(crop.pixels, ((0, 0), *past)),
        valid=np.pad(crop.valid, past),
        labels=np.pad(crop.labels, past, constant_values=IGNORE),
    )


def resized(crop: Crop, side: int) -> Crop:
    """The crop at side x side px: pixels averaged or interpolated, labels by nearest neighbour."""
    if crop.labels.shape == (side, side):
        return crop

    def interpolated(array: NDArray[Any], **options: Any) -> NDArray[np.float32]:
        values = torch.from_numpy(array.astype(np.float32))[None]
        return np.asarray(functional.interpolate(values, size=(side, side), **options)[0].numpy())

    smooth = {"mode": "bilinear", "antialias": True}
    # A missing pixel bleeds into its neighbours, so these count as missing too.
    valid = interpolated(crop.valid[None], **smooth)[0] > _WHOLLY_VALID
    labels = interpolated(crop.labels[None], mode="nearest-exact")[0].astype(np.int64)
    # 0 in place of the missing: NaN would spread however little its weight is.
    return Crop(
        pixels=interpolated(np.where(crop.valid, crop.pixels, 0), **smooth),
        valid=valid,
        labels=np.where(valid, labels, IGNORE),
    )


def turned(crop: Crop, rng: np.random.Generator) -> Crop:
    """One of the eight ways to lay a square on itself."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turn(array: NDArray[Any]) -> NDArray[Any]:
        array = np.rot90(array, turns, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if flip else array)

    return Crop(pixels=turn(crop.pixels), valid=turn(crop.valid), labels=turn(crop.labels))


def jittered(
    values_BNHW: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Normalized pixels as another day's light would give them: gain and offset per band.

    Args:
        values_BNHW: (batch, bands, height, width) float32, in deviations from the mean.
        augmentation: how far gain and offset go.
        generator: of the draws, on the CPU, so that every device gets the same.

    Returns:
        As `values_BNHW`.
    """
    batch, bands = values_BNHW.shape[:2]

    def draw(*shape: int) -> torch.Tensor:
        return (torch.rand(*shape, 1, 1, generator=generator) * 2 - 1).to(values_BNHW.device)

    gain = 1 + augmentation.gain * draw(batch, bands)
    offset = augmentation.offset * (draw(batch, bands) + draw(batch, 1)) / 2
    return values_BNHW * gain + offset
