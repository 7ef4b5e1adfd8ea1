"""The plan of a segmentation, made before any pixel is read and printed by `--dry-run`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from geodinoseg.errors import GridError, SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.legend import Legend
from geodinoseg.model.description import ModelDescription
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.map_rows import BLOCK_PX, Layer, map_layers
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.redaction import redact_path
from geodinoseg.segmentation.memory import HostMemory
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import Chunk, TileGrid

_Model = TypeVar("_Model", ModelDescription, TileModel)

_DEFAULT_TILE_PX = 512
_CHUNK_TILES = 128
"""Approximate tiles per chunk; an interruption costs minutes on a CPU, seconds on a GPU."""
_CHUNK_TILE_ROWS = 32
"""Maximum tile rows per chunk."""
_BATCH_CPU, _BATCH_GPU = 4, 16
_REFUSE_RESOLUTION = 8.0
_SMALLEST_TILE_PX = 4
"""Pixels of the scene per resampled tile; with fewer a run would never end."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Scene, tiles and batches of a segmentation. The same plan gives the same bytes."""

    scene: Scene
    grid: TileGrid
    chunks: tuple[Chunk, ...]
    batch_size: int
    legend: Legend
    scale: float
    """Pixels of the model per pixel of the scene; 1 if tiles are not resampled."""
    aspect: float
    """Width of a pixel over its height on the ground; 1 if tiles are not stretched."""
    layers: tuple[Layer, ...]
    """The rasters of the map."""
    memory: HostMemory
    """Memory to read, blend and write, in addition to the network and the libraries."""
    seconds: float | None = None
    """Time of the forward passes if every tile holds data, from a trial; None without one."""

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the run, in addition to the network and the libraries."""
        return self.memory.panel_bytes(max(chunk.halo.width for chunk in self.chunks))

    @property
    def panels(self) -> int:
        """Number of column panels."""
        return len({chunk.core.col_off for chunk in self.chunks})

    @property
    def output_bytes(self) -> int:
        """Size of the class raster before compression."""
        return self.grid.height * self.grid.width * self.legend.dtype.itemsize

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when grid, chunks, batches, bands or legend do."""
        facts = {
            "grid": (self.grid.height, self.grid.width, self.grid.tile_px, self.grid.overlap_px),
            "panels": sorted({chunk.core.col_off for chunk in self.chunks}),
            "batch_size": self.batch_size,
            "bands": self.scene.bands,
            "nodata": self.scene.nodata,
            "scale": (self.scale, self.aspect),
            "legend": self.legend.to_json(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The plan in a few lines."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The plan as lines of text for a terminal."""
        grid, alpha = self.grid, self.scene.alpha_band
        scene_mb = (
            grid.height * grid.width * len(self.scene.bands) * self.scene.dtype.itemsize / 1e6
        )
        lines = [
            f"scene     {redact_path(self.scene.path)}: {grid.width} x {grid.height} px, bands "
            f"{', '.join(map(str, self.scene.bands))} of {self.scene.dtype}, {scene_mb:,.0f} MB"
            + (f", alpha in band {alpha}" if "alpha" in self.scene.validity else ""),
            f"tiles     {len(grid):,} of {grid.tile_px} px, {grid.overlap_px} px overlap, batches "
            f"of {self.batch_size}, {self.panels} column panel(s) in {len(self.chunks)} part(s)",
            f"classes   {', '.join(self.legend.names)}",
            f"memory    {self.memory_bytes / 1e6:,.0f} MB to read, blend and write, in addition to "
            f"the network and the libraries",
            f"output    {self.output_bytes / 1e6:,.0f} MB before compression",
        ]
        if not self.scale == self.aspect == 1.0:
            shape = "" if self.aspect == 1.0 else f", and to square pixels from {self.aspect:.3g}:1"
            lines.insert(
                2, f"          resampled by {self.scale:.3g} to the model's resolution{shape}"
            )
        return lines


def make_plan(
    scene: PathLike | Scene,
    model: _Model,
    settings: SegmentationSettings,
    *,
    confidence: bool = False,
    probabilities: bool = False,
) -> tuple[Plan, _Model]:
    """Determine tiles, batches, panels and chunks.

    Args:
        scene: as for `open_scene`.
        model: the model or its description.
        settings: what they leave open is chosen here.
        confidence: whether the map includes the probability of the predicted class.
        probabilities: whether it includes the probability of each class.

    Returns:
        The plan, and the model set to the ground resolution of the scene.
    """
    opened = open_for_model(scene, model, settings)
    model = _at_resolution(model, opened, settings)
    tile_px = _tile_px(model, opened, settings)
    grid = TileGrid(
        height=opened.geobox.height,
        width=opened.geobox.width,
        tile_px=tile_px,
        overlap_px=_overlap_px(model, tile_px, settings),
    )
    layers = map_layers(model.legend, confidence=confidence, probabilities=probabilities)
    memory = HostMemory(
        scene=opened, grid=grid, layers=layers, classes=len(model.legend), limit=settings.max_memory
    )
    panel_px = memory.panel_px()
    plan = Plan(
        scene=opened,
        grid=grid,
        chunks=grid.chunks(rows=_chunk_rows(grid, panel_px), cols=panel_px),
        batch_size=settings.batch_size or _default_batch(model),
        legend=model.legend,
        scale=getattr(model, "scale", 1.0),
        aspect=getattr(model, "aspect", 1.0),
        layers=layers,
        memory=memory,
    )
    return plan, model


def _default_batch(model: object) -> int:
    device = getattr(model, "device", None)
    return _BATCH_GPU if getattr(device, "type", "cpu") == "cuda" else _BATCH_CPU


def chosen_bands(
    model: ModelDescription | TileModel, settings: SegmentationSettings
) -> tuple[int, ...]:
    """Bands to read, in the model's order."""
    if settings.bands is None:
        return model.bands
    if len(settings.bands) != len(model.bands):
        raise SceneError(
            f"--bands gives {len(settings.bands)} bands, but the model reads {len(model.bands)}; "
            f"give as many, in the order of its training."
        )
    return settings.bands


def open_for_model(
    scene: PathLike | Scene, model: ModelDescription | TileModel, settings: SegmentationSettings
) -> Scene:
    """Open a scene with the bands that a model reads.

    Raises:
        SceneError: as for `open_scene`, or one of the bands is alpha and was not named.
    """
    opened = open_scene(scene, bands=chosen_bands(model, settings), nodata=settings.nodata)
    named = settings.bands or (scene.bands if isinstance(scene, Scene) else ())
    if opened.alpha_band in opened.bands and opened.alpha_band not in named:
        bands = ",".join(map(str, opened.bands))
        raise SceneError(
            f"{opened.source.name}: the model reads bands {bands}, but band {opened.alpha_band} "
            f"is alpha, which marks missing pixels. If it is a measured band, give --bands "
            f"{bands}; otherwise give a scene with the bands of the model's training."
        )
    return opened


def _at_resolution(model: _Model, scene: Scene, settings: SegmentationSettings) -> _Model:
    """The model set to the ground resolution of the scene."""
    own_m: float | None = getattr(model, "pixel_size_m", None)
    pixel_size_m = settings.resolution_m or scene.geobox.pixel_size_m
    if own_m is None or pixel_size_m is None or not hasattr(model, "at_pixel_size"):
        return model
    ratio = max(pixel_size_m / own_m, own_m / pixel_size_m)
    if ratio > _REFUSE_RESOLUTION and settings.resolution_m is None:
        raise SceneError(
            f"{scene.source.name}: has {pixel_size_m:.3g} m per pixel on the ground, but the model "
            f"was trained at {own_m:.3g} m, which is too different to recognize anything. Train "
            f"on such scenes, or give --resolution if the scene's georeferencing is wrong."
        )
    # Pixels of a resolution that the user gives are square.
    aspect = scene.geobox.pixel_aspect if settings.resolution_m is None else 1.0
    resampled: _Model = model.at_pixel_size(pixel_size_m, aspect=aspect)
    return resampled


def _tile_px(
    model: ModelDescription | TileModel, scene: Scene, settings: SegmentationSettings
) -> int:
    multiple = model.tile_multiple
    if settings.tile_px is not None:
        if settings.tile_px < 1 or settings.tile_px % multiple:
            raise GridError(
                f"tiles of {settings.tile_px} px: give a multiple of the model's {multiple} px."
            )
        return settings.tile_px
    tile_px = int(getattr(model, "tile_px", _DEFAULT_TILE_PX // multiple * multiple or multiple))
    if tile_px < _SMALLEST_TILE_PX and model.tile_multiple == 1:
        raise SceneError(
            f"{scene.source.name}: at the given resolution, a tile of the model covers only "
            f"{tile_px} px of it; that is too far from the model's. Correct --resolution."
        )
    # For a scene smaller than a tile, the smallest tile that covers it: the rest is padding.
    needed = -(-max(scene.geobox.height, scene.geobox.width) // multiple) * multiple
    return min(tile_px, needed)


def _overlap_px(
    model: ModelDescription | TileModel, tile_px: int, settings: SegmentationSettings
) -> int:
    """About a quarter of a tile, such that the stride is an odd multiple of half a patch.

    The patch grids of adjacent tiles are then offset by half a patch, and blending averages two
    phases of a coarse grid.
    """
    if settings.overlap_px is not None:
        return settings.overlap_px
    half = max(model.tile_multiple // 2, 1)
    halves = int(0.75 * tile_px / half)
    stride = max(halves - (halves % 2 == 0), 1) * half
    return max(tile_px - stride, 0)


def _chunk_rows(grid: TileGrid, panel_px: int) -> int:
    """Rows of a chunk, in whole block rows of the output so that no block is written twice."""
    stride_px = grid.stride_px
    tiles_across = -(-min(panel_px, grid.width) // stride_px)
    tile_rows = min(max(_CHUNK_TILES // tiles_across, 1), _CHUNK_TILE_ROWS)
    return -(-tile_rows * stride_px // BLOCK_PX) * BLOCK_PX


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Facts that determine the bytes of the map, for `--json` and the map's tags."""
    return {
        "tiles": len(plan.grid),
        "tile_px": plan.grid.tile_px,
        "overlap_px": plan.grid.overlap_px,
        "batch_size": plan.batch_size,
        "panels": plan.panels,
        "scale": plan.scale,
        "aspect": plan.aspect,
        "fingerprint": plan.fingerprint,
    }
