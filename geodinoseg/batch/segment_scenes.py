"""Many scenes, one model: a map each, in one folder; what fails does not stop the others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geodinoseg.batch.journal import Journal, file_facts, opened_journal
from geodinoseg.batch.scenes import ListedScene, MapFiles, OutputNames, planned_files
from geodinoseg.errors import GeodinosegError, OutputError, OutputExistsError, SchedulerError
from geodinoseg.model.fingerprint import model_fingerprint
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.progress import Progress, no_progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.scene_fingerprint import scene_identity
from geodinoseg.segmentation.job import ThisProcess, Workers
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentSettings
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)

_RASTER_SHARE = 0.9
"""Of a scene's progress, where polygons follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneResult:
    """What became of one scene."""

    scene: str
    """Its path, without what may be secret in an address."""
    status: Literal["done", "skipped", "failed"]
    """Skipped: it was done before, and is whole."""
    outputs: tuple[Path, ...]
    """Of a scene that did not fail."""
    error: str | None = None
    """Why it failed."""


def segment_scenes(
    scenes: Sequence[ListedScene],
    model: str | Path,
    folder: Path,
    *,
    names: OutputNames | None = None,
    settings: SegmentSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = True,
    parts: str | Path | None = None,
    workers: Workers | None = None,
    allow_external: bool = False,
    tell: Callable[[SceneResult], None] = lambda _: None,
    progress: Progress = no_progress,
) -> list[SceneResult]:
    """Segment scenes one after the other into a folder that keeps a journal.

    A scene that was done before, from the same content with the same settings, is skipped where its
    outputs are whole; one that failed, or was interrupted, is tried again.

    Args:
        scenes: as `listed_scenes` gives them.
        model: a model folder; it is loaded once.
        folder: where the outputs go; made where it is not there.
        names: of the outputs.
        settings: as `segment_scene` takes them.
        device: as `segment_scene` takes it.
        overwrite: do all of them, and replace outputs that are there.
        resume: as `segment_scene` takes it.
        parts: as `segment_scene` takes it.
        workers: as `segment_scene` takes them.
        allow_external: as `open_scene` takes it.
        tell: called with what became of each scene.
        progress: told the share of scenes done.

    Returns:
        What became of each scene, in order.

    Raises:
        OutputError: outputs clash, or the folder or its journal cannot be written.
        ModelFolderError: the model cannot be loaded.
        SchedulerError: the scheduler is gone.
    """
    names = names or OutputNames()
    maps = planned_files(scenes, folder, names)
    _make(folder)
    orders = _Orders(
        model=model,
        settings=settings or SegmentSettings(),
        device=device,
        overwrite=overwrite,
        resume=resume,
        parts=parts,
        workers=workers or ThisProcess(),
        allow_external=allow_external,
    )
    results = []
    with opened_journal(folder) as journal:
        for index, (scene, files) in enumerate(zip(scenes, maps, strict=True)):
            stage = part_of(progress, index / len(scenes), (index + 1) / len(scenes))
            results.append(_attempted(scene, files, orders, journal, _named(stage, scene)))
            tell(results[-1])
    progress(1.0, "done")
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Orders:
    """What all scenes have in common."""

    model: str | Path
    settings: SegmentSettings
    device: str
    overwrite: bool
    resume: bool
    parts: str | Path | None
    workers: Workers
    allow_external: bool

    def opened(self, scene: ListedScene) -> Scene:
        """The scene as it will be read."""
        return open_scene(
            scene.path,
            bands=self.settings.bands,
            nodata=self.settings.nodata,
            allow_external=self.allow_external,
        )

    def key(self, scene: ListedScene, files: MapFiles) -> str:
        """64 hexadecimal digits that change when content of scene or model or what is asked does.

        Found without loading the model, so that a finished list is gone through in seconds.
        """
        facts = [
            __version__,
            scene_identity(self.opened(scene)),
            model_fingerprint(self.model),
            dataclasses.asdict(self.settings),
            [path.name for path in files.paths],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _attempted(
    scene: ListedScene, files: MapFiles, orders: _Orders, journal: Journal, progress: Progress
) -> SceneResult:
    """Do one scene; say in the journal what became of it."""
    name, began = files.class_raster.name, time.monotonic()
    try:
        key = orders.key(scene, files)
        if not orders.overwrite and journal.has(name, key, "done"):
            return SceneResult(scene=scene.public_name, status="skipped", outputs=files.paths)
        raster = _mapped(scene, files, orders, journal, progress, key=key)
        replace = _may_replace(files, orders, journal, key=key)
        _write_polygons(raster, files, progress, replace=replace)
        _record(journal, "done", scene, files.paths, key=key, began=began)
    except SchedulerError:
        raise  # all that follow would fail of it
    except GeodinosegError as error:
        message = " ".join([str(error), *getattr(error, "__notes__", ())])
        journal.add(name, "failed", scene=scene.public_name, error=message)
        return SceneResult(scene=scene.public_name, status="failed", outputs=(), error=message)
    return SceneResult(scene=scene.public_name, status="done", outputs=files.paths)


def _mapped(
    scene: ListedScene,
    files: MapFiles,
    orders: _Orders,
    journal: Journal,
    progress: Progress,
    *,
    key: str,
) -> ClassRaster:
    """The rasters of a scene: those that a run left when it was stopped at the polygons, or new."""
    name, began = files.class_raster.name, time.monotonic()
    if not orders.overwrite and journal.has(name, key, "mapped"):
        return open_class_raster(files.class_raster)
    replace = _may_replace(files, orders, journal, key=key)
    there = [path for path in files.paths if path.exists()]
    if there and not replace:
        raise OutputExistsError(
            f"{there[0]}: exists already, and is not what this run would write; give another "
            f"folder, or --overwrite."
        )
    new = [path.name for path in files.paths]
    journal.add(name, "started", scene=scene.public_name, key=key, new=new)
    raster = segment_scene(
        orders.opened(scene),
        orders.model,
        files.class_raster,
        confidence=files.confidence or False,
        probabilities=files.probabilities or False,
        settings=orders.settings,
        device=orders.device,
        overwrite=replace,
        resume=orders.resume,
        parts=orders.parts,
        workers=orders.workers,
        progress=part_of(progress, 0, _RASTER_SHARE if files.polygons else 1.0),
    )
    _record(journal, "mapped", scene, files.rasters, key=key, began=began)
    return raster


def _write_polygons(
    raster: ClassRaster, files: MapFiles, progress: Progress, *, replace: bool
) -> None:
    step = (1 - _RASTER_SHARE) / max(len(files.polygons), 1)
    for index, path in enumerate(files.polygons):
        start = _RASTER_SHARE + index * step
        stage = part_of(progress, start, min(start + step, 1.0))
        write_polygons(raster, path, overwrite=replace, progress=stage)


def _may_replace(files: MapFiles, orders: _Orders, journal: Journal, *, key: str) -> bool:
    """Whether all that is there is this run's own, or may be overwritten anyway."""
    own = journal.own(files.class_raster.name, key)
    return orders.overwrite or all(p.name in own for p in files.paths if p.exists())


def _record(
    journal: Journal,
    status: Literal["mapped", "done"],
    scene: ListedScene,
    paths: Sequence[Path],
    *,
    key: str,
    began: float,
) -> None:
    journal.add(
        paths[0].name,
        status,
        scene=scene.public_name,
        key=key,
        files={path.name: file_facts(path) for path in paths},
        seconds=round(time.monotonic() - began, 1),
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); give another.") from error


def _named(progress: Progress, scene: ListedScene) -> Progress:
    def told(fraction: float, message: str) -> None:
        progress(fraction, f"{scene.stem}: {message}")

    return told
