"""What can be said of paths before torch is loaded, so that a mistyped one is answered at once.

The library looks again, and closer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geodinoseg.errors import LabelError, OutputError

if TYPE_CHECKING:
    from geodinoseg.legend import Legend
    from geodinoseg.scene import Scene

_RASTER_SUFFIXES = (".tif", ".tiff")
_HOLDS_ITS_STYLE = ".gpkg"


def read_legend(model: Path) -> Legend:
    """The classes that a model folder says it knows.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
    """
    from geodinoseg.legend import Legend
    from geodinoseg.model.model_config import read_model_config

    return Legend.from_json(read_model_config(model)["legend"])


def check_labels(paths: Iterable[str]) -> None:
    """Refuse label files that are not there.

    Raises:
        LabelError: one of them.
    """
    for path in paths:
        local = not (path.startswith("/vsi") or "://" in path)
        if local and not Path(path.partition("|")[0]).exists():
            raise LabelError(f"{path}: no such file; give polygons or a label raster.")


def check_model_output(folder: Path, *, overwrite: bool) -> None:
    """Say whether a model folder can be written.

    Raises:
        OutputError: it cannot, or is there already.
    """
    from geodinoseg.model.model_config import is_model_folder
    from geodinoseg.outputs import check_output_folder

    check_output_folder(folder, overwrite=overwrite, is_ours=is_model_folder)


def check_map_outputs(scene: Scene, rasters: Sequence[Path], *, overwrite: bool) -> None:
    """Say whether the rasters of a map can be written.

    Args:
        scene: must not be replaced.
        rasters: class raster first, then what else was asked for.
        overwrite: whether files that are there may be replaced.

    Raises:
        OutputError: one cannot be written or is being written by another process, two are one file
            or share a style file, or a folder of others is where parts would go.
    """
    from geodinoseg.lock import check_unlocked
    from geodinoseg.outputs import check_output
    from geodinoseg.parts import check_parts_folder, outputs_in_doubt

    own = outputs_in_doubt(rasters[0])
    for path in rasters:
        replace = overwrite or path.resolve() in own
        check_output(path, overwrite=replace, suffixes=_RASTER_SUFFIXES, inputs=[scene.path])
    _check_apart(rasters)
    _check_styles(rasters[0], rasters[1:])
    check_parts_folder(rasters[0])
    for path in rasters:
        check_unlocked(path)


def check_polygon_outputs(
    scene: Scene,
    rasters: Sequence[Path],
    polygons: Sequence[Path],
    *,
    legend: Legend,
    overwrite: bool,
) -> None:
    """Say whether polygons of a map can be written.

    Args:
        scene: gives the place; must not be replaced.
        rasters: of the map.
        polygons: the files.
        legend: of the map; its names must fit the format.
        overwrite: whether files that are there may be replaced.

    Raises:
        OutputError: one cannot be written, or two are one file or share a style file.
        SceneError: the scene has no place on the ground.
    """
    from geodinoseg.polygons.ground_measures import check_place
    from geodinoseg.polygons.vector_files import check_vector_output, crs_in_file

    for path in polygons:
        check_vector_output(path, legend=legend, overwrite=overwrite, inputs=[scene.path])
        crs_in_file(path, scene.geobox.crs)
    check_place(scene.path, scene.geobox)
    _check_apart(polygons)
    styled = [path for path in polygons if path.suffix.lower() != _HOLDS_ITS_STYLE]
    for raster in rasters:
        _check_styles(raster, styled)


def _check_apart(paths: Sequence[Path]) -> None:
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise OutputError(f"{path}: two outputs cannot be one file; give another name.")
        seen.add(path.resolve())


def _check_styles(raster: Path, others: Iterable[Path]) -> None:
    """QGIS looks for the style of a file in a `.qml` of its stem, which holds one style."""
    for other in others:
        if (other.parent.resolve(), other.stem) == (raster.parent.resolve(), raster.stem):
            raise OutputError(
                f"{other}: would share the style file {raster.stem}.qml with {raster.name}; give "
                f"one of them another name, or write polygons as .gpkg, which holds its style."
            )
