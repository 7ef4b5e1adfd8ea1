"""Stage two: LoRA, or every weight, at a small learning rate from where stage one ended.

One network; in cross-validation its trained weights are those of one fold after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.heads import Detail
from geodinoseg.model.sample_dropout import DropoutSeed, seed_dropout
from geodinoseg.model.weights import Tensors
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.budget import TimeSlice, TrainingProgress
from geodinoseg.training.crops import Crop
from geodinoseg.training.head_stage import HEAD_RATE
from geodinoseg.training.optimizer import (
    Optimizer,
    Scorer,
    copied,
    head_tensors,
    loss_of_members,
    numbered,
    of_number,
    rate_factor,
    restore,
)
from geodinoseg.training.sampler import read_ahead
from geodinoseg.training.settings import StageName, TrainingSettings

logger = logging.getLogger(__name__)

BACKBONE_RATES: dict[StageName, float] = {"lora": 5e-4, "full": 1e-4}
"""Default learning rates. LoRA's updates begin at 0, and at the rate of a whole backbone they stay
near it for hundreds of steps."""
_OWN_DROPOUT = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "drop_path_rate",
)
"""Dropout in configurations of backbones; 0 in all published ones."""


class FineTuning:
    """Trains the parameters of a network that require a gradient, on crops read along the way.

    With folds for each, from the same weights and its own head; all are scored together.
    """

    def __init__(
        self,
        network: DinoV2Segmentor,
        source: CropSource,
        validation: ValidationCrops,
        *,
        folds: Sequence[int | None],
        heads: Sequence[Tensors] = (),
        epochs: int,
        time_slice: TimeSlice,
        progress: TrainingProgress,
        validation_s: float = 0.0,
    ) -> None:
        """Take a network on its device.

        Args:
            network: to train.
            source: of crops.
            validation: what to score on.
            folds: those that training crops show nothing of, one after the other; None is none.
            heads: weights of the head that each fold starts from; by default the network's.
            epochs: over which the learning rate falls.
            time_slice: the time that there is.
            progress: is told about each step.
            validation_s: seconds per validation, if known.
        """
        settings = source.settings
        self.name: StageName = settings.last_stage
        self.validation_s = validation_s
        self._network = network
        self._source = source
        self._validation = validation
        self._time_slice = time_slice
        self._progress = progress
        self._step_s = 0.0
        warn_of_own_dropout(network, settings)
        rate = settings.backbone_learning_rate or BACKBONE_RATES[settings.last_stage]
        # A head that stage one trained is past its large steps.
        is_new = settings.stage_one_epochs == 0
        head_rate = (settings.learning_rate or HEAD_RATE) if is_new else rate
        self._epochs, self._fold_numbers = epochs, tuple(folds)
        self._live = trained_tensors(network)
        self._weights = [self._live]
        if len(folds) > 1:
            self._weights = [copied(self._live) for _ in folds]
        for weights, head in zip(self._weights, heads, strict=False):
            restore({name: weights[name] for name in head}, head)
        self._optimizers = [
            Optimizer(
                [(network.head, head_rate), (network.backbone, rate)],
                weight_decay=settings.weight_decay,
                device=source.device,
                dtype=source.dtype,
            )
            for _ in folds
        ]

    def has_time(self) -> bool:
        """Whether a step and its validation end in time, the report on the model included."""
        return self._time_slice.has_room_for(self._step_s + 2 * self.validation_s)

    def train_epoch(self, epoch: int) -> float:
        """Train for an epoch, from 0, or for as many steps as time allows, at least one."""
        self._network.train()
        losses: list[float] = []
        for number in range(len(self._weights)):
            restore(self._live, self._weights[number])
            self._train_fold(number, epoch, losses)
            restore(self._weights[number], self._live)
        return float(np.mean(losses))

    def _train_fold(self, number: int, epoch: int, losses: list[float]) -> None:
        settings, budget = self._source.settings, self._time_slice.budget
        # Other crops than those of stage one.
        first = -(-settings.crops_to_cache // settings.batch_size)
        first += epoch * settings.steps_per_epoch
        steps = range(first, first + settings.steps_per_epoch)
        batches = read_ahead(
            self._source.sampler(self._fold_numbers[number]),
            steps=steps,
            batch_size=settings.batch_size,
        )
        with closing(batches):
            for step, crops in enumerate(batches):
                began_s = budget.used_s
                done = epoch * settings.steps_per_epoch + step
                losses.append(self._step(crops, done, self._optimizers[number]))
                self._step_s = max(self._step_s, budget.used_s - began_s)
                self._progress.step(losses)
                if not self.has_time():
                    break

    @torch.no_grad()
    def validate(self) -> Scorer:
        """Score the network on the validation crops."""
        began_s = self._time_slice.budget.used_s
        self._network.eval()
        scorer = Scorer(self._source.classes, self._validation.blocks)
        for fold, weights in enumerate(self._weights):
            restore(self._live, weights)
            for batch in self._validation.batches(fold=fold):
                values, valid, labels = self._source.tensors([crop for _, crop in batch])
                with self._source.autocast():
                    logits = self._network(values, valid)
                blocks = [self._validation.block_of(piece) for piece, _ in batch]
                scorer.add(logits.float(), labels, blocks)
                self._progress.validated(len(batch))
        self.validation_s = self._time_slice.budget.used_s - began_s
        return scorer

    def tensors(self) -> Tensors:
        """Trained weights and the head's batch norm statistics of all folds, not copied."""
        return numbered(self._weights)

    def optimizer_state(self) -> Tensors:
        """State of AdamW of all folds."""
        return numbered([optimizer.state() for optimizer in self._optimizers])

    def load_optimizer_state(self, state: Tensors) -> None:
        """Restore what `optimizer_state` returned."""
        for number, optimizer in enumerate(self._optimizers):
            optimizer.load_state(of_number(state, number))

    def _step(self, crops: Sequence[Crop], step: int, optimizer: Optimizer) -> float:
        settings = self._source.settings
        values, valid, labels = self._source.tensors(crops)
        detail = self._network.detail(values, valid)
        seed = DropoutSeed(seed=settings.seed, step=step)
        with self._source.autocast():
            members = logits_in_parts(self._network, detail, settings.accumulate, seed=seed)
        loss = loss_of_members(members, labels)
        steps = self._epochs * settings.steps_per_epoch
        loss_value = optimizer.step(loss, rate_factor(step, steps, self._time_slice.fraction))
        seed_dropout(self._network, None)
        return loss_value


