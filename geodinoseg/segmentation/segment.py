"""Segmentation: from a scene and a model to a class raster, in parts that survive interruptions.

Torch is loaded by the runner, after all checks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from geodinoseg.errors import GeodinosegError, OutputError
from geodinoseg.files.arguments import options_of
from geodinoseg.files.atomic import PathLike
from geodinoseg.model.description import model_source
from geodinoseg.model.tile_model import TileModel
from geodinoseg.polygons.settings import PolygonSettings
from geodinoseg.progress import Progress, log_step, no_progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.rasters.map_rows import Checksums, LayerName
from geodinoseg.rasters.map_writer import ClassRasterWriter, class_raster_writer
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.job import (
    Job,
    Workers,
    check_request,
    enter_workers,
    with_recorded_batch_size,
)
from geodinoseg.segmentation.memory import return_freed_memory
from geodinoseg.segmentation.missing_pixels import CollarWatch
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.part_file import Part
from geodinoseg.segmentation.parts.run import (
    Parts,
    open_parts,
    stored_parts,
)
from geodinoseg.segmentation.parts.store import PartStore, part_store
from geodinoseg.segmentation.plan import Plan, plan_facts
from geodinoseg.segmentation.seams import (
    JoinCounts,
    OverlapCounts,
    measured_seams,
    warn_of_seams,
)
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)


_RASTER_FRACTION = 0.9
"""Fraction of the progress for the rasters if polygons follow."""
_NETWORK_FRACTION, _ASSEMBLED_FRACTION = 0.95, 0.97
"""Fractions of the rasters' progress when the last part is written and when all are assembled."""


def segment_scene(
    scene: PathLike | Scene,
    model: PathLike | TileModel,
    output: PathLike,
    *,
    confidence: bool | PathLike = False,
    probabilities: bool | PathLike = False,
    polygons: PathLike | Sequence[PathLike] = (),
    polygon_settings: PolygonSettings | None = None,
    settings: SegmentationSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = True,
    parts: PathLike | None = None,
    workers: Workers | AbstractContextManager[Workers] | None = None,
    progress: Progress = no_progress,
) -> ClassRaster:
    """Segment a scene of any size into a class raster on the scene's own grid.

    Args:
        scene: a raster, or an open rasterio dataset.
        model: a model folder, a loaded `Segmentor`, or any other `TileModel`.
        output: the class raster to write, a cloud-optimized GeoTIFF; its QGIS style and attribute
            table are written beside it.
        confidence: also write the probability of the predicted class in percent, to a path, or to
            `<output>_confidence.tif` where True.
        probabilities: also write the probability of each class, to a path, or to
            `<output>_probabilities.tif` where True.
        polygons: also write the polygons of the class raster to this file or these files, as
            `write_polygons` does. A run interrupted while they are written can be resumed, too.
        polygon_settings: merging of small polygons, filling of holes, simplification of outlines.
        settings: tiles, overlap, batches, bands.
        device: device on which a model folder is loaded: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace existing outputs.
        resume: reuse the parts of an interrupted run; False starts over. A run of another scene,
            model or settings is never resumed.
        parts: folder, or address in an object store such as `s3://bucket/runs`, for finished parts
            until the map is complete; beside the output by default. All workers need access.
        workers: `local_workers(4)` or `connect_workers(address)`, entered or not; this process by
            default. The result is the same, byte for byte, on devices of one kind.
        progress: called with the fraction of tiles done.

    Returns:
        The class raster on disk; nodata where the scene holds no data.

    Raises:
        SceneError: the scene cannot be read, or does not fit the model.
        ModelFolderError: the model cannot be loaded.
        GridError: the tile or the overlap does not fit.
        DeviceError: the device is unavailable, or its memory is too small.
        OutputError: the outputs cannot be written, are being written by another process, or have
            parts of another run.
        ClusterError: the workers cannot be started or reached, or fail.

    Example:
        >>> import geodinoseg as gds
        >>> raster = gds.segment_scene("ortho.tif", "crops.model", "landcover.tif", confidence=True)
        >>> raster.confidence_path.name
        'landcover_confidence.tif'
    """
    settings = options_of(settings, SegmentationSettings, "settings")
    model = model_source(model)
    files = MapFiles.named(
        output,
        confidence=confidence,
        probabilities=probabilities,
        polygons=polygons,
        polygon_settings=polygon_settings,
    )
    with _noted_interrupts(files.class_raster, parts):
        request = check_request(scene, model, files, settings, parts=parts, overwrite=overwrite)
        files, store = request.files, request.store
        rasters_end = _RASTER_FRACTION if files.polygons else 1.0
        segmented, assembled = _NETWORK_FRACTION * rasters_end, _ASSEMBLED_FRACTION * rasters_end
        with enter_workers(workers) as entered, files.locked(), store.lock():
            settings = with_recorded_batch_size(settings, store, resume=resume)
            job = entered.prepare(request.scene, model, files, settings, device=device)
            with parts_of(job, store, resume=resume) as found:
                segment_missing(job, found, progress=part_of(progress, 0, segmented))
                finishing = part_of(progress, segmented, assembled)
                tags = _tags(job.plan, model)
                raster = assemble(job, found, files, tags=tags, progress=finishing)
                if files.polygons:
                    files.write_polygons(raster, progress=part_of(progress, rasters_end, 1.0))
    progress(1.0, "done")
    return raster


