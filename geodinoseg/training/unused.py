"""Warnings, before the work, about options without effect. Does not import torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.parameters import has_backbone
from geodinoseg.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

_DEFAULTS = TrainingSettings()
_OF_STAGE_TWO = {
    "accumulate": "--accumulate",
    "gradient_checkpointing": "--gradient-checkpointing",
    "backbone_learning_rate": "--backbone-learning-rate",
}
_OF_CACHE = {"cached_crops": "--cached-crops", "cache_bytes": "cache_bytes"}
_OF_CNN_HEAD = {
    "channels": "--channels",
    "n_block": "n_block",
    "k_size": "k_size",
    "activation": "activation",
}
_OF_BACKBONE = {"n_features": "--n-features", "quantize": "--quantize", "revision": "revision"}
_OF_LORA = ("r", "lora_alpha", "lora_dropout")


def warn_of_unused(
    settings: TrainingSettings, network: Mapping[str, Any], options: LabelOptions
) -> None:
    """Log a warning for each option that was given but has no effect.

    Args:
        settings: settings that differ from their default count as given.
        network: the arguments of the network that were given.
        options: how the labels are read.
    """
    for option, reason in [
        *_unused_settings(settings),
        *_unused_of_network(network, settings),
        *_unused_without_backbone(network),
        *_unused_of_labels(options),
    ]:
        logger.warning("%s has no effect: %s.", option, reason)


def _unused_settings(settings: TrainingSettings) -> Iterator[tuple[str, str]]:
    given = {
        name for name, default in vars(_DEFAULTS).items() if getattr(settings, name) != default
    }
    if settings.last_stage == "head":
        for name in filter(given.__contains__, _OF_STAGE_TWO):
            yield _OF_STAGE_TWO[name], "with --stage head there is no stage two"
        if settings.head_epochs is not None and "epochs" in given:
            yield "--epochs", "with --stage head and --head-epochs there is no other stage"
    if not settings.stage_one_epochs:
        for name in filter(given.__contains__, _OF_CACHE):
            yield _OF_CACHE[name], "with --head-epochs 0 there is no stage one, which caches crops"


def _unused_of_network(
    network: Mapping[str, Any], settings: TrainingSettings
) -> Iterator[tuple[str, str]]:
    given = {name: value for name, value in network.items() if value is not None}
    backbone = given.get("backbone")
    if given.get("linear_head", True):
        for name in filter(given.__contains__, _OF_CNN_HEAD):
            yield _OF_CNN_HEAD[name], "it applies to the CNN head only; give --head cnn"
    if backbone is not None and "size" in given:
        yield "--size", f"--backbone {backbone} is used"
    is_folder = backbone is not None and has_backbone(backbone) and os.path.isdir(backbone)
    if is_folder and "revision" in given:
        yield "revision", "the backbone is a folder, which has no revisions"
    if settings.last_stage != "lora":
        for name in filter(given.__contains__, _OF_LORA):
            yield name, f"with --stage {settings.last_stage} there is no LoRA"
    if settings.last_stage == "full" and given.get("quantize"):
        yield "--quantize", "--stage full trains every weight, and 4-bit weights cannot be trained"
    if "peft" in given:
        yield "peft", "it is determined by --stage"


def _unused_without_backbone(network: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not has_backbone(network.get("backbone")):
        for name, option in _OF_BACKBONE.items():
            if network.get(name) is not None:
                yield option, "there is no backbone"


def _unused_of_labels(options: LabelOptions) -> Iterator[tuple[str, str]]:
    if options.extent is not None and options.unlabelled == "background":
        yield (
            "--unlabelled background",
            "--extent determines where unlabelled pixels are background",
        )