def trained_tensors(network: DinoV2Segmentor) -> Tensors:
    """Parameters that require a gradient, and the head's batch norm statistics; not copied."""
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    return trained | head_tensors(network.head)


def logits_in_parts(
    network: DinoV2Segmentor, detail: Detail, parts: int, *, seed: DropoutSeed
) -> tuple[torch.Tensor, ...]:
    """(batch, classes, side, side) logits of the head's members, a part of the batch at a time.

    Loss, batch norm, dropout and update are those of the whole batch: the backbone recomputes the
    activations of a part in the backward pass. The side is a multiple of the patch size.
    """

    def features(part_BNHW: torch.Tensor, first: int) -> torch.Tensor:
        # Set for each part, since the backward pass recomputes it after the other parts.
        seed_dropout(network, replace(seed, first=first))
        return network.features(part_BNHW)

    values_BNHW = detail.pixels
    side_px = (int(values_BNHW.shape[-2]), int(values_BNHW.shape[-1]))
    if parts == 1:
        seed_dropout(network, seed)
        return network.head.members(network.features(values_BNHW), side_px, detail)
    split = values_BNHW.chunk(parts)
    firsts = np.cumsum([0, *map(len, split)]).tolist()
    computed = [
        checkpoint(features, part, first, use_reentrant=False)
        for part, first in zip(split, firsts, strict=False)
    ]
    return network.head.members(torch.cat(computed), side_px, detail)


def warn_of_own_dropout(network: DinoV2Segmentor, settings: TrainingSettings) -> None:
    """Warn if a split batch gives another update than the whole, due to the backbone's dropout."""
    config = network.base_backbone.config
    own = [name for name in _OWN_DROPOUT if getattr(config, name, 0)]
    if own and settings.accumulate > 1:
        logger.warning(
            "--accumulate %d: the backbone has its own dropout (%s), whose masks depend on how a "
            "batch is split, so the update is not exactly that of the whole batch.",
            settings.accumulate,
            ", ".join(own),
        )
