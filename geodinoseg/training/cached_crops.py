"""The crops of stage one: their features, and which of them each fold may see."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.progress import log_step
from geodinoseg.training.batches import CropSource, HeldOutPiece, ValidationCrops
from geodinoseg.training.budget import TimeSlice, TrainingProgress
from geodinoseg.training.checkpoint import TrainingRecord
from geodinoseg.training.crops import Crop
from geodinoseg.training.feature_cache import (
    CachedCrops,
    FeatureCache,
    features_of,
    new_cache,
)
from geodinoseg.training.sampler import Sampler, read_ahead

logger = logging.getLogger(__name__)

_FEWEST_OF_FOLD = 32
"""Crops that show nothing of a fold, and no fewer than an equal part of all; if there are fewer by
chance, more are drawn for the fold."""


def cache_crops(
    network: DinoV2Segmentor,
    source: CropSource,
    validation: ValidationCrops,
    record: TrainingRecord,
    *,
    folder: Path,
    sees_pixels: bool,
    time_slice: TimeSlice,
    progress: TrainingProgress,
) -> CachedCrops:
    """Features of validation crops and of training crops number 0 to K - 1.

    They hold the pixels too if a head sees them. K follows from the settings; only if time is
    limited there may be fewer, and fewer validation crops. The record holds their numbers from
    before an interruption, and receives them.
    """
    folds = max(source.data.folds, 1)
    wanted = source.settings.crops_to_cache if record.cached_crops is None else record.cached_crops
    of_held_out = source.settings.crops_of_held_out(source.data.folds)
    cacher = _Cacher(
        network=network,
        source=source,
        folder=folder,
        sees_pixels=sees_pixels,
        room=len(validation.pieces) + wanted + of_held_out + folds * _fewest_of_fold(wanted, folds),
        progress=progress,
    )
    log_step(
        logger,
        "computing features of %d validation crops and %d training crops with the frozen backbone."
        if network.has_backbone
        else "reading %d validation crops and %d training crops.",
        len(validation.pieces),
        wanted + of_held_out,
    )
    progress.expect_validation(len(validation.pieces))
    pieces = cacher.validation(validation, record, time_slice.first(0.5))
    fold_of = np.array([piece.fold for piece in pieces], dtype=np.int64)
    count = record.cached_crops = cacher.training(wanted, time_slice)
    training = np.arange(len(pieces), len(pieces) + count)
    assert cacher.cache is not None
    training_of = [cacher.unseen_by(fold, training) for fold in range(folds)]
    first = len(cacher.cache)
    cacher.held_out(of_held_out, time_slice)
    return CachedCrops(
        cache=cacher.cache,
        training=training,
        training_of=training_of,
        held_out=np.arange(first, len(cacher.cache)),
        validation_of=[np.flatnonzero(fold_of == fold) for fold in range(folds)],
        blocks=validation.blocks,
        block_of=np.array([validation.block_of(piece) for piece in pieces], dtype=np.int64),
    )


@dataclass(kw_only=True)
class _Cacher:
    """Computes features of crops with the backbone, and appends them to a cache."""

    network: DinoV2Segmentor
    source: CropSource
    folder: Path
    sees_pixels: bool
    room: int
    """Crops that the cache has room for."""
    progress: TrainingProgress
    cache: FeatureCache | None = None
    """None before the first batch."""

    def validation(
        self, crops: ValidationCrops, record: TrainingRecord, time_slice: TimeSlice
    ) -> list[HeldOutPiece]:
        """Cache validation crops; the piece of each."""
        began_s = time_slice.budget.used_s
        seen: list[HeldOutPiece] = []

        def batches() -> Iterator[list[Crop]]:
            for batch in crops.batches():
                seen.extend(piece for piece, _ in batch)
                yield [crop for _, crop in batch]

        self._append(batches(), time_slice)
        if seen and not time_slice.has_room_for(0):
            crops.keep(crops.pieces.index(seen[-1]) + 1)
            record.validation_pieces = len(crops.pieces)
        record.validation_s = time_slice.budget.used_s - began_s
        return seen

    def training(self, count: int, time_slice: TimeSlice) -> int:
        """Cache so many training crops, or as many as time allows; their number."""
        sampler = self.source.sampler(self.source.training_fold)
        return self._append(self._training_batches(sampler, count), time_slice)

    def held_out(self, count: int, time_slice: TimeSlice) -> None:
        """Cache so many augmented crops of a fixed validation part, or as time allows."""
        if count and time_slice.has_room_for(0):
            self._append(self._training_batches(self.source.held_out_sampler(), count), time_slice)

    def unseen_by(self, fold: int, training: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which training crops show nothing held out in a fold; more are drawn if few do."""
        if self.source.data.folds <= 1:
            return training
        assert self.cache is not None
        splits = self.source.data.splits
        crops = [(index, self.cache.crops[index]) for index in training.tolist()]
        unseen = [
            index
            for index, crop in crops
            if crop.window is not None and not splits[crop.scene].touches(crop.window, fold)
        ]
        first = len(self.cache)
        fewest = _fewest_of_fold(len(training), self.source.data.folds)
        if len(unseen) < fewest:
            sampler = self.source.sampler(fold)
            self._append(self._training_batches(sampler, fewest - len(unseen)))
        return np.array([*unseen, *range(first, len(self.cache))], dtype=np.int64)

    def _training_batches(self, sampler: Sampler, count: int) -> Iterator[list[Crop]]:
        size = self.source.settings.batch_size
        steps = range(-(-count // size))
        with closing(read_ahead(sampler, steps=steps, batch_size=size)) as batches:
            for step, crops in enumerate(batches):
                yield crops[: count - step * size]

    def _append(self, batches: Iterator[list[Crop]], time_slice: TimeSlice | None = None) -> int:
        """Cache batches until time is over; the number of crops."""
        added = 0
        for crops in batches:
            batch = self.source.tensors(crops)
            features_BDhw = features_of(self.network, self.source, batch)
            if self.cache is None:
                self.cache = new_cache(
                    self.room, features_BDhw, self.source, self.folder, sees_pixels=self.sees_pixels
                )
            self.cache.append(features_BDhw, batch, crops)
            added += len(crops)
            self.progress.caching(len(crops))
            if time_slice is not None and not time_slice.has_room_for(0):
                break
        return added


def _fewest_of_fold(crops: int, folds: int) -> int:
    """Of so many training crops, how many each fold needs at least; none without folds."""
    return max(min(_FEWEST_OF_FOLD, crops), crops // folds) if folds > 1 else 0
