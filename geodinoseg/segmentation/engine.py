"""The engine in this process: loads the model, settles the plan, computes parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from geodinoseg.model.fingerprint import model_fingerprint
from geodinoseg.model.folder import load_model
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.scene_fingerprint import SceneWatch, scene_fingerprint
from geodinoseg.segmentation.inference import TileProgress, fitting_batch_size
from geodinoseg.segmentation.input_checks import warn_of_input
from geodinoseg.segmentation.job import Job, Workers
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import Parts, Run
from geodinoseg.segmentation.plan import Plan, make_plan
from geodinoseg.segmentation.runner import ChunkSegmenter
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk
from geodinoseg.version import __version__


class ThisProcess(Workers):
    """Computes parts itself. Loads a model folder once, for however many scenes."""

    def __init__(self) -> None:
        self._held: tuple[tuple[Any, ...], dict[str, Any], TileModel] | None = None

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
        plan, loaded = settle(
            scene,
            loaded,
            settings,
            confidence=files.confidence is not None,
            probabilities=files.probabilities is not None,
        )
        watch = SceneWatch(plan.scene)

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            pixels = plan.grid.height * plan.grid.width
            left = sum(chunk.core.width * chunk.core.height for chunk in chunks)
            tiles = TileProgress(chunks, progress, found=pixels - left)
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
        if self._held is None or self._held[:2] != (source, model_fingerprint(model)):
            # Before the next is loaded: two may be more than a GPU holds.
            self._held = None
            loaded = loaded_model(model, settings, device=device)
            self._held = (source, model_fingerprint(model), loaded)
        return self._held[2]


def loaded_model(
    model: str | Path | TileModel, settings: SegmentationSettings, *, device: str
) -> TileModel:
    """The model itself, loaded where a folder was given."""
    if isinstance(model, str | Path):
        return load_model(model, device=device, precision=settings.precision)
    return model


def settle(
    scene: Scene,
    model: TileModel,
    settings: SegmentationSettings,
    *,
    confidence: bool,
    probabilities: bool,
) -> tuple[Plan, TileModel]:
    """`make_plan`, with the largest batch that fits where none was chosen for a GPU.

    Warns where the scene is unlike those of the training.
    """
    plan, fitted = make_plan(
        scene, model, settings, confidence=confidence, probabilities=probabilities
    )
    if settings.batch_size is None and model.device.type == "cuda":
        plan = dataclasses.replace(plan, batch_size=fitting_batch_size(plan, fitted))
    warn_of_input(plan.scene, fitted, settings)
    return plan, fitted


def _settings_facts(plan: Plan, model: TileModel) -> dict[str, Any]:
    """What the bytes of a map depend on beside the content of scene and model."""
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
