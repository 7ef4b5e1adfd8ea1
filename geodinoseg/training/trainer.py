"""Training: from scenes with labels to a model folder.

The recipe is in `training_settings`, the data in `training_data`, the loop in `training_run`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from geodinoseg.devices import pick_device
from geodinoseg.errors import ModelError
from geodinoseg.model.backbone import pretrained_rgb
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.model_config import is_model_folder
from geodinoseg.model.model_folder import write_model
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.outputs import check_output_folder, folder_written_beside
from geodinoseg.progress import Progress, no_progress
from geodinoseg.training.data import LabelPaths, ScenePaths, TrainingData, read_training_data
from geodinoseg.training.history import EpochScore, write_history
from geodinoseg.training.run import TrainingRun
from geodinoseg.training.settings import LabelOptions, TrainingSettings
from geodinoseg.version import __version__

if TYPE_CHECKING:
    from geodinoseg.model.normalization import BandStatistics

logger = logging.getLogger(__name__)


def train_model(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    output: str | os.PathLike[str],
    *,
    label_options: LabelOptions | None = None,
    settings: TrainingSettings | None = None,
    network: dict[str, Any] | None = None,
    bands: Sequence[int] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Segmentor:
    """Train a model on labelled scenes and write its folder.

    Args:
        scenes: one or several rasters with the same kind of bands, or folders of image chips.
        labels: polygons or a label raster, one for all scenes or one for each; see
            `read_training_data` for files of one class and for chips.
        output: the model folder to write.
        label_options: how the labels are read.
        settings: the recipe.
        network: arguments of `DinoV2Segmentor`, such as size, backbone or linear_head, where they
            differ from its defaults; `num_classes` and `bands` follow from the data, `peft` from
            the stage.
        bands: bands to read, from 1; all but alpha where not given.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace a model that is there.
        progress: told the epoch, loss and validation mean IoU.

    Returns:
        The best model, ready to segment.

    Raises:
        SceneError: a scene cannot be read, or they are of different kinds.
        LabelError: labels are missing, lie elsewhere, or leave nothing to learn.
        ModelError: the network cannot be built, or its loss is no longer a number.
        DeviceError: the device is absent.
        OutputError: the folder cannot be written.
    """
    settings = settings or TrainingSettings()
    target = check_output_folder(output, overwrite=overwrite, is_ours=is_model_folder)
    where = pick_device(device)
    data = read_training_data(
        scenes, labels, bands=bands, options=label_options or LabelOptions(), settings=settings
    )
    # New weights and dropout draw from torch's own generator; the caller's is left as it was.
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = build_network(network or {}, data, settings).to(where)
        statistics = _statistics(model, data, settings)
        for warning in data.warnings:
            logger.warning("%s", warning)
        run = TrainingRun(model, data, statistics, settings, progress)
        history = run.fit()
    segmentor = _segmentor(run, data, statistics, settings)
    with folder_written_beside(target) as folder:
        write_model(segmentor, folder)
        write_history(history, folder)
    return segmentor


def build_network(
    arguments: dict[str, Any], data: TrainingData, settings: TrainingSettings
) -> DinoV2Segmentor:
    """The network that a stage trains: what it leaves as it is requires no gradient.

    Args:
        arguments: of `DinoV2Segmentor`.
        data: gives classes and bands.
        settings: gives stage and crop.

    Raises:
        ModelError: an argument cannot be, or the crop is no multiple of the backbone's patch.
    """
    stage = settings.stage
    chosen = {**arguments, "peft": stage == "lora"}
    if stage == "full":
        chosen["quantize"] = False  # 4-bit weights cannot be trained
    network = DinoV2Segmentor(**chosen, num_classes=len(data.legend), bands=len(data.bands))
    if settings.crop_px % network.patch_px:
        raise ModelError(
            f"crops of {settings.crop_px} px: give a multiple of the backbone's patch, "
            f"{network.patch_px} px."
        )
    if stage == "head":
        network.backbone.requires_grad_(requires_grad=False)
    network.backbone_differs_from_source = stage == "full"
    return network


def _statistics(
    network: DinoV2Segmentor, data: TrainingData, settings: TrainingSettings
) -> BandStatistics:
    """Those that a published backbone knows where it is kept, the scenes' own otherwise."""
    rgb = (
        None
        if settings.stage == "full"
        else pretrained_rgb(network.source, revision=network.revision)
    )
    return data.statistics if rgb is None else data.statistics.with_rgb(*rgb)


def _segmentor(
    run: TrainingRun, data: TrainingData, statistics: BandStatistics, settings: TrainingSettings
) -> Segmentor:
    """The model with all that its predictions depend on, ready to segment."""
    assert run.best is not None
    run.network.requires_grad_(requires_grad=False).eval()
    return Segmentor(
        network=run.network,
        legend=data.legend,
        statistics=statistics,
        bands=data.bands,
        trained_tile_px=settings.crop_px,
        pixel_size_m=data.pixel_size_m,
        training=data.facts
        | {"best_epoch": run.best.epoch, "geodinoseg": __version__}
        | asdict(settings),
        scores=_scores(run.best),
    )


def _scores(best: EpochScore) -> dict[str, Any]:
    if best.accuracy is None:
        return {}
    return {"on": "validation blocks apart from the training windows", **best.accuracy.to_json()}
