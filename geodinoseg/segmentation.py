"""Segmentation: from a scene and a model to a class raster, by way of parts that outlive a kill."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geodinoseg.class_rasters.block_rows import Checksums
from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.class_rasters.class_rows import ClassRasterWriter, LayerName, class_raster_writer
from geodinoseg.collar import CollarWatch
from geodinoseg.errors import OutputError
from geodinoseg.grid import Chunk
from geodinoseg.inference import ChunkSegmenter, TileProgress, fitting_batch_size
from geodinoseg.lock import locked_output
from geodinoseg.model.model_identity import model_identity
from geodinoseg.outputs import check_output
from geodinoseg.parts import Parts, Run, check_parts_folder, opened_parts, recorded_settings
from geodinoseg.plan import Plan, SegmentSettings, loaded_model, make_plan, plan_facts
from geodinoseg.progress import Progress, no_progress, part_of
from geodinoseg.scene import Scene, ScenePath, scene_path
from geodinoseg.scene_identity import scene_identity
from geodinoseg.tile_model import TileModel
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)

_SUFFIXES = (".tif", ".tiff")
_NETWORK_SHARE, _ASSEMBLED_SHARE = 0.95, 0.97
"""Of the progress, until the last part is written and until all are put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files of one segmentation, checked to be writable."""

    class_raster: Path
    confidence: Path | None
    probabilities: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are wanted."""
        return tuple(p for p in (self.class_raster, self.confidence, self.probabilities) if p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One segmentation, decided: what every process that computes a part of it must agree on."""

    plan: Plan
    run: Run
    """Content of scene, model and settings."""
    write_parts: Callable[[Sequence[Chunk], Parts, Progress], None]
    """Segments chunks and writes their parts."""


class Workers(Protocol):
    """Who computes the parts: this process, or others (see `cluster`)."""

    def prepare(
        self,
        scene: ScenePath | Scene,
        model: str | Path | TileModel,
        targets: Outputs,
        settings: SegmentSettings,
        *,
        device: str,
    ) -> Job:
        """Decide on everything, before the first part.

        Raises:
            GeodinosegError: as `segment_scene`.
        """


class ThisProcess:
    """Computes parts itself. Loads a model folder once, for however many scenes."""

    def __init__(self) -> None:
        self._held: tuple[tuple[Any, ...], dict[str, Any], TileModel] | None = None

    def prepare(
        self,
        scene: ScenePath | Scene,
        model: str | Path | TileModel,
        targets: Outputs,
        settings: SegmentSettings,
        *,
        device: str,
    ) -> Job:
        """Load the model and decide; on a GPU the largest batch that fits, where none was given.

        Raises:
            GeodinosegError: as `segment_scene`.
        """
        plan, loaded = make_plan(
            scene,
            self._model(model, settings, device),
            settings,
            confidence=targets.confidence is not None,
            probabilities=targets.probabilities is not None,
        )
        if settings.batch_size is None and loaded.device.type == "cuda":
            plan = dataclasses.replace(plan, batch_size=fitting_batch_size(plan, loaded))
        run = Run(
            scene=scene_identity(plan.scene),
            model=model_identity(model),
            settings=_settings_of(plan, loaded),
        )

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            pixels = plan.grid.height * plan.grid.width
            told = TileProgress(chunks, progress, found=pixels - _pixels_of(chunks))
            ChunkSegmenter(plan, loaded, told).write(chunks, parts)

        return Job(plan=plan, run=run, write_parts=write_parts)

    def _model(
        self, model: str | Path | TileModel, settings: SegmentSettings, device: str
    ) -> TileModel:
        if not isinstance(model, str | Path):
            return model
        source = (model, settings.precision, device)
        if self._held is None or self._held[:2] != (source, _identity_if_there(model)):
            # Before the next is loaded: two may be more than a GPU holds.
            self._held = None
            loaded = loaded_model(model, settings, device=device)
            self._held = (source, _identity_if_there(model), loaded)
        return self._held[2]


def segment_scene(
    scene: ScenePath | Scene,
    model: str | Path | TileModel,
    output: str | Path,
    *,
    confidence: bool | str | Path = False,
    probabilities: bool | str | Path = False,
    settings: SegmentSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = True,
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
        settings: tiles, overlap, batches, bands.
        device: where a model folder is loaded: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace outputs that are there.
        resume: go on with the parts that an interrupted run left beside the output; False starts
            over. A run of another scene, model or settings is never gone on with.
        workers: who computes, as `local_workers` and `connected_workers` give them; this process
            where not given. The bytes are the same.
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
    targets = check_outputs(scene, output, confidence, probabilities, overwrite=overwrite)
    workers = workers or ThisProcess()
    with ExitStack() as locks:
        for path in targets.paths:
            locks.enter_context(locked_output(path))
        settings = _with_batch_of_before(settings or SegmentSettings(), targets, resume=resume)
        job = workers.prepare(scene, model, targets, settings, device=device)
        plan = job.plan
        with (
            opened_parts(
                targets.class_raster, job.run, plan.layers,
                nodata=plan.legend.nodata, chunks=plan.chunks, resume=resume,
            ) as parts,
            _told_how_to_go_on(job, parts),
        ):  # fmt: skip
            segment_missing(job, parts, progress=part_of(progress, 0, _NETWORK_SHARE))
            progress(_NETWORK_SHARE, "putting the parts together")
            assemble(
                job, parts, targets, tags=_tags(plan, model),
                progress=part_of(progress, _NETWORK_SHARE, _ASSEMBLED_SHARE),
            )  # fmt: skip
    progress(1.0, "done")
    return open_class_raster(targets.class_raster)


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
    tags: dict[str, str],
    progress: Progress = no_progress,
) -> None:
    """Put the parts together into the files of the map, and read these back.

    The network is not needed any more. Each file is compared, block by block, with the checksums
    that its parts have carried since they were computed, before it appears at its name.

    Raises:
        OutputError: a part is missing or damaged, or a file cannot be written as it should be.
    """
    plan = job.plan
    collar, valid_px = CollarWatch(plan.scene), 0
    with class_raster_writer(
        targets.class_raster,
        plan.scene.geobox,
        plan.legend,
        confidence_path=targets.confidence,
        probabilities_path=targets.probabilities,
        tags=tags,
    ) as writer:
        for done, chunk in enumerate(plan.chunks):
            progress(done / len(plan.chunks), "putting the parts together")
            part = parts.read(chunk)
            for name, window, pixels in part.pieces():
                writer.write_layer(name, window, pixels)
            for layer in plan.layers:
                _check_same_blocks(writer, layer.name, part.checksums(layer.name), targets)
            collar.add(part.remarks["collar"])
            valid_px += part.valid_px
        progress(1.0, "building overviews")
    if valid_px == 0:
        logger.warning("%s: holds no data at all; the map is nodata throughout.", plan.scene.path)
    collar.warn()


def check_outputs(
    scene: Any,
    output: str | Path,
    confidence: bool | str | Path,
    probabilities: bool | str | Path,
    *,
    overwrite: bool,
) -> Outputs:
    """Where the outputs go; says before any work what stands in their way.

    Raises:
        OutputError: one cannot be written, is an input, or two are the same file.
    """
    inputs = [scene_path(scene)]
    main = check_output(output, overwrite=overwrite, suffixes=_SUFFIXES, inputs=inputs)
    chosen: dict[str, Path | None] = {}
    for what, wish in (("confidence", confidence), ("probabilities", probabilities)):
        if wish is False:
            chosen[what] = None
            continue
        path = main.with_name(f"{main.stem}_{what}.tif") if wish is True else Path(wish)
        if path.resolve() in {p.resolve() for p in (main, *chosen.values()) if p}:
            raise OutputError(f"{path}: two outputs cannot be one file; give another name.")
        chosen[what] = check_output(path, overwrite=overwrite, suffixes=_SUFFIXES, inputs=inputs)
    check_parts_folder(main)
    return Outputs(class_raster=main, **chosen)


@contextmanager
def _told_how_to_go_on(job: Job, parts: Parts) -> Iterator[None]:
    """Whatever ends the run says how far it came."""
    try:
        yield
    except BaseException as error:
        done = parts.count()
        if done and job.run.is_resumable:
            error.add_note(
                f"Run the same command again to go on: {done} of {len(job.plan.chunks)} parts "
                f"are done."
            )
        raise


def _with_batch_of_before(
    settings: SegmentSettings, targets: Outputs, *, resume: bool
) -> SegmentSettings:
    """Where no batch size was given, that of the run to go on with: the bytes depend on it."""
    if settings.batch_size is not None or not resume:
        return settings
    recorded = recorded_settings(targets.class_raster).get("batch_size")
    return dataclasses.replace(settings, batch_size=recorded)


def _identity_if_there(model: str | Path) -> dict[str, Any]:
    """Loading says it better where the folder is missing."""
    try:
        return model_identity(model)
    except OSError:
        return {}


def _pixels_of(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.core.width * chunk.core.height for chunk in chunks)


def _check_same_blocks(
    writer: ClassRasterWriter, layer: LayerName, expected: Checksums, targets: Outputs
) -> None:
    if not expected.items() <= writer.checksums(layer).items():
        raise OutputError(
            f"{targets.class_raster}: a part changed while it was read; run it again."
        )


def _settings_of(plan: Plan, model: TileModel) -> dict[str, Any]:
    """What the bytes depend on beside the scene's and the model's content."""
    return {
        "version": __version__,
        "tile_px": plan.grid.tile_px,
        "overlap_px": plan.grid.overlap_px,
        "batch_size": plan.batch_size,
        "bands": plan.scene.bands,
        "nodata": plan.scene.nodata,
        "scale": plan.scale,
        "precision": str(getattr(model, "compute_dtype", "")),
        "legend": plan.legend.to_json(),
        "layers": [layer.name for layer in plan.layers],
        "panels": sorted({chunk.core.col_off for chunk in plan.chunks}),
        "chunk_rows": plan.chunks[0].core.height,
        "chunks": len(plan.chunks),
    }


def _tags(plan: Plan, model: object) -> dict[str, str]:
    """What made the map, for whoever finds it later."""
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    return {
        "GEODINOSEG_VERSION": __version__,
        "GEODINOSEG_MODEL": name,
        "GEODINOSEG_SCENE": Path(plan.scene.path).name,
        "GEODINOSEG_PLAN": json.dumps(plan_facts(plan)),
    }
