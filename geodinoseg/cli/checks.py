"""What can be said of paths before torch is loaded, so that a mistyped one is answered at once.

The library looks again, and closer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from geodinoseg.batch.scenes import OutputNames
from geodinoseg.errors import LabelError, OutputError, SceneError
from geodinoseg.legend import Legend
from geodinoseg.rasters.scene import Scene

_RASTER_SUFFIXES = (".tif", ".tiff")
_HOLDS_ITS_STYLE = ".gpkg"


def read_legend(model: Path) -> Legend:
    """The classes that a model folder says it knows."""
    from geodinoseg.legend import Legend
    from geodinoseg.model.config import read_model_config

    return Legend.from_json(read_model_config(model)["legend"])


def check_bands(model: Path, bands: Sequence[int] | None) -> None:
    """Refuse band numbers that are more or fewer than a model reads."""
    from geodinoseg.model.config import read_model_config

    wanted = len(read_model_config(model)["bands"])
    if bands is not None and len(bands) != wanted:
        raise SceneError(
            f"--bands names {len(bands)} bands, the model reads {wanted}; give as many, in the "
            f"order of its training."
        )


def check_many_outputs(folder: Path, names: OutputNames) -> None:
    """Say whether the maps of many scenes can be written into a folder, by their names."""
    from geodinoseg.batch.journal import JOURNAL
    from geodinoseg.files.atomic import check_folder_of

    for name in (names.class_raster, names.confidence, names.probabilities):
        _check_suffix(name, _RASTER_SUFFIXES)
    if names.polygons:
        from geodinoseg.polygons.writer import VECTOR_FORMATS

        for name in names.polygons:
            _check_suffix(name, tuple(VECTOR_FORMATS))
    check_folder_of(folder / JOURNAL if folder.exists() else folder)


def _check_suffix(name: str | None, suffixes: tuple[str, ...]) -> None:
    if name is not None and not name.lower().endswith(suffixes):
        raise OutputError(f"{name}: the name must end in {' or '.join(suffixes)}.")


def opened_or_folder(
    path: str, *, bands: Sequence[int] | None, allow_external: bool = False
) -> Scene | str:
    """A scene, or the folder of chips that was given in its place."""
    from geodinoseg.labels.paths import is_folder
    from geodinoseg.rasters.scene import open_scene

    if is_folder(path):
        return path
    return open_scene(path, bands=bands, allow_external=allow_external)


def check_labels(paths: Iterable[str]) -> None:
    """Refuse label files that are not there."""
    from geodinoseg.labels.paths import label_files

    label_files(list(paths))


def check_label_options(
    scenes: Sequence[Scene | str],
    paths: Sequence[str],
    *,
    extent: str | None,
    legend_file: str | None,
) -> None:
    """Refuse labels, an extent or a legend that are not there.

    Args:
        scenes: scenes, or folders of chips, which may hold their labels.
        paths: files of labels, or folders of label chips.
        extent: file of polygons.
        legend_file: file with names and colours.
    """
    from geodinoseg.labels.legend_file import read_legend_file
    from geodinoseg.labels.paths import check_is_there

    if not any(isinstance(scene, str) for scene in scenes):
        if not paths:
            raise LabelError("no labels were given; say with --labels which file they are in.")
        check_labels(paths)
    if extent is not None:
        check_is_there(extent)
    if legend_file is not None:
        read_legend_file(legend_file)
