"""A crop: pixels with their labels, and how it is varied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from geodinoseg.labels.classes import IGNORE
from geodinoseg.model.resampling import WHOLLY_VALID
from geodinoseg.training.settings import Augmentation
from geodinoseg.windows import Window

_RGB = 3
"""With no more bands than these there is none to drop."""
_JITTER, _SPECTRAL_JITTER = 0.2, 0.1
"""Default gain and offset of up to three bands, and of more, with several scenes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A square of pixels with their labels; pixels outside the scene are not valid."""

    pixels: NDArray[Any]
    """(bands, side, side), raw, in the scene's dtype, or float32 if resampled."""
    valid: NDArray[np.bool_]
    """(side, side), True where the scene holds data."""
    labels: NDArray[np.int64]
    """(side, side), class index, or IGNORE; IGNORE where not valid."""
    scene: int = 0
    """Index of the scene that it was cut from."""
    window: Window | None = None
    """Where it was cut."""
    jitter: NDArray[np.float32] | None = None
    """(2, bands), gain and offset of each band in standard deviations; None without jitter."""

    def without_pixels(self) -> Crop:
        """The crop with empty arrays: where it was cut."""
        nothing = np.zeros((0, 0), dtype=np.int64)
        # New arrays: a slice would hold on to the whole.
        return replace(self, pixels=nothing[None], valid=nothing > 0, labels=nothing)


def padded(crop: Crop, shape: tuple[int, int]) -> Crop:
    """The crop padded to these rows and columns; outside the scene it is 0, invalid, unlabelled.

    Segmentation pads scenes that are smaller than a tile in the same way.
    """
    height, width = crop.labels.shape
    if (height, width) == shape:
        return crop
    past = ((0, shape[0] - height), (0, shape[1] - width))
    return replace(
        crop,
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
    # A missing pixel contributes to its neighbours, so these count as missing too.
    valid = interpolated(crop.valid[None], **smooth)[0] > WHOLLY_VALID
    labels = interpolated(crop.labels[None], mode="nearest-exact")[0].astype(np.int64)
    # 0 in place of missing pixels: NaN would spread at any weight.
    return replace(
        crop,
        pixels=interpolated(np.where(crop.valid, crop.pixels, 0), **smooth),
        valid=valid,
        labels=np.where(valid, labels, IGNORE),
    )


def turned(crop: Crop, rng: np.random.Generator) -> Crop:
    """The crop under one of the eight symmetries of a square."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turn(array: NDArray[Any]) -> NDArray[Any]:
        array = np.rot90(array, turns, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if flip else array)

    return replace(crop, pixels=turn(crop.pixels), valid=turn(crop.valid), labels=turn(crop.labels))


def default_jitter(bands: int, scenes: int) -> float:
    """Gain and offset in standard deviations: 0 for a single scene, in which the level tells."""
    if scenes == 1:
        return 0.0
    return _JITTER if bands <= _RGB else _SPECTRAL_JITTER


def draw_jitter(
    bands: int, augmentation: Augmentation, rng: np.random.Generator, *, default: float
) -> NDArray[np.float32]:
    """(2, bands): random gain and offset of each band, in standard deviations.

    Both are 0 for a band that is dropped, that is set to its mean. default is used for gain and
    offset that the augmentation does not give.
    """
    gain = default if augmentation.gain is None else augmentation.gain
    offset = default if augmentation.offset is None else augmentation.offset
    own, common = rng.uniform(-1, 1, (2, bands)), rng.uniform(-1, 1)
    jitter = np.stack([1 + gain * own[0], offset * (own[1] + common) / 2])
    is_dropped, dropped = rng.random() < augmentation.band_dropout, int(rng.integers(bands))
    if is_dropped and bands > _RGB:
        jitter[:, dropped] = 0
    return jitter.astype(np.float32)


def jittered(
    values_BNHW: torch.Tensor, valid_BHW: torch.Tensor, jitter_B2N: torch.Tensor
) -> torch.Tensor:
    """Normalized pixels with gain and offset; missing pixels stay at the mean, as in prediction."""
    gain_BN11, offset_BN11 = jitter_B2N[:, 0, :, None, None], jitter_B2N[:, 1, :, None, None]
    moved_BNHW = values_BNHW * gain_BN11 + offset_BN11
    return torch.where(valid_BHW[:, None], moved_BNHW, values_BNHW)
