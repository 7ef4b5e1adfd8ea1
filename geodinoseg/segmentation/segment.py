"""Segmentation: from a scene and a model to a class raster, by way of parts that outlive a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from geodinoseg.errors import OutputError
from geodinoseg.files.locks import lock_output
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress, no_progress, part_of
from geodinoseg.rasters.block_rows import Checksums
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.map_writer import ClassRasterWriter, LayerName, class_raster_writer
from geodinoseg.rasters.scene import Scene, ScenePath
from geodinoseg.redaction import redact_name, redact_path
from geodinoseg.segmentation.input_checks import CollarWatch
from geodinoseg.segmentation.job import (
    Job,
    Outputs,
    ThisProcess,
    Workers,
    check_outputs,
    with_batch_of_before,
)
from geodinoseg.segmentation.memory import return_freed_memory
from geodinoseg.segmentation.outputs import MapPolygons
from geodinoseg.segmentation.parts.location import part_store
from geodinoseg.segmentation.parts.run import Parts, interrupted_outputs, open_parts
from geodinoseg.segmentation.parts.store import PartStore
from geodinoseg.segmentation.plan import Plan, plan_facts
from geodinoseg.segmentation.settings import SegmentSettings
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)

_RASTER_SHARE = 0.9
"""Of the progress, where polygons follow."""
_NETWORK_SHARE, _ASSEMBLED_SHARE = 0.95, 0.97
"""Of the progress, until the last part is written and until all are put together."""


def segment_scene(
    scene: ScenePath | Scene,
    model: str | Path | TileModel,
    output: str | Path,
    *,
    confidence: bool | str | Path = False,
    probabilities: bool | str | Path = False,
    polygons: Sequence[str | Path] = (),
    settings: SegmentSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = True,
    parts: str | Path | None = None,
    workers: Workers | None = None,
    progress: Progress = no_progress,
) -> ClassRaster:
    """Segment a scene of any size into a class raster on the scene's own grid.

    Args:
        scene: a raster, or an open rasterio dataset.
        model: a model folder, a loaded `Segmentor`, or any other `TileModel`.
        output: the class raster to write, a cloud-optimized GeoTIFF; its QGIS style and attribute
            table are written beside it.
        confidence: also write the winner's probability in percent, to a path, or to
            `<output>_confidence.tif` where True.
        probabilities: also write the probability of each class, to a path, or to
            `<output>_probabilities.tif` where True.
        polygons: also write the polygons of the class raster to these files, as `write_polygons`
            does. A run that is killed amid them is gone on with as any other.
        settings: tiles, overlap, batches, bands.
        device: where a model folder is loaded: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace outputs that are there.
        resume: go on with the parts that an interrupted run left beside the output; False starts
            over. A run of another scene, model or settings is never gone on with.
        parts: a folder, or an address in an object store such as `s3://bucket/runs`, under which
            finished parts lie until the map is whole; beside the output where not given. All
            workers must reach it.
        workers: who computes, as `local_workers` and `connect_workers` give them; this process
            where not given. The bytes are the same where all have devices of one kind.
        progress: told the share of tiles done.

    Returns:
        The class raster on disk. Where the scene holds no data it is nodata.

    Raises:
        SceneError: the scene cannot be read, or does not fit the model.
        ModelFolderError: the model cannot be loaded.
        GridError: tile and overlap do not fit.
        DeviceError: the device is absent or too small.
        OutputError: the outputs cannot be written, are being written by another process, or lie
            beside parts of another run.
        ClusterError: the workers cannot do it.
    """
    store = part_store(Path(output), parts)
    targets = check_outputs(
        scene, output, confidence, probabilities, store=store, overwrite=overwrite
    )
    workers = workers or ThisProcess()
    files, own = [Path(path) for path in polygons], interrupted_outputs(store)
    raster_share = _RASTER_SHARE if files else 1.0
    raster_progress = part_of(progress, 0, raster_share)
    with ExitStack() as locks:
        for path in (*targets.paths, *files):
            locks.enter_context(lock_output(path))
        locks.enter_context(store.lock())
        settings = with_batch_of_before(settings or SegmentSettings(), store, resume=resume)
        job = workers.prepare(scene, model, targets, settings, device=device)
        wanted = _map_polygons(files, job, targets, own=own, overwrite=overwrite)
        with parts_of(job, store, resume=resume) as found:
            segment_missing(job, found, progress=part_of(raster_progress, 0, _NETWORK_SHARE))
            finishing = part_of(raster_progress, _NETWORK_SHARE, _ASSEMBLED_SHARE)
            tags = _tags(job.plan, model)
            assemble(job, found, targets, polygons=files, tags=tags, progress=finishing)
            raster = open_class_raster(targets.class_raster)
            if wanted is not None:
                wanted.write(raster, progress=part_of(progress, raster_share, 1.0))
    progress(1.0, "done")
    return raster


def _map_polygons(
    files: Sequence[Path], job: Job, targets: Outputs, *, own: Collection[Path], overwrite: bool
) -> MapPolygons | None:
    """The polygons that shall follow, checked before the network runs; None where none shall.

    Raises:
        SceneError: the scene has no place on the ground.
        OutputError: a file cannot be written.
    """
    if not files:
        return None
    from geodinoseg.segmentation.outputs import MapPolygons  # noqa: PLC0415 (it brings a second GDAL)

    polygons = MapPolygons.of(files, own=own, overwrite=overwrite)
    polygons.check(job.plan.scene, job.plan.legend, inputs=targets.paths)
    return polygons


@contextmanager
def parts_of(job: Job, store: PartStore, *, resume: bool) -> Iterator[Parts]:
    """The parts of a job; gone when the block ends well.

    Whatever ends it otherwise says how far it came.

    Raises:
        OutputError: as `parts.open_parts`.
    """
    plan = job.plan
    with open_parts(
        store,
        job.run,
        plan.layers,
        nodata=plan.legend.nodata,
        chunks=plan.chunks,
        resume=resume,
    ) as parts:
        try:
            yield parts
        except BaseException as error:
            _tell_how_to_go_on(error, parts, job)
            raise


def _tell_how_to_go_on(error: BaseException, parts: Parts, job: Job) -> None:
    with suppress(OutputError):  # storage that is gone; the first error says so
        done = parts.count()
        if done and job.run.is_resumable:
            error.add_note(
                f"Run the same command again to go on: {done} of {len(job.plan.chunks)} parts are "
                f"done."
            )


def segment_missing(job: Job, parts: Parts, *, progress: Progress = no_progress) -> None:
    """Segment the chunks that have no whole part yet, and write their parts.

    Raises:
        GeodinosegError: a block cannot be read, memory is too small, or a part cannot be written.
    """
    chunks = job.plan.chunks
    missing = parts.missing(chunks)
    found = len(chunks) - len(missing)
    if found:
        logger.info("%d of %d parts were done before; going on with the rest.", found, len(chunks))
    if missing:
        job.write_parts(missing, parts, progress)


def assemble(
    job: Job,
    parts: Parts,
    targets: Outputs,
    *,
    polygons: Sequence[Path] = (),
    tags: dict[str, str],
    progress: Progress = no_progress,
) -> None:
    """Put the parts together into the files of the map, and read these back.

    The network is not needed any more. Each file is compared, block by block, with the checksums
    that its parts have carried since they were computed, before it appears at its name.

    Args:
        job: what was segmented.
        parts: all of its parts.
        targets: the files of the map.
        polygons: files that follow; where the process is killed amid them, they are this run's.
        tags: what made the map.
        progress: told the share of parts done.

    Raises:
        OutputError: a part is missing or damaged, or a file cannot be written as it should be.
    """
    return_freed_memory()
    plan = job.plan
    collar, valid_px = CollarWatch(plan.scene), 0
    with (
        parts.committing([*targets.paths, *polygons]),
        class_raster_writer(
            targets.class_raster,
            plan.scene.geobox,
            plan.legend,
            confidence_path=targets.confidence,
            probabilities_path=targets.probabilities,
            tags=tags,
        ) as writer,
    ):
        for done, chunk in enumerate(plan.chunks):
            progress(done / len(plan.chunks), "putting the parts together")
            with parts.read(chunk) as part:
                for name, window, pixels in part.pieces():
                    writer.write_layer(name, window, pixels)
                for layer in plan.layers:
                    _check_same_blocks(writer, layer.name, part.checksums(layer.name), targets)
                collar.add(part.remarks["collar"])
                valid_px += part.valid_px
        progress(1.0, "building overviews")
    if valid_px == 0:
        logger.warning(
            "%s: holds no data at all; the map is nodata throughout.", redact_path(plan.scene.path)
        )
    collar.warn()


def _check_same_blocks(
    writer: ClassRasterWriter, layer: LayerName, expected: Checksums, targets: Outputs
) -> None:
    if not expected.items() <= writer.checksums(layer).items():
        raise OutputError(
            f"{targets.class_raster}: a part changed while it was read; run it again."
        )


def _tags(plan: Plan, model: object) -> dict[str, str]:
    """What made the map, for whoever finds it later."""
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    return {
        "GEODINOSEG_VERSION": __version__,
        "GEODINOSEG_MODEL": name,
        "GEODINOSEG_SCENE": redact_name(plan.scene.path),
        "GEODINOSEG_PLAN": json.dumps(plan_facts(plan)),
    }
