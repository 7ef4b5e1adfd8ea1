"""The settings of a training: plain values, checked when built. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from geodinoseg.errors import ModelError
from geodinoseg.model.parameters import has_backbone

LastStage = Literal["head", "lora", "full"]
"""How far training goes: the head alone; then LoRA; or then every weight."""

StageName = Literal["head", "fused", "further", "lora", "full"]
"""What is trained: the head; the fused head, if that is tried beside the linear one; the better one
for as many further steps as stage two takes, which stage two must beat; and stage two."""

BandProjection = Literal["pca", "rgb", "widen"]
"""Principal components of the training pixels; the bands that are red, green and blue; or every
band through the filters of one of the backbone's own."""

LARGEST_VALIDATION_SHARE = 0.5
"""A larger fraction of the labels would leave less to learn from than to check with."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training crops are varied, beyond quarter turns and flips: maps have no up."""

    scale: float = 1.4
    """A crop covers 1 / scale to scale times its own side of the scene; at least 1."""
    gain: float | None = None
    """Each normalized band is multiplied by 1 - gain to 1 + gain. By default 0 for a single scene,
    in which the level tells classes apart; for several scenes 0.2 with up to three bands and 0.1
    with more, whose spectrum carries the classes."""
    offset: float | None = None
    """Each band, and all bands together, are shifted by up to this many standard deviations;
    by default as gain."""
    band_dropout: float = 0.1
    """Probability that one band of a crop is set to its mean, if a scene has more than three."""

    def __post_init__(self) -> None:
        """Refuse invalid values.

        Raises:
            ModelError: a value is out of range.
        """
        if not 1 <= self.scale <= 16:
            raise ModelError(f"scale={self.scale!r}: give a factor from 1 to 16.")
        for name in ("gain", "offset"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ModelError(f"{name}={value!r}: give 0 or more standard deviations.")
        if not 0 <= self.band_dropout <= 1:
            raise ModelError(f"band_dropout={self.band_dropout!r}: give a probability from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The recipe of a training."""

    stage: LastStage | None = None
    """How far training goes; LoRA by default, or the head without a backbone. The head always comes
    first, on a frozen backbone; the better of the stages is kept."""
    epochs: int = 15
    """Of each stage; each ends with a validation."""
    head_epochs: int | None = None
    """Of stage one, the heads; `epochs` by default. 0 skips it, for an untrained backbone."""
    minutes: float | None = None
    """Time limit, validation and saving included; none by default."""
    steps_per_epoch: int = 40
    """Batches of an epoch."""
    batch_size: int = 4
    """Crops of a batch."""
    accumulate: int = 1
    """Parts into which stage two splits a batch: less memory, more time, the same update."""
    gradient_checkpointing: bool = False
    """Recompute activations in stage two instead of storing them: less memory, more time."""
    cached_crops: int = 512
    """Crops whose features stage one stores, at most; each is seen many times."""
    cache_bytes: int = 1 << 30
    """Memory for these features; more are stored in a file beside the output."""
    crop_px: int | None = None
    """Side of a training crop, a multiple of the patch size; by default 56 to 224, by the size and
    ground resolution of the scenes."""
    learning_rate: float | None = None
    """Of the head; 1e-3 by default."""
    backbone_learning_rate: float | None = None
    """Of stage two; by default 5e-4 for LoRA, 1e-4 for a whole backbone."""
    weight_decay: float = 0.05
    """Of matrices and kernels; biases, norms and layer scales have none."""
    validation_share: float = 0.2
    """Fraction of each class's labelled pixels kept for validation, 0 to 0.5. If that are too few
    blocks to judge by, each is held out once (cross-validation)."""
    band_projection: BandProjection = "pca"
    """What the backbone sees of the bands; only `rgb` matters if they are as many as its own."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How crops are varied."""
    seed: int = 0
    """Of crops, jitter and new weights; the same seed gives the same model on one machine."""

    @property
    def last_stage(self) -> LastStage:
        """How far training goes."""
        return "lora" if self.stage is None else self.stage

    @property
    def stage_one_epochs(self) -> int:
        """Epochs of the head on a frozen backbone."""
        return self.epochs if self.head_epochs is None else self.head_epochs

    @property
    def crops_to_cache(self) -> int:
        """Training crops whose features stage one computes; follows from the settings alone."""
        return min(
            self.cached_crops, self.stage_one_epochs * self.steps_per_epoch * self.batch_size
        )

    def epochs_to_choose(self, stage: StageName, folds: int) -> int:
        """Epochs of a stage before one is kept.

        In cross-validation, which trains each stage once for each fold, the folds share them; what
        is kept is trained on all labels for all of them.
        """
        return -(-self.epochs_of(stage) // max(folds, 1))

    def epochs_of(self, stage: StageName) -> int:
        """Epochs of a stage on all labels: as many further ones of a head as of stage two."""
        return self.stage_one_epochs if stage in {"head", "fused"} else self.epochs

    def crops_of_held_out(self, folds: int) -> int:
        """Crops of a fixed validation part to train on at last, in proportion to its labels."""
        share = self.validation_share if folds == 1 else 0.0
        return round(self.crops_to_cache * share / (1 - share))

    def stages(self, folds: int, heads: tuple[StageName, ...]) -> tuple[StageName, ...]:
        """The stages to train with so many folds: no second one if nothing can validate it.

        heads are those of stage one, see `heads_to_try`.
        """
        first = heads if self.stage_one_epochs else ()
        # Without validation nothing would show that it falls below the frozen backbone.
        can_tell = folds > 0 or self.validation_share == 0 or not first
        if self.last_stage == "head" or not can_tell:
            return first
        rival: tuple[StageName, ...] = ("further",) if first and folds else ()
        return (*first, *rival, self.last_stage)

    def __post_init__(self) -> None:
        """Refuse invalid values.

        Raises:
            ModelError: a value is out of range.
        """
        if self.last_stage not in get_args(LastStage):
            raise ModelError(f"stage={self.stage!r}: give one of {', '.join(get_args(LastStage))}.")
        if self.band_projection not in get_args(BandProjection):
            raise ModelError(
                f"band_projection={self.band_projection!r}: give one of "
                f"{', '.join(get_args(BandProjection))}."
            )
        counts = ("epochs", "steps_per_epoch", "batch_size", "accumulate", "cached_crops")
        for name in (*counts, *(() if self.crop_px is None else ("crop_px",))):
            _check_whole(name, getattr(self, name), least=1)
        for name in ("seed", "cache_bytes"):
            _check_whole(name, getattr(self, name), least=0)
        self._check_stages()
        for name in ("learning_rate", "backbone_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < math.inf:
                raise ModelError(f"{name}={rate!r}: give a number above 0, such as 0.001.")
        if not 0 <= self.weight_decay < math.inf:
            raise ModelError(f"weight_decay={self.weight_decay!r}: give 0 or more.")
        if not 0 <= self.validation_share <= LARGEST_VALIDATION_SHARE:
            raise ModelError(
                f"validation_share={self.validation_share!r}: give a fraction from 0 to "
                f"{LARGEST_VALIDATION_SHARE}."
            )

    def check_patch(self, patch_px: int) -> None:
        """Refuse crops that are not a whole number of patches of the backbone."""
        if self.crop_px is not None and self.crop_px % patch_px:
            raise ModelError(
                f"crops of {self.crop_px} px: give a multiple of the backbone's patch, "
                f"{patch_px} px."
            )

    def _check_stages(self) -> None:
        if self.head_epochs is not None:
            _check_whole("head_epochs", self.head_epochs, least=0)
        if self.stage == "head" and self.head_epochs == 0:
            raise ModelError("head_epochs=0: with stage='head' nothing is left to train; give 1.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ModelError(f"minutes={self.minutes!r}: give a number above 0, such as 10.")
        if self.batch_size % self.accumulate:
            raise ModelError(
                f"accumulate={self.accumulate!r}: give a divisor of the batch size, "
                f"{self.batch_size}."
            )


def completed(
    settings: TrainingSettings, network: Mapping[str, Any]
) -> tuple[TrainingSettings, dict[str, Any]]:
    """Settings and arguments of `DinoV2Segmentor` with the defaults that depend on the backbone.

    Raises:
        ModelError: a setting of the backbone was given, and there is none.
    """
    if has_backbone(network.get("backbone")):
        return replace(settings, stage=settings.last_stage), dict(network)
    if settings.stage not in {None, "head"}:
        raise ModelError(
            f"backbone='none' with stage={settings.stage!r}: without a backbone there is nothing "
            f"to train after the head; leave out --stage, or give a backbone."
        )
    if settings.band_projection != TrainingSettings.band_projection:
        raise ModelError(
            f"backbone='none' with band_projection={settings.band_projection!r}: without a "
            f"backbone there is nothing that sees a projection; leave out --band-projection."
        )
    head = {} if network.get("linear_head") is not None else {"fused_head": True}
    return replace(settings, stage="head"), {**head, **network}


def heads_to_try(network: Mapping[str, Any]) -> tuple[StageName, ...]:
    """The heads of stage one: the chosen one, or the linear and the fused head if none is.

    Args:
        network: arguments of `DinoV2Segmentor`.
    """
    is_chosen = any(network.get(name) is not None for name in ("linear_head", "fused_head"))
    return ("head",) if is_chosen else ("head", "fused")


def _check_whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{name}={value!r}: give a whole number of at least {least}.")
