"""Training: from scenes with labels to a model folder.

The recipe is in `settings`, the data in `data`, the stages in `run`, what a kill leaves in
`checkpoint`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from geodinoseg.errors import ModelFolderError, OutputExistsError
from geodinoseg.files.atomic import folder_written_beside
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.devices import pick_device
from geodinoseg.model.folder import load_model
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.progress import Progress, no_progress
from geodinoseg.training.budget import Budget, Clock
from geodinoseg.training.checkpoint import TrainingRecord, read_record
from geodinoseg.training.context import TrainingContext, build_context, own_random_numbers
from geodinoseg.training.data import LabelPaths, ScenePaths, read_training_data
from geodinoseg.training.output import (
    check_training_output,
    checkpoint_path,
    holds_other_model,
    training_facts,
)
from geodinoseg.training.result import best_so_far_kept, trained_model, write_trained_model
from geodinoseg.training.settings import TrainingSettings
from geodinoseg.training.tensorboard import opened_event_log

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
    resume: bool = False,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
    clock: Clock = time.monotonic,
) -> Segmentor:
    """Train a model on labelled scenes and write its folder.

    Stage one trains the head on features of the frozen backbone, stage two goes on from there with
    LoRA or all weights; the better of the two on validation pixels is kept. After each epoch
    `<output>.checkpoint` holds all that a killed training needs to go on; it is removed in the end.
    An interrupt, or a loss that is no longer a number, leaves the best model so far, marked as
    unfinished.

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
        overwrite: replace a model, or an interrupted training, that is there.
        resume: go on with an interrupted training of the same data and settings; the result is
            that of one that was never interrupted.
        tensorboard: folder for TensorBoard's event files.
        progress: told stage, epoch, loss and validation mean IoU.
        clock: tells the time that `settings.minutes` bounds, in seconds.

    Returns:
        The best model, ready to segment.

    Raises:
        SceneError: a scene cannot be read, or they are of different kinds.
        LabelError: labels are missing, lie elsewhere, or leave nothing to learn.
        ModelError: the network cannot be built, or its loss is no longer a number.
        ModelFolderError: the checkpoint is damaged, or of another training.
        DeviceError: the device is absent, or its memory too small.
        OutputError: the folder cannot be written.
    """
    settings = settings or TrainingSettings()
    target = check_training_output(output, overwrite=overwrite, resume=resume)
    where = pick_device(device)
    budget = Budget(settings.minutes, clock)
    data = read_training_data(
        scenes, labels, bands=bands, options=label_options or LabelOptions(), settings=settings
    )
    with (
        own_random_numbers(where, settings),
        opened_event_log(tensorboard, data.legend) as on_epoch,
    ):
        context = build_context(data, settings, network or {}, where)
        for warning in data.warnings:
            logger.warning("%s", warning)
        if resume and _is_finished(target, context):
            logger.warning("%s: this training is finished already; nothing was done.", target)
            return load_model(target, device=device)
        record = _record(target, context, overwrite=overwrite, resume=resume)
        run = context.run(record, budget, checkpoint_path(target), progress, on_epoch)
        with best_so_far_kept(run, context, target):
            run.fit()
            model, report = trained_model(run, context)
            with folder_written_beside(target) as folder:
                write_trained_model(model, run, report, folder)
    run.epochs.checkpoint.unlink(missing_ok=True)
    run.epochs.progress.finish()
    return model


def _is_finished(target: Any, context: TrainingContext) -> bool:
    """Whether the model of this very training is there."""
    facts = training_facts(target) or {}
    return facts.get("fingerprint") == context.fingerprint and facts.get("finished") is True


def _record(
    target: Any, context: TrainingContext, *, overwrite: bool, resume: bool
) -> TrainingRecord:
    """What an interrupted training left, where it is to go on; an empty one otherwise."""
    path = checkpoint_path(target)
    if resume and path.exists():
        record = read_record(path)
        if record.fingerprint != context.fingerprint:
            raise ModelFolderError(
                f"{path}: is that of another training: scenes, labels, settings or version differ. "
                f"Give those of then, or start over with --overwrite."
            )
    else:
        record = TrainingRecord(fingerprint=context.fingerprint)
    if holds_other_model(target) and not overwrite:
        raise OutputExistsError(
            f"{target}: a model of another training is there; give another name, or --overwrite."
        )
    return record
