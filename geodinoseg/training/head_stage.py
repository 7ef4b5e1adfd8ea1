"""Stage one: heads on cached features of the frozen backbone, in seconds an epoch.

One head where a part of the scenes validates. In cross-validation one for each fold, side by side,
scored together: each on the blocks that it never saw.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geodinoseg.training.batches import CropSource
from geodinoseg.training.budget import TimeSlice, TrainingProgress
from geodinoseg.training.feature_cache import CachedCrops, FeatureCache
from geodinoseg.training.optimizer import (
    Optimizer,
    Scorer,
    Tensors,
    head_tensors,
    rate_share,
    segmentation_loss,
)
from geodinoseg.training.settings import StageName

HEAD_RATE = 1e-3
"""Learning rate where none is given."""


@dataclass(frozen=True, kw_only=True)
class FoldHead:
    """A head with what it learns from and is scored on."""

    head: nn.Module
    optimizer: Optimizer
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


class HeadStage:
    """Trains one head, or one for each fold."""

    name: StageName = "head"

    def __init__(
        self,
        head: nn.Module,
        source: CropSource,
        crops: CachedCrops,
        *,
        time_slice: TimeSlice,
        progress: TrainingProgress,
        kept_s: float = 0.0,
    ) -> None:
        """Make the optimizers; nothing runs yet.

        Args:
            head: on its device; where there are folds, each takes a copy.
            source: knows the recipe, the classes, the device.
            crops: features.
            time_slice: bounds the schedule and the steps.
            progress: told every step.
            kept_s: seconds of the time_slice that are for something else.
        """
        self._source = source
        self._crops = crops
        self._time_slice = time_slice
        self._progress = progress
        self._kept_s = kept_s
        self._epoch_s = 0.0
        folds = len(crops.training_of)
        heads = [head] if folds == 1 else [copy.deepcopy(head) for _ in range(folds)]
        sides = zip(crops.training_of, crops.validation_of, strict=True)
        self._heads = [
            FoldHead(
                head=own,
                optimizer=self._new_optimizer(own),
                training=training,
                validation=validation,
            )
            for own, (training, validation) in zip(heads, sides, strict=True)
        ]

    @property
    def heads(self) -> list[nn.Module]:
        """One for each fold."""
        return [fold_head.head for fold_head in self._heads]

    def has_time(self) -> bool:
        """Whether an epoch ends in time."""
        return self._time_slice.has_room_for(self._epoch_s + self._kept_s)

    def train_epoch(self, epoch: int) -> float:
        """Train each head for an epoch, or for as many steps as there is time for.

        Args:
            epoch: from 0.

        Returns:
            The mean loss.

        Raises:
            ModelError: the loss is no longer a number.
        """
        began_s = self._time_slice.budget.used_s
        losses: list[float] = []
        for number, fold_head in enumerate(self._heads):
            fold_head.head.train()
            for step, indices in enumerate(self._batches(fold_head, epoch, number)):
                share = self._rate_share(epoch, step)
                losses.append(fold_head.optimizer.step(self._loss(fold_head, indices), share))
                self._progress.step(losses)
                if not self._time_slice.has_room_for(self._kept_s):
                    break
        self._epoch_s = self._time_slice.budget.used_s - began_s
        return float(np.mean(losses))

    @torch.no_grad()
    def validate(self) -> Scorer:
        """Score each head on the blocks of its fold."""
        scorer = Scorer(self._source.classes)
        size = self._source.settings.batch_size
        for fold_head in self._heads:
            fold_head.head.eval()
            for first in range(0, len(fold_head.validation), size):
                assert self._crops.validation is not None
                scorer.add(
                    *self._logits(
                        fold_head,
                        self._crops.validation,
                        fold_head.validation[first : first + size],
                    )
                )
        return scorer

    def tensors(self) -> Tensors:
        """Weights of all heads, not copied."""
        return {
            name: tensor
            for number, fold_head in enumerate(self._heads)
            for name, tensor in head_tensors(fold_head.head, f"{number}").items()
        }

    def optimizer_state(self) -> Tensors:
        """Of all heads."""
        return {
            f"{number}.{name}": tensor
            for number, fold_head in enumerate(self._heads)
            for name, tensor in fold_head.optimizer.state().items()
        }

    def load_optimizer_state(self, state: Tensors) -> None:
        """Take up what `optimizer_state` gave."""
        for number, fold_head in enumerate(self._heads):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            fold_head.optimizer.load_state(own)

    def _new_optimizer(self, head: nn.Module) -> Optimizer:
        settings = self._source.settings
        return Optimizer(
            [(head, settings.learning_rate or HEAD_RATE)],
            weight_decay=settings.weight_decay,
            device=self._source.device,
            dtype=self._source.dtype,
        )

    def _batches(self, fold_head: FoldHead, epoch: int, number: int) -> NDArray[np.int64]:
        """(steps, batch) crops in a random order that follows from seed, epoch and fold."""
        settings = self._source.settings
        rng = np.random.default_rng((settings.seed, 2, epoch, number))
        wanted = settings.steps_per_epoch * settings.batch_size
        rounds = -(-wanted // len(fold_head.training))
        order = np.concatenate([rng.permutation(fold_head.training) for _ in range(rounds)])
        return order[:wanted].reshape(settings.steps_per_epoch, settings.batch_size)

    def _rate_share(self, epoch: int, step: int) -> float:
        settings = self._source.settings
        steps = settings.stage_one_epochs * settings.steps_per_epoch
        return rate_share(epoch * settings.steps_per_epoch + step, steps, self._time_slice.share)

    def _loss(self, fold_head: FoldHead, indices: NDArray[np.int64]) -> torch.Tensor:
        return segmentation_loss(*self._logits(fold_head, self._crops.training, indices))

    def _logits(
        self, fold_head: FoldHead, cache: FeatureCache, indices: NDArray[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits per pixel and labels of some crops."""
        features_BDhw, labels_BHW = cache.tensors(indices, self._source.device)
        side = labels_BHW.shape[-1]
        with self._source.autocast():
            logits_BCHW = fold_head.head(features_BDhw, (side, side))
        return logits_BCHW.float(), labels_BHW
