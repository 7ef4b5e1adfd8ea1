"""Many scenes, one model: a map each, in one folder; what fails does not stop the others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geodinoseg.batch.scenes import (
    ListedScene,
    OutputNames,
    check_names,
    listed_scenes,
    planned_files,
)
from geodinoseg.errors import GeodinosegError, OutputExistsError, SchedulerError
from geodinoseg.files.arguments import options_of, output_path
from geodinoseg.files.atomic import PathLike
from geodinoseg.files.journal import Journal, Status, file_facts, open_journal
from geodinoseg.model.description import describe_model, model_fingerprint, model_source
from geodinoseg.model.tile_model import TileModel
from geodinoseg.polygons.settings import PolygonSettings
from geodinoseg.progress import Progress, log_step, no_progress, part_of
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.scene_fingerprint import scene_fingerprint
from geodinoseg.rasters.sidecars import check_in_place
from geodinoseg.segmentation.job import Workers, enter_workers
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.store import part_store
from geodinoseg.segmentation.plan import Plan, chosen_bands
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)

ScenesToSegment = PathLike | ListedScene | Iterable[PathLike | ListedScene]
"""Scenes as `find_scenes` gives them, or their names."""


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
    scenes: ScenesToSegment,
    model: PathLike | TileModel,
    folder: PathLike,
    *,
    names: OutputNames | None = None,
    polygon_settings: PolygonSettings | None = None,
    settings: SegmentationSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = True,
    parts: PathLike | None = None,
    workers: Workers | AbstractContextManager[Workers] | None = None,
    allow_external: bool = False,
    tell: Callable[[SceneResult], None] = lambda _: None,
    progress: Progress = no_progress,
) -> list[SceneResult]:
    """Segment scenes one after the other into a folder that keeps a journal.

    A scene that an earlier run finished, from the same content with the same settings, is skipped
    where its outputs are whole; one that failed or was interrupted is tried again.

    Args:
        scenes: as `find_scenes` gives them, or the names that it takes.
        model: a model folder, which is loaded once, or a model as `segment_scene` takes it.
        folder: where the outputs go; created where it is missing.
        names: of the outputs.
        polygon_settings: as `segment_scene` takes them.
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

    Example:
        >>> import geodinoseg as gds
        >>> [result.status for result in gds.segment_scenes(["ortho.tif"], "crops.model", "maps")]
        ['done']
    """
    settings = options_of(settings, SegmentationSettings, "settings")
    model, scenes = _checked_model(model, settings), listed_scenes(scenes)
    folder = output_path(folder, "folder")
    maps = _check_batch(scenes, folder, options_of(names, OutputNames, "names"), polygon_settings)
    if parts is not None:  # else each scene would fail
        part_store(folder / "map.tif", parts)
    results = []
    with enter_workers(workers) as crew, open_journal(folder) as journal:
        options = BatchOptions(
            model=model,
            settings=settings,
            device=device,
            overwrite=overwrite,
            resume=resume,
            parts=parts,
            workers=crew,
            allow_external=allow_external,
        )
        for index, (scene, files) in enumerate(zip(scenes, maps, strict=True)):
            stage = _scene_progress(progress, scene.stem, index, len(scenes))
            log_step(logger, "scene %d of %d: %s.", index + 1, len(scenes), scene.public_name)
            with _noted_interrupts(index, len(scenes)):
                results.append(_SceneTask(scene, files, options, journal, stage).run())
            tell(results[-1])
    progress(1.0, "done")
    return results


def plan_scenes(
    scenes: ScenesToSegment,
    model: PathLike | TileModel,
    folder: PathLike,
    *,
    names: OutputNames | None = None,
    polygon_settings: PolygonSettings | None = None,
    settings: SegmentationSettings | None = None,
    device: str = "auto",
    allow_external: bool = False,
) -> Iterator[tuple[ListedScene, Plan | GeodinosegError]]:
    """What `segment_scenes` would do with the same arguments: a plan, or an error, for each scene.

    The model is loaded once. Existing outputs are no error, since they may be skipped.

    Raises:
        GeodinosegError: as `segment_scenes`, before its first scene.
    """
    settings = options_of(settings, SegmentationSettings, "settings")
    model, scenes = _checked_model(model, settings), listed_scenes(scenes)
    folder = output_path(folder, "folder")
    maps = _check_batch(scenes, folder, options_of(names, OutputNames, "names"), polygon_settings)
    from geodinoseg.segmentation.runner import loaded_model  # noqa: PLC0415 (torch)
    from geodinoseg.segmentation.trial import timed_plan  # noqa: PLC0415 (torch)

    loaded = loaded_model(model, settings, device=device)
    for scene, files in zip(scenes, maps, strict=True):
        try:
            opened = open_scene(scene.path, allow_external=allow_external)
            files.check_place(opened)
            yield scene, timed_plan(opened, loaded, settings, files=files, device=device)
        except GeodinosegError as error:
            yield scene, error


def _checked_model(model: PathLike | TileModel, settings: SegmentationSettings) -> str | TileModel:
    """The model; a mistyped folder is refused before torch is loaded."""
    source = model_source(model)
    chosen_bands(describe_model(source) if isinstance(source, str) else source, settings)
    return source


def _check_batch(
    scenes: Sequence[ListedScene],
    folder: Path,
    names: OutputNames,
    polygon_settings: PolygonSettings | None,
) -> tuple[MapFiles, ...]:
    """The files of each map; an invalid name is refused before torch is loaded."""
    check_names(folder, names)
    return planned_files(scenes, folder, names, polygon_settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What all scenes have in common."""

    model: str | TileModel
    settings: SegmentationSettings
    device: str
    overwrite: bool
    resume: bool
    parts: PathLike | None
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
            if not self.options.overwrite and self.journal.has(self._name, key, "done"):
                self._check_in_place()
                return self._result("skipped")
            self._segment(key)
            self._note(
                "done",
                key=key,
                files={path.name: file_facts(path) for path in self.files.paths},
                side_files={path.name: file_facts(path) for path in self.files.side_files()},
                seconds=round(time.monotonic() - start, 1),
            )
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
            scene_fingerprint(self._open()),
            # Nothing tells whether a model without a fingerprint is the same.
            model_fingerprint(self.options.model) or uuid.uuid4().hex,
            dataclasses.asdict(self.options.settings),
            [path.name for path in self.files.paths],
            dataclasses.asdict(self.files.polygon_settings),
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

    def _segment(self, key: str) -> None:
        options, files = self.options, self.files
        replace = options.overwrite or self._has_own(key)
        self._note("started", key=key, new=files.names_to_write())
        segment_scene(
            self._open(),
            options.model,
            files.class_raster,
            confidence=files.confidence or False,
            probabilities=files.probabilities or False,
            polygons=files.polygons,
            polygon_settings=files.polygon_settings,
            settings=options.settings,
            device=options.device,
            overwrite=replace,
            resume=options.resume,
            parts=options.parts,
            workers=options.workers,
            progress=self.progress,
        )

    def _has_own(self, key: str) -> bool:
        """Whether files of this run exist, which may be replaced; others are an error."""
        existing = [*filter(Path.exists, self.files.paths), *self.files.side_files()]
        own = self.journal.replaceable(self._name, key)
        for path in existing:
            if path.name not in own:
                raise OutputExistsError(
                    f"{path}: exists already, and is not what this run would write; give another "
                    f"folder, or --overwrite."
                )
        return bool(existing)

    def _check_in_place(self) -> None:
        """Check that readers see the rasters as they were written, whatever lies beside them."""
        geobox = self._open().geobox
        for path in self.files.rasters:
            check_in_place(path, geobox)

    def _note(self, status: Status, **facts: Any) -> None:
        self.journal.add(self._name, status, scene=self.scene.public_name, **facts)

    def _result(
        self, status: Literal["done", "skipped", "failed"], error: str | None = None
    ) -> SceneResult:
        outputs = () if error else self.files.paths
        return SceneResult(
            scene=self.scene.public_name, status=status, outputs=outputs, error=error
        )


@contextmanager
def _noted_interrupts(done: int, count: int) -> Iterator[None]:
    """Note on an interrupt how many scenes are done."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(
            f"{done} of {count} scenes are done; run the same command again for the others."
        )
        raise


def _scene_progress(progress: Progress, stem: str, index: int, count: int) -> Progress:
    stage = part_of(progress, index / count, (index + 1) / count)
    return lambda fraction, message: stage(fraction, f"{stem}: {message}")
