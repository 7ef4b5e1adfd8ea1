"""A segmentation before its first part: its plan, and the workers that compute it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodinoseg.errors import ClusterError
from geodinoseg.files.arguments import wrong_argument
from geodinoseg.files.atomic import PathLike
from geodinoseg.model.description import ModelDescription, describe_model
from geodinoseg.model.parameters import check_docstrings
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.band_order import check_band_order
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import (
    Parts,
    Run,
    check_parts,
    interrupted_outputs,
    recorded_batch_size,
)
from geodinoseg.segmentation.parts.store import PartStore, part_store
from geodinoseg.segmentation.plan import Plan, make_plan, open_for_model
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A planned segmentation: what all processes that compute parts of it must agree on."""

    plan: Plan
    run: Run
    """Fingerprints of scene, model and settings."""
    write_parts: Callable[[Sequence[Chunk], Parts, Progress], None]
    """Segments chunks and writes their parts."""


class Workers(Protocol):
    """Plans a segmentation and computes its parts."""

    def prepare(
        self,
        scene: Scene,
        model: str | Path | TileModel,
        files: MapFiles,
        settings: SegmentationSettings,
        *,
        device: str,
    ) -> Job:
        """Plan the segmentation before its first part; the arguments are those of `segment_scene`.

        Without a batch size in the settings, the one that fits is found by trial on a GPU.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The checked inputs and outputs of a segmentation."""

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
    """Refuse wrong paths, existing outputs and invalid tiles before torch is loaded.

    The arguments are those of `segment_scene`.
    """
    if isinstance(model, str | Path):
        check_docstrings()
    described = describe_model(model) if isinstance(model, str | Path) else model
    opened = open_for_model(scene, described, settings)
    check_band_order(opened, described, settings)
    store = part_store(files.class_raster, parts)
    if parts is not None:  # before its content is read
        check_parts(store)
    files = files.replacing(interrupted_outputs(store), overwrite=overwrite)
    files.check_rasters(opened)
    if parts is None:
        check_parts(store)
    files.check_polygons(opened, described.legend)
    if isinstance(described, ModelDescription) and described.patch_px:
        make_plan(opened, described, settings)
    return Request(scene=opened, files=files, store=store)


@contextmanager
def enter_workers(workers: Workers | AbstractContextManager[Workers] | None) -> Iterator[Workers]:
    """The given workers, started if necessary, or this process."""
    if not (workers is None or isinstance(workers, AbstractContextManager)):
        _check_workers(workers)
    if workers is None:
        from geodinoseg.segmentation.runner import ThisProcess  # noqa: PLC0415 (torch)

        yield ThisProcess()
    elif isinstance(workers, AbstractContextManager):
        with workers as started:
            yield started
    else:
        yield workers


def _check_workers(workers: object) -> None:
    if not hasattr(workers, "prepare"):
        count = workers if isinstance(workers, int) else 4
        raise wrong_argument(
            workers,
            "workers",
            "local_workers(...) or connect_workers(...)",
            error=ClusterError,
            way_out=f"give geodinoseg.local_workers({count}) for processes on this machine",
        )


def with_recorded_batch_size(
    settings: SegmentationSettings, store: PartStore, *, resume: bool
) -> SegmentationSettings:
    """Use the batch size of the run to resume if none is given, since the bytes depend on it."""
    if settings.batch_size is not None or not resume:
        return settings
    recorded = recorded_batch_size(store)
    return dataclasses.replace(settings, batch_size=recorded) if recorded else settings
