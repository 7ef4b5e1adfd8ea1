"""The settings of a training: plain values, checked when built. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from geodinoseg.errors import ModelError

StageName = Literal["head", "lora", "full"]
"""How far training goes: the head alone; then LoRA; or then every weight."""

LARGEST_VALIDATION_SHARE = 0.5
"""A larger fraction of the labels would leave less to learn from than to check with."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training crops are varied, beyond quarter turns and flips: maps have no up."""

    scale: float = 1.4
    """A crop covers 1 / scale to scale times its own side of the scene; at least 1."""
    gain: float = 0.2
    """Each normalized band is multiplied by 1 - gain to 1 + gain."""
    offset: float = 0.2
    """Each band, and all bands together, are shifted by up to this many standard deviations."""
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
            if not 0 <= getattr(self, name) < math.inf:
                raise ModelError(
                    f"{name}={getattr(self, name)!r}: give 0 or more standard deviations."
                )
        if not 0 <= self.band_dropout <= 1:
            raise ModelError(f"band_dropout={self.band_dropout!r}: give a probability from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The recipe of a training."""

    stage: StageName = "lora"
    """How far training goes. The head always comes first, on a frozen backbone; the better of the
    stages is kept."""
    epochs: int = 30
    """Of each stage; each ends with a validation."""
    head_epochs: int | None = None
    """Of stage one, the head; `epochs` by default. 0 skips it, for an untrained backbone."""
    minutes: float | None = None
    """Time limit, validation and saving included; none by default."""
    steps_per_epoch: int = 40
    """Batches of an epoch."""
    batch_size: int = 8
    """Crops of a batch."""
    accumulate: int = 1
    """Parts into which stage two splits a batch: less memory, more time, the same update."""
    gradient_checkpointing: bool = False
    """Recompute activations in stage two instead of storing them: less memory, more time."""
    cached_crops: int = 512
    """Crops whose features stage one stores, at most; each is seen many times."""
    cache_bytes: int = 1 << 30
    """Memory for these features; more are stored in a file beside the output."""
    crop_px: int = 224
    """Side of a training crop; a multiple of the patch size."""
    learning_rate: float | None = None
    """Of the head; 1e-3 by default."""
    backbone_learning_rate: float | None = None
    """Of stage two; by default 5e-4 for LoRA, 1e-4 for a whole backbone."""
    weight_decay: float = 0.05
    """Of matrices and kernels; biases, norms and layer scales have none."""
    validation_share: float = 0.2
    """Fraction of each class's labelled pixels kept for validation, 0 to 0.5."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How crops are varied."""
    seed: int = 0
    """Of crops, jitter and new weights; the same seed gives the same model on one machine."""

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

    def stages(self, folds: int) -> tuple[StageName, ...]:
        """The stages to train with so many folds: no second one if no fixed part validates it."""
        first: tuple[StageName, ...] = ("head",) if self.stage_one_epochs else ()
        # Without validation nothing would show that it falls below the frozen backbone.
        can_tell = folds == 1 or self.validation_share == 0 or not first
        return (*first, self.stage) if self.stage != "head" and can_tell else first

    def __post_init__(self) -> None:
        """Refuse invalid values.

        Raises:
            ModelError: a value is out of range.
        """
        if self.stage not in get_args(StageName):
            raise ModelError(f"stage={self.stage!r}: give one of {', '.join(get_args(StageName))}.")
        counts = ("epochs", "steps_per_epoch", "batch_size", "crop_px", "accumulate")
        for name in (*counts, "cached_crops"):
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
        if self.crop_px % patch_px:
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


def _check_whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{name}={value!r}: give a whole number of at least {least}.")
