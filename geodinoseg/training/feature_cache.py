"""Features of the frozen backbone, computed once and used many times.

In memory up to a limit, beyond it in an unnamed file, of which a kill leaves nothing.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geodinoseg.errors import OutputError
from geodinoseg.model.devices import to_device
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.training.batches import CropSource
from geodinoseg.training.crops import Crop

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(kw_only=True)
class FeatureCache:
    """Features and labels of crops, in the order in which they came."""

    features: NDArray[np.float16]
    """(room, channels, rows, columns of patches)."""
    labels: NDArray[Any]
    """(room, side, side) class index or IGNORE, in the smallest type that holds them."""
    crops: list[Crop] = field(default_factory=list)
    """Where each was cut, without its pixels."""

    def __len__(self) -> int:
        """Crops so far."""
        return len(self.crops)

    def tensors(
        self, indices: Sequence[int] | NDArray[Any], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (n, D, h, w) float32 and labels (n, side, side) int64 of some crops."""
        features = torch.from_numpy(np.ascontiguousarray(self.features[indices]))
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[indices]))
        return to_device(features, device).float(), to_device(labels, device).long()

    def append(self, features_BDhw: torch.Tensor, crops: Sequence[Crop]) -> None:
        """Add a batch, on any device."""
        first = len(self)
        # Clamped: float16 would overflow to infinity.
        half = features_BDhw.clamp(-_LARGEST, _LARGEST).half().cpu().numpy()
        self.features[first : first + len(crops)] = half
        for index, crop in enumerate(crops, start=first):
            self.labels[index] = crop.labels
            self.crops.append(crop.without_pixels())


@torch.no_grad()
def features_of(
    network: DinoV2Segmentor, source: CropSource, crops: Sequence[Crop]
) -> torch.Tensor:
    """(batch, channels, rows, columns of patches) features of crops, as in prediction."""
    network.eval()
    values, _ = source.tensors(crops)
    with source.autocast():
        return network.features(values)


def new_cache(
    room: int, features_BDhw: torch.Tensor, source: CropSource, folder: Path
) -> FeatureCache:
    """An empty cache for so many crops with features of that shape; if large, in a folder."""
    side_px = source.settings.crop_px
    features = (room, *features_BDhw.shape[1:]), np.dtype(np.float16)
    labels = (room, side_px, side_px), np.min_scalar_type(-max(source.classes, 1))
    needed = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in (features, labels))
    if needed <= source.settings.cache_bytes:
        return FeatureCache(features=np.empty(*features), labels=np.empty(*labels))
    return FeatureCache(
        features=_on_disk(*features, folder=folder), labels=_on_disk(*labels, folder=folder)
    )


def _on_disk(shape: tuple[int, ...], dtype: np.dtype[Any], *, folder: Path) -> NDArray[Any]:
    """An array in an unlinked file, allocated at once.

    Writing to a page that a full disk cannot hold would end the process with a signal.
    """
    needed = int(np.prod(shape)) * dtype.itemsize
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".geodinoseg-") as handle:
            os.posix_fallocate(handle.fileno(), 0, needed)
            return np.memmap(handle, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}:
            raise
        raise OutputError(
            f"{folder}: has no room for {needed / 1e9:.1f} GB of features ({error.strerror}); free "
            f"some, or train on fewer with --cached-crops."
        ) from error


@dataclass(frozen=True, kw_only=True)
class CachedCrops:
    """What the heads are trained and scored on."""

    training: FeatureCache
    """Crops from all training blocks, then those drawn for single folds."""
    count: int
    """Number of the former."""
    training_of: list[NDArray[np.int64]]
    """For each fold, which of them show nothing of its blocks."""
    validation: FeatureCache | None
    """Crops of held-out blocks; None without validation."""
    validation_of: list[NDArray[np.int64]]
    """For each fold, which of them are of its blocks."""

    def undivided(self) -> CachedCrops:
        """All training crops for one head, and nothing to score it on."""
        nothing = np.zeros(0, dtype=np.int64)
        return replace(
            self, training_of=[np.arange(self.count)], validation=None, validation_of=[nothing]
        )
