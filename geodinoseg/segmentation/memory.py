"""What a segmentation takes of the host's memory, and how wide a panel may be to keep within it.

Counted beside the libraries and the network with its own tensors. On a GPU the sums lie there; they
are counted all the same, which errs on the safe side.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from geodinoseg.errors import GridError, SceneError
from geodinoseg.rasters.block_rows import BLOCK_PX
from geodinoseg.rasters.map_writer import Layer
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.source import CACHE_BYTES
from geodinoseg.segmentation.parts.part_file import PIECE_BYTES
from geodinoseg.segmentation.tile_grid import TileGrid

DEFAULT_MAX_MEMORY = 1 << 30

_TILE_ROWS_HELD = 3  # the one that is read, the one that waits, the one in work
_PIECES_HELD = 3  # cut out, deflated, on its way to the file
_ROUND_ABOUT = 32 << 20
"""What Python, GDAL's threads and the allocator take beside what is counted."""


def return_freed_memory() -> None:
    """Give the operating system back what glibc's allocator keeps of memory that was freed.

    Between two stages of a run, so that the second does not come on top of what the first left.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The memory of one segmentation, by the width of its panels."""

    scene: Scene
    grid: TileGrid
    layers: tuple[Layer, ...]
    classes: int
    limit: int
    """Bytes that all of it may take."""

    def panel_px(self) -> int:
        """Columns of a panel: as many as the limit allows, in whole blocks, panels about alike."""
        width, panels = self.grid.width, 1
        while True:
            panel_px = -(-width // panels // BLOCK_PX) * BLOCK_PX
            if self.of_panel(self._halo_px(panel_px)) <= self.limit:
                return panel_px
            if panel_px == BLOCK_PX:
                raise self._too_small()
            panels += 1

    def of_panel(self, halo_px: int) -> int:
        """Bytes at most, with panels that read so many columns."""
        return self._fixed + max(halo_px, self.grid.tile_px) * self._column_bytes(halo_px)

    def read_rows(self, halo_px: int) -> int:
        """Rows that are read at once: those of a block, so that none is decoded twice.

        1 where a block row of the panel would take more than a quarter of the memory; then GDAL's
        cache has to hold it.
        """
        rows = min(self.scene.block_shape[0], self.scene.geobox.height)
        return rows if rows * halo_px * self._pixel_bytes <= self.limit // 4 else 1

    def _halo_px(self, panel_px: int) -> int:
        return min(self.grid.width, panel_px + 2 * (self.grid.tile_px - 1))

    @property
    def _fixed(self) -> int:
        cache = max(self.scene.cache_bytes or 0, CACHE_BYTES)
        return cache + _PIECES_HELD * PIECE_BYTES + _ROUND_ABOUT

    @property
    def _pixel_bytes(self) -> int:
        """Of a pixel as it is read, and whether it is valid."""
        return len(self.scene.bands) * self.scene.dtype.itemsize + 1

    def _column_bytes(self, halo_px: int) -> int:
        tile_px, overlap_px = self.grid.tile_px, self.grid.overlap_px
        read_rows = self.read_rows(halo_px)
        sums = 4 * self.classes * (tile_px + overlap_px)  # and a copy of what goes on downwards
        # The rows that roll, the window that is read into them, and copies of them as tile rows.
        rows = tile_px + read_rows + (tile_px + read_rows) + _TILE_ROWS_HELD * tile_px
        # Winner's channel and probability, its percent, what is invalid, a comparison.
        decided = tile_px * (4 + 4 + 8 + 2 + 2)
        map_bytes = sum(layer.bands * layer.dtype.itemsize for layer in self.layers)
        # Rows that were decided, and block rows that are gathered for the part.
        return sums + rows * self._pixel_bytes + decided + map_bytes * (tile_px + BLOCK_PX)

    def _too_small(self) -> Exception:
        needed = -(-self.of_panel(self._halo_px(BLOCK_PX)) // 1_000_000)
        rows, cols = self.scene.block_shape
        path = self.scene.path
        if (self.scene.cache_bytes or 0) > CACHE_BYTES:
            return SceneError(
                f"{path}: its blocks of {cols} x {rows} px need {needed} MB of memory; give "
                f"--max-memory {needed}MB, or rewrite it first: gdal_translate -co TILED=YES."
            )
        return GridError(
            f"{path}: {self.limit / 1e6:.0f} MB of memory are too little for tiles of "
            f"{self.grid.tile_px} px and {self.classes} classes; give --max-memory {needed}MB or "
            f"more, or smaller tiles (--tile)."
        )
