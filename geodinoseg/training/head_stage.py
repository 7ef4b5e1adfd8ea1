"""Stage one: heads on cached features of the frozen backbone, at seconds per epoch.

One head with a fixed validation part. In cross-validation one for each fold, trained in parallel
and scored together: each on the blocks that it never saw.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geodinoseg.labels.classes import IGNORE
from geodinoseg.model.heads import Detail, Head
from geodinoseg.model.weights import Tensors
from geodinoseg.training.batches import CropSource
from geodinoseg.training.budget import TimeSlice, TrainingProgress
from geodinoseg.training.feature_cache import CachedBatch, CachedCrops
from geodinoseg.training.optimizer import (
    Optimizer,
    Scorer,
    head_tensors,
    loss_of_members,
    numbered,
    of_number,
    rate_factor,
)
from geodinoseg.training.settings import StageName

HEAD_RATE = 1e-3
"""Default learning rate."""
_PART_PX = 84


@dataclass(frozen=True, kw_only=True)
class FoldHead:
    """A head with the cached crops that it is trained and scored on."""

    head: Head
    optimizer: Optimizer
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


class HeadStage:
    """Trains one head, or one for each fold."""

    def __init__(
        self,
        name: StageName,
        head: Head,
        source: CropSource,
        crops: CachedCrops,
        *,
        epochs: int,
        first_epoch: int = 0,
        time_slice: TimeSlice,
        progress: TrainingProgress,
        kept_s: float = 0.0,
    ) -> None:
        """Take a head, or with folds copies of it; leaves kept_s seconds of the time slice.

        The learning rate falls over so many epochs. first_epoch are those that the head had in
        another stage: crops come in another order.
        """
        self.name = name
        self._epochs, self._first_epoch = epochs, first_epoch
        self._source = source
        self._crops = crops
        self._time_slice = time_slice
        self._progress = progress
        self._kept_s = kept_s
        self._epoch_s = 0.0
        folds = len(crops.training_of)
        heads = [head] if folds == 1 else [copy.deepcopy(head) for _ in range(folds)]
        sides = zip(crops.training_of, crops.validation_of, strict=True)
        self._folds = [
            FoldHead(
                head=own,
                optimizer=self._new_optimizer(own),
                training=training,
                validation=validation,
            )
            for own, (training, validation) in zip(heads, sides, strict=True)
        ]

    @property
    def heads(self) -> list[Head]:
        """One for each fold."""
        return [fold.head for fold in self._folds]

    def has_time(self) -> bool:
        """Whether another epoch ends in time."""
        return self._time_slice.has_room_for(self._epoch_s + self._kept_s)

    def train_epoch(self, epoch: int) -> float:
        """Train each head for an epoch, from 0, or for as many steps as time allows."""
        began_s = self._time_slice.budget.used_s
        losses: list[float] = []
        for number, fold in enumerate(self._folds):
            fold.head.train()
            rng = self._rng(4, epoch, number)
            for step, indices in enumerate(self._batches(fold, epoch, number)):
                loss = self._loss(fold, indices, rng)
                losses.append(fold.optimizer.step(loss, self._rate_factor(epoch, step)))
                self._progress.step(losses)
                if not self._time_slice.has_room_for(self._kept_s):
                    break
        self._epoch_s = self._time_slice.budget.used_s - began_s
        return float(np.mean(losses))

    @torch.no_grad()
    def validate(self) -> Scorer:
        """Score each head on the blocks of its fold."""
        scorer = Scorer(self._source.classes, self._crops.blocks)
        size = self._source.settings.batch_size
        for fold in self._folds:
            fold.head.eval()
            for first in range(0, len(fold.validation), size):
                indices = fold.validation[first : first + size]
                logits, labels = self._logits(fold, indices)
                scorer.add(logits, labels, self._crops.block_of[indices].tolist())
        return scorer

    def tensors(self) -> Tensors:
        """Weights of all heads, not copied."""
        return numbered([head_tensors(fold.head) for fold in self._folds])

    def optimizer_state(self) -> Tensors:
        """State of the optimizers of all heads."""
        return numbered([fold.optimizer.state() for fold in self._folds])

    def load_optimizer_state(self, state: Tensors) -> None:
        """Restore what `optimizer_state` returned."""
        for number, fold in enumerate(self._folds):
            fold.optimizer.load_state(of_number(state, number))

    def _new_optimizer(self, head: nn.Module) -> Optimizer:
        settings = self._source.settings
        return Optimizer(
            [(head, settings.learning_rate or HEAD_RATE)],
            weight_decay=settings.weight_decay,
            device=self._source.device,
            dtype=self._source.dtype,
        )

    def _batches(self, fold: FoldHead, epoch: int, number: int) -> NDArray[np.int64]:
        """(steps, batch) crops in a random order that follows from seed, epoch and fold."""
        settings = self._source.settings
        rng = self._rng(2, epoch, number)
        wanted = settings.steps_per_epoch * settings.batch_size
        rounds = -(-wanted // len(fold.training))
        order = np.concatenate([rng.permutation(fold.training) for _ in range(rounds)])
        return order[:wanted].reshape(settings.steps_per_epoch, settings.batch_size)

    def _rng(self, purpose: int, epoch: int, number: int) -> np.random.Generator:
        seed = self._source.settings.seed
        return np.random.default_rng((seed, purpose, self._first_epoch + epoch, number))

    def _rate_factor(self, epoch: int, step: int) -> float:
        of_epoch = self._source.settings.steps_per_epoch
        done, steps = epoch * of_epoch + step, self._epochs * of_epoch
        return rate_factor(done, steps, self._time_slice.fraction)

    def _loss(
        self, fold: FoldHead, indices: NDArray[np.int64], rng: np.random.Generator
    ) -> torch.Tensor:
        batch = self._crops.cache.tensors(indices, self._source.device)
        if fold.head.sees_pixels:
            batch = parts_of(batch, rng)
        with self._source.autocast():
            members = fold.head.members(batch.features, _size_px(batch), batch.detail)
        return loss_of_members(members, batch.labels)

    def _logits(self, fold: FoldHead, indices: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits per pixel and labels of some crops."""
        batch = self._crops.cache.tensors(indices, self._source.device)
        with self._source.autocast():
            logits_BCHW = fold.head(batch.features, _size_px(batch), batch.detail)
        return logits_BCHW.float(), batch.labels


