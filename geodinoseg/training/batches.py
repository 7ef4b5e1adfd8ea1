"""Crops on their way into the network: read, normalized, on the device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from geodinoseg.labels.classes import IGNORE
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.devices import autocast, pick_precision, to_device
from geodinoseg.model.segmentor import normalize
from geodinoseg.prefetch import prefetch
from geodinoseg.training.crops import Crop, jittered
from geodinoseg.training.data import TrainingData
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.settings import TrainingSettings
from geodinoseg.windows import Window


class Batch(NamedTuple):
    """Crops on the device."""

    values: torch.Tensor
    """(batch, bands, side, side) float32, normalized."""
    valid: torch.Tensor
    """(batch, side, side) bool, True where the scene holds data."""
    labels: torch.Tensor
    """(batch, side, side) int64, class index or IGNORE."""


class CropSource:
    """Makes the samplers of a training, and tensors of their crops."""

    def __init__(
        self,
        data: TrainingData,
        statistics: BandStatistics,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        """Take what a training is made of; reads nothing yet."""
        self.data = data
        self.statistics = statistics
        self.settings = settings
        self.device = device
        self.dtype = pick_precision("auto", device)
        self._mean_N = torch.tensor(statistics.mean, dtype=torch.float32, device=device)
        self._std_N = torch.tensor(statistics.divisors, dtype=torch.float32, device=device)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.data.legend)

    @property
    def training_fold(self) -> int | None:
        """The fold that no training crop shows; None unless a fixed part validates."""
        return 0 if self.data.folds == 1 else None

    def sampler(self, fold: int | None) -> Sampler:
        """A sampler of the crops of a fold; None for training crops from everywhere."""
        return Sampler(
            self.data.splits,
            crop_px=self.data.crop_px,
            augmentation=self.settings.augmentation,
            seed=self.settings.seed,
            fold=fold,
        )

    def held_out_sampler(self) -> Sampler:
        """A sampler of augmented crops of the fixed validation part."""
        return Sampler(
            [split.with_sides_swapped() for split in self.data.splits],
            crop_px=self.data.crop_px,
            augmentation=self.settings.augmentation,
            seed=self.settings.seed,
        )

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the network."""
        return autocast(self.device, self.dtype)

    def tensors(self, crops: Sequence[Crop]) -> Batch:
        """Normalized crops; training crops are jittered."""
        valid = self._stacked([crop.valid for crop in crops])
        pixels = self._stacked([crop.pixels for crop in crops])
        values = normalize(pixels, valid, self._mean_N, self._std_N)
        jitters = [crop.jitter for crop in crops if crop.jitter is not None]
        if jitters:
            values = jittered(values, valid, self._stacked(jitters))
        return Batch(values, valid, self._stacked([crop.labels for crop in crops]))

    def _stacked(self, arrays: Sequence[Any]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.stack(arrays)), self.device)


_MOST_PIECES = 1024
"""Drawn at random from all labelled ones: 51 million pixels with crops of 224 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPiece:
    """A piece of a block that validates."""

    fold: int
    """In which its block is held out."""
    scene: int
    """Index of the scene."""
    window: Window
    """No larger than a crop."""


class ValidationCrops:
    """Unchanged crops of held-out blocks, in random order."""

    def __init__(self, source: CropSource) -> None:
        """Choose the pieces; reads no pixels."""
        self._source = source
        pieces = [
            HeldOutPiece(fold=fold, scene=scene, window=window)
            for fold in range(source.data.folds)
            for scene, window in source.sampler(fold).validation_pieces()
        ]
        # Shuffled, so that the first of them represent all if time is short.
        order = np.random.default_rng((source.settings.seed, 1)).permutation(len(pieces))
        self.pieces = [pieces[index] for index in order[:_MOST_PIECES].tolist()]
        places = sorted({self._place(piece) for piece in pieces})
        self._block_of = {place: index for index, place in enumerate(places)}

    @property
    def blocks(self) -> int:
        """Number of held-out blocks."""
        return len(self._block_of)

    def block_of(self, piece: HeldOutPiece) -> int:
        """Index of the held-out block that a piece is of."""
        return self._block_of[self._place(piece)]

    def keep(self, count: int) -> None:
        """Keep only the first pieces."""
        self.pieces = self.pieces[:count]

    def _place(self, piece: HeldOutPiece) -> tuple[int, int, int]:
        """Scene, row and column of its block."""
        side = self._source.data.splits[piece.scene].block_px
        return piece.scene, piece.window.row_off // side, piece.window.col_off // side

    def batches(
        self, *, most: int | None = None, fold: int | None = None
    ) -> Iterator[list[tuple[HeldOutPiece, Crop]]]:
        """Labelled crops with their pieces, read ahead in a thread.

        Of at most so many pieces; only of one fold, if it is given.
        """
        size = self._source.settings.batch_size
        pieces = [p for p in self.pieces[:most] if fold is None or p.fold == fold]

        def read() -> Generator[list[tuple[HeldOutPiece, Crop]], None, None]:
            batch = []
            with self._source.sampler(self._source.training_fold) as sampler:
                for piece in pieces:
                    crop = sampler.validation_crop(piece.scene, piece.window)
                    if (crop.labels != IGNORE).any():
                        batch.append((piece, crop))
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch:
                yield batch

        with closing(prefetch(read, ahead=2)) as batches:
            yield from batches
