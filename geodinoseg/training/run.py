"""One training, stage by stage: heads on a frozen backbone, then LoRA or all weights.

The best stage on validation blocks is kept; `all_labels` then trains it again. A training can be
interrupted after any epoch and resumed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import torch

from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
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
from geodinoseg.training.optimizer import head_tensors, of_number, restore
from geodinoseg.training.settings import StageName

logger = logging.getLogger(__name__)

_PARTS = ("new weights", "head", "final", "stage two", "new head", "fused", "further")
"""Of a training, each with its own seed."""


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
            if "further" in self._stages:
                self._train_further()
            self._fine_tune()
        self.load_kept()

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
        if self.is_head(kept):
            self._freeze()
            self._load_head(kept)
            return
        if not self._is_tuned:
            self._use_head(self.kept_head)
            self.unfreeze()
        restore(trained_tensors(self.network), of_number(self.record.weights[kept], 0))

    def begin_anew(self) -> None:
        """Give the network the frozen backbone of the source, and an untrained head."""
        self._freeze()
        self._use_head(self.kept_head)
        self.seed("new head")
        self.network.replace_head(fused="fused_head" in self.network.settings)

    def _freeze(self) -> None:
        if self._is_tuned:
            # As without stage two: exactly the backbone of the source.
            self.network = self.build()
            self._is_tuned = False

    @property
    def kept_head(self) -> StageName:
        """The head that stage two starts from."""
        scores = [score for score in self._scores() if score.stage in self.heads]
        return choose(scores)[0].stage if scores else self.heads[-1]

    def is_head(self, stage: StageName) -> bool:
        """Whether a stage trains a head on the frozen backbone."""
        return stage in (*self.heads, "further")

    def _load_head(self, stage: StageName) -> None:
        self._use_head(self.kept_head)
        restore(head_tensors(self.network.head), of_number(self.record.weights[stage], 0))

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
    def is_crossed(self) -> bool:
        """Whether it is cross-validated."""
        return self.source.data.folds > 1

    @property
    def _stages(self) -> tuple[StageName, ...]:
        return self.source.settings.stages(self.source.data.folds, self.heads)

    @property
    def _ends_with_head(self) -> bool:
        """Whether no stage two follows stage one."""
        return self._stages[-1] in self.heads

    def _train_head(self, name: StageName) -> None:
        if self.record.is_over(name):
            return
        crops = self.cached_crops()
        self._use_head(name)
        epochs = self._epochs_of(name)
        stage = HeadStage(
            name,
            self.network.head,
            self.source,
            crops,
            epochs=epochs,
            time_slice=self._time_of_head(name),
            progress=self.epochs.progress,
            kept_s=self.record.validation_s if self._ends_with_head else 0.0,
        )
        began_s = self.epochs.budget.used_s
        self.seed(name)
        self.epochs.run(stage, epochs)
        self._head_s[name] = self.epochs.budget.used_s - began_s

    def _epochs_of(self, stage: StageName) -> int:
        return self.source.settings.epochs_to_choose(stage, self.source.data.folds)

    def _time_of_head(self, name: StageName) -> TimeSlice:
        """The time to train a head, which leaves some for the others and for the final one."""
        time_slice = self.epochs.budget.of_stage_one(is_last=self._ends_with_head)
        left = self.heads[self.heads.index(name) :]
        works = [STEP_WORK[head] for head in left]
        return time_slice.first(works[0] / (sum(works) + max(works)))

    def _train_further(self) -> None:
        """Train the kept head for as many further steps as stage two takes."""
        if self.record.is_over("further"):
            return
        head, epochs = self.kept_head, self._epochs_of("further")
        crops = self.cached_crops()
        self._load_head(head)
        self.epochs.progress.expect_further_steps(head)
        # In proportion to the work: further steps, stage two, and the kept head on all labels.
        work, of_stage_two = STEP_WORK[head], STEP_WORK[self.source.settings.last_stage]
        stage = HeadStage(
            "further",
            self.network.head,
            self.source,
            crops,
            epochs=epochs,
            first_epoch=self._epochs_of(head),
            time_slice=self.epochs.budget.of_the_rest().first(work / (3 * work + of_stage_two)),
            progress=self.epochs.progress,
        )
        restore(stage.tensors(), self.record.weights[head])
        began_s = self.epochs.budget.used_s
        self.seed("further")
        self.epochs.run(stage, epochs)
        self._head_s["further"] = self.epochs.budget.used_s - began_s

    def cached_crops(self) -> CachedCrops:
        """The crops of stage one; their features are computed once. The backbone is frozen."""
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

    def seconds_of(self, stage: StageName) -> float:
        """Seconds that the training of a head took; infinite if an earlier run did it."""
        stages = dict.fromkeys([self.kept_head, stage])
        return sum(self._head_s.get(stage, math.inf) for stage in stages)

    def _has_stage_two(self) -> bool:
        """Whether stage two is tried; warns if it was requested and is not."""
        settings = self.source.settings
        if settings.last_stage == "head":
            return False
        if self._ends_with_head:
            logger.warning(
                "too few labelled places to keep any for validation, so %s is not tried and the "
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
        heads = self.record.weights.get(self.kept_head, {})
        folds = self.source.data.folds
        self._freeze()
        self._use_head(self.kept_head)
        if heads:
            self._load_head(self.kept_head)
        self.unfreeze()
        epochs = self._epochs_of(self.source.settings.last_stage)
        time_slice = self.epochs.budget.of_the_rest()
        if self.is_crossed:  # What is kept has to be trained on all labels.
            time_slice = time_slice.first(1 / 2)
        else:
            of_head: tuple[StageName, ...] = (self.kept_head, "further")
            time_slice = time_slice.ending_before(sum(self._head_s.get(n, 0.0) for n in of_head))
        stage = FineTuning(
            self.network,
            self.source,
            self.validation,
            folds=range(folds) if folds else [None],
            heads=[of_number(heads, fold) for fold in range(folds)],
            epochs=epochs,
            time_slice=time_slice,
            progress=self.epochs.progress,
            validation_s=self.record.validation_s,
        )
        self.epochs.run(stage, epochs)

    def _use_head(self, name: StageName) -> None:
        """Make the network have this head of stage one, untrained if it had the other."""
        wanted = name == "fused"
        if len(self.heads) > 1 and wanted != ("fused_head" in self.network.settings):
            self.seed("new head")
            self.network.replace_head(fused=wanted)

    def unfreeze(self) -> None:
        """Add LoRA, or let all weights be trained."""
        self.seed("stage two")
        self._is_tuned = True
        if self.source.settings.last_stage == "lora":
            self.network.add_lora()
        else:
            self.network.backbone.requires_grad_(requires_grad=True)
            self.network.backbone_differs_from_source = True
        if self.source.settings.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()

    def seed(self, part: str) -> None:
        """Seed new weights and dropout of a part of the training."""
        torch.manual_seed(len(_PARTS) * self.source.settings.seed + _PARTS.index(part))
