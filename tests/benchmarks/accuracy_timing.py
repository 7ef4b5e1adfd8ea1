"""Training a head on cached features against as many steps through the backbone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accuracy_data import Dataset
from accuracy_rows import Recipe, timed
from accuracy_unet import validated

import geodinoseg as gds
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.data import read_training_data
from geodinoseg.training.head_stage import HEAD_RATE
from geodinoseg.training.optimizer import Optimizer, rate_factor, segmentation_loss
from geodinoseg.training.sampler import read_ahead

CHANNELS = 64
"""Of the CNN head."""


def head_times(dataset: Dataset, recipe: Recipe, work: Path, *, linear: bool) -> dict[str, Any]:
    """Seconds of both, one after the other, from opening the files to the last validation.

    Args:
        dataset: to learn.
        recipe: epochs, steps and backbone.
        work: folder for the model.
        linear: a linear head; the CNN head otherwise.
    """
    settings = recipe.settings(dataset, "head")
    network = recipe.network() | {"linear_head": linear, "channels": CHANNELS}
    with timed() as cached:
        gds.train_model(
            dataset.train,
            dataset.labels,
            work / "timing.model",
            label_options=dataset.options,
            settings=settings,
            network=network,
            device="cpu",
            overwrite=True,
        )
    with timed() as through:
        train_through(dataset, settings, network)
    steps = recipe.head_epochs * recipe.steps_per_epoch
    return {"steps": steps, "cached": cached, "through": through}


def train_through(
    dataset: Dataset, settings: gds.TrainingSettings, arguments: dict[str, Any]
) -> None:
    """The same head, with the frozen backbone run anew for each batch and each validation."""
    data = read_training_data(
        dataset.train, dataset.labels, bands=None, options=dataset.options, settings=settings
    )
    torch.manual_seed(settings.seed)
    network = gds.DinoV2Segmentor(
        **arguments, peft=False, num_classes=len(data.legend), bands=len(data.bands)
    )
    network.backbone.requires_grad_(requires_grad=False)
    source = CropSource(data, data.statistics, settings, torch.device("cpu"))
    optimizer = Optimizer(
        [(network.head, HEAD_RATE)],
        weight_decay=settings.weight_decay,
        device=source.device,
        dtype=source.dtype,
    )
    crops = ValidationCrops(source)
    steps = settings.stage_one_epochs * settings.steps_per_epoch
    batches = read_ahead(
        source.sampler(source.training_fold), steps=range(steps), batch_size=settings.batch_size
    )
    with closing(batches):
        for step, batch in enumerate(batches):
            network.train()
            network.backbone.eval()
            values, _, labels = source.tensors(batch)
            loss = segmentation_loss(network(values), labels)
            optimizer.step(loss, rate_factor(step, steps))
            if (step + 1) % settings.steps_per_epoch == 0:
                validated(network, source, crops)
