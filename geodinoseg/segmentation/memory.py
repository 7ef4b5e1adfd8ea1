"""Memory of a segmentation on the host, and the widest panel that fits the limit.

Libraries and the network with its tensors are not counted. On a GPU the sums of the stitcher are in
its memory, but are counted as well, to be on the safe side.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from geodinoseg.errors import GridError, SceneError
from geodinoseg.rasters.map_rows import BLOCK_PX, Layer
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.source import CACHE_BYTES
from geodinoseg.segmentation.parts.part_file import PIECE_BYTES
from geodinoseg.segmentation.tile_grid import TileGrid

DEFAULT_MAX_MEMORY = 1 << 30

_TILE_ROWS_HELD = 3  # one being read, one in the queue, one being segmented
_PIECES_HELD = 3  # cut out, compressed, being written
_OVERHEAD_BYTES = 32 << 20
"""Memory of Python, GDAL's threads and the allocator that is not counted otherwise."""


def return_freed_memory() -> None:
    """Return freed memory that glibc's allocator retains to the operating system.

    Called between two stages of a run, so that their memory does not add up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The memory of a segmentation as a function of the width of its panels."""

    scene: Scene
    grid: TileGrid
    layers: tuple[Layer, ...]
    classes: int
    limit: int
    """Maximum number of bytes in total."""

    def panel_px(self) -> int:
        """Columns of a panel: the most that the limit allows, in whole blocks of similar panels."""
        width, panels = self.grid.width, 1
        while True:
            panel_px = -(-width // panels // BLOCK_PX) * BLOCK_PX
            if self.panel_bytes(self._halo_px(panel_px)) <= self.limit:
                return panel_px
            if panel_px == BLOCK_PX:
                raise self._limit_error()
            panels += 1

    def panel_bytes(self, halo_px: int) -> int:
        """Maximum number of bytes with panels that read this many columns."""
        return self._fixed + max(halo_px, self.grid.tile_px) * self._column_bytes(halo_px)

    def read_rows(self, halo_px: int) -> int:
        """Rows to read at once: those of a block, so that no block is decoded twice.

        1 if a block row of the panel would take more than a quarter of the limit; then GDAL's
        cache has to hold it.
        """
        rows = min(self.scene.block_shape[0], self.scene.geobox.height)
        return rows if rows * halo_px * self._pixel_bytes <= self.limit // 4 else 1

    def _halo_px(self, panel_px: int) -> int:
        return min(self.grid.width, panel_px + 2 * (self.grid.tile_px - 1))

    @property
    def _fixed(self) -> int:
        cache = max(self.scene.cache_bytes or 0, CACHE_BYTES)
        return cache + _PIECES_HELD * PIECE_BYTES + _OVERHEAD_BYTES

    @property
    def _pixel_bytes(self) -> int:
        """Bytes of a pixel in all bands and of its validity."""
        return len(self.scene.bands) * self.scene.dtype.itemsize + 1

    def _column_bytes(self, halo_px: int) -> int:
        tile_px, overlap_px = self.grid.tile_px, self.grid.overlap_px
        read_rows = self.read_rows(halo_px)
        # Probabilities and the tiles' common class, and a copy of the rows kept.
        sums = (4 * self.classes + 2) * (tile_px + overlap_px)
        # The rolling buffer, the window read into it, and its copies as tile rows.
        rows = tile_px + read_rows + (tile_px + read_rows) + _TILE_ROWS_HELD * tile_px
        # Predicted channel and probability, confidence, validity, a comparison, disagreement.
        decided = tile_px * (4 + 4 + 8 + 2 + 2 + 2)
        map_bytes = sum(layer.bands * layer.dtype.itemsize for layer in self.layers)
        # Class rows, and block rows gathered for the part.
        return sums + rows * self._pixel_bytes + decided + map_bytes * (tile_px + BLOCK_PX)

    def _limit_error(self) -> Exception:
        needed = -(-self.panel_bytes(self._halo_px(BLOCK_PX)) // 1_000_000)
        rows, cols = self.scene.block_shape
        path = self.scene.path
        if (self.scene.cache_bytes or 0) > CACHE_BYTES:
            return SceneError(
                f"{path}: its blocks of {cols} x {rows} px need {needed} MB of memory; give "
                f"--max-memory {needed}MB, or tile the file first: gdal_translate -co TILED=YES."
            )
        return GridError(
            f"{path}: {self.limit / 1e6:.0f} MB of memory are not enough for tiles of "
            f"{self.grid.tile_px} px and {self.classes} classes; give --max-memory {needed}MB or "
            f"more, or smaller tiles (--tile)."
        )
