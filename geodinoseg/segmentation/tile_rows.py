"""Reads rows of tiles from a scene: each source block is decoded once, one row ahead."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.prefetch import prefetch
from geodinoseg.rasters.scene import Scene, SceneReader
from geodinoseg.segmentation.tile_grid import Chunk, TileGrid
from geodinoseg.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """The pixels of the tiles of one row, over the width of a chunk's halo."""

    index: int
    """Row of the tile grid."""
    pixels: NDArray[Any]
    """(bands, tile_px, width) in the scene's dtype; the width is that of the halo, at least
    tile_px. Pixels past the scene are 0 and not valid."""
    valid: NDArray[np.bool_]
    """(tile_px, width), True where the scene holds data."""


def read_tile_rows(
    scene: Scene, grid: TileGrid, chunk: Chunk, *, read_rows: int | None = None
) -> Generator[TileRow, None, None]:
    """The tile rows of a chunk, top to bottom; no pixel row is read twice.

    Args:
        scene: the scene to read.
        grid: the tiles.
        chunk: the chunk.
        read_rows: rows are read in multiples of this; by default the rows of a block.
    """
    block_rows = min(scene.block_shape[0], scene.geobox.height)
    with scene.reader() as reader:
        buffer = _RollingRows(
            scene, reader, chunk.halo, tile_px=grid.tile_px, block_rows=read_rows or block_rows
        )
        for index in range(*chunk.tile_rows):
            pixels, valid = buffer.rows_from(int(grid.row_offsets[index]))
            yield TileRow(index=index, pixels=pixels, valid=valid)


def read_ahead(
    scene: Scene, grid: TileGrid, chunk: Chunk, *, read_rows: int | None = None
) -> Generator[TileRow, None, None]:
    """`read_tile_rows` in a background thread, one row ahead of the consumer."""
    return prefetch(lambda: read_tile_rows(scene, grid, chunk, read_rows=read_rows), ahead=1)


class _RollingRows:
    """A buffer of the last rows read of a column range, so that no row is read twice."""

    def __init__(
        self, scene: Scene, reader: SceneReader, halo: Window, *, tile_px: int, block_rows: int
    ) -> None:
        self._reader = reader
        self._halo = halo
        self._tile_px = tile_px
        self._block_rows = block_rows
        width = max(halo.width, tile_px)
        capacity = tile_px + self._block_rows
        self._pixels = np.zeros((len(scene.bands), capacity, width), dtype=scene.dtype)
        self._valid = np.zeros((capacity, width), dtype=np.bool_)
        self._start = self._end = halo.row_off

    def rows_from(self, row_off: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copies of the pixels and the validity of tile_px rows, starting at row_off."""
        self._drop_above(row_off)
        self._fill_to(min(row_off + self._tile_px, self._halo.row_end))
        rows = slice(0, self._tile_px)
        return self._pixels[:, rows].copy(), self._valid[rows].copy()

    def _drop_above(self, row_off: int) -> None:
        dropped = min(row_off, self._end) - self._start
        kept = self._end - self._start - dropped
        if dropped:
            for buffer in (self._pixels, self._valid):
                buffer[..., :kept, :] = buffer[..., dropped : dropped + kept, :]
                buffer[..., kept:, :] = 0
        self._start = row_off
        self._end = max(self._end, row_off)

    def _fill_to(self, row_end: int) -> None:
        """Read rows to the end of the block row that contains row_end."""
        if row_end <= self._end:
            return
        row_end = min(-(-row_end // self._block_rows) * self._block_rows, self._halo.row_end)
        window = Window(
            col_off=self._halo.col_off,
            row_off=self._end,
            width=self._halo.width,
            height=row_end - self._end,
        )
        pixels, valid = self._reader.read(window)
        rows = slice(self._end - self._start, row_end - self._start)
        self._pixels[:, rows, : self._halo.width] = pixels
        self._valid[rows, : self._halo.width] = valid
        self._end = row_end
