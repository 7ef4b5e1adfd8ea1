"""A segmentation before its first part: what is decided, what identifies it, who computes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geodinoseg.errors import OutputError
from geodinoseg.files.atomic import check_output
from geodinoseg.model.fingerprint import model_fingerprint
from geodinoseg.model.folder import load_model
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene, ScenePath, scene_path
from geodinoseg.rasters.scene_fingerprint import SceneWatch, scene_identity
from geodinoseg.segmentation.inference import fitting_batch_size
from geodinoseg.segmentation.input_checks import warn_of_far_values
from geodinoseg.segmentation.parts.run import (
    Parts,
    Run,
    check_parts,
    outputs_in_doubt,
    recorded_batch_size,
)
from geodinoseg.segmentation.parts.store import PartStore
from geodinoseg.segmentation.plan import Plan, make_plan
from geodinoseg.segmentation.runner import ChunkSegmenter, TileProgress
from geodinoseg.segmentation.settings import SegmentSettings
from geodinoseg.segmentation.tile_grid import Chunk
from geodinoseg.version import __version__

_SUFFIXES = (".tif", ".tiff")


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


def check_outputs(
    scene: Any,
    output: str | Path,
    confidence: bool | str | Path,
    probabilities: bool | str | Path,
    *,
    store: PartStore,
    overwrite: bool,
) -> Outputs:
    """Where the outputs go; says before any work what stands in their way.

    Raises:
        OutputError: one cannot be written, is an input, or two are the same file; or the parts
            cannot.
    """
    check_parts(store)
    inputs, own = [scene_path(scene)], outputs_in_doubt(store)

    def checked(path: Path) -> Path:
        replace = overwrite or path.resolve() in own
        return check_output(path, overwrite=replace, suffixes=_SUFFIXES, inputs=inputs)

    main = checked(Path(output))
    chosen: dict[str, Path | None] = {}
    for what, wish in (("confidence", confidence), ("probabilities", probabilities)):
        if wish is False:
            chosen[what] = None
            continue
        path = main.with_name(f"{main.stem}_{what}.tif") if wish is True else Path(wish)
        if path.resolve() in {p.resolve() for p in (main, *chosen.values()) if p}:
            raise OutputError(f"{path}: two outputs cannot be one file; give another name.")
        chosen[what] = checked(path)
    return Outputs(class_raster=main, **chosen)


def with_batch_of_before(
    settings: SegmentSettings, store: PartStore, *, resume: bool
) -> SegmentSettings:
    """Where no batch size was given, that of the run to go on with: the bytes depend on it."""
    if settings.batch_size is not None or not resume:
        return settings
    return dataclasses.replace(settings, batch_size=recorded_batch_size(store))


def decide(
    scene: Any,
    model: TileModel,
    settings: SegmentSettings,
    *,
    confidence: bool,
    probabilities: bool,
) -> tuple[Plan, TileModel]:
    """`make_plan`, with the largest batch that fits where none was chosen for a GPU.

    Says where the scene's values are far from those of the training.

    Raises:
        GeodinosegError: as `make_plan`.
    """
    plan, model = make_plan(
        scene, model, settings, confidence=confidence, probabilities=probabilities
    )
    if settings.batch_size is None and model.device.type == "cuda":
        plan = dataclasses.replace(plan, batch_size=fitting_batch_size(plan, model))
    warn_of_far_values(plan.scene, model)
    return plan, model


def run_of(plan: Plan, model: TileModel, *, fingerprint: Mapping[str, Any]) -> Run:
    """What the bytes of a map depend on.

    Args:
        plan: of the segmentation.
        model: as it computes.
        fingerprint: of the model; see `model_fingerprint`.

    Raises:
        SceneError: the scene cannot be read.
    """
    return Run(
        scene=scene_identity(plan.scene), model=fingerprint, settings=_settings_of(plan, model)
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

        run = run_of(plan, loaded, fingerprint=model_fingerprint(model))
        return Job(plan=plan, run=run, write_parts=write_parts)

    def _model(
        self, model: str | Path | TileModel, settings: SegmentSettings, device: str
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
    model: str | Path | TileModel, settings: SegmentSettings, *, device: str
) -> TileModel:
    """The model itself, loaded where a folder was given.

    Raises:
        ModelFolderError: the folder cannot be loaded.
        DeviceError: the device is not there.
    """
    if isinstance(model, str | Path):
        return load_model(model, device=device, precision=settings.precision)
    return model
