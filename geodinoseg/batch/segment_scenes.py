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
from typing import Any, Literal

from geodinoseg.batch.journal import Journal, Status, file_facts, open_journal
from geodinoseg.batch.scenes import ListedScene, MapFiles, OutputNames, planned_files
from geodinoseg.errors import GeodinosegError, OutputExistsError, SchedulerError
from geodinoseg.model.fingerprint import model_identity
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

_RASTER_FRACTION = 0.9
"""Of a scene's progress, where polygons follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneResult:
    """What became of one scene."""

    scene: str
    """Its path, without the secrets that an address may hold."""
    status: Literal["done", "skipped", "failed"]
    """Skipped: an earlier run finished it, and its outputs are whole."""
    outputs: tuple[Path, ...]
    """Empty where it failed."""
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

    A scene that an earlier run finished, from the same content with the same settings, is skipped
    where its outputs are whole; one that failed or was interrupted is tried again.

    Args:
        scenes: as `find_scenes` gives them.
        model: a model folder; it is loaded once.
        folder: where the outputs go; created where it is missing.
        names: of the outputs.
        settings: as `segment_scene` takes them.
        device: as `segment_scene` takes it.
        overwrite: segment all of them, and replace existing outputs.
        resume: as `segment_scene` takes it.
        parts: as `segment_scene` takes it.
        workers: as `segment_scene` takes them.
        allow_external: as `open_scene` takes it.
        tell: called with the result of each scene.
        progress: called with the fraction of scenes done.

    Returns:
        The result of each scene, in order.

    Raises:
        OutputError: outputs clash, or the folder or its journal cannot be written.
        ModelFolderError: the model cannot be loaded.
        SchedulerError: the scheduler is lost.
    """
    maps = planned_files(scenes, folder, names or OutputNames())
    options = BatchOptions(
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
    with open_journal(folder) as journal:
        for index, (scene, files) in enumerate(zip(scenes, maps, strict=True)):
            stage = _scene_progress(progress, scene.stem, index, len(scenes))
            results.append(_SceneTask(scene, files, options, journal, stage).run())
            tell(results[-1])
    progress(1.0, "done")
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What all scenes have in common."""

    model: str | Path
    settings: SegmentSettings
    device: str
    overwrite: bool
    resume: bool
    parts: str | Path | None
    workers: Workers
    allow_external: bool


@dataclass(frozen=True, slots=True)
class _SceneTask:
    """One scene of a batch."""

    scene: ListedScene
    files: MapFiles
    options: BatchOptions
    journal: Journal
    progress: Progress

    def run(self) -> SceneResult:
        """Write all outputs of the scene that are missing, and record the result in the journal."""
        start = time.monotonic()
        try:
            key = self._key()
            if self._is(key, "done"):
                return self._result("skipped")
            raster = self._class_raster(key)
            self._write_polygons(raster, replace=self._may_replace(key))
            self._record("done", self.files.paths, key, start)
        except SchedulerError:
            raise  # every later scene would fail for the same reason
        except GeodinosegError as error:
            message = " ".join([str(error), *getattr(error, "__notes__", ())])
            self._note("failed", error=message)
            return self._result("failed", error=message)
        return self._result("done")

    @property
    def _name(self) -> str:
        return self.files.class_raster.name

    def _key(self) -> str:
        """64 hexadecimal digits that change with the content of scene and model and the options.

        Computed without loading the model, so that a finished batch is checked in seconds.
        """
        facts = [
            __version__,
            scene_identity(self._open()),
            model_identity(self.options.model),
            dataclasses.asdict(self.options.settings),
            [path.name for path in self.files.paths],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _open(self) -> Scene:
        settings = self.options.settings
        return open_scene(
            self.scene.path,
            bands=settings.bands,
            nodata=settings.nodata,
            allow_external=self.options.allow_external,
        )

    def _is(self, key: str, status: Literal["mapped", "done"]) -> bool:
        return not self.options.overwrite and self.journal.has(self._name, key, status)

    def _class_raster(self, key: str) -> ClassRaster:
        """The class raster of an earlier run that was stopped at the polygons, or a new one."""
        if self._is(key, "mapped"):
            return open_class_raster(self.files.class_raster)
        start, replace = time.monotonic(), self._may_replace(key)
        there = [path for path in self.files.paths if path.exists()]
        if there and not replace:
            raise OutputExistsError(
                f"{there[0]}: exists already, and is not what this run would write; give another "
                f"folder, or --overwrite."
            )
        self._note("started", key=key, new=[path.name for path in self.files.paths])
        raster = self._segment(replace=replace)
        self._record("mapped", self.files.rasters, key, start)
        return raster

    def _segment(self, *, replace: bool) -> ClassRaster:
        options, files = self.options, self.files
        return segment_scene(
            self._open(),
            options.model,
            files.class_raster,
            confidence=files.confidence or False,
            probabilities=files.probabilities or False,
            settings=options.settings,
            device=options.device,
            overwrite=replace,
            resume=options.resume,
            parts=options.parts,
            workers=options.workers,
            progress=part_of(self.progress, 0, _RASTER_FRACTION if files.polygons else 1.0),
        )

    def _write_polygons(self, raster: ClassRaster, *, replace: bool) -> None:
        step = (1 - _RASTER_FRACTION) / max(len(self.files.polygons), 1)
        for index, path in enumerate(self.files.polygons):
            start = _RASTER_FRACTION + index * step
            stage = part_of(self.progress, start, min(start + step, 1.0))
            write_polygons(raster, path, overwrite=replace, progress=stage)

    def _may_replace(self, key: str) -> bool:
        """Whether every existing output is this run's own, or may be overwritten anyway."""
        own = self.journal.replaceable(self._name, key)
        existing = [path.name for path in self.files.paths if path.exists()]
        return self.options.overwrite or own.issuperset(existing)

    def _record(
        self, status: Literal["mapped", "done"], paths: Sequence[Path], key: str, start: float
    ) -> None:
        files = {path.name: file_facts(path) for path in paths}
        self._note(status, key=key, files=files, seconds=round(time.monotonic() - start, 1))

    def _note(self, status: Status, **facts: Any) -> None:
        self.journal.add(self._name, status, scene=self.scene.public_name, **facts)

    def _result(
        self, status: Literal["done", "skipped", "failed"], error: str | None = None
    ) -> SceneResult:
        outputs = () if error else self.files.paths
        return SceneResult(
            scene=self.scene.public_name, status=status, outputs=outputs, error=error
        )


def _scene_progress(progress: Progress, stem: str, index: int, count: int) -> Progress:
    stage = part_of(progress, index / count, (index + 1) / count)
    return lambda fraction, message: stage(fraction, f"{stem}: {message}")
