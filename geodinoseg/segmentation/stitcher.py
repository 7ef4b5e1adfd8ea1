"""Blends rows of tiles into finished pixel rows, on the device."""

from __future__ import annotations

import torch

from geodinoseg.segmentation.tile_grid import Chunk, TileGrid
from geodinoseg.windows import Window

_NO_CLASS, _NOT_ONE_CLASS = -1, -2
# Pixels compared at once: few enough to stay in a core's cache from class to class.
_COMPARED_AT_ONCE_PX = 1 << 17


class Stitcher:
    """Sums the weighted probabilities of the tiles of a chunk, row by row of the tile grid.

    Holds classes x tile height x halo width values, independent of the height of the scene. The
    weights are a partition of unity (`blend_weights`), so the sums are probabilities. Also notes
    where tiles disagree on the most probable class.
    """

    def __init__(self, grid: TileGrid, chunk: Chunk, *, classes: int, device: torch.device) -> None:
        self._grid = grid
        self._chunk = chunk
        width = max(chunk.halo.width, grid.tile_px)
        self._sums_CHW = torch.zeros((classes, grid.tile_px, width), device=device)
        # Of a pixel that no tile has covered yet, _NO_CLASS; where tiles disagree, _NOT_ONE_CLASS.
        dtype = torch.int16 if classes <= torch.iinfo(torch.int16).max else torch.int32
        self._classes_HW = torch.full((grid.tile_px, width), _NO_CLASS, dtype=dtype, device=device)
        self._row_weights = torch.from_numpy(grid.row_weights).to(device)
        self._col_weights = torch.from_numpy(grid.col_weights).to(device)
        self._row = chunk.tile_rows[0]

    def start_row(self, index: int) -> None:
        """Start the next tile row; rows above it must have been read with `finished`."""
        offsets = self._grid.row_offsets
        finished = int(offsets[index] - offsets[self._row])
        kept = self._grid.tile_px - finished
        if finished:
            self._sums_CHW[:, :kept] = self._sums_CHW[:, finished:].clone()
            self._sums_CHW[:, kept:] = 0
            self._classes_HW[:kept] = self._classes_HW[finished:].clone()
            self._classes_HW[kept:] = _NO_CLASS
        self._row = index

    def add(self, tile_cols: list[int], probabilities_nCTT: torch.Tensor) -> None:
        """Add tiles of the current row.

        Args:
            tile_cols: column of each tile in the tile grid.
            probabilities_nCTT: (n, classes, tile_px, tile_px) float32.
        """
        tile_px = self._grid.tile_px
        for tile_col, probabilities_CTT in zip(tile_cols, probabilities_nCTT, strict=True):
            col = int(self._grid.col_offsets[tile_col]) - self._chunk.halo.col_off
            weights_TT = self._row_weights[self._row, :, None] * self._col_weights[tile_col]
            self._sums_CHW[:, :, col : col + tile_px].addcmul_(probabilities_CTT, weights_TT)
            self._compare(self._classes_HW[:, col : col + tile_px], probabilities_CTT)

    @staticmethod
    def _compare(classes_TT: torch.Tensor, probabilities_CTT: torch.Tensor) -> None:
        """Note the most probable classes of a tile in the common ones of all tiles."""
        if probabilities_CTT.is_cuda:
            found_TT = probabilities_CTT.argmax(dim=0)
        else:
            found_TT, _ = most_probable(probabilities_CTT)
        found_TT = found_TT.to(classes_TT.dtype)
        is_new = classes_TT == _NO_CLASS
        classes_TT.masked_fill_(~is_new & (classes_TT != found_TT), _NOT_ONE_CLASS)
        torch.where(is_new, found_TT, classes_TT, out=classes_TT)

    def finished(self) -> tuple[Window, torch.Tensor, torch.Tensor] | None:
        """The rows to which no later tile row contributes, cropped to the core of the chunk.

        Returns:
            Their window in the scene, (classes, height, width) probabilities, a view that is valid
            until the next `start_row`, and (height, width) bool, True where tiles disagree; None if
            none of the rows is in the core.
        """
        first = int(self._grid.row_offsets[self._row])
        past = self._row + 1
        is_last = past == len(self._grid.row_offsets)
        end = self._grid.height if is_last else int(self._grid.row_offsets[past])
        core, halo = self._chunk.core, self._chunk.halo
        if end <= core.row_off or first >= core.row_end:
            return None
        rows = Window(
            col_off=core.col_off, row_off=first, width=core.width, height=end - first
        ).intersection(core)
        assert rows is not None
        moved = rows.shifted_by(rows=-first, cols=-halo.col_off)
        disagrees_HW = self._classes_HW[moved.slices] == _NOT_ONE_CLASS
        return rows, self._sums_CHW[:, *moved.slices], disagrees_HW


def most_probable(probabilities_CHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable class of each pixel and its probability; the first of equals.

    Compares class by class: on a CPU `torch.argmax` over the strided class axis takes several
    times as long.

    Args:
        probabilities_CHW: (classes, height, width) float32.

    Returns:
        channels (height, width), uint8, or int32 above 256 classes; probabilities (height, width)
        float32.
    """
    classes, height, width = probabilities_CHW.shape
    dtype = torch.uint8 if classes <= 256 else torch.int32
    channels_HW = torch.zeros((height, width), dtype=dtype, device=probabilities_CHW.device)
    best_HW = probabilities_CHW[0].clone()
    step = max(1, _COMPARED_AT_ONCE_PX // max(width, 1))
    for row in range(0, height, step):
        rows = slice(row, row + step)
        best, channels = best_HW[rows], channels_HW[rows]
        for channel in range(1, classes):
            candidate = probabilities_CHW[channel, rows]
            channels.masked_fill_(candidate > best, channel)
            torch.maximum(best, candidate, out=best)
    return channels_HW, best_HW
