"""A segmentation before its first part: checked, planned, and who computes it. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import (
    Parts,
    Run,
)
from geodinoseg.segmentation.plan import Plan
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
