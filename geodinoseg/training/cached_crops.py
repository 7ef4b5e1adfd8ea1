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
from geodinoseg.training.sampler import read_ahead

logger = logging.getLogger(__name__)

_FEWEST_OF_FOLD = 32
"""Crops that show nothing of a fold; if there are fewer by chance, more are drawn for the fold."""


def cache_crops(
    network: DinoV2Segmentor,
    source: CropSource,
    validation: ValidationCrops,
    record: TrainingRecord,
    *,
    folder: Path,
    time_slice: TimeSlice,
    progress: TrainingProgress,
) -> CachedCrops:
    """Features of validation crops and of training crops number 0 to K - 1.

    K follows from the settings; only if time is limited there may be fewer, and fewer validation
    crops. The record holds their numbers from before an interruption, and receives them.
    """
    cacher = _Cacher(network=network, source=source, folder=folder, progress=progress)
    wanted = source.settings.crops_to_cache if record.cached_crops is None else record.cached_crops
    log_step(
        logger,
        "computing features of %d validation crops and %d training crops with the frozen backbone.",
        len(validation.pieces),
        wanted,
    )
    folds = max(source.data.folds, 1)
    progress.expect_validation(len(validation.pieces), heads=folds)
    held_out, fold_of = cacher.validation(validation, record, time_slice.first(0.5))
    training = cacher.training(wanted, time_slice, spare=folds * _FEWEST_OF_FOLD * (folds > 1))
    count = record.cached_crops = len(training)
    return CachedCrops(
        training=training,
        count=count,
        training_of=[cacher.unseen_by(fold, training, count) for fold in range(folds)],
        validation=held_out,
        validation_of=[np.flatnonzero(fold_of == fold) for fold in range(folds)],
    )


@dataclass(frozen=True, kw_only=True)
class _Cacher:
    """Computes features of crops with the backbone."""

    network: DinoV2Segmentor
    source: CropSource
    folder: Path
    progress: TrainingProgress

    def validation(
        self, crops: ValidationCrops, record: TrainingRecord, time_slice: TimeSlice
    ) -> tuple[FeatureCache | None, NDArray[np.int64]]:
        """Features of validation crops, and the fold of each."""
        began_s = time_slice.budget.used_s
        seen: list[HeldOutPiece] = []

        def batches() -> Iterator[list[Crop]]:
            for batch in crops.batches():
                seen.extend(piece for piece, _ in batch)
                yield [crop for _, crop in batch]

        cache = self._cached(batches(), room=len(crops.pieces), time_slice=time_slice)
        if cache is not None and not time_slice.has_room_for(0):
            crops.keep(crops.pieces.index(seen[-1]) + 1)
            record.validation_pieces = len(crops.pieces)
        record.validation_s = time_slice.budget.used_s - began_s
        return cache, np.array([piece.fold for piece in seen], dtype=np.int64)

    def training(self, count: int, time_slice: TimeSlice, *, spare: int) -> FeatureCache:
        """Features of training crops, with room for a few more."""
        batches = self._training_batches(self.source.training_fold, count)
        cache = self._cached(batches, room=count + spare, time_slice=time_slice)
        assert cache is not None
        return cache

    def unseen_by(self, fold: int, training: FeatureCache, count: int) -> NDArray[np.int64]:
        """Which of the first crops show nothing held out in a fold; more are drawn if few do."""
        if self.source.data.folds <= 1:
            return np.arange(count)
        splits = self.source.data.splits
        unseen = [
            index
            for index, crop in enumerate(training.crops[:count])
            if crop.window is not None and not splits[crop.scene].touches(crop.window, fold)
        ]
        first = len(training)
        if len(unseen) < min(_FEWEST_OF_FOLD, count):
            missing = _FEWEST_OF_FOLD - len(unseen)
            self._cached(self._training_batches(fold, missing), into=training)
        return np.array([*unseen, *range(first, len(training))], dtype=np.int64)

    def _training_batches(self, fold: int | None, count: int) -> Iterator[list[Crop]]:
        size = self.source.settings.batch_size
        steps = range(-(-count // size))
        with closing(
            read_ahead(self.source.sampler(fold), steps=steps, batch_size=size)
        ) as batches:
            for step, crops in enumerate(batches):
                yield crops[: count - step * size]

    def _cached(
        self,
        batches: Iterator[list[Crop]],
        *,
        room: int = 0,
        into: FeatureCache | None = None,
        time_slice: TimeSlice | None = None,
    ) -> FeatureCache | None:
        """Features of batches, after existing ones, until time is over."""
        cache = into
        for crops in batches:
            features_BDhw = features_of(self.network, self.source, crops)
            if cache is None:
                cache = new_cache(room, features_BDhw, self.source, self.folder)
            cache.append(features_BDhw, crops)
            self.progress.caching(len(crops))
            if time_slice is not None and not time_slice.has_room_for(0):
                break
        return cache
