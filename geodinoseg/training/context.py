"""What a training starts from: data, network, statistics, and their fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geodinoseg.model.backbone import pretrained_rgb
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.progress import Progress
from geodinoseg.training.batches import CropSource
from geodinoseg.training.budget import Budget, TrainingProgress
from geodinoseg.training.checkpoint import TrainingRecord, training_fingerprint
from geodinoseg.training.data import TrainingData
from geodinoseg.training.epochs import EpochLoop
from geodinoseg.training.history import EpochScore
from geodinoseg.training.run import TrainingRun
from geodinoseg.training.settings import StageName, TrainingSettings, heads_to_try


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """Everything that a training is made of, before its first step."""

    source: CropSource
    """Data, recipe, statistics and device."""
    network: DinoV2Segmentor
    """On its device, the backbone frozen."""
    build: Callable[[], DinoV2Segmentor]
    """Makes another network like it."""
    heads: tuple[StageName, ...]
    """The heads of stage one, the simpler one first."""
    fingerprint: str
    """Of all this."""

    def run(
        self,
        record: TrainingRecord,
        budget: Budget,
        checkpoint: Path,
        progress: Progress,
        on_epoch: Callable[[EpochScore], None],
    ) -> TrainingRun:
        """A run that resumes from a record."""
        budget.add(record.used_s)
        epochs = EpochLoop(
            source=self.source,
            record=record,
            checkpoint=checkpoint,
            budget=budget,
            progress=TrainingProgress(
                self.source.settings,
                budget,
                progress,
                heads=self.heads,
                folds=self.source.data.folds,
            ),
            on_epoch=on_epoch,
        )
        return TrainingRun(
            source=self.source,
            build=self.build,
            network=self.network,
            heads=self.heads,
            epochs=epochs,
        )


def build_context(
    data: TrainingData,
    settings: TrainingSettings,
    arguments: dict[str, Any],
    device: torch.device,
) -> TrainingContext:
    """Build the network on a device, and compute the fingerprint."""

    def build() -> DinoV2Segmentor:
        return build_network(arguments, data, settings, device).to(device)

    network, heads = build(), heads_to_try(arguments)
    source = CropSource(data, _statistics(network, data, settings), settings, device)
    return TrainingContext(
        source=source,
        network=network,
        build=build,
        heads=heads,
        fingerprint=training_fingerprint(source, network, heads),
    )


def build_network(
    arguments: dict[str, Any],
    data: TrainingData,
    settings: TrainingSettings,
    device: torch.device,
) -> DinoV2Segmentor:
    """The network for stage one: a new head on a frozen backbone."""
    chosen = {**arguments, "peft": False}
    if settings.last_stage == "full":
        chosen["quantize"] = False  # quantized weights cannot be trained
    elif chosen.get("quantize") is None:
        # It saves memory on a GPU; on a CPU it only costs time and accuracy.
        chosen["quantize"] = device.type == "cuda"
    network = DinoV2Segmentor(
        **chosen,
        num_classes=len(data.legend),
        bands=len(data.bands),
        components=data.components if settings.band_projection == "pca" else None,
        rgb=data.rgb,
    )
    settings.check_patch(network.patch_px)
    network.backbone.requires_grad_(requires_grad=False)
    return network


@contextmanager
def own_random_numbers(device: torch.device, settings: TrainingSettings) -> Iterator[None]:
    """Seed torch's generators for new weights and dropout; the caller's state is restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        yield


def _statistics(
    network: DinoV2Segmentor, data: TrainingData, settings: TrainingSettings
) -> BandStatistics:
    """Those of a published backbone if it is kept, the scenes' own otherwise."""
    if settings.last_stage == "full" and settings.stage_one_epochs == 0:
        return data.statistics
    rgb = pretrained_rgb(network.source, revision=network.revision)
    return data.statistics if rgb is None else data.statistics.with_rgb(*rgb, bands=data.rgb)
