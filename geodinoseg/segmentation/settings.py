"""What may be chosen about a segmentation: plain values, checked when built."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geodinoseg.errors import GridError
from geodinoseg.segmentation.memory import DEFAULT_MAX_MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """What may be chosen about a segmentation; what is not given follows from model and scene."""

    tile_px: int | None = None
    """Side of a tile in pixels of the scene; the model's own, or 512, where not given."""
    overlap_px: int | None = None
    """Pixels that neighbours share; about a quarter of the tile where not given."""
    batch_size: int | None = None
    """Tiles that go through the network at once; 4 on a CPU, 16 on a GPU where not given."""
    bands: tuple[int, ...] | None = None
    """Bands to read in place of the model's own numbers, in the model's order."""
    nodata: float | None = None
    """A value that means missing, in place of what the scene says."""
    precision: str = "auto"
    """In which the network computes, where a model folder is loaded; see `pick_precision`."""
    resolution_m: float | None = None
    """Ground resolution to take the scene for, metres per pixel, in place of what its CRS says."""
    max_memory: int = DEFAULT_MAX_MEMORY
    """Bytes that reading, blending and writing may take, beside the network and the libraries."""

    def __post_init__(self) -> None:
        """Refuse what no segmentation can have; tile and overlap wait for model and scene.

        Raises:
            GridError: a batch without a tile, a resolution that is no length, or no memory.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise GridError(f"a batch of {self.batch_size} tiles is empty: give at least 1.")
        if self.resolution_m is not None and not 0 < self.resolution_m < math.inf:
            raise GridError(
                f"a resolution of {self.resolution_m} m is no length: give metres per pixel."
            )
        if self.max_memory < 1:
            raise GridError(f"{self.max_memory} bytes of memory hold nothing: give more.")