def parts_of(batch: CachedBatch, rng: np.random.Generator) -> CachedBatch:
    """A square of 84 px of each crop around one of its labelled pixels, in whole patches.

    A head that sees the pixels learns as much from it, in a fraction of the time; the features are
    those of the whole crop. Smaller crops, are taken as they are.
    """
    patches = batch.features.shape[-1]
    patch_px = batch.labels.shape[-1] // patches
    side = max(_PART_PX // patch_px, 1)
    if side >= patches or batch.detail is None:
        return batch
    places = [_part(labels, patches - side, side, patch_px, rng) for labels in batch.labels.cpu()]

    def cut(maps: torch.Tensor, unit: int) -> torch.Tensor:
        size = side * unit
        return torch.stack(
            [
                one[..., row * unit : row * unit + size, col * unit : col * unit + size]
                for one, (row, col) in zip(maps, places, strict=True)
            ]
        )

    detail = Detail(cut(batch.detail.pixels, patch_px), cut(batch.detail.valid, patch_px))
    return CachedBatch(cut(batch.features, 1), detail, cut(batch.labels, patch_px))


def _part(
    labels_HW: torch.Tensor, last: int, side: int, patch_px: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Row and column, in patches, of a part of a crop; at most last."""
    known = np.flatnonzero(labels_HW.numpy() != IGNORE)
    if not len(known):
        return int(rng.integers(last + 1)), int(rng.integers(last + 1))
    at = divmod(int(known[rng.integers(len(known))]), labels_HW.shape[-1])
    row, col = (min(max(px // patch_px - int(rng.integers(side)), 0), last) for px in at)
    return row, col


def _size_px(batch: CachedBatch) -> tuple[int, int]:
    rows, cols = batch.labels.shape[-2:]
    return int(rows), int(cols)
