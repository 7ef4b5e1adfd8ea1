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
from geodinoseg.training.budget import Allowance, Meter
from geodinoseg.training.feature_cache import CachedCrops, FeatureCache
from geodinoseg.training.optimizer import (
    Descent,
    Scorer,
    Tensors,
    head_tensors,
    rate_share,
    segmentation_loss,
)
from geodinoseg.training.settings import Stage

HEAD_RATE = 1e-3
"""Learning rate where none is given."""


@dataclass(frozen=True, kw_only=True)
class _Lane:
    """A head with what it learns from and is scored on."""

    head: nn.Module
    descent: Descent
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


class HeadStage:
    """Trains one head, or one for each fold."""

    name: Stage = "head"

    def __init__(
        self,
        head: nn.Module,
        source: CropSource,
        crops: CachedCrops,
        *,
        allowance: Allowance,
        meter: Meter,
        kept_s: float = 0.0,
    ) -> None:
        """Make the optimizers; nothing runs yet.

        Args:
            head: on its device; where there are folds, each takes a copy.
            source: knows the recipe, the classes, the device.
            crops: features.
            allowance: bounds the schedule and the steps.
            meter: told every step.
            kept_s: seconds of the allowance that are for something else.
        """
        self._source = source
        self._crops = crops
        self._allowance = allowance
        self._meter = meter
        self._kept_s = kept_s
        self._epoch_s = 0.0
        folds = len(crops.training_of)
        heads = [head] if folds == 1 else [copy.deepcopy(head) for _ in range(folds)]
        sides = zip(crops.training_of, crops.validation_of, strict=True)
        self._lanes = [
            _Lane(head=own, descent=self._descent(own), training=training, validation=validation)
            for own, (training, validation) in zip(heads, sides, strict=True)
        ]

    @property
    def heads(self) -> list[nn.Module]:
        """One for each fold."""
        return [lane.head for lane in self._lanes]

    def has_time(self) -> bool:
        """Whether an epoch ends in time."""
        return self._allowance.has_room_for(self._epoch_s + self._kept_s)

    def train_epoch(self, epoch: int) -> float:
        """Train each head for an epoch, or for as many steps as there is time for.

        Args:
            epoch: from 0.

        Returns:
            The mean loss.

        Raises:
            ModelError: the loss is no longer a number.
        """
        began_s = self._allowance.budget.used_s
        losses: list[float] = []
        for number, lane in enumerate(self._lanes):
            lane.head.train()
            for step, indices in enumerate(self._batches(lane, epoch, number)):
                share = self._rate_share(epoch, step)
                losses.append(lane.descent.step(self._loss(lane, indices), share))
                self._meter.step(losses)
                if not self._allowance.has_room_for(self._kept_s):
                    break
        self._epoch_s = self._allowance.budget.used_s - began_s
        return float(np.mean(losses))

    @torch.no_grad()
    def validate(self) -> Scorer:
        """Score each head on the blocks of its fold."""
        scorer = Scorer(self._source.classes)
        size = self._source.settings.batch_size
        for lane in self._lanes:
            lane.head.eval()
            for first in range(0, len(lane.validation), size):
                assert self._crops.validation is not None
                scorer.add(
                    *self._logits(
                        lane, self._crops.validation, lane.validation[first : first + size]
                    )
                )
        return scorer

    def tensors(self) -> Tensors:
        """Weights of all heads, not copied."""
        return {
            name: tensor
            for number, lane in enumerate(self._lanes)
            for name, tensor in head_tensors(lane.head, f"{number}").items()
        }

    def optimizer_state(self) -> Tensors:
        """Of all heads."""
        return {
            f"{number}.{name}": tensor
            for number, lane in enumerate(self._lanes)
            for name, tensor in lane.descent.state().items()
        }

    def load_optimizer_state(self, state: Tensors) -> None:
        """Take up what `optimizer_state` gave."""
        for number, lane in enumerate(self._lanes):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            lane.descent.load_state(own)

    def _descent(self, head: nn.Module) -> Descent:
        settings = self._source.settings
        return Descent(
            [(head, settings.learning_rate or HEAD_RATE)],
            weight_decay=settings.weight_decay,
            device=self._source.device,
            dtype=self._source.dtype,
        )

    def _batches(self, lane: _Lane, epoch: int, number: int) -> NDArray[np.int64]:
        """(steps, batch) crops in a random order that follows from seed, epoch and fold."""
        settings = self._source.settings
        rng = np.random.default_rng((settings.seed, 2, epoch, number))
        wanted = settings.steps_per_epoch * settings.batch_size
        rounds = -(-wanted // len(lane.training))
        order = np.concatenate([rng.permutation(lane.training) for _ in range(rounds)])
        return order[:wanted].reshape(settings.steps_per_epoch, settings.batch_size)

    def _rate_share(self, epoch: int, step: int) -> float:
        settings = self._source.settings
        steps = settings.stage_one_epochs * settings.steps_per_epoch
        return rate_share(epoch * settings.steps_per_epoch + step, steps, self._allowance.share)

    def _loss(self, lane: _Lane, indices: NDArray[np.int64]) -> torch.Tensor:
        return segmentation_loss(*self._logits(lane, self._crops.training, indices))

    def _logits(
        self, lane: _Lane, cache: FeatureCache, indices: NDArray[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits per pixel and labels of some crops."""
        features_BDhw, labels_BHW = cache.tensors(indices, self._source.device)
        side = labels_BHW.shape[-1]
        with self._source.autocast():
            logits_BCHW = lane.head(features_BDhw, (side, side))
        return logits_BCHW.float(), labels_BHW
