"""What is kept, trained again on all labels, the held-out ones included.

Its scores stay those of the first training. In cross-validation, where each model saw a part of the
labels, it must be done, and it can for every stage; with a fixed validation part it is done for
heads, which takes seconds.
"""

from __future__ import annotations

import logging

from geodinoseg.progress import log_step
from geodinoseg.training.budget import STAGE_WORDS
from geodinoseg.training.epochs import Stage
from geodinoseg.training.finetuning import FineTuning
from geodinoseg.training.head_stage import HeadStage
from geodinoseg.training.run import TrainingRun
from geodinoseg.training.settings import StageName

logger = logging.getLogger(__name__)


def train_on_all_labels(run: TrainingRun) -> None:
    """Replace the weights of a run by some that were trained on all labels, if that is due."""
    if not _is_due(run):
        return
    kept = run.kept
    log_step(logger, "%s: training again on all labels.", STAGE_WORDS[kept])
    run.begin_anew()
    run.seed("final")
    heads = [run.kept_head] if run.source.settings.stage_one_epochs else []
    for name in dict.fromkeys([*heads, kept]):
        if not run.is_head(name):
            run.unfreeze()
        _train(run, name)


def _is_due(run: TrainingRun) -> bool:
    if run.is_crossed or not run.source.data.folds:
        return run.is_crossed
    # After a resumption the time that it takes is unknown; a limit is then kept for sure.
    time_slice = run.epochs.budget.of_the_rest()
    return run.is_head(run.kept) and time_slice.has_room_for(run.seconds_of(run.kept))


def _train(run: TrainingRun, name: StageName) -> None:
    planned = run.source.settings.epochs_of(name)
    # Fewer if time ended them; but in cross-validation the folds shared them.
    epochs = planned if run.is_crossed else len(run.record.epochs_of(name))
    stage = _stage(run, name, planned)
    for epoch in range(epochs):
        if epoch and not stage.has_time():
            break
        run.epochs.progress.begin_epoch(name, epoch, epochs, is_final=True)
        stage.train_epoch(epoch)


def _stage(run: TrainingRun, name: StageName, epochs: int) -> Stage:
    time_slice, progress = run.epochs.budget.of_the_rest(), run.epochs.progress
    if not run.is_head(name):
        return FineTuning(
            run.network,
            run.source,
            run.validation,
            folds=[None],
            epochs=epochs,
            time_slice=time_slice,
            progress=progress,
        )
    return HeadStage(
        name,
        run.network.head,
        run.source,
        run.cached_crops().of_all_labels(),
        epochs=epochs,
        first_epoch=run.source.settings.stage_one_epochs if name == "further" else 0,
        time_slice=time_slice,
        progress=progress,
    )
