"""The output of a training: whether it can be written, and what exists there. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelFolderError, OutputExistsError
from geodinoseg.files.arguments import output_path
from geodinoseg.files.atomic import check_output_folder
from geodinoseg.model.config import is_model_folder, read_model_config


def checkpoint_path(target: Path) -> Path:
    """The file beside a model folder that an interrupted training resumes from."""
    return target.with_name(f"{target.name}.checkpoint")


def check_training_output(output: str | os.PathLike[str], *, overwrite: bool, resume: bool) -> Path:
    """Check, before any work, whether a training can write its model folder; returns its path.

    Args:
        output: the model folder.
        overwrite: whether an existing model or interrupted training may be replaced.
        resume: whether an interrupted training is to be resumed.

    Raises:
        OutputExistsError: one exists, and neither was given.
        OutputError: the folder cannot be written, or holds other things.
    """
    path = output_path(output)
    checkpoint = checkpoint_path(path)
    if checkpoint.exists() and not (overwrite or resume):
        raise OutputExistsError(
            f"{path}: an interrupted training is at {checkpoint}; continue with --resume, or "
            f"start over with --overwrite."
        )
    return check_output_folder(path, overwrite=overwrite or resume, is_ours=is_model_folder)


@contextmanager
def noted_interrupts(target: Path) -> Iterator[None]:
    """Note on an interrupt before the first epoch what is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", ()):
            earlier = checkpoint_path(target)
            error.add_note(
                f"No epoch was finished; {earlier} of the earlier run is kept: continue with "
                f"--resume."
                if earlier.exists()
                else "No epoch was finished, so nothing is kept; the same command starts over."
            )
        raise


def training_facts(target: Path) -> dict[str, Any] | None:
    """How the model at a path was trained; empty if it cannot be read, None if there is none."""
    if not is_model_folder(target):
        return None
    try:
        facts = read_model_config(target)["training"]
    except ModelFolderError:
        return {}
    return dict(facts)


def is_unfinished(target: Path) -> bool:
    """Whether an interrupted training left the model at a path."""
    facts = training_facts(target)
    return facts is not None and facts.get("finished") is False


def holds_other_model(target: Path) -> bool:
    """Whether there is a model at a path that no interrupted training left there."""
    return training_facts(target) is not None and not is_unfinished(target)
