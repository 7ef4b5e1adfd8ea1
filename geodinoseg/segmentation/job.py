"""A segmentation before its first part: its plan, and the workers that compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.parts.run import Parts, Run
from geodinoseg.segmentation.plan import Plan
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
