"""One training, stage by stage: the head on a frozen backbone, then LoRA or all weights.

The better of the two is kept. It can be interrupted after any epoch and resumed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.cached_crops import cache_crops
from geodinoseg.training.checkpoint import TrainingRecord
from geodinoseg.training.epochs import EpochLoop
from geodinoseg.training.feature_cache import CachedCrops
from geodinoseg.training.finetuning import FineTuning, trained_tensors
from geodinoseg.training.head_stage import HeadStage
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import head_tensors, restore
from geodinoseg.training.settings import StageName

logger = logging.getLogger(__name__)

_PARTS = 4
"""Parts of a training with their own seeds: new weights, head, final head, stage two."""


@dataclass(kw_only=True)
class TrainingRun:
    """Fits a network to training data, and ends with the weights of the best epoch."""

    source: CropSource
    """Data, recipe and device."""
    build: Callable[[], DinoV2Segmentor]
    """Makes the untrained network, on the device."""
    epochs: EpochLoop
    """Runs epochs and keeps the record."""
    network: DinoV2Segmentor
    """Made by `build`; after `fit` with the weights to keep."""
    validation: ValidationCrops = field(init=False)
    fold_heads: list[nn.Module] = field(init=False, default_factory=list)
    """In cross-validation, after `fit`, the heads that were scored: one for each fold."""
    _is_tuned: bool = field(init=False, default=False)

    def fit(self) -> None:
        """Train, validate after each epoch, end with the best weights."""
        self.validation = ValidationCrops(self.source)
        if self.record.validation_pieces is not None:
            self.validation.keep(self.record.validation_pieces)
        if self._has_stage_one:
            self._train_head()
        if self._has_stage_two():
            self._fine_tune()
        self.load_best()

    @property
    def record(self) -> TrainingRecord:
        """The state of the training."""
        return self.epochs.record

    @property
    def kept(self) -> StageName:
        """The stage whose weights are kept: the better one; without scores, the later one."""
        head, tuned = self.record.best_score("head"), self._tuned_score
        if tuned is None or (head is not None and head.mean_iou >= tuned.mean_iou):
            return "head"
        return tuned.stage

    @property
    def outcome(self) -> str:
        """Which stage is kept, and by how much it is better: a sentence."""
        return outcome(self.record.best_score("head"), self._tuned_score)

    def load_best(self) -> None:
        """Put the best weights so far into the network."""
        kept = self.kept
        if kept == "head" and self._is_tuned:
            # As without stage two: exactly the backbone of the source.
            self.network = self.build()
            self._is_tuned = False
        if kept != "head":
            if not self._is_tuned:
                self._unfreeze()
            restore(trained_tensors(self.network), self.record.best[kept])
        else:
            best = self.record.best.get("final", self.record.best["head"])
            restore(head_tensors(self.network.head, "0"), best)

    @property
    def _tuned_score(self) -> EpochScore | None:
        stage = self.source.settings.stage
        return None if stage == "head" else self.record.best_score(stage)

    @property
    def _has_stage_one(self) -> bool:
        """Whether the head is trained first, and stage two has not begun."""
        return bool(self.source.settings.stage_one_epochs) and self._tuned_score is None

    @property
    def _is_crossed(self) -> bool:
        """Whether it is cross-validated."""
        return self.source.data.folds > 1

    @property
    def _ends_with_head(self) -> bool:
        """Whether no stage two follows stage one."""
        return self.source.settings.stages(self.source.data.folds)[-1] == "head"

    def _train_head(self) -> None:
        if self.record.is_stage_over and not self._is_crossed:
            return
        crops = self._cached_crops()
        is_last = self._ends_with_head
        time_slice = self.epochs.budget.of_stage_one(is_last=is_last)
        folds = len(crops.training_of)
        stage = HeadStage(
            self.network.head,
            self.source,
            crops,
            time_slice=time_slice.first(folds / (folds + 1)) if self._is_crossed else time_slice,
            progress=self.epochs.progress,
            kept_s=self.record.validation_s if is_last else 0.0,
        )
        self._seed(1)
        self.epochs.run(stage, self.source.settings.stage_one_epochs)
        if self._is_crossed:
            restore(stage.tensors(), self.record.best["head"])
            self.fold_heads = stage.heads
            self._train_head_on_all(crops)

    def _cached_crops(self) -> CachedCrops:
        return cache_crops(
            self.network,
            self.source,
            self.validation,
            self.record,
            folder=self.epochs.checkpoint.parent,
            time_slice=self.epochs.budget.of_caching(is_last=self._ends_with_head),
            progress=self.epochs.progress,
        )

    def _train_head_on_all(self, crops: CachedCrops) -> None:
        """Train the head to keep, for as many epochs as were best in cross-validation."""
        best = self.record.best_score("head")
        assert best is not None
        stage = HeadStage(
            self.network.head,
            self.source,
            crops.undivided(),
            time_slice=self.epochs.budget.of_the_rest(),
            progress=self.epochs.progress,
        )
        self._seed(2)
        self.epochs.progress.expect_final_head(best.epoch)
        for epoch in range(best.epoch):
            self.epochs.progress.begin_epoch("head", epoch, best.epoch)
            stage.train_epoch(epoch)
        self.record.best["final"] = stage.tensors()

    def _has_stage_two(self) -> bool:
        """Whether stage two is tried; warns if it was requested and is not."""
        settings = self.source.settings
        if settings.stage == "head":
            return False
        if self._ends_with_head:
            logger.warning(
                "too few labelled places for a fixed validation part, so %s is not tried and the "
                "head alone is trained; label more places.",
                STAGE_TITLES[settings.stage],
            )
            return False
        if not self.epochs.budget.of_the_rest().has_room_for(2 * self.record.validation_s):
            logger.warning(
                "no time is left for %s; give more --minutes.", STAGE_TITLES[settings.stage]
            )
            return not settings.stage_one_epochs
        return True

    def _fine_tune(self) -> None:
        settings = self.source.settings
        if self._is_crossed:
            self.validation.keep(0)
        if self._has_stage_one:
            self.load_best()
        self._unfreeze()
        if settings.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        stage = FineTuning(
            self.network,
            self.source,
            self.validation,
            time_slice=self.epochs.budget.of_the_rest(),
            progress=self.epochs.progress,
            validation_s=self.record.validation_s,
        )
        self.epochs.run(stage, settings.epochs)

    def _unfreeze(self) -> None:
        """Add LoRA, or let all weights be trained."""
        self._seed(3)
        self._is_tuned = True
        if self.source.settings.stage == "lora":
            self.network.add_lora()
            return
        self.network.backbone.requires_grad_(requires_grad=True)
        self.network.backbone_differs_from_source = True

    def _seed(self, part: int) -> None:
        """Seed new weights and dropout of a part of the training."""
        torch.manual_seed(_PARTS * self.source.settings.seed + part)


STAGE_TITLES: dict[StageName, str] = {
    "head": "the head alone",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
"""In messages."""


def outcome(head: EpochScore | None, tuned: EpochScore | None) -> str:
    """Which stage is kept, and by how much it is better, given the best epoch of each."""
    if tuned is None:
        return "the head alone was trained"
    name = STAGE_TITLES[tuned.stage]
    if head is None or math.isnan(tuned.mean_iou) or math.isnan(head.mean_iou):
        return f"{name} is kept"
    gain = tuned.mean_iou - head.mean_iou
    if gain > 0:
        return f"{name} {tuned.mean_iou:.3f} beats the head alone {head.mean_iou:.3f} ({gain:+.3f})"
    return f"the head alone ({head.mean_iou:.3f}) is kept: {name} reached {tuned.mean_iou:.3f}"