def plan_segmentation(
    scene: PathLike | Scene,
    model: PathLike | TileModel,
    output: PathLike,
    *,
    confidence: bool | PathLike = False,
    probabilities: bool | PathLike = False,
    polygons: PathLike | Sequence[PathLike] = (),
    polygon_settings: PolygonSettings | None = None,
    settings: SegmentationSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    parts: PathLike | None = None,
) -> Plan:
    """Plan what `segment_scene` would do with the same arguments, and estimate the time.

    Makes the same checks, and runs the network on two batches of blank tiles. Writes nothing.

    Returns:
        The plan; print it, or read its `seconds`, `memory_bytes` and `output_bytes`.

    Raises:
        GeodinosegError: as `segment_scene` before the first tile.

    Example:
        >>> import geodinoseg as gds
        >>> plan = gds.plan_segmentation("ortho.tif", "crops.model", "landcover2.tif")
        >>> plan.legend.names, plan.output_bytes
        (('field', 'roof', 'water'), 78000)
    """
    settings = options_of(settings, SegmentationSettings, "settings")
    model = model_source(model)
    files = MapFiles.named(
        output,
        confidence=confidence,
        probabilities=probabilities,
        polygons=polygons,
        polygon_settings=polygon_settings,
    )
    request = check_request(scene, model, files, settings, parts=parts, overwrite=overwrite)
    from geodinoseg.segmentation.trial import timed_plan  # noqa: PLC0415 (torch)

    return timed_plan(request.scene, model, settings, files=files, device=device)


@contextmanager
def parts_of(job: Job, store: PartStore, *, resume: bool) -> Iterator[Parts]:
    """Open the parts of a job; they are removed on success, an error notes how many are done."""
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
            _note_how_to_resume(error, parts, job)
            raise


def _note_how_to_resume(error: BaseException, parts: Parts, job: Job) -> None:
    with suppress(OutputError):  # the storage is unavailable, as the first error says
        done = parts.count()
        if done and job.run.is_resumable:
            error.add_note(
                f"Run the same command again to resume: {done} of {len(job.plan.chunks)} parts are "
                f"done."
            )


