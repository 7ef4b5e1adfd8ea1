"""What can be said of paths before torch is loaded, so that a mistyped one is answered at once.

The library looks again, and closer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from geodinoseg.batch.scenes import OutputNames
from geodinoseg.errors import OutputError, SceneError
from geodinoseg.legend import Legend
from geodinoseg.rasters.scene import Scene

_RASTER_SUFFIXES = (".tif", ".tiff")
_HOLDS_ITS_STYLE = ".gpkg"


def read_legend(model: Path) -> Legend:
    """The classes that a model folder says it knows.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
    """
    from geodinoseg.legend import Legend
    from geodinoseg.model.config import read_model_config

    return Legend.from_json(read_model_config(model)["legend"])


def check_bands(model: Path, bands: Sequence[int] | None) -> None:
    """Refuse band numbers that are more or fewer than a model reads.

    Raises:
        SceneError: they are.
    """
    from geodinoseg.model.config import read_model_config

    wanted = len(read_model_config(model)["bands"])
    if bands is not None and len(bands) != wanted:
        raise SceneError(
            f"--bands names {len(bands)} bands, the model reads {wanted}; give as many, in the "
            f"order of its training."
        )


def check_many_outputs(folder: Path, names: OutputNames) -> None:
    """Say whether the maps of many scenes can be written into a folder, by their names.

    Raises:
        OutputError: the folder cannot be made or written to, or a name says another format.
    """
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


def check_map_outputs(
    scene: Scene, rasters: Sequence[Path], *, parts: str | None, overwrite: bool
) -> None:
    """Say whether the rasters of a map can be written.

    Args:
        scene: must not be replaced.
        rasters: class raster first, then what else was asked for.
        parts: under which folder or address they shall go; None for beside the class raster.
        overwrite: whether files that are there may be replaced.

    Raises:
        OutputError: one cannot be written or is being written by another process, two are one file
            or share a style file; parts cannot be written, or a folder of others is where they
            would go.
    """
    from geodinoseg.files.atomic import check_output
    from geodinoseg.files.locks import check_unlocked
    from geodinoseg.segmentation.parts.run import check_parts, outputs_in_doubt
    from geodinoseg.segmentation.parts.store import part_store

    store = part_store(rasters[0], parts)
    if parts is not None:  # before it is asked what lies there
        check_parts(store)
    own = outputs_in_doubt(store)
    for path in rasters:
        replace = overwrite or path.resolve() in own
        check_output(path, overwrite=replace, suffixes=_RASTER_SUFFIXES, inputs=[scene.path])
    _check_apart(rasters)
    _check_styles(rasters[0], rasters[1:])
    if parts is None:
        check_parts(store)
    for path in rasters:
        check_unlocked(path)


def check_polygon_outputs(
    scene: Scene,
    rasters: Sequence[Path],
    polygons: Sequence[Path],
    *,
    parts: str | None,
    legend: Legend,
    overwrite: bool,
) -> None:
    """Say whether polygons of a map can be written.

    Args:
        scene: gives the place; must not be replaced.
        rasters: of the map.
        polygons: the files.
        parts: as `check_map_outputs` takes it; polygons of a run that was killed are its own.
        legend: of the map; its names must fit the format.
        overwrite: whether files that are there may be replaced.

    Raises:
        OutputError: one cannot be written or is being written by another process, or two are one
            file or share a style file.
        SceneError: the scene has no place on the ground.
    """
    from geodinoseg.files.locks import check_unlocked
    from geodinoseg.segmentation.outputs import MapPolygons
    from geodinoseg.segmentation.parts.run import outputs_in_doubt
    from geodinoseg.segmentation.parts.store import part_store

    own = outputs_in_doubt(part_store(rasters[0], parts))
    MapPolygons.of(polygons, own=own, overwrite=overwrite).check(scene, legend, inputs=[])
    for path in polygons:
        check_unlocked(path)
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
