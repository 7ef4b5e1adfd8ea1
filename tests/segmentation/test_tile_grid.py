"""Tile grids, blend weights, chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose

from geodinoseg.errors import GridError
from geodinoseg.segmentation.tile_grid import TileGrid

sizes = st.integers(1, 700)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile_px = draw(st.integers(1, 150))
    overlap_px = draw(st.integers(0, tile_px - 1))
    # A stride of one pixel over 700 would be 490,000 tiles: the same law, and slow.
    overlap_px = min(overlap_px, tile_px - max(1, tile_px // 8))
    return TileGrid(height=draw(sizes), width=draw(sizes), tile_px=tile_px, overlap_px=overlap_px)


@given(grid=grids())
def test_the_weights_over_every_pixel_sum_to_one(grid):
    for offsets, weights, length in (
        (grid.row_offsets, grid.row_weights, grid.height),
        (grid.col_offsets, grid.col_weights, grid.width),
    ):
        total = np.zeros(max(length, grid.tile_px) + grid.tile_px)
        for offset, weight in zip(offsets, weights, strict=True):
            total[offset : offset + grid.tile_px] += weight
        assert_allclose(total[:length], 1, rtol=1e-6)
        assert (total[length:] == 0).all()
        assert weights.dtype == np.float32
        assert (weights >= 0).all()


@given(grid=grids())
def test_tiles_lie_inside_the_scene_unless_it_is_smaller(grid):
    for offsets, length in ((grid.row_offsets, grid.height), (grid.col_offsets, grid.width)):
        assert offsets[0] == 0
        assert (np.diff(offsets) > 0).all()
        assert offsets[-1] == max(length - grid.tile_px, 0)
        assert (np.diff(offsets) <= grid.stride_px).all()


@given(grid=grids(), rows=st.integers(1, 400), cols=st.integers(1, 400))
def test_cores_partition_the_scene_and_halos_hold_their_tiles(grid, rows, cols):
    seen = np.zeros((grid.height, grid.width), dtype=np.int64)
    # Chunks of a few pixels over hundreds of tiles would say the same, slowly.
    rows, cols = max(rows, grid.height // 8, 1), max(cols, grid.width // 8, 1)
    for chunk in grid.chunks(rows=rows, cols=cols):
        seen[chunk.core.slices] += 1
        halo = chunk.halo
        assert halo.intersection(chunk.core) == chunk.core
        for index, offset in enumerate(grid.row_offsets):
            touches = offset < chunk.core.row_end and offset + grid.tile_px > chunk.core.row_off
            assert touches == (chunk.tile_rows[0] <= index < chunk.tile_rows[1])
        first, last = grid.col_offsets[chunk.tile_cols[0]], grid.col_offsets[chunk.tile_cols[1] - 1]
        assert halo.col_off == first
        assert halo.col_end == min(last + grid.tile_px, grid.width)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("height", "width", "tile_px", "overlap_px"),
    [(0, 5, 4, 1), (5, 0, 4, 1), (5, 5, 0, 0), (5, 5, 4, 4), (5, 5, 4, -1)],
)
def test_sizes_that_cannot_be_are_refused(height, width, tile_px, overlap_px):
    with pytest.raises(GridError):
        TileGrid(height=height, width=width, tile_px=tile_px, overlap_px=overlap_px)
