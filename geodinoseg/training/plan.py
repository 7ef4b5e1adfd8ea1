"""What a training would do, found out without weights: for `train --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geodinoseg.errors import ModelError
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.backbone import read_backbone_config
from geodinoseg.model.parameters import HUB_NAMES
from geodinoseg.training.data import LabelPaths, ScenePaths, TrainingData, read_training_data
from geodinoseg.training.settings import TrainingSettings

_HALF_BYTES = 2
_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is known before any weight is loaded."""

    data: TrainingData
    """Scenes and labels, split."""
    settings: TrainingSettings
    """The recipe."""
    cache_bytes: int
    """That the features of stage one take, those of validation crops apart."""

    @property
    def stages(self) -> tuple[str, ...]:
        """What is trained, in order."""
        settings, folds = self.settings, self.data.folds
        first = ("head",) if settings.stage_one_epochs else ()
        can_tell = folds == 1 or settings.validation_share == 0 or not first
        second = (settings.stage,) if settings.stage != "head" and can_tell else ()
        return first + second

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order in which they are read."""
        facts, settings = self.data.facts, self.settings
        return {
            "scenes": facts["scenes"],
            "labels": facts["labels"],
            "bands": list(self.data.bands),
            "ground resolution, m": self.data.pixel_size_m,
            "labelled pixels to train on": facts["training_pixels"],
            "labelled pixels to validate on": facts["validation_pixels"],
            "validation": _validation(self.data.folds),
            "stages": list(self.stages),
            "epochs of each": [
                settings.stage_one_epochs if stage == "head" else settings.epochs
                for stage in self.stages
            ],
            "cached crops": settings.crops_to_cache,
            "cached features, MB": round(self.cache_bytes / _MB),
        }


def plan_training(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    *,
    label_options: LabelOptions | None = None,
    settings: TrainingSettings | None = None,
    network: Mapping[str, Any] | None = None,
    bands: Sequence[int] | None = None,
) -> TrainingPlan:
    """Read scenes and labels as `train_model` would, and stop there.

    Args:
        scenes: as `train_model` takes them.
        labels: as `train_model` takes them.
        label_options: how the labels are read.
        settings: the recipe.
        network: arguments of `DinoV2Segmentor`.
        bands: bands to read.

    Raises:
        GeodinosegError: whatever `train_model` would say of them.
    """
    settings = settings or TrainingSettings()
    arguments = dict(network or {})
    source = arguments.get("backbone") or HUB_NAMES[arguments.get("size", "base")]
    config = read_backbone_config(source, revision=arguments.get("revision"))
    patch_px = int(config.patch_size)
    if settings.crop_px % patch_px:
        raise ModelError(
            f"crops of {settings.crop_px} px: give a multiple of the backbone's patch, "
            f"{patch_px} px."
        )
    data = read_training_data(
        scenes, labels, bands=bands, options=label_options or LabelOptions(), settings=settings
    )
    channels = int(config.hidden_size) * int(arguments.get("n_features", 1))
    patches = (settings.crop_px // patch_px) ** 2
    of_crop = _HALF_BYTES * channels * patches + settings.crop_px**2
    return TrainingPlan(data=data, settings=settings, cache_bytes=of_crop * settings.crops_to_cache)


def _validation(folds: int) -> str:
    if folds == 0:
        return "none"
    if folds == 1:
        return "blocks apart from the training windows"
    return f"leave-one-block-out cross-validation, {folds} folds"
