"""Crops on their way into the network: read, normalized, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodinoseg.model.devices import autocast, pick_precision, to_device
from geodinoseg.model.normalization import BandStatistics, normalize
from geodinoseg.training.crops import Crop, jittered
from geodinoseg.training.sampler import Sampler

if TYPE_CHECKING:
    from geodinoseg.training.data import TrainingData
    from geodinoseg.training.settings import TrainingSettings


class CropSource:
    """Gives samplers of a training, and their crops as tensors."""

    def __init__(
        self,
        data: TrainingData,
        statistics: BandStatistics,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        """Reads nothing yet.

        Args:
            data: scenes with labels.
            statistics: how pixels are normalized.
            settings: the recipe.
            device: where the network is.
        """
        self.data = data
        self.settings = settings
        self.device = device
        self.dtype = pick_precision("auto", device)
        self._mean_N = torch.tensor(statistics.mean, dtype=torch.float32, device=device)
        self._std_N = torch.tensor(statistics.std, dtype=torch.float32, device=device)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.data.legend)

    @property
    def training_fold(self) -> int | None:
        """The fold that no training crop shows; None in cross-validation and without validation."""
        return 0 if self.data.folds == 1 else None

    def sampler(self, fold: int | None) -> Sampler:
        """A sampler of the crops of a fold; None for training crops from everywhere."""
        return Sampler(
            self.data.splits,
            crop_px=self.settings.crop_px,
            augmentation=self.settings.augmentation,
            seed=self.settings.seed,
            fold=fold,
        )

    def autocast(self) -> AbstractContextManager[object]:
        """The precision in which the network computes."""
        return autocast(self.device, self.dtype)

    def tensors(self, crops: Sequence[Crop]) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops as the network takes them, training crops in their own light.

        Returns:
            values (batch, bands, side, side) float32, and labels (batch, side, side) int64.
        """
        valid = self._stacked([crop.valid for crop in crops])
        pixels = self._stacked([crop.pixels for crop in crops])
        values = normalize(pixels, valid, self._mean_N, self._std_N)
        jitters = [crop.jitter for crop in crops if crop.jitter is not None]
        if jitters:
            values = jittered(values, valid, self._stacked(jitters))
        return values, self._stacked([crop.labels for crop in crops])

    def _stacked(self, arrays: Sequence[Any]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.stack(arrays)), self.device)
