"""Estimates the time of a training by a trial of its network, with weights that are all zero.

The speed does not depend on the weights, so none are loaded, and none fetched from the hub.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from geodinoseg.model.backbone import blank_backbone, with_lora
from geodinoseg.model.devices import autocast, is_out_of_memory, pick_device, pick_precision
from geodinoseg.model.dinov2_segmentor import NETWORK_DEFAULTS, make_head
from geodinoseg.training.batches import MOST_VALIDATION_PIECES
from geodinoseg.training.budget import REPORTED_CROPS
from geodinoseg.training.data import TrainingData
from geodinoseg.training.optimizer import segmentation_loss
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.settings import StageName, TrainingSettings

_CROPS_ON_CPU = 2
"""Crops of a trial on a CPU, where a larger batch is no faster per crop."""
_CROPS_ON_GPU = 64


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Seconds per crop on one device."""

    forward: float
    """The frozen backbone."""
    head_step: float
    """A training step of the head on features."""
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
    """About how long the network of a training takes, if no stage ends early; at most the limit.

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
        folds: of the validation; more than 1 train a head each, and one more at the end.
        validation_crops: crops that are scored after each epoch.
        speeds: of the network.
    """
    of_epoch = settings.steps_per_epoch * settings.batch_size
    heads = folds + 1 if folds > 1 else 1
    features = (settings.crops_to_cache + validation_crops) * speeds.forward
    seconds = heads * settings.stage_one_epochs * of_epoch * speeds.head_step
    if settings.stage_one_epochs:
        seconds += features
    if settings.stages(folds)[-1] != "head":
        tuning = of_epoch * speeds.tuning_step + validation_crops * speeds.forward
        seconds += settings.epochs * tuning
    return seconds + min(validation_crops, REPORTED_CROPS) * speeds.forward


def _validation_crops(data: TrainingData, settings: TrainingSettings) -> int:
    pieces = 0
    for fold in range(data.folds):
        sampler = Sampler(
            data.splits,
            crop_px=settings.crop_px,
            augmentation=settings.augmentation,
            seed=settings.seed,
            fold=fold,
        )
        pieces += len(sampler.validation_pieces())
    return min(pieces, MOST_VALIDATION_PIECES)


def _measured(
    data: TrainingData,
    settings: TrainingSettings,
    network: Mapping[str, Any],
    config: PretrainedConfig,
    device: torch.device,
) -> Speeds:
    count = min(settings.batch_size, _CROPS_ON_CPU if device.type == "cpu" else _CROPS_ON_GPU)
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(data, settings, network, config, device=device, count=count)
        with autocast(device, pick_precision("auto", device)):
            forward, head_step = (_per_crop(run, count) for run in (trial.forward, trial.head_step))
            stage = settings.stages(data.folds)[-1]
            if stage == "head":
                return Speeds(forward=forward, head_step=head_step, tuning_step=0.0)
            trial.unfreeze(stage)
            tuning_step = _per_crop(trial.tuning_step, count)
            return Speeds(forward=forward, head_step=head_step, tuning_step=tuning_step)


class _Trial:
    """A network of zeros, and a few random crops."""

    def __init__(
        self,
        data: TrainingData,
        settings: TrainingSettings,
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
        self._head = make_head(
            self._parameters,
            in_channels=int(config.hidden_size) * n_features,
            patch_px=int(config.patch_size),
        ).to(device)
        side = settings.crop_px
        self._values = torch.rand((count, bands, side, side), device=device)
        self._labels = torch.randint(0, len(data.legend), (count, side, side), device=device)
        with torch.no_grad():
            self._cached = self._features(count).float()

    @torch.no_grad()
    def forward(self, crops: int) -> torch.Tensor:
        """The frozen backbone."""
        return self._features(crops).sum()

    def head_step(self, crops: int) -> torch.Tensor:
        """A training step of the head on cached features."""
        return self._step(self._cached[:crops])

    def tuning_step(self, crops: int) -> torch.Tensor:
        """A training step of the whole network."""
        return self._step(self._features(crops))

    def unfreeze(self, stage: StageName) -> None:
        """Add LoRA, or let all weights be trained."""
        if stage == "lora":
            names = ("r", "lora_alpha", "lora_dropout")
            lora = {name: self._parameters[name] for name in names}
            self._backbone = with_lora(self._backbone, **lora).to(self._values.device)

    def _features(self, crops: int) -> torch.Tensor:
        maps = self._backbone(self._values[:crops]).feature_maps
        return torch.cat(list(maps), dim=1)

    def _step(self, features_BDhw: torch.Tensor) -> torch.Tensor:
        side = self._labels.shape[-1]
        logits_BCHW = self._head(features_BDhw, (side, side))
        loss = segmentation_loss(logits_BCHW.float(), self._labels[: len(logits_BCHW)])
        torch.autograd.backward(loss)
        return loss.detach()


def _per_crop(run: Callable[[int], torch.Tensor], count: int) -> float:
    """Seconds per crop, after a first run that makes buffers and chooses kernels."""
    float(run(1))
    began = time.perf_counter()
    # Copying the result to the host waits for the GPU.
    float(run(count))
    return (time.perf_counter() - began) / count
