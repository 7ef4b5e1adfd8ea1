"""The grid of tiles on a scene, its chunks, and the blend weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import GridError
from geodinoseg.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A rectangle of the scene that is computed and written as one part, and its tiles."""

    index: int
    """Index in the plan."""
    core: Window
    """The pixels of the result; the cores of a plan partition the scene."""
    halo: Window
    """The pixels to read: the core and all tiles that intersect it, within the scene."""
    tile_rows: tuple[int, int]
    """First tile row that intersects the core, and the first past it."""
    tile_cols: tuple[int, int]
    """First tile column that intersects the core, and the first past it."""


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Square tiles at a constant stride over a scene; the last row and column end at its edge.

    A scene smaller than a tile is in the upper left corner of the tile.
    """

    height: int
    """Rows of the scene."""
    width: int
    """Columns of the scene."""
    tile_px: int
    """Side of a tile."""
    overlap_px: int
    """Overlap of adjacent tiles, less than a tile; the last two of an axis overlap more."""

    def __post_init__(self) -> None:
        """Raise GridError for an empty scene or tile, or an overlap that leaves no stride."""
        if self.height < 1 or self.width < 1:
            raise GridError(f"a scene of {self.width} x {self.height} px has no pixel to segment.")
        if self.tile_px < 1:
            raise GridError(f"a tile of {self.tile_px} px is empty: give at least 1.")
        if not 0 <= self.overlap_px < self.tile_px:
            raise GridError(
                f"an overlap of {self.overlap_px} px does not fit tiles of {self.tile_px} px: "
                f"give 0 to {self.tile_px - 1}."
            )

    @property
    def stride_px(self) -> int:
        """Distance between the first pixels of adjacent tiles."""
        return self.tile_px - self.overlap_px

    @cached_property
    def row_offsets(self) -> NDArray[np.int64]:
        """First row of each tile row, ascending, (tile rows,)."""
        return _offsets(self.height, self.tile_px, self.stride_px)

    @cached_property
    def col_offsets(self) -> NDArray[np.int64]:
        """First column of each tile column, ascending, (tile columns,)."""
        return _offsets(self.width, self.tile_px, self.stride_px)

    @cached_property
    def row_weights(self) -> NDArray[np.float32]:
        """Blend weights down the rows, (tile rows, tile_px)."""
        return blend_weights(self.row_offsets, tile_px=self.tile_px, length_px=self.height)

    @cached_property
    def col_weights(self) -> NDArray[np.float32]:
        """Blend weights along the columns, (tile columns, tile_px)."""
        return blend_weights(self.col_offsets, tile_px=self.tile_px, length_px=self.width)

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.row_offsets) * len(self.col_offsets)

    def chunks(self, *, rows: int, cols: int) -> tuple[Chunk, ...]:
        """Divide the scene into chunks with cores of at most rows x cols px.

        They are ordered by column panel, whose width is cols, and from top to bottom in each.
        """
        chunks: list[Chunk] = []
        for col in range(0, self.width, cols):
            for row in range(0, self.height, rows):
                core = Window(
                    col_off=col,
                    row_off=row,
                    width=min(cols, self.width - col),
                    height=min(rows, self.height - row),
                )
                chunks.append(self.chunk_over(core, index=len(chunks)))
        return tuple(chunks)

    def joined(self, run: Sequence[Chunk], *, cols: int) -> list[Chunk]:
        """Consecutive chunks of a panel as one, or as narrower ones with cores of at most cols px.

        They have the index of the first chunk.
        """
        first, last = run[0].core, run[-1].core
        cores = (
            Window(
                col_off=col,
                row_off=first.row_off,
                width=min(cols, first.col_end - col),
                height=last.row_end - first.row_off,
            )
            for col in range(first.col_off, first.col_end, cols)
        )
        return [self.chunk_over(core, index=run[0].index) for core in cores]

    def chunk_over(self, core: Window, *, index: int) -> Chunk:
        """The chunk of a core: the tiles that intersect it, and the pixels they cover."""
        tile_rows = _tiles_over(self.row_offsets, self.tile_px, core.row_off, core.row_end)
        tile_cols = _tiles_over(self.col_offsets, self.tile_px, core.col_off, core.col_end)
        row_off = int(self.row_offsets[tile_rows[0]])
        col_off = int(self.col_offsets[tile_cols[0]])
        row_end = min(self.height, int(self.row_offsets[tile_rows[1] - 1]) + self.tile_px)
        col_end = min(self.width, int(self.col_offsets[tile_cols[1] - 1]) + self.tile_px)
        halo = Window(
            col_off=col_off, row_off=row_off, width=col_end - col_off, height=row_end - row_off
        )
        return Chunk(index=index, core=core, halo=halo, tile_rows=tile_rows, tile_cols=tile_cols)


def blend_weights(
    offsets: NDArray[np.int64], *, tile_px: int, length_px: int
) -> NDArray[np.float32]:
    """Blend weights along one axis: w_i(x) = h(x - o_i) / sum_j h(x - o_j), h a Hann window.

    Args:
        offsets: first pixel of each tile, ascending, (tiles,).
        tile_px: length of a tile, pixels.
        length_px: length of the axis, pixels.

    Returns:
        (tiles, tile_px) float32 in [0, 1]; for every pixel of the axis the weights of the tiles
        that cover it sum to 1, and a pixel past the end of the axis has weight 0.

    Raises:
        GridError: a pixel is not covered by any tile.
    """
    # float64 for the division: near the edge of a tile the window is 1e-5 or less.
    window = np.sin(np.pi * (np.arange(tile_px, dtype=np.float64) + 0.5) / tile_px) ** 2
    positions = offsets[:, None] + np.arange(tile_px, dtype=np.int64)
    inside = (positions >= 0) & (positions < length_px)
    total = np.zeros(length_px, dtype=np.float64)
    np.add.at(total, positions[inside], np.broadcast_to(window, positions.shape)[inside])
    if not total.all():
        raise GridError(f"pixel {int(np.argmin(total))} of {length_px} is not covered by any tile.")
    weights = np.zeros(positions.shape, dtype=np.float32)
    weights[inside] = (np.broadcast_to(window, positions.shape)[inside]) / total[positions[inside]]
    return weights


def _offsets(length_px: int, tile_px: int, stride_px: int) -> NDArray[np.int64]:
    last = max(length_px - tile_px, 0)
    offsets = np.arange(0, last + stride_px, stride_px, dtype=np.int64)
    return np.unique(np.minimum(offsets, last))


def _tiles_over(offsets: NDArray[np.int64], tile_px: int, start: int, end: int) -> tuple[int, int]:
    first = int(np.searchsorted(offsets, start - tile_px, side="right"))
    past = int(np.searchsorted(offsets, end, side="left"))
    return first, past


def first_run(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The first chunks that are consecutive in one panel, without a gap."""
    run = [chunks[0]]
    for chunk in chunks[1:]:
        above, below = run[-1].core, chunk.core
        if (above.col_off, above.width, above.row_end) != (
            below.col_off,
            below.width,
            below.row_off,
        ):
            break
        run.append(chunk)
    return run
