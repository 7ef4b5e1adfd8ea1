"""Who computes the parts of a map: this process, or whoever else can (see `cluster`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from geodinoseg.model.fingerprint import model_identity
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene, ScenePath
from geodinoseg.rasters.scene_fingerprint import SceneWatch
from geodinoseg.segmentation.job import Job, Outputs, decide, run_of
from geodinoseg.segmentation.parts.run import Parts
from geodinoseg.segmentation.plan import SegmentSettings, loaded_model
from geodinoseg.segmentation.runner import ChunkSegmenter, TileProgress
from geodinoseg.windows import Chunk


class Workers(Protocol):
    """Decides on a segmentation, and computes its parts."""

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

        Args:
            scene: as `segment_scene` takes it.
            model: as `segment_scene` takes it.
            targets: what the map will hold.
            settings: choices; a batch size, where none is given, is found by trial on a GPU.
            device: where a model folder is loaded.

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
        """See `Workers.prepare`.

        Raises:
            GeodinosegError: as `segment_scene`.
        """
        plan, loaded = decide(
            scene,
            self._model(model, settings, device),
            settings,
            confidence=targets.confidence is not None,
            probabilities=targets.probabilities is not None,
        )

        watch = SceneWatch(plan.scene)

        def write_parts(chunks: Sequence[Chunk], parts: Parts, progress: Progress) -> None:
            pixels = plan.grid.height * plan.grid.width
            left = sum(chunk.core.width * chunk.core.height for chunk in chunks)
            told = TileProgress(chunks, progress, found=pixels - left)
            ChunkSegmenter(plan, loaded, told, watch).write(chunks, parts)

        run = run_of(plan, loaded, identity=model_identity(model))
        return Job(plan=plan, run=run, write_parts=write_parts)

    def _model(
        self, model: str | Path | TileModel, settings: SegmentSettings, device: str
    ) -> TileModel:
        if not isinstance(model, str | Path):
            return model
        source = (str(model), settings.precision, device)
        if self._held is None or self._held[:2] != (source, model_identity(model)):
            # Before the next is loaded: two may be more than a GPU holds.
            self._held = None
            loaded = loaded_model(model, settings, device=device)
            self._held = (source, model_identity(model), loaded)
        return self._held[2]
