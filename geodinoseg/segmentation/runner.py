"""Segments chunks into parts, in smaller pieces if memory is short."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from typing_extensions import override

from geodinoseg.errors import DeviceMemoryError
from geodinoseg.model.description import model_fingerprint
from geodinoseg.model.devices import FittingBatches, give_memory_back, is_out_of_memory
from geodinoseg.model.folder import load_model
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress, log_step
from geodinoseg.rasters.map_rows import BLOCK_PX, ClassRows
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.scene_fingerprint import SceneWatch, scene_fingerprint
from geodinoseg.segmentation.band_units import in_training_units
from geodinoseg.segmentation.inference import TileProgress, class_rows, fitting_batch_size
from geodinoseg.segmentation.input_checks import warn_of_input
from geodinoseg.segmentation.job import Job, Workers
from geodinoseg.segmentation.memory import return_freed_memory
from geodinoseg.segmentation.missing_pixels import CollarWatch, report_missing_pixels
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import Parts, Run
from geodinoseg.segmentation.plan import Plan, make_plan
from geodinoseg.segmentation.seams import OverlapCounts
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk, first_run
from geodinoseg.version import __version__

logger = logging.getLogger(__name__)


class ChunkSegmenter:
    """Segments chunks and writes their parts.

    If memory is short, smaller batches and then narrower panels are used for all further chunks.
    """

    def __init__(
        self, plan: Plan, model: TileModel, tiles: TileProgress, watch: SceneWatch
    ) -> None:
        self._plan = plan
        self._model = model
        self._tiles = tiles
        self._watch = watch
        self._batches = FittingBatches(plan.batch_size)
        self._panel_px = max(chunk.core.width for chunk in plan.chunks)
        self._collar = CollarWatch(plan.scene)

    def write(self, chunks: Sequence[Chunk], parts: Parts) -> None:
        """Segment chunks and write their parts, each as soon as it is complete.

        Consecutive chunks of a panel are processed as one, so that no tile row is computed twice.
        """
        remaining = list(chunks)
        while remaining:
            run = first_run(remaining)
            try:
                for chunk in self._write_run(run, parts):
                    remaining.pop(0)
                    count = len(self._plan.chunks)
                    log_step(logger, "part %d of %d is written.", chunk.index + 1, count)
                # The memory retained after each panel would add up.
                return_freed_memory()
                continue
            except (RuntimeError, MemoryError, DeviceMemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._narrow_panels(run[0].core.width, error)
            # Outside the handler: the error would keep the failed attempt's tensors alive.
            give_memory_back(self._model.device)

    def _write_run(self, run: Sequence[Chunk], parts: Parts) -> Iterator[Chunk]:
        """Yields each chunk after its part has been written."""
        if run[0].core.width <= self._panel_px:
            yield from self._write_together(run, parts)
            return
        for chunk in run:
            yield from self._write_together([chunk], parts)

    def _write_together(self, run: Sequence[Chunk], parts: Parts) -> Iterator[Chunk]:
        with closing(self._rows_of(run)) as rows:
            for chunk in run:
                overlap = OverlapCounts(self._plan.grid)
                with parts.write(chunk) as part:
                    while not part.is_complete:
                        finished = next(rows)
                        part.write(finished)
                        overlap.count(finished, nodata=self._plan.legend.nodata)
                    part.remark("collar", self._collar.take_counts())
                    part.remark("overlap", overlap.to_json())
                    self._watch.check()
                yield chunk

    def _rows_of(self, run: Sequence[Chunk]) -> Generator[ClassRows, None, None]:
        """The class rows of consecutive chunks, split at the ends of the chunks."""
        for chunk in self._plan.grid.joined(run, cols=self._panel_px):
            with closing(self._class_rows(chunk)) as finished:
                for rows in finished:
                    yield from _split_by_chunk(rows, run)

    def _class_rows(self, chunk: Chunk) -> Generator[ClassRows, None, None]:
        return class_rows(
            self._plan,
            self._model,
            chunk,
            batches=self._batches,
            tiles=self._tiles,
            collar=self._collar,
        )

    def _narrow_panels(self, width: int, error: BaseException) -> None:
        """Halve the width of the panels, in whole blocks."""
        now = min(width, self._panel_px)
        if now <= BLOCK_PX:
            raise DeviceMemoryError(
                f"memory is too small for one tile of {self._plan.grid.tile_px} px and a panel of "
                f"{now} columns; give smaller tiles (--tile), another device, or a smaller "
                f"backbone, or close other programs."
            ) from error
        self._panel_px = -(-now // 2 // BLOCK_PX) * BLOCK_PX
        logger.warning(
            "memory is too small for a panel of %d columns; continuing with %d. The last digits of "
            "probabilities may differ from a run with enough memory.",
            now,
            self._panel_px,
        )


def _split_by_chunk(rows: ClassRows, run: Sequence[Chunk]) -> Iterator[ClassRows]:
    for chunk in run:
        inside = rows.window.intersection(chunk.core)
        if inside is not None:
            yield rows if inside == rows.window else rows.cropped(inside)


class ThisProcess(Workers):
    """Computes parts in this process. Loads a model folder once for any number of scenes."""

    def __init__(self) -> None:
        self._loaded: tuple[tuple[Any, ...], dict[str, Any], TileModel] | None = None

    @override
    def prepare(
        self,
        scene: Scene,
        model: str | Path | TileModel,
        files: MapFiles,
        settings: SegmentationSettings,
        *,
        device: str,
    ) -> Job:
        loaded = self._model(model, settings, device)
        plan, loaded = plan_for_device(
            scene,
            loaded,
            settings,
            confidence=files.confidence is not None,
            probabilities=files.probabilities is not None,
        )
        watch = SceneWatch(plan.scene)

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            pixels = plan.grid.height * plan.grid.width
            missing = sum(chunk.core.width * chunk.core.height for chunk in chunks)
            tiles = TileProgress(chunks, progress, done_px=pixels - missing)
            ChunkSegmenter(plan, loaded, tiles, watch).write(chunks, parts)

        scene_facts = scene_fingerprint(plan.scene, watch.files)
        settings_facts = _settings_facts(plan, loaded)
        run = Run(scene=scene_facts, model=model_fingerprint(model), settings=settings_facts)
        return Job(plan=plan, run=run, write_parts=write_parts)

    def _model(
        self, model: str | Path | TileModel, settings: SegmentationSettings, device: str
    ) -> TileModel:
        if not isinstance(model, str | Path):
            return model
        source = (str(model), settings.precision, device)
        if self._loaded is None or self._loaded[:2] != (source, model_fingerprint(model)):
            # Released before the next is loaded: both may not fit on a GPU.
            self._loaded = None
            loaded = loaded_model(model, settings, device=device)
            self._loaded = (source, model_fingerprint(model), loaded)
        return self._loaded[2]


def loaded_model(
    model: str | Path | TileModel, settings: SegmentationSettings, *, device: str
) -> TileModel:
    """The model, loaded if it is a folder."""
    if isinstance(model, str | Path):
        log_step(logger, "loading the model %s.", model)
        return load_model(model, device=device, precision=settings.precision)
    return model


def plan_for_device(
    scene: Scene,
    model: TileModel,
    settings: SegmentationSettings,
    *,
    confidence: bool,
    probabilities: bool,
) -> tuple[Plan, TileModel]:
    """`make_plan`, with the largest batch that fits a GPU unless the settings give one.

    Warns if the scene differs from those of the training.
    """
    plan, fitted = make_plan(
        scene, model, settings, confidence=confidence, probabilities=probabilities
    )
    fitted = in_training_units(plan.scene, fitted)
    if settings.batch_size is None and model.device.type == "cuda":
        plan = dataclasses.replace(plan, batch_size=fitting_batch_size(plan, fitted))
    report_missing_pixels([plan.scene], bands_chosen=settings.bands is not None)
    warn_of_input(plan, fitted, settings)
    return plan, fitted


def _settings_facts(plan: Plan, model: TileModel) -> dict[str, Any]:
    """What the bytes of a map depend on besides the content of scene and model."""
    return {
        "version": __version__,
        "tile_px": plan.grid.tile_px,
        "overlap_px": plan.grid.overlap_px,
        "batch_size": plan.batch_size,
        "bands": plan.scene.bands,
        "nodata": plan.scene.nodata,
        "scale": (plan.scale, plan.aspect),
        "precision": str(getattr(model, "compute_dtype", "")),
        "band_units": repr(getattr(getattr(model, "statistics", None), "units", None)),
        "legend": plan.legend.to_json(),
        "layers": [layer.name for layer in plan.layers],
        "panels": sorted({chunk.core.col_off for chunk in plan.chunks}),
        "chunk_rows": plan.chunks[0].core.height,
        "chunks": len(plan.chunks),
    }
