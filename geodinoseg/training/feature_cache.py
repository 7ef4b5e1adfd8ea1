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
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geodinoseg.errors import OutputError
from geodinoseg.model.devices import to_device
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.heads import Detail
from geodinoseg.training.batches import Batch, CropSource
from geodinoseg.training.crops import Crop

_LARGEST = float(np.finfo(np.float16).max)


class CachedBatch(NamedTuple):
    """What a head is trained on."""

    features: torch.Tensor
    """(batch, channels, rows, columns of patches) float32."""
    detail: Detail | None
    """Pixels, for a head that sees them."""
    labels: torch.Tensor
    """(batch, side, side) int64, class index or IGNORE."""


@dataclass(kw_only=True)
class FeatureCache:
    """Features and labels of crops, in the order in which they came."""

    features: NDArray[np.float16]
    """(room, channels, rows, columns of patches)."""
    labels: NDArray[Any]
    """(room, side, side) class index or IGNORE, in the smallest type that holds them."""
    values: NDArray[np.float16] | None = None
    """(room, bands, side, side) normalized pixels, for a head that sees them."""
    valid: NDArray[np.bool_] | None = None
    """(room, side, side), True where the scene holds data."""
    crops: list[Crop] = field(default_factory=list)
    """Where each was cut, without its pixels."""

    def __len__(self) -> int:
        """Crops so far."""
        return len(self.crops)

    def tensors(self, indices: Sequence[int] | NDArray[Any], device: torch.device) -> CachedBatch:
        """Some crops, on a device."""

        def taken(array: NDArray[Any]) -> torch.Tensor:
            return to_device(torch.from_numpy(np.ascontiguousarray(array[indices])), device)

        detail = None
        if self.values is not None and self.valid is not None:
            detail = Detail(taken(self.values).float(), taken(self.valid))
        return CachedBatch(taken(self.features).float(), detail, taken(self.labels).long())

    def append(self, features_BDhw: torch.Tensor, batch: Batch, crops: Sequence[Crop]) -> None:
        """Add a batch, on any device."""
        first = len(self)
        if self.values is not None and self.valid is not None:
            self.values[first : first + len(crops)] = batch.values.half().cpu().numpy()
            self.valid[first : first + len(crops)] = batch.valid.cpu().numpy()
        # Clamped: float16 would overflow to infinity.
        half = features_BDhw.clamp(-_LARGEST, _LARGEST).half().cpu().numpy()
        self.features[first : first + len(crops)] = half
        for index, crop in enumerate(crops, start=first):
            self.labels[index] = crop.labels
            self.crops.append(crop.without_pixels())


@torch.no_grad()
def features_of(network: DinoV2Segmentor, source: CropSource, batch: Batch) -> torch.Tensor:
    """(batch, channels, rows, columns of patches) features of crops, as in prediction."""
    network.eval()
    with source.autocast():
        return network.features(batch.values)


def new_cache(
    room: int,
    features_BDhw: torch.Tensor,
    source: CropSource,
    folder: Path,
    *,
    sees_pixels: bool,
) -> FeatureCache:
    """An empty cache for so many crops with features of that shape; if large, in a folder.

    It has room for the pixels if the head sees them.
    """
    crop = (room, source.data.crop_px, source.data.crop_px)
    arrays: dict[str, Any] = {
        "features": ((room, *features_BDhw.shape[1:]), np.dtype(np.float16)),
        "labels": (crop, np.min_scalar_type(-max(source.classes, 1))),
    }
    if sees_pixels:
        bands = len(source.data.bands)
        arrays["values"] = ((room, bands, *crop[1:]), np.dtype(np.float16))
        arrays["valid"] = (crop, np.dtype(np.bool_))
    needed = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in arrays.values())
    if needed <= source.settings.cache_bytes:
        made: dict[str, Any] = {name: np.empty(*of) for name, of in arrays.items()}
    else:
        # There is no file of nothing, which features without a backbone are.
        made = {
            name: np.empty(*of) if 0 in of[0] else _on_disk(*of, folder=folder)
            for name, of in arrays.items()
        }
    return FeatureCache(**made)


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
    """What the heads are trained and scored on: crops of a cache, by their index."""

    cache: FeatureCache
    """Crops of held-out blocks as they are, training crops, those drawn for single folds, and those
    of a fixed validation part to train on."""
    training: NDArray[np.int64]
    """The training crops."""
    training_of: list[NDArray[np.int64]]
    """For each fold, which crops to train on: they show nothing of its blocks."""
    validation_of: list[NDArray[np.int64]]
    """For each fold, which crops are of its blocks."""
    held_out: NDArray[np.int64]
    """Crops of a fixed validation part, varied like training crops; none in cross-validation."""
    blocks: int
    """Number of held-out blocks."""
    block_of: NDArray[np.int64]
    """Which of them each validation crop is of."""

    def of_all_labels(self) -> CachedCrops:
        """Crops of all labels to train one head on, and nothing to score it on."""
        indices = np.concatenate([self.training, self.held_out])
        nothing = np.zeros(0, dtype=np.int64)
        return replace(self, training_of=[indices], validation_of=[nothing])
