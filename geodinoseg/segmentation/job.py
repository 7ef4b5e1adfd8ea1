"""A segmentation before its first part: checked, planned, and who computes it. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodinoseg.files.atomic import PathLike
from geodinoseg.model.description import ModelDescription, describe_model
from geodinoseg.model.parameters import check_docstrings
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import (
    Parts,
    Run,
    check_parts,
    interrupted_outputs,
    recorded_batch_size,
)
from geodinoseg.segmentation.parts.store import PartStore, part_store
from geodinoseg.segmentation.plan import Plan, chosen_bands, make_plan
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One segmentation, decided: what every process that computes a part of it must agree on."""

    plan: Plan
    run: Run
    """Content of scene, model and settings."""
    write_parts: Callable[[Sequence[Chunk], Parts, Progress], None]
    """Segments chunks and writes their parts."""


class Workers(Protocol):
    """Decides on a segmentation, and computes its parts."""

    def prepare(
        self,
        scene: Scene,
        model: str | Path | TileModel,
        files: MapFiles,
        settings: SegmentationSettings,
        *,
        device: str,
    ) -> Job:
        """Decide on everything, before the first part.

        Args:
            scene: what to segment.
            model: as `segment_scene` takes it.
            files: what the map will hold.
            settings: choices; a batch size, where none is given, is found by trial on a GPU.
            device: where a model folder is loaded.

        Raises:
            GeodinosegError: as `segment_scene`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for, found to be possible as far as that can be told without the network."""

    scene: Scene
    files: MapFiles
    store: PartStore


def check_request(
    scene: PathLike | Scene,
    model: str | Path | TileModel,
    files: MapFiles,
    settings: SegmentationSettings,
    *,
    parts: PathLike | None,
    overwrite: bool,
) -> Request:
    """Refuse mistyped paths, outputs in the way and tiles that do not fit, before torch is loaded.

    Args:
        scene: as `segment_scene` takes it.
        model: as `segment_scene` takes it.
        files: of the map.
        settings: choices.
        parts: where parts go; beside the class raster where None.
        overwrite: whether outputs that are there may be replaced.

    Raises:
        GeodinosegError: as `segment_scene`.
    """
    if isinstance(model, str | Path):
        check_docstrings()
    described = describe_model(model) if isinstance(model, str | Path) else model
    bands = chosen_bands(described, settings)
    opened = open_scene(scene, bands=bands, nodata=settings.nodata)
    store = part_store(files.class_raster, parts)
    if parts is not None:  # before it is asked what lies there
        check_parts(store)
    files = files.replacing(interrupted_outputs(store), overwrite=overwrite)
    files.check_rasters([opened.path])
    if parts is None:
        check_parts(store)
    files.check_polygons(opened, described.legend)
    if isinstance(described, ModelDescription) and described.patch_px:
        make_plan(opened, described, settings)
    return Request(scene=opened, files=files, store=store)


@contextmanager
def entered(workers: Workers | AbstractContextManager[Workers] | None) -> Iterator[Workers]:
    """Workers that are ready: those given, started here where they are not yet, or this process."""
    if workers is None:
        from geodinoseg.segmentation.runner import ThisProcess  # noqa: PLC0415 (torch)

        yield ThisProcess()
    elif isinstance(workers, AbstractContextManager):
        with workers as started:
            yield started
    else:
        yield workers


def with_recorded_batch(
    settings: SegmentationSettings, store: PartStore, *, resume: bool
) -> SegmentationSettings:
    """Where no batch size is given, that of the run to resume: the bytes depend on it."""
    if settings.batch_size is not None or not resume:
        return settings
    recorded = recorded_batch_size(store)
    return dataclasses.replace(settings, batch_size=recorded) if recorded else settings
