"""From tile rows to class rows: the network over the tiles of a chunk, blended and decided."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geodinoseg.errors import DeviceMemoryError, ModelError
from geodinoseg.model.devices import FittingBatches, is_out_of_memory, to_device
from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import Progress
from geodinoseg.rasters.map_writer import PERCENT_NODATA, PROBABILITY_STEPS, ClassRows
from geodinoseg.segmentation.input_checks import CollarWatch
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.stitcher import Stitcher, most_probable
from geodinoseg.segmentation.tile_grid import Chunk
from geodinoseg.segmentation.tile_rows import TileRow, read_ahead
from geodinoseg.windows import Window

logger = logging.getLogger(__name__)

_DECIDED_AT_ONCE_PX = 1 << 20
"""Pixels times classes whose probabilities are rounded together."""


def class_rows(
    plan: Plan,
    model: TileModel,
    chunk: Chunk,
    *,
    batches: FittingBatches,
    tiles: TileProgress,
    collar: CollarWatch,
) -> Generator[ClassRows, None, None]:
    """The class rows of one chunk, top to bottom."""
    stitcher = Stitcher(plan.grid, chunk, classes=len(plan.legend.classes), device=model.device)
    read_rows = plan.memory.read_rows(chunk.halo.width)
    with closing(read_ahead(plan.scene, plan.grid, chunk, read_rows=read_rows)) as tile_rows:
        for tile_row in tile_rows:
            collar.look(tile_row.pixels)
            stitcher.start_row(tile_row.index)
            for tile_cols, pixels, valid in _batches(plan, chunk, tile_row, model.device):
                stitcher.add(tile_cols, _probabilities(model, pixels, valid, batches))
                tiles.segmented(len(tile_cols))
            tiles.row_done(chunk)
            rows = stitcher.finished()
            if rows is not None:
                yield _decided(*rows, tile_row=tile_row, plan=plan, chunk=chunk)


def fitting_batch_size(plan: Plan, model: TileModel) -> int:
    """The largest batch that fits the device, of the plan's, its half, its quarter and so on.

    Tried on blank tiles, beside as much memory as blending the widest panel takes.
    """
    side, bands = plan.grid.tile_px, len(plan.scene.bands)
    count = min(plan.batch_size, len(plan.grid))
    dtype = torch.from_numpy(np.zeros(0, dtype=plan.scene.dtype)).dtype
    width = max(side, *(chunk.halo.width for chunk in plan.chunks))
    batches = FittingBatches(count, is_trial=True)
    try:
        blended = torch.empty((len(plan.legend), side, width), device=model.device)
        pixels = torch.zeros((count, bands, side, side), dtype=dtype, device=model.device)
        valid = torch.ones((count, side, side), dtype=torch.bool, device=model.device)
        _probabilities(model, pixels, valid, batches)
        del blended
    except (RuntimeError, MemoryError, DeviceMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return 1  # narrower panels may make room for it
    # Fewer tiles than a batch tell nothing of larger ones, and no larger one comes up.
    return plan.batch_size if batches.size == count else batches.size


def _batches(
    plan: Plan, chunk: Chunk, tile_row: TileRow, device: torch.device
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of one row's tiles; a tile without a valid pixel is in none of them.

    Yields:
        Columns of the tiles in the grid, their raw pixels (n, bands, T, T) and validity (n, T, T).
    """
    tile_px = plan.grid.tile_px
    starts = {
        col: int(plan.grid.col_offsets[col]) - chunk.halo.col_off for col in range(*chunk.tile_cols)
    }
    wanted = [c for c, at in starts.items() if tile_row.valid[:, at : at + tile_px].any()]
    if not wanted:
        return
    # Up once as a row, then cut into tiles where they are needed.
    pixels = to_device(torch.from_numpy(tile_row.pixels), device)
    valid = to_device(torch.from_numpy(tile_row.valid), device)
    for first in range(0, len(wanted), plan.batch_size):
        cols = wanted[first : first + plan.batch_size]
        spans = [slice(starts[col], starts[col] + tile_px) for col in cols]
        yield (
            cols,
            torch.stack([pixels[..., span] for span in spans]),
            torch.stack([valid[:, span] for span in spans]),
        )


@torch.inference_mode()
def _probabilities(
    model: TileModel, pixels: torch.Tensor, valid: torch.Tensor, batches: FittingBatches
) -> torch.Tensor:
    """(n, classes, T, T), no gradients; a batch that does not fit the device goes in pieces."""
    result = batches.run(model.probabilities, pixels, valid, torch.cat)
    expected = (len(pixels), len(model.legend.classes), *pixels.shape[-2:])
    if not isinstance(result, torch.Tensor) or result.shape != expected:
        raise ModelError(
            f"{type(model).__name__}: gave a {type(result).__name__} of shape "
            f"{getattr(result, 'shape', 'unknown')}, expected a tensor of (tiles, classes, rows, "
            f"columns) = {expected}."
        )
    return result


