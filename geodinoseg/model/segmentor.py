"""A trained model: the network with everything that its predictions depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional

from geodinoseg.legend import Legend
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.band_units import BandUnits
from geodinoseg.model.devices import autocast, pick_precision
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.heads import softmax
from geodinoseg.model.resampling import WHOLLY_VALID, resampling, scaled_tile_px, tile_multiple
from geodinoseg.model.weights import add_weights

# Sun glint or a broken detector should not leave the range of training.
_LARGEST = 10.0


@dataclass(frozen=True, kw_only=True)
class Segmentor:
    """From raw pixels to class probabilities: a `TileModel`.

    Made by `train_model` or `load_model`; `save_model` writes its folder.
    """

    network: DinoV2Segmentor
    """The network, on its device."""
    legend: Legend
    """Classes in the order of the network's channels."""
    statistics: BandStatistics
    """How raw pixels are normalized."""
    bands: tuple[int, ...]
    """Bands of a scene that it reads, from 1."""
    trained_tile_px: int
    """Side of the tiles that it was trained on, in pixels of its own ground resolution."""
    pixel_size_m: float | None = None
    """Ground resolution of the training scenes, metres; None if they had no CRS."""
    band_names: tuple[str, ...] = ()
    """Descriptions of the bands in the training scenes; empty if these have none."""
    scale: float = 1.0
    """Pixels of its own per pixel of the scene; see `at_pixel_size`."""
    aspect: float = 1.0
    """Width of a pixel of the scene over its height, on the ground; its own pixels are square."""
    temperature: float = 1.0
    """Divides the logits, so that confidence equals accuracy."""
    precision: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`; see `devices.pick_precision`."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained: data, recipe, versions."""
    scores: dict[str, Any] = field(default_factory=dict)
    """What it reached on validation pixels apart from the training pixels."""

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what is derived from them depends on the device."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.head.parameters()).device

    @cached_property
    def compute_dtype(self) -> torch.dtype:
        """The dtype in which the network computes."""
        return pick_precision(self.precision, self.device)

    @property
    def patch_px(self) -> int:
        """Side of a token of the backbone, in pixels of the model's own resolution."""
        return self.network.patch_px

    @property
    def tile_multiple(self) -> int:
        """Side of a patch in pixels of the scene; 1 if tiles are resampled."""
        return tile_multiple(self.patch_px, self.scale, self.aspect)

    @property
    def tile_px(self) -> int:
        """Side of the tiles it was trained on, in pixels of the scene."""
        return scaled_tile_px(self.trained_tile_px, self.tile_multiple, self.scale)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change when its predictions do."""
        facts = [
            self.legend.to_json(),
            self.statistics.to_json(),
            self.bands,
            self.trained_tile_px,
            self.pixel_size_m,
            self.scale,
            self.aspect,
            self.temperature,
            str(self.compute_dtype),
            self.network.settings,
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        add_weights(digest, self.network)
        return digest.hexdigest()

    def at_pixel_size(self, pixel_size_m: float | None, *, aspect: float = 1.0) -> Segmentor:
        """The same model for scenes of another ground resolution.

        Its tiles cover proportionally more or fewer pixels; the device resamples them on the way
        in and the logits on the way out. Differences below a twentieth are ignored, as the scale
        augmentation covers them.

        Args:
            pixel_size_m: of the scene, metres; None if unknown.
            aspect: width of a pixel of the scene over its height, on the ground. Tiles of pixels
                that are not square are resampled by another factor on each axis.
        """
        if pixel_size_m is None or self.pixel_size_m is None:
            return self
        scale, aspect = resampling(pixel_size_m, self.pixel_size_m, aspect)
        return dataclasses.replace(self, scale=scale, aspect=aspect)

    def for_units(self, units: BandUnits) -> Segmentor:
        """The same model for scenes whose bands have another scale and offset.

        Args:
            units: units of the scene; the model must record the units of its training.
        """
        return dataclasses.replace(self, statistics=self.statistics.in_units(units))

    @torch.inference_mode()
    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Class probabilities, as in `TileModel.probabilities`."""
        mean_N, std_N = self._statistics_on_device
        values = normalize(pixels, valid, mean_N, std_N)
        with autocast(self.device, self.compute_dtype):
            logits = self._logits(values, valid)
        return softmax(logits.float() / self.temperature)

    def _logits(self, values_BNHW: torch.Tensor, valid_BHW: torch.Tensor) -> torch.Tensor:
        if self.scale == self.aspect == 1.0:
            logits: torch.Tensor = self.network(values_BNHW, valid_BHW)
            return logits
        size = values_BNHW.shape[-2:]
        # Of the same area as a square pixel: the scale is the geometric mean of both axes.
        stretch = math.sqrt(self.aspect)
        factors = (self.scale / stretch, self.scale * stretch)
        own = [max(1, round(side * factor)) for side, factor in zip(size, factors, strict=True)]
        resampled = _resized(values_BNHW, own)
        # As in training, a pixel to which a missing one contributes is missing, too.
        valid_BHW = _resized(valid_BHW[:, None].float(), own)[:, 0] > WHOLLY_VALID
        # The CNN head returns half precision, which CPUs cannot resample with antialias.
        return _resized(self.network(resampled, valid_BHW).float(), size)

    @cached_property
    def _statistics_on_device(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.tensor(self.statistics.mean, dtype=torch.float32, device=self.device)
        return mean, torch.tensor(self.statistics.divisors, dtype=torch.float32, device=self.device)


def _resized(maps_BCHW: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(
        maps_BCHW, size=list(size), mode="bilinear", align_corners=False, antialias=True
    )


def normalize(
    pixels_BNHW: torch.Tensor, valid_BHW: torch.Tensor, mean_N: torch.Tensor, std_N: torch.Tensor
) -> torch.Tensor:
    """(value - mean) / std of raw pixels as float32 in [-10, 10]; 0, the mean, where not valid."""
    values = pixels_BNHW.to(torch.float32)
    values = (values - mean_N[:, None, None]) / std_N[:, None, None]
    # `where`, not a product: 0 times NaN is NaN.
    values = torch.where(valid_BHW[:, None], values, torch.zeros((), device=values.device))
    return values.clamp_(-_LARGEST, _LARGEST)
