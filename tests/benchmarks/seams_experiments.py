"""Heads for `seams.py` that `train` does not make: other crops, tokens without their place's mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import torch
from accuracy_data import BACKBONE, Dataset

import geodinoseg as gds
from geodinoseg.training.batches import CropSource
from geodinoseg.training.data import read_training_data
from geodinoseg.training.head_stage import HEAD_RATE
from geodinoseg.training.optimizer import Optimizer, rate_factor, segmentation_loss
from geodinoseg.training.sampler import read_ahead

STEPS, BATCH_PX = 300, 8 * 112**2
CACHED_PX = 512 * 112**2
"""Pixels of all crops of a size: 512 of 112 px, 32 of 448 px."""
OF_PLACES_PX = 64 * 224**2
"""Pixels of the tiles whose mean token at each place is subtracted, at least 64 tiles."""

Cached = list[tuple[torch.Tensor, torch.Tensor]]
"""Features (batch, channels, rows, columns) and labels (batch, side, side) of crops."""


@dataclass(kw_only=True)
class Lab:
    """A dataset and a frozen backbone; features are computed once for each size of crops."""

    dataset: Dataset
    cached: dict[int, Cached] = field(default_factory=dict)

    def source(self, crop_px: int) -> CropSource:
        settings = gds.TrainingSettings(crop_px=crop_px, validation_share=0.0)
        data = read_training_data(
            self.dataset.train,
            self.dataset.labels,
            bands=None,
            options=self.dataset.options,
            settings=settings,
        )
        return CropSource(data, data.statistics, settings, torch.device("cpu"))

    def network(self) -> gds.DinoV2Segmentor:
        source = self.source(112)
        torch.manual_seed(0)
        network = gds.DinoV2Segmentor(
            backbone=BACKBONE, peft=False, quantize=False, num_classes=source.classes
        )
        return network.requires_grad_(requires_grad=False).eval()

    def crops(self, network: gds.DinoV2Segmentor, crop_px: int) -> Cached:
        """Features and labels of training crops of a size, with as many pixels for any size."""
        if crop_px not in self.cached:
            count, size = max(CACHED_PX // crop_px**2, 1), max(BATCH_PX // crop_px**2, 1)
            self.cached[crop_px] = list(self._features(network, crop_px, count // size, size))
        return self.cached[crop_px]

    def place_means(self, network: gds.DinoV2Segmentor, tile_px: int) -> torch.Tensor:
        """(channels, rows, columns): mean token of each place in a tile, less that of all."""
        count = max(64, OF_PLACES_PX // tile_px**2)
        found = self._features(network, tile_px, count // 4, 4)
        mean = torch.stack([features.mean(dim=0) for features, _ in found]).mean(dim=0)
        return mean - mean.mean(dim=(1, 2), keepdim=True)

    @torch.no_grad()
    def _features(
        self, network: gds.DinoV2Segmentor, crop_px: int, batches: int, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        source = self.source(crop_px)
        drawn = read_ahead(source.sampler(None), steps=range(batches), batch_size=size)
        with closing(drawn):
            for crops in drawn:
                values, _, labels = source.tensors(crops)
                yield network.features(values), labels

    def trained(
        self, sizes_px: tuple[int, ...], *, less: Mapping[int, torch.Tensor] | None = None
    ) -> gds.Segmentor:
        """A linear head trained on crops of these sizes in turn.

        Args:
            sizes_px: sides of the crops.
            less: what is subtracted from the features of crops of each size; nothing if None.
        """
        network = self.network()
        caches = {side: self.crops(network, side) for side in sizes_px}
        network.head.requires_grad_(requires_grad=True)
        optimizer = Optimizer(
            [(network.head, HEAD_RATE)],
            weight_decay=0.05,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        for step in range(STEPS):
            side = sizes_px[step % len(sizes_px)]
            cache = caches[side]
            features, labels = cache[(step // len(sizes_px)) % len(cache)]
            features = features if less is None else features - less[side]
            logits = network.head(features, labels.shape[-2:], None)
            optimizer.step(segmentation_loss(logits, labels), rate_factor(step, STEPS))
        data = self.source(sizes_px[0]).data
        return gds.Segmentor(
            network=network.requires_grad_(requires_grad=False).eval(),
            legend=data.legend,
            statistics=data.statistics,
            bands=data.bands,
            trained_tile_px=224,
            pixel_size_m=data.pixel_size_m,
        )


def without_place_means(model: gds.Segmentor, means: Mapping[int, torch.Tensor]) -> gds.Segmentor:
    """A model that subtracts these from the features of tiles of the side in pixels."""
    plain = model.network.features
    model.network.features = lambda values: plain(values) - means[values.shape[-1]]  # type: ignore[method-assign]
    return model


def experiments(dataset: Dataset, tiles_px: tuple[int, ...]) -> Iterator[tuple[str, gds.Segmentor]]:
    """What was tried, with its name: models to map with tiles of these sides."""
    lab = Lab(dataset=dataset)
    for sizes_px in ((112,), (224,), (448,), (112, 224, 448)):
        yield f"crops of {', '.join(map(str, sizes_px))} px", lab.trained(sizes_px)
    network = lab.network()
    means = {side: lab.place_means(network, side) for side in tiles_px}
    yield (
        "crops of 224 px, mean of each place subtracted from tiles",
        without_place_means(lab.trained((224,)), means),
    )
    yield (
        "the same, and from training crops",
        without_place_means(lab.trained((224,), less=means), means),
    )