def _decided(
    window: Window,
    probabilities_CHW: torch.Tensor,
    *,
    tile_row: TileRow,
    plan: Plan,
    chunk: Chunk,
) -> ClassRows:
    """Class ids of finished rows, and what else the outputs hold, back on the host."""
    first = int(plan.grid.row_offsets[tile_row.index])
    inside = window.shifted_by(rows=-first, cols=-chunk.halo.col_off)
    invalid = ~tile_row.valid[inside.slices]
    channels_HW, best_HW = most_probable(probabilities_CHW)
    _check_numbers(best_HW, invalid, window)
    class_ids = _class_ids(channels_HW, plan)
    class_ids[invalid] = plan.legend.nodata
    confidence = shares = None
    wanted = {layer.name for layer in plan.layers}
    if "confidence" in wanted:
        confidence = _in_steps(best_HW, 100)
        confidence[invalid] = PERCENT_NODATA
    if "probabilities" in wanted:
        shares = _in_steps(probabilities_CHW, PROBABILITY_STEPS)
        shares[:, invalid] = PERCENT_NODATA
    return ClassRows(
        window=window, class_ids=class_ids, confidence=confidence, probabilities=shares
    )


def _check_numbers(best_HW: torch.Tensor, invalid: NDArray[np.bool_], window: Window) -> None:
    """A network that fails must not pass for class 0."""
    broken_HW = ~torch.isfinite(best_HW)
    if broken_HW.any() and (broken_HW.cpu().numpy() & ~invalid).any():
        raise ModelError(
            f"the network gave no numbers in rows {window.row_off} to {window.row_end - 1}; its "
            f"arithmetic overflowed, try --precision float32."
        )


def _class_ids(channels_HW: torch.Tensor, plan: Plan) -> NDArray[Any]:
    """(height, width) ids in the legend's dtype, which may differ from the channels' numbers."""
    channels = channels_HW.cpu().numpy()
    ids = plan.legend.class_ids.astype(plan.legend.dtype)
    if channels.dtype == ids.dtype and np.array_equal(ids, np.arange(len(ids))):
        return np.asarray(channels)
    return np.asarray(ids[channels])


def _in_steps(shares: torch.Tensor, steps: int) -> NDArray[np.uint8]:
    """Shares of 1, (..., height, width), as whole numbers of 1/steps, rounded."""
    rounded = torch.empty(shares.shape, dtype=torch.uint8, device=shares.device)
    rows = max(1, _DECIDED_AT_ONCE_PX * shares.shape[-2] // max(shares.numel(), 1))
    for row in range(0, shares.shape[-2], rows):
        inside = (..., slice(row, row + rows), slice(None))
        rounded[inside] = shares[inside].mul(steps).add_(0.5).clamp_(0, steps).to(torch.uint8)
    return np.asarray(rounded.cpu().numpy())


class TileProgress:
    """Counts tiles, and reports the fraction done with a rate."""

    def __init__(self, chunks: Iterable[Chunk], progress: Progress, *, found: int = 0) -> None:
        """Begin to count.

        Args:
            chunks: still to be done.
            progress: called with 0 to 1.
            found: pixels that were done before.
        """
        chunks = tuple(chunks)
        self._progress = progress
        self._done = self._in_row = 0
        pixels = sum(chunk.core.width * chunk.core.height for chunk in chunks)
        self._total = sum(map(_tiles_of, chunks))
        self._found_fraction = found / max(found + pixels, 1)
        self._mpx_per_tile = pixels / max(self._total, 1) / 1e6
        self._fraction = 0.0
        self._began = time.monotonic()

    def segmented(self, count: int) -> None:
        """A batch went through the network."""
        self._in_row += count
        self._report()

    def row_done(self, chunk: Chunk) -> None:
        """All tiles of a row are done, those without data too."""
        self._done += chunk.tile_cols[1] - chunk.tile_cols[0]
        self._in_row = 0
        self._report()

    def _report(self) -> None:
        done = self._done + self._in_row
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = done * self._mpx_per_tile / seconds
        # Tiles that are done again, after memory was full, do not turn it back.
        self._fraction = max(self._fraction, min(done / max(self._total, 1), 1.0))
        fraction = self._found_fraction + (1 - self._found_fraction) * self._fraction
        self._progress(fraction, f"{rate:.2f} Mpx/s")


def _tiles_of(chunk: Chunk) -> int:
    rows, cols = chunk.tile_rows, chunk.tile_cols
    return (rows[1] - rows[0]) * (cols[1] - cols[0])
