"""The crops that say how good a model is: which they are, and how they are read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geodinoseg.labels.classes import IGNORE
from geodinoseg.prefetch import in_background
from geodinoseg.training.crops import Crop

if TYPE_CHECKING:
    from geodinoseg.training.batches import CropSource
    from geodinoseg.windows import Window

_MOST_PIECES = 1024
"""Of all labelled ones, drawn at random: 51 million pixels where crops have 224 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPiece:
    """A piece of a block that validates."""

    fold: int
    """In which its block is held out."""
    scene: int
    """Number of the scene."""
    window: Window
    """No larger than a crop."""


class ValidationCrops:
    """Crops of held-out blocks as they are, in an order of their own."""

    def __init__(self, source: CropSource) -> None:
        """Choose the pieces; reads no pixels.

        Args:
            source: gives samplers.
        """
        self._source = source
        pieces = [
            HeldOutPiece(fold=fold, scene=scene, window=window)
            for fold in range(source.data.folds)
            for scene, window in source.sampler(fold).validation_pieces()
        ]
        # Shuffled, so that the first of them speak for all where there is no time for all.
        order = np.random.default_rng((source.settings.seed, 1)).permutation(len(pieces))
        self.pieces = [pieces[index] for index in order[:_MOST_PIECES].tolist()]

    def keep(self, count: int) -> None:
        """Leave it at the first pieces."""
        self.pieces = self.pieces[:count]

    def batches(self, *, most: int | None = None) -> Iterator[list[tuple[HeldOutPiece, Crop]]]:
        """Labelled crops with their pieces, read in a thread of their own.

        Args:
            most: pieces to look at.
        """
        size = self._source.settings.batch_size

        def read() -> Generator[list[tuple[HeldOutPiece, Crop]], None, None]:
            batch = []
            with self._source.sampler(self._source.training_fold) as sampler:
                for piece in self.pieces[:most]:
                    crop = sampler.validation_crop(piece.scene, piece.window)
                    if (crop.labels != IGNORE).any():
                        batch.append((piece, crop))
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch:
                yield batch

        with closing(in_background(read, ahead=2)) as batches:
            yield from batches
