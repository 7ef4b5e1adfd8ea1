"""Tile rows: the pixels of the file, each block decoded once, errors that reach the caller."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_array_equal
from rasters import write_raster

from geodinoseg.errors import SceneError
from geodinoseg.rasters.scene import SceneReader, open_scene
from geodinoseg.segmentation.tile_grid import TileGrid
from geodinoseg.segmentation.tile_rows import read_ahead, read_tile_rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[TileGrid, int, int, int]:
    tile_px = draw(st.integers(5, 60))
    grid = TileGrid(
        height=draw(st.integers(1, 150)),
        width=draw(st.integers(1, 130)),
        tile_px=tile_px,
        overlap_px=draw(st.integers(0, tile_px // 2)),
    )
    return (
        grid,
        draw(st.integers(20, 150)),
        draw(st.integers(20, 130)),
        draw(st.sampled_from([16, 48])),
    )


@given(case=cases())
def test_tile_rows_hold_the_pixels_of_the_file(case, tmp_path_factory):
    grid, rows, cols, block = case
    rng = np.random.default_rng(grid.height * 1000 + grid.width)
    pixels = rng.integers(0, 200, (2, grid.height, grid.width)).astype(np.uint8)
    path = write_raster(
        tmp_path_factory.mktemp("rows") / "s.tif",
        pixels,
        nodata=7,
        tiled=True,
        blockxsize=block,
        blockysize=block,
    )
    scene = open_scene(path)
    padded = np.pad(pixels, ((0, 0), (0, grid.tile_px), (0, grid.tile_px)))
    inside = np.pad((pixels != 7).any(axis=0), ((0, grid.tile_px), (0, grid.tile_px)))
    for chunk in grid.chunks(rows=rows, cols=cols):
        seen = list(read_tile_rows(scene, grid, chunk))
        assert [row.index for row in seen] == list(range(*chunk.tile_rows))
        for row in seen:
            top, left = int(grid.row_offsets[row.index]), chunk.halo.col_off
            span = (
                slice(top, top + grid.tile_px),
                slice(left, left + max(chunk.halo.width, grid.tile_px)),
            )
            assert_array_equal(row.pixels, padded[:, *span])
            assert_array_equal(row.valid, inside[span])


def test_each_block_is_read_once(tmp_path, monkeypatch):
    path = write_raster(
        tmp_path / "s.tif",
        np.zeros((1, 500, 130), np.uint8),
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    reads = np.zeros((500, 130), dtype=int)
    spans = []
    original = SceneReader.read

    def counted(self, window):
        reads[window.slices] += 1
        spans.append((window.row_off, window.row_end))
        return original(self, window)

    monkeypatch.setattr(SceneReader, "read", counted)
    grid = TileGrid(height=500, width=130, tile_px=90, overlap_px=31)
    (chunk,) = grid.chunks(rows=500, cols=130)
    assert len(list(read_tile_rows(open_scene(path), grid, chunk))) == len(grid.row_offsets)
    assert (reads == 1).all()
    # No read ends within a block, so none is decoded for two of them.
    assert all(end % 64 == 0 or end == 500 for _, end in spans)


def test_an_error_of_the_reading_thread_reaches_the_caller(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (1, 300, 100)).astype(np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels, compress="deflate", blockysize=10)
    path.write_bytes(path.read_bytes()[:20_000])
    grid = TileGrid(height=300, width=100, tile_px=50, overlap_px=10)
    (chunk,) = grid.chunks(rows=300, cols=100)
    with pytest.raises(SceneError, match=r"s\.tif: rows"):
        list(read_ahead(open_scene(path), grid, chunk))


def test_the_reading_thread_ends_when_its_rows_are_no_longer_wanted(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.zeros((1, 900, 40), np.uint8))
    grid = TileGrid(height=900, width=40, tile_px=20, overlap_px=5)
    (chunk,) = grid.chunks(rows=900, cols=40)
    rows = read_ahead(open_scene(path), grid, chunk)
    next(rows)
    rows.close()
    assert not [t for t in threading.enumerate() if t.name == "geodinoseg-background"]
