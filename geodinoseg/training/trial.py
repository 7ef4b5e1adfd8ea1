"""Estimates the time of a training by a trial of its network, with weights that are all zero.

The speed does not depend on the weights, so none are loaded, and none fetched from the hub.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig

from geodinoseg.model.backbone import blank_backbone, with_lora
from geodinoseg.model.devices import autocast, is_out_of_memory, pick_device, pick_precision
from geodinoseg.model.dinov2_segmentor import NETWORK_DEFAULTS, make_head
from geodinoseg.model.heads import Detail
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.budget import REPORTED_CROPS
from geodinoseg.training.data import TrainingData
from geodinoseg.training.feature_cache import CachedBatch
from geodinoseg.training.head_stage import parts_of
from geodinoseg.training.optimizer import loss_of_members
from geodinoseg.training.settings import StageName, TrainingSettings, heads_to_try

_CROPS_ON_CPU = 2
"""Crops of a trial on a CPU, where a larger batch is no faster per crop."""
_CROPS_ON_GPU = 64


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Seconds per crop on one device."""

    forward: float
    """The frozen backbone."""
    head_steps: dict[StageName, float]
    """A training step of each head of stage one, on features."""
    tuning_step: float
    """A training step of stage two; 0 without one."""


def training_seconds(
    data: TrainingData,
    settings: TrainingSettings,
    network: Mapping[str, Any],
    config: PretrainedConfig,
    *,
    device: str,
) -> float | None:
    """About how long the network of a training takes; at most the limit.

    None if the device has too little memory for the trial.
    """
    try:
        speeds = _measured(data, settings, network, config, pick_device(device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    seconds = planned_seconds(settings, data.folds, _validation_crops(data, settings), speeds)
    return seconds if settings.minutes is None else min(seconds, 60 * settings.minutes)


def planned_seconds(
    settings: TrainingSettings, folds: int, validation_crops: int, speeds: Speeds
) -> float:
    """The time of all stages with all of their epochs, validation and report included.

    Args:
        settings: the recipe.
        folds: of the validation; they share the epochs, and a head on all labels follows.
        validation_crops: crops that are scored after each epoch.
        speeds: of the network.
    """
    of_epoch = settings.steps_per_epoch * settings.batch_size
    steps = list(speeds.head_steps.values())
    shared = {stage: settings.epochs_to_choose(stage, folds) for stage in ("head", "lora")}
    of_heads = shared["head"] * max(folds, 1) * sum(steps)
    if folds:
        of_heads += settings.stage_one_epochs * steps[-1]
    crops = settings.crops_to_cache + settings.crops_of_held_out(folds) + validation_crops
    features = crops * speeds.forward
    seconds = of_epoch * of_heads
    if settings.stage_one_epochs:
        seconds += features
        if speeds.tuning_step and folds:
            seconds += shared["lora"] * folds * of_epoch * steps[-1]
    if speeds.tuning_step:
        tuning = max(folds, 1) * of_epoch * speeds.tuning_step + validation_crops * speeds.forward
        seconds += shared["lora"] * tuning
    return seconds + min(validation_crops, REPORTED_CROPS) * speeds.forward


def _validation_crops(data: TrainingData, settings: TrainingSettings) -> int:
    source = CropSource(data, data.statistics, settings, torch.device("cpu"))
    return len(ValidationCrops(source).pieces)


def _measured(
    data: TrainingData,
    settings: TrainingSettings,
    network: Mapping[str, Any],
    config: PretrainedConfig,
    device: torch.device,
) -> Speeds:
    count = min(settings.batch_size, _CROPS_ON_CPU if device.type == "cpu" else _CROPS_ON_GPU)
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(data, network, config, device=device, count=count)
        with autocast(device, pick_precision("auto", device)):
            forward = _per_crop(trial.forward, count)
            heads = heads_to_try(network)
            head_steps = {head: _per_crop(partial(trial.head_step, head), count) for head in heads}
            stage = settings.stages(data.folds, heads)[-1]
            tuning_step = 0.0
            if stage not in heads:
                trial.unfreeze(stage)
                tuning_step = _per_crop(partial(trial.tuning_step, heads[-1]), count)
            return Speeds(forward=forward, head_steps=head_steps, tuning_step=tuning_step)


class _Trial:
    """A network of zeros, and a few random crops."""

    def __init__(
        self,
        data: TrainingData,
        network: Mapping[str, Any],
        config: PretrainedConfig,
        *,
        device: torch.device,
        count: int,
    ) -> None:
        self._parameters = {**NETWORK_DEFAULTS, **network, "num_classes": len(data.legend)}
        n_features, bands = self._parameters["n_features"], len(data.bands)
        self._backbone: Any = blank_backbone(
            config, n_features=n_features, bands=bands, device=device
        )
        self._heads = {
            head: make_head(
                self._parameters | ({"fused_head": True} if head == "fused" else {}),
                in_channels=int(config.hidden_size) * n_features,
                patch_px=int(config.patch_size),
                bands=bands,
            ).to(device)
            for head in heads_to_try(network)
        }
        side = data.crop_px
        self._values = torch.rand((count, bands, side, side), device=device)
        self._labels = torch.randint(0, len(data.legend), (count, side, side), device=device)
        with torch.no_grad():
            self._cached = self._features(count).float()

    @torch.no_grad()
    def forward(self, crops: int) -> torch.Tensor:
        """The frozen backbone."""
        return self._features(crops).sum()

    def head_step(self, head: StageName, crops: int) -> torch.Tensor:
        """A training step of a head on cached features."""
        batch = self._batch(self._cached[:crops])
        if self._heads[head].sees_pixels:
            batch = parts_of(batch, np.random.default_rng(0))
        return self._step(head, batch)

    def tuning_step(self, head: StageName, crops: int) -> torch.Tensor:
        """A training step of the whole network."""
        return self._step(head, self._batch(self._features(crops)))

    def unfreeze(self, stage: StageName) -> None:
        """Add LoRA, or let all weights be trained."""
        if stage == "lora":
            names = ("r", "lora_alpha", "lora_dropout")
            lora = {name: self._parameters[name] for name in names}
            self._backbone = with_lora(self._backbone, **lora).to(self._values.device)

    def _features(self, crops: int) -> torch.Tensor:
        maps = self._backbone(self._values[:crops]).feature_maps
        return torch.cat(list(maps), dim=1)

    def _batch(self, features_BDhw: torch.Tensor) -> CachedBatch:
        count = len(features_BDhw)
        labels = self._labels[:count]
        detail = Detail(self._values[:count], torch.ones_like(labels, dtype=torch.bool))
        return CachedBatch(features_BDhw, detail, labels)

    def _step(self, head: StageName, batch: CachedBatch) -> torch.Tensor:
        side = int(batch.labels.shape[-1])
        members = self._heads[head].members(batch.features, (side, side), batch.detail)
        loss = loss_of_members(members, batch.labels)
        torch.autograd.backward(loss)
        return loss.detach()


def _per_crop(run: Callable[[int], torch.Tensor], count: int) -> float:
    """Seconds per crop, after a first run that makes buffers and chooses kernels."""
    float(run(1))
    began = time.perf_counter()
    # Copying the result to the host waits for the GPU.
    float(run(count))
    return (time.perf_counter() - began) / count
