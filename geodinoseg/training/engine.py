"""The training of a network on data that were checked and read: from here on torch is loaded."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelFolderError, OutputExistsError
from geodinoseg.files.atomic import atomic_folder
from geodinoseg.model.devices import pick_device
from geodinoseg.model.folder import load_model
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.progress import Progress, log_step
from geodinoseg.training.all_labels import train_on_all_labels
from geodinoseg.training.budget import Budget
from geodinoseg.training.checkpoint import TrainingRecord, read_record
from geodinoseg.training.context import TrainingContext, build_context, own_random_numbers
from geodinoseg.training.data import TrainingData
from geodinoseg.training.output import checkpoint_path, holds_other_model, training_facts
from geodinoseg.training.result import best_so_far_kept, trained_model, write_trained_model
from geodinoseg.training.settings import TrainingSettings
from geodinoseg.training.tensorboard import opened_event_log

logger = logging.getLogger(__name__)


def run_training(
    data: TrainingData,
    target: Path,
    *,
    settings: TrainingSettings,
    network: dict[str, Any],
    device: str,
    overwrite: bool,
    resume: bool,
    tensorboard: str | os.PathLike[str] | None,
    budget: Budget,
    progress: Progress,
) -> Segmentor:
    """Train a network and write its folder; arguments as those of `train_model`."""
    where = pick_device(device)
    with (
        own_random_numbers(where, settings),
        opened_event_log(tensorboard, data.legend) as on_epoch,
    ):
        log_step(logger, "loading the backbone, and building the network on %s.", where)
        context = build_context(data, settings, network, where)
        for warning in data.warnings:
            logger.warning("%s", warning)
        if resume and _is_finished(target, context):
            logger.warning("%s: this training is finished already; nothing was done.", target)
            return load_model(target, device=device)
        record = _record(target, context, overwrite=overwrite, resume=resume)
        run = context.run(record, budget, checkpoint_path(target), progress, on_epoch)
        with best_so_far_kept(run, target):
            run.fit()
            train_on_all_labels(run)
            model, report = trained_model(run)
            log_step(logger, "writing the model %s.", target)
            with atomic_folder(target) as folder:
                write_trained_model(model, run, report, folder)
    run.epochs.checkpoint.unlink(missing_ok=True)
    run.epochs.progress.finish()
    return model


def _is_finished(target: Path, context: TrainingContext) -> bool:
    """Whether the finished model of this very training exists."""
    facts = training_facts(target) or {}
    return facts.get("fingerprint") == context.fingerprint and facts.get("finished") is True


def _record(
    target: Path, context: TrainingContext, *, overwrite: bool, resume: bool
) -> TrainingRecord:
    """The record of an interrupted training to resume; an empty one otherwise."""
    path = checkpoint_path(target)
    if resume and path.exists():
        record = read_record(path)
        if record.fingerprint != context.fingerprint:
            raise ModelFolderError(
                f"{path}: belongs to another training: scenes, labels, backbone, settings, "
                f"precision or version differ. Give the same ones, or start over with --overwrite."
            )
        logger.info("%s: resuming after epoch %d.", target, len(record.history))
    else:
        record = TrainingRecord(fingerprint=context.fingerprint)
    if holds_other_model(target) and not overwrite:
        raise OutputExistsError(
            f"{target}: a model of another training is there; give another name, or --overwrite."
        )
    if resume and not path.exists():
        logger.info("%s: there is no interrupted training; starting a new one.", target)
    return record
