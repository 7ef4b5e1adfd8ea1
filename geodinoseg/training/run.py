"""One training, stage by stage: heads on a frozen backbone, then LoRA or all weights.

The best stage on validation blocks is kept. A training can be interrupted after any epoch and
resumed.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import torch

from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.heads import Head
from geodinoseg.progress import log_step
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.budget import STEP_WORK, TimeSlice
from geodinoseg.training.cached_crops import cache_crops
from geodinoseg.training.checkpoint import TrainingRecord
from geodinoseg.training.choice import STAGE_TITLES, choose
from geodinoseg.training.epochs import EpochLoop
from geodinoseg.training.feature_cache import CachedCrops
from geodinoseg.training.finetuning import FineTuning, trained_tensors
from geodinoseg.training.head_stage import HeadStage
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import head_tensors, restore
from geodinoseg.training.settings import StageName

logger = logging.getLogger(__name__)

_PARTS = 6
"""Parts of a training with their own seeds: new weights, head, final head, stage two, weights of
the fused head, fused head."""
_SEEDS: dict[StageName, int] = {"head": 1, "fused": 5}
_FINAL_SEED, _STAGE_TWO_SEED, _NEW_HEAD_SEED = 2, 3, 4


@dataclass(kw_only=True)
class TrainingRun:
    """Fits a network to training data, and ends with the weights to keep."""

    source: CropSource
    """Data, recipe and device."""
    build: Callable[[], DinoV2Segmentor]
    """Makes the untrained network, on the device."""
    heads: tuple[StageName, ...]
    """The heads of stage one, the simpler one first."""
    epochs: EpochLoop
    """Runs epochs and keeps the record."""
    network: DinoV2Segmentor
    """Made by `build`; after `fit` with the weights to keep."""
    validation: ValidationCrops = field(init=False)
    scored_heads: list[Head] = field(init=False, default_factory=list)
    """After `fit`, the heads that were scored, one for each fold, if a head is kept: the network
    has one that was trained on all labels."""
    _fold_heads: dict[StageName, list[Head]] = field(init=False, default_factory=dict)
    _crops: CachedCrops | None = field(init=False, default=None)
    _head_s: dict[StageName, float] = field(init=False, default_factory=dict)
    """Seconds that the training of each head took in this run."""
    _is_tuned: bool = field(init=False, default=False)

    def fit(self) -> None:
        """Train, validate after each epoch, end with the weights to keep."""
        self.validation = ValidationCrops(self.source)
        if self.record.validation_pieces is not None:
            self.validation.keep(self.record.validation_pieces)
        if self._has_stage_one:
            for name in self.heads:
                self._train_head(name)
        if self._has_stage_two():
            self._fine_tune()
        self.load_kept()
        if self.kept in self.heads and self._has_time_for_all_labels():
            self._train_on_all_labels()

    @property
    def record(self) -> TrainingRecord:
        """The state of the training."""
        return self.epochs.record

    @property
    def kept(self) -> StageName:
        """The stage whose weights are kept; see `choose`."""
        return choose(self._scores())[0].stage

    @property
    def outcome(self) -> str:
        """Which stage is kept, and why: a sentence."""
        return choose(self._scores())[1]

    def load_kept(self) -> None:
        """Put the weights to keep into the network."""
        kept = self.kept
        if kept in self.heads:
            if self._is_tuned:
                # As without stage two: exactly the backbone of the source.
                self.network = self.build()
                self._is_tuned = False
            self._use_head(kept)
            restore(head_tensors(self.network.head, "0"), self.record.weights[kept])
            return
        if not self._is_tuned:
            self._use_head(self._kept_head)
            self._unfreeze()
        restore(trained_tensors(self.network), self.record.weights[kept])

    @property
    def _kept_head(self) -> StageName:
        """The head that stage two starts from."""
        scores = [score for score in self._scores() if score.stage in self.heads]
        return choose(scores)[0].stage if scores else self.heads[-1]

    def _scores(self) -> list[EpochScore]:
        last = [self.record.last_of(stage) for stage in get_args(StageName)]
        return [score for score in last if score is not None]

    @property
    def _has_stage_one(self) -> bool:
        """Whether heads are trained first, and stage two has not begun."""
        settings = self.source.settings
        has_tuned = (
            settings.last_stage != "head" and self.record.last_of(settings.last_stage) is not None
        )
        return bool(settings.stage_one_epochs) and not has_tuned

    @property
    def _is_crossed(self) -> bool:
        """Whether it is cross-validated."""
        return self.source.data.folds > 1

    @property
    def _ends_with_head(self) -> bool:
        """Whether no stage two follows stage one."""
        stages = self.source.settings.stages(self.source.data.folds, self.heads)
        return stages[-1] in self.heads

    def _train_head(self, name: StageName) -> None:
        is_over = self.record.is_over(name)
        if is_over and not self._is_crossed:
            return
        crops = self._cached_crops()
        self._use_head(name)
        is_last = self._ends_with_head
        stage = HeadStage(
            name,
            self.network.head,
            self.source,
            crops,
            time_slice=self._time_of_head(name),
            progress=self.epochs.progress,
            kept_s=self.record.validation_s if is_last else 0.0,
        )
        began_s = self.epochs.budget.used_s
        if not is_over:
            self._seed(_SEEDS[name])
            self.epochs.run(stage, self.source.settings.stage_one_epochs)
        self._head_s[name] = self.epochs.budget.used_s - began_s
        if self._is_crossed:
            restore(stage.tensors(), self.record.weights[name])
            self._fold_heads[name] = stage.heads

    def _time_of_head(self, name: StageName) -> TimeSlice:
        """The time to train a head, which leaves some for the others and for the final one."""
        time_slice = self.epochs.budget.of_stage_one(is_last=self._ends_with_head)
        left = self.heads[self.heads.index(name) :]
        works = [STEP_WORK[head] for head in left]
        folds = max(self.source.data.folds, 1)
        return time_slice.first(folds * works[0] / (folds * sum(works) + max(works)))

    def _cached_crops(self) -> CachedCrops:
        if self._crops is None:
            self._crops = cache_crops(
                self.network,
                self.source,
                self.validation,
                self.record,
                folder=self.epochs.checkpoint.parent,
                sees_pixels="fused" in self.heads or self.network.head.sees_pixels,
                time_slice=self.epochs.budget.of_caching(is_last=self._ends_with_head),
                progress=self.epochs.progress,
            )
        return self._crops

    def _has_time_for_all_labels(self) -> bool:
        """Whether the kept head can be trained anew; in cross-validation it must be."""
        if self._is_crossed or not self.source.data.folds:
            return self._is_crossed
        # After a resumption the time that it takes is unknown; a limit is then kept for sure.
        needed_s = self._head_s.get(self.kept, math.inf)
        return self.epochs.budget.of_the_rest().has_room_for(needed_s)

    def _train_on_all_labels(self) -> None:
        """Train the kept head anew, on held-out labels too; its scores are those of the first."""
        kept = self.kept
        log_step(logger, "training the kept head again on all labels.")
        self.scored_heads = self._fold_heads.get(kept, [copy.deepcopy(self.network.head)])
        crops = self._cached_crops().of_all_labels()
        self._seed(_NEW_HEAD_SEED)
        self.network.replace_head(fused="fused_head" in self.network.settings)
        stage = HeadStage(
            kept,
            self.network.head,
            self.source,
            crops,
            time_slice=self.epochs.budget.of_the_rest(),
            progress=self.epochs.progress,
        )
        self._seed(_FINAL_SEED)
        epochs = len(self.record.epochs_of(kept))
        for epoch in range(epochs):
            self.epochs.progress.begin_epoch(kept, epoch, epochs, is_final=True)
            stage.train_epoch(epoch)

    def _has_stage_two(self) -> bool:
        """Whether stage two is tried; warns if it was requested and is not."""
        settings = self.source.settings
        if settings.last_stage == "head":
            return False
        if self._ends_with_head:
            logger.warning(
                "too few labelled places for a fixed validation part, so %s is not tried and the "
                "head alone is trained; label more places.",
                STAGE_TITLES[settings.last_stage],
            )
            return False
        if not self.epochs.budget.of_the_rest().has_room_for(2 * self.record.validation_s):
            logger.warning(
                "no time is left for %s; give more --minutes.", STAGE_TITLES[settings.last_stage]
            )
            return not settings.stage_one_epochs
        return True

    def _fine_tune(self) -> None:
        settings = self.source.settings
        if self._is_crossed:
            self.validation.keep(0)
        if self._has_stage_one:
            self.load_kept()
        else:
            self._use_head(self._kept_head)
        self._unfreeze()
        if settings.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        stage = FineTuning(
            self.network,
            self.source,
            self.validation,
            time_slice=self.epochs.budget.of_the_rest().ending_before(
                self._head_s.get(self._kept_head, 0.0)
            ),
            progress=self.epochs.progress,
            validation_s=self.record.validation_s,
        )
        self.epochs.run(stage, settings.epochs)

    def _use_head(self, name: StageName) -> None:
        """Make the network have this head of stage one, untrained if it had the other."""
        wanted = name == "fused"
        if len(self.heads) > 1 and wanted != ("fused_head" in self.network.settings):
            self._seed(_NEW_HEAD_SEED)
            self.network.replace_head(fused=wanted)

    def _unfreeze(self) -> None:
        """Add LoRA, or let all weights be trained."""
        self._seed(_STAGE_TWO_SEED)
        self._is_tuned = True
        if self.source.settings.last_stage == "lora":
            self.network.add_lora()
            return
        self.network.backbone.requires_grad_(requires_grad=True)
        self.network.backbone_differs_from_source = True

    def _seed(self, part: int) -> None:
        """Seed new weights and dropout of a part of the training."""
        torch.manual_seed(_PARTS * self.source.settings.seed + part)
