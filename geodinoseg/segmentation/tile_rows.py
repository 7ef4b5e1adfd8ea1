"""Rows of tiles as they come from the file: each source block decoded once, one row ahead."""

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
    """All pixels that the tiles of one row see, over the width of a chunk's halo."""

    index: int
    """Row of the tile grid."""
    pixels: NDArray[Any]
    """(bands, tile_px, width) in the scene's dtype; width is the halo's, at least tile_px. Pixels
    past the scene are 0 and not valid."""
    valid: NDArray[np.bool_]
    """(tile_px, width), True where the scene holds data."""


def read_tile_rows(
    scene: Scene, grid: TileGrid, chunk: Chunk, *, read_rows: int | None = None
) -> Generator[TileRow, None, None]:
    """The tile rows of a chunk, top to bottom; only pixel rows that are new are read.

    Args:
        scene: to read.
        grid: of the tiles.
        chunk: whose tile rows.
        read_rows: whose multiples are read at once; rows of a block where not given.
    """
    block_rows = min(scene.block_shape[0], scene.geobox.height)
    with scene.reader() as reader:
        rows = _RollingRows(
            scene, reader, chunk.halo, tile_px=grid.tile_px, block_rows=read_rows or block_rows
        )
        for index in range(*chunk.tile_rows):
            pixels, valid = rows.take(int(grid.row_offsets[index]))
            yield TileRow(index=index, pixels=pixels, valid=valid)


def read_ahead(
    scene: Scene, grid: TileGrid, chunk: Chunk, *, read_rows: int | None = None
) -> Generator[TileRow, None, None]:
    """`read_tile_rows` in a thread of its own, one row ahead of whoever takes them."""
    return prefetch(lambda: read_tile_rows(scene, grid, chunk, read_rows=read_rows), ahead=1)


class _RollingRows:
    """The last rows read of a column range, and how to go on without reading any twice."""

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

    def take(self, row_off: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copies of the pixels and their validity from row_off on, tile_px rows of them."""
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
        """Read up to row_end, and on to the end of its block row."""
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
