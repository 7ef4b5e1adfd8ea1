"""From a run to a model folder: finished, or the one so far of an interrupted run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from geodinoseg.errors import DeviceError, GeodinosegError, OutputError
from geodinoseg.files.atomic import atomic_folder
from geodinoseg.model.folder import write_model
from geodinoseg.model.heads import Detail
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.progress import log_step
from geodinoseg.training.history import write_history
from geodinoseg.training.optimizer import copied, of_number, restore
from geodinoseg.training.output import holds_other_model
from geodinoseg.training.run import TrainingRun
from geodinoseg.training.settings import StageName
from geodinoseg.training.validation_report import ValidationReport, validation_report
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)

_ON_FIXED_PART = "validation blocks apart from the training windows"
_ON_FOLDS = "blocks held out in turn (cross-validation, {} folds)"
_SMALLEST_TILE_PX = 518
"""As large as the images that DINOv2 was last trained on. Tiles that see more disagree less; see
docs/seams.md."""
_NOT_RECORDED = ("cache_bytes", "minutes")


def trained_model(run: TrainingRun) -> tuple[Segmentor, ValidationReport | None]:
    """The finished model, calibrated, and its validation report."""
    logger.info("%s", run.outcome)
    network = run.network.requires_grad_(requires_grad=False).eval()
    # Those of the first training: the final one has seen the held-out labels.
    scored = run.record.weights[run.kept]
    names = of_number(scored, 0)
    live = {n: t for n, t in network.state_dict().items() if n in names}
    final = copied(live)
    loaded: int | None = None

    def predict(crop: Detail, fold: int) -> torch.Tensor:
        nonlocal loaded
        run.epochs.progress.reported(1)
        if fold != loaded:
            restore(live, of_number(scored, fold))
            loaded = fold
        logits: torch.Tensor = network(*crop)
        return logits

    log_step(logger, "calibrating the confidence on validation crops.")
    report = validation_report(run.source, run.validation, predict)
    restore(live, final)
    return _segmentor(run, report, finished=True), report


def write_trained_model(
    model: Segmentor, run: TrainingRun, report: ValidationReport | None, folder: Path
) -> None:
    """Write a model with its history and, if there is validation, the pictures of it."""
    write_model(model, folder)
    write_history(run.record.history, folder)
    if report is not None:
        report.write(folder, model.legend)


@contextmanager
def best_so_far_kept(run: TrainingRun, target: Path) -> Iterator[None]:
    """On an interrupt or error keep checkpoint and best model; a note on the error says where."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        fault = DeviceError(
            "a batch does not fit into the memory of the device; give --gradient-checkpointing, "
            "--accumulate 2 or more, or a smaller --batch-size."
        )
        _keep(run, target, fault)
        raise fault from error
    except (KeyboardInterrupt, GeodinosegError) as error:
        _keep(run, target, error)
        raise


def _keep(run: TrainingRun, target: Path, error: BaseException) -> None:
    """Write what there is of a training that ends early, and note it on the error."""
    if not run.record.history:
        return
    last = run.record.last_of(run.kept)
    assert last is not None
    what = f"epoch {last.epoch}"
    if not math.isnan(last.mean_iou):
        what += f", mean IoU {last.mean_iou:.3f}"
    where = str(run.epochs.checkpoint)
    if not isinstance(error, OutputError):
        run.record.write(run.epochs.checkpoint)
        if not holds_other_model(target):
            run.load_kept()
            model = _segmentor(run, None, finished=False)
            with atomic_folder(target) as folder:
                write_trained_model(model, run, None, folder)
            where = f"{target}, unfinished"
    if run.epochs.checkpoint.exists():
        error.add_note(f"The model so far ({what}) is kept at {where}; continue with --resume.")


def _segmentor(run: TrainingRun, report: ValidationReport | None, *, finished: bool) -> Segmentor:
    """The model with everything that its predictions depend on, ready to segment."""
    run.network.requires_grad_(requires_grad=False).eval()
    return Segmentor(
        network=run.network,
        legend=run.source.data.legend,
        statistics=run.source.statistics,
        bands=run.source.data.bands,
        band_names=run.source.data.band_names,
        trained_tile_px=_tile_px(run),
        pixel_size_m=run.source.data.pixel_size_m,
        temperature=1.0 if report is None else report.temperature,
        training=_training_facts(run, finished=finished),
        scores=_scores(run, report),
    )


def _tile_px(run: TrainingRun) -> int:
    """Side of the model's tiles: larger than training crops, since tiles need surroundings."""
    patch_px = run.network.patch_px
    return max(run.source.data.crop_px, _SMALLEST_TILE_PX // patch_px * patch_px)


def _training_facts(run: TrainingRun, *, finished: bool) -> dict[str, Any]:
    last = run.record.last_of(run.kept)
    assert last is not None
    recipe = asdict(run.source.settings)
    if not run.network.has_backbone:
        del recipe["band_projection"]
    return {
        **run.source.data.facts,
        "kept": run.kept,
        "outcome": run.outcome,
        "epoch": last.epoch,
        "finished": finished,
        "geodinoseg": __version__,
        **{name: value for name, value in recipe.items() if name not in _NOT_RECORDED},
        "crop_px": run.source.data.crop_px,
        "fingerprint": run.record.fingerprint,
    }


def _scores(run: TrainingRun, report: ValidationReport | None) -> dict[str, Any]:
    last = run.record.last_of(run.kept)
    if last is None or last.accuracy is None:
        return {}
    folds = run.source.data.folds
    on = _ON_FOLDS.format(folds) if folds > 1 else _ON_FIXED_PART
    of_stages = [run.record.last_of(stage) for stage in get_args(StageName)]
    scores = [score for score in of_stages if score is not None]
    found = {} if report is None else report.to_json()
    return {
        "on": on,
        **last.accuracy.to_json(),
        "mean_iou_by_stage": {score.stage: score.mean_iou for score in scores},
        "log_loss_by_stage": {score.stage: score.log_loss for score in scores},
        **found,
    }
