"""Where a model is to appear, and what may lie there already. Loads no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelFolderError, OutputExistsError
from geodinoseg.files.atomic import check_output_folder
from geodinoseg.model.config import is_model_folder, read_model_config


def checkpoint_path(target: Path) -> Path:
    """The file beside a model folder that an interrupted training goes on from."""
    return target.with_name(f"{target.name}.checkpoint")


def check_training_output(output: str | os.PathLike[str], *, overwrite: bool, resume: bool) -> Path:
    """Say now, before any work, whether a training can write its model folder.

    Args:
        output: the model folder.
        overwrite: whether a model or an interrupted training that is there may be replaced.
        resume: whether an interrupted training that is there is to go on.

    Returns:
        The path.

    Raises:
        OutputExistsError: something is there, and neither was said.
        OutputError: the folder cannot be written, or holds other things.
    """
    path = Path(output)
    checkpoint = checkpoint_path(path)
    if checkpoint.exists() and not (overwrite or resume):
        raise OutputExistsError(
            f"{path}: an interrupted training lies at {checkpoint}; go on with --resume, or start "
            f"over with --overwrite."
        )
    return check_output_folder(path, overwrite=overwrite or resume, is_ours=is_model_folder)


def training_facts(target: Path) -> dict[str, Any] | None:
    """How the model that lies at a path was trained; None without one that can be read."""
    if not is_model_folder(target):
        return None
    try:
        facts = read_model_config(target)["training"]
    except ModelFolderError:
        return {}
    return dict(facts)


def is_unfinished(target: Path) -> bool:
    """Whether an interrupted training left the model that lies at a path."""
    facts = training_facts(target)
    return facts is not None and facts.get("finished") is False


def holds_other_model(target: Path) -> bool:
    """Whether a model lies at a path that no interrupted training left there."""
    return training_facts(target) is not None and not is_unfinished(target)
