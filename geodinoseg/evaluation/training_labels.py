"""Warning if a map is assessed with labels of its model's training, recognized by file name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelFolderError
from geodinoseg.labels.paths import file_of
from geodinoseg.model.config import is_model_folder, read_model_config
from geodinoseg.rasters.class_raster import ClassRaster

MODEL_TAG = "GEODINOSEG_MODEL"
"""Tag of a class raster: the name of the model folder."""
_log = logging.getLogger(__name__)


def warn_of_training_labels(raster: ClassRaster, labels: str, recorded: str) -> None:
    """Warn if a map's model was trained on label files with these names.

    A tag of the map gives the name of the model folder, which is looked for in the folder of the
    map, in its parent folder and in the current folder.

    Args:
        raster: the map.
        labels: the label files, in the form used in messages.
        recorded: their names in the form used in model folders.
    """
    folder = _model_folder(raster)
    if folder is None:
        return
    try:
        training: dict[str, Any] = read_model_config(folder)["training"]
    except ModelFolderError:
        return
    trained_on = training.get("labels")
    listed = trained_on if isinstance(trained_on, list) else []
    shared = set(_file_names(recorded)) & {
        name for text in listed for name in _file_names(str(text))
    }
    if shared:
        _log.warning(
            "%s: %s was made with %s, which was trained on a file of the same name (%s); scores "
            "are valid only for land that was not used in training.",
            labels,
            raster.path,
            folder,
            ", ".join(sorted(shared)),
        )


def _model_folder(raster: ClassRaster) -> Path | None:
    name = raster.tags.get(MODEL_TAG, "")
    if not name or Path(name).name != name:
        return None
    here = [Path()]
    if raster.source.is_plain_path:
        beside = Path(raster.path).resolve().parent
        here = [beside, beside.parent, *here]
    return next((place / name for place in here if is_model_folder(place / name)), None)


def _file_names(labels: str) -> Iterator[str]:
    """File names without folders, classes and layers."""
    for part in labels.split(", "):
        yield Path(file_of(part).rpartition("=")[2]).name
