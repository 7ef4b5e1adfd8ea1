"""Settings of a segmentation: plain values, validated on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geodinoseg.errors import GridError
from geodinoseg.segmentation.memory import DEFAULT_MAX_MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """Settings of a segmentation; defaults follow from the model and the scene."""

    tile_px: int | None = None
    """Side of a tile in pixels of the scene; by default the model's, or 512."""
    overlap_px: int | None = None
    """Overlap of adjacent tiles in pixels; by default about a quarter of a tile."""
    batch_size: int | None = None
    """Tiles per batch; by default 4 on a CPU, up to 16 on a GPU."""
    bands: tuple[int, ...] | None = None
    """Bands to read, numbered from 1, in the model's order; by default the model's."""
    nodata: float | None = None
    """Nodata value; by default the scene's."""
    precision: str = "auto"
    """Precision of the network when a model folder is loaded; see `pick_precision`."""
    resolution_m: float | None = None
    """Ground resolution of the scene, metres per pixel; by default from its CRS."""
    max_memory: int = DEFAULT_MAX_MEMORY
    """Bytes to read, blend and write in, in addition to the network and the libraries."""

    def __post_init__(self) -> None:
        """Raise GridError for an invalid batch size, resolution or memory.

        Tile and overlap are checked with the model and the scene.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise GridError(f"a batch of {self.batch_size} tiles is empty: give at least 1.")
        if self.resolution_m is not None and not 0 < self.resolution_m < math.inf:
            raise GridError(
                f"a resolution of {self.resolution_m} m is not a length: give metres per pixel."
            )
        if self.max_memory < 1:
            raise GridError(f"{self.max_memory} bytes of memory are too few: give more.")