@contextmanager
def _noted_interrupts(output: Path, parts: PathLike | None) -> Iterator[None]:
    """Note on an interrupt before the first part what is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", ()):
            kept = 0
            with suppress(GeodinosegError):  # the place cannot be read: nothing is known of it
                kept = stored_parts(part_store(output, parts))
            error.add_note(
                f"Run the same command again to resume: {kept} parts of an earlier run are done."
                if kept
                else "No part of the map was finished, so nothing of it is kept; the same command "
                "starts over."
            )
        raise


def segment_missing(job: Job, parts: Parts, *, progress: Progress = no_progress) -> None:
    """Segment the chunks without a valid part, and write their parts."""
    chunks = job.plan.chunks
    missing = parts.missing(chunks)
    found = len(chunks) - len(missing)
    if found:
        logger.info("%d of %d parts were done before; computing the rest.", found, len(chunks))
    if missing:
        grid = job.plan.grid
        log_step(
            logger,
            "segmenting %s: %d x %d px in %d tiles of %d px, %d parts.",
            job.plan.scene.source.name,
            grid.width,
            grid.height,
            len(grid),
            grid.tile_px,
            len(missing),
        )
        job.write_parts(missing, parts, progress)


def assemble(
    job: Job,
    parts: Parts,
    files: MapFiles,
    *,
    tags: dict[str, str],
    progress: Progress = no_progress,
) -> ClassRaster:
    """Assemble the parts into the rasters of the map, and read these back.

    Before a file appears at its path, its blocks are compared with the checksums computed with the
    pixels and stored in the parts.

    Args:
        job: the segmentation.
        parts: all of its parts.
        files: outputs; recorded in the parts, so that a resumed run may replace its own polygons.
        tags: GDAL metadata of the rasters.
        progress: called with the fraction of parts done.

    Returns:
        The class raster in its place.
    """
    return_freed_memory()
    plan = job.plan
    log_step(logger, "assembling %d parts into %s.", len(plan.chunks), files.class_raster)
    collar, valid_px = CollarWatch(plan.scene), 0
    overlap = OverlapCounts(plan.grid)
    joins = JoinCounts(plan.grid, nodata=plan.legend.nodata, dtype=plan.legend.dtype)
    with (
        parts.committing(files.paths),
        class_raster_writer(
            files.class_raster,
            plan.scene.geobox,
            plan.legend,
            confidence_path=files.confidence,
            probabilities_path=files.probabilities,
            tags=tags,
        ) as writer,
    ):
        for done, chunk in enumerate(plan.chunks):
            progress(done / len(plan.chunks), "assembling the parts")
            with parts.read(chunk) as part:
                _copy_pixels(part, writer, joins)
                for layer in plan.layers:
                    _check_same_blocks(writer, layer.name, part.checksums(layer.name), files)
                collar.add(part.remarks["collar"])
                overlap.add(part.remarks["overlap"])
                valid_px += part.valid_px
        seams = measured_seams(overlap, joins)
        writer.final_tags |= seams.to_tags()
        progress(1.0, "building overviews")
    log_step(logger, "%s is complete.", files.class_raster)
    if valid_px == 0:
        logger.warning("%s: holds no data; the whole map is nodata.", plan.scene.source.name)
    collar.warn()
    warn_of_seams(plan.scene.source.name, seams, plan.grid)
    return writer.raster


def _copy_pixels(part: Part, writer: ClassRasterWriter, joins: JoinCounts) -> None:
    for name, window, pixels in part.pieces():
        writer.write_layer(name, window, pixels)
        if name == "classes":
            joins.add(window, pixels[0])


def _check_same_blocks(
    writer: ClassRasterWriter, layer: LayerName, expected: Checksums, files: MapFiles
) -> None:
    if not expected.items() <= writer.checksums(layer).items():
        raise OutputError(f"{files.class_raster}: a part changed while it was read; run again.")


def _tags(plan: Plan, model: object) -> dict[str, str]:
    """Provenance of the map, for its metadata."""
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    return {
        "GEODINOSEG_VERSION": __version__,
        "GEODINOSEG_MODEL": name,
        "GEODINOSEG_SCENE": plan.scene.source.file_name,
        "GEODINOSEG_PLAN": json.dumps(plan_facts(plan)),
    }
