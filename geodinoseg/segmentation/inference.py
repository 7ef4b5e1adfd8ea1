"""From tile rows to class rows: runs the network on the tiles of a chunk and blends the results."""

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
from geodinoseg.rasters.map_rows import PERCENT_NODATA, PROBABILITY_STEPS, ClassRows
from geodinoseg.segmentation.missing_pixels import CollarWatch
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.stitcher import Stitcher, most_probable
from geodinoseg.segmentation.tile_grid import Chunk
from geodinoseg.segmentation.tile_rows import TileRow, read_ahead
from geodinoseg.windows import Window

logger = logging.getLogger(__name__)

_ROUNDED_AT_ONCE = 1 << 20
"""Number of probabilities that are rounded together."""


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
            collar.count(tile_row.pixels, tile_row.valid)
            stitcher.start_row(tile_row.index)
            for tile_cols, pixels, valid in _batches(plan, chunk, tile_row, model.device):
                stitcher.add(tile_cols, _probabilities(model, pixels, valid, batches))
                tiles.segmented(len(tile_cols))
            tiles.row_done(chunk)
            rows = stitcher.finished()
            if rows is not None:
                yield _to_class_rows(*rows, tile_row=tile_row, plan=plan, chunk=chunk)


def fitting_batch_size(plan: Plan, model: TileModel) -> int:
    """The largest batch that fits the device: the plan's batch size, or a half, a quarter, ...

    Tried with blank tiles, while the memory to blend the widest panel is allocated.
    """
    side, bands = plan.grid.tile_px, len(plan.scene.bands)
    count = min(plan.batch_size, len(plan.grid))
    dtype = torch.from_numpy(np.zeros(0, dtype=plan.scene.dtype)).dtype
    width = max(side, *(chunk.halo.width for chunk in plan.chunks))
    batches = FittingBatches(count, is_trial=True)
    try:
        reserved = torch.empty((len(plan.legend), side, width), device=model.device)
        pixels = torch.zeros((count, bands, side, side), dtype=dtype, device=model.device)
        valid = torch.ones((count, side, side), dtype=torch.bool, device=model.device)
        _probabilities(model, pixels, valid, batches)
        del reserved
    except (RuntimeError, MemoryError, DeviceMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return 1  # may fit with narrower panels
    # With fewer tiles than a batch, no larger batch occurs.
    return plan.batch_size if batches.size == count else batches.size


def _batches(
    plan: Plan, chunk: Chunk, tile_row: TileRow, device: torch.device
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of the tiles of one row, without tiles that have no valid pixel.

    Yields:
        Tile columns, raw pixels (n, bands, T, T) and validity (n, T, T) of the tiles.
    """
    tile_px = plan.grid.tile_px
    starts = {
        col: int(plan.grid.col_offsets[col]) - chunk.halo.col_off for col in range(*chunk.tile_cols)
    }
    needed = [c for c, at in starts.items() if tile_row.valid[:, at : at + tile_px].any()]
    if not needed:
        return
    # Copied to the device once as a row, then cut into tiles there.
    pixels = to_device(torch.from_numpy(tile_row.pixels), device)
    valid = to_device(torch.from_numpy(tile_row.valid), device)
    for first in range(0, len(needed), plan.batch_size):
        cols = needed[first : first + plan.batch_size]
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
    """(n, classes, T, T) without gradients; a batch that does not fit the device is split."""
    result = batches.run(model.probabilities, pixels, valid, torch.cat)
    expected = (len(pixels), len(model.legend.classes), *pixels.shape[-2:])
    if not isinstance(result, torch.Tensor) or result.shape != expected:
        raise ModelError(
            f"{type(model).__name__}: returned {type(result).__name__} of shape "
            f"{getattr(result, 'shape', 'unknown')}, expected a tensor of (tiles, classes, rows, "
            f"columns) = {expected}."
        )
    return result


def _to_class_rows(
    window: Window,
    probabilities_CHW: torch.Tensor,
    disagrees_HW: torch.Tensor,
    *,
    tile_row: TileRow,
    plan: Plan,
    chunk: Chunk,
) -> ClassRows:
    """Class ids, confidence and probabilities of finished rows, on the host."""
    first = int(plan.grid.row_offsets[tile_row.index])
    inside = window.shifted_by(rows=-first, cols=-chunk.halo.col_off)
    invalid = ~tile_row.valid[inside.slices]
    channels_HW, best_HW = most_probable(probabilities_CHW)
    _check_finite(best_HW, invalid, window)
    class_ids = _class_ids(channels_HW, plan)
    class_ids[invalid] = plan.legend.nodata
    confidence = probabilities = None
    layers = {layer.name for layer in plan.layers}
    if "confidence" in layers:
        confidence = _quantized(best_HW, 100)
        confidence[invalid] = PERCENT_NODATA
    if "probabilities" in layers:
        probabilities = _quantized(probabilities_CHW, PROBABILITY_STEPS)
        probabilities[:, invalid] = PERCENT_NODATA
    return ClassRows(
        window=window,
        class_ids=class_ids,
        confidence=confidence,
        probabilities=probabilities,
        disagrees=disagrees_HW.cpu().numpy(),
    )


def _check_finite(best_HW: torch.Tensor, invalid: NDArray[np.bool_], window: Window) -> None:
    """Raise ModelError for NaN and infinity, which would otherwise become class 0."""
    broken_HW = ~torch.isfinite(best_HW)
    if broken_HW.any() and (broken_HW.cpu().numpy() & ~invalid).any():
        raise ModelError(
            f"the network returned NaN or infinity in rows {window.row_off} to "
            f"{window.row_end - 1}: its arithmetic overflowed; try --precision float32."
        )


def _class_ids(channels_HW: torch.Tensor, plan: Plan) -> NDArray[Any]:
    """Class ids (height, width) in the legend's dtype from channels of the model."""
    channels = channels_HW.cpu().numpy()
    ids = plan.legend.class_ids.astype(plan.legend.dtype)
    if channels.dtype == ids.dtype and np.array_equal(ids, np.arange(len(ids))):
        return np.asarray(channels)
    return np.asarray(ids[channels])


def _quantized(values: torch.Tensor, steps: int) -> NDArray[np.uint8]:
    """Values in [0, 1], (..., height, width), as multiples of 1/steps, rounded."""
    rounded = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    rows = max(1, _ROUNDED_AT_ONCE * values.shape[-2] // max(values.numel(), 1))
    for row in range(0, values.shape[-2], rows):
        inside = (..., slice(row, row + rows), slice(None))
        rounded[inside] = values[inside].mul(steps).add_(0.5).clamp_(0, steps).to(torch.uint8)
    return np.asarray(rounded.cpu().numpy())


class TileProgress:
    """Counts tiles, and reports the fraction done and the rate in Mpx/s."""

    def __init__(self, chunks: Iterable[Chunk], progress: Progress, *, done_px: int = 0) -> None:
        """Start to count.

        Args:
            chunks: the chunks to segment.
            progress: called with 0 to 1.
            done_px: pixels already segmented by an earlier run.
        """
        chunks = tuple(chunks)
        self._progress = progress
        self._done = self._in_row = 0
        pixels = sum(chunk.core.width * chunk.core.height for chunk in chunks)
        self._total = sum(map(_tiles_of, chunks))
        self._initial_fraction = done_px / max(done_px + pixels, 1)
        self._mpx_per_tile = pixels / max(self._total, 1) / 1e6
        self._fraction = 0.0
        self._began = time.monotonic()

    def segmented(self, count: int) -> None:
        """Count the tiles of a batch."""
        self._in_row += count
        self._report()

    def row_done(self, chunk: Chunk) -> None:
        """Count a tile row as done, including tiles without data."""
        tiles = chunk.tile_cols[1] - chunk.tile_cols[0]
        has_empty = self._in_row < tiles
        self._done += tiles
        self._in_row = 0
        if has_empty:
            self._report()

    def _report(self) -> None:
        done = self._done + self._in_row
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = done * self._mpx_per_tile / seconds
        # Tiles repeated after a memory error do not decrease it.
        self._fraction = max(self._fraction, min(done / max(self._total, 1), 1.0))
        fraction = self._initial_fraction + (1 - self._initial_fraction) * self._fraction
        self._progress(fraction, f"{rate:.2f} Mpx/s")


def _tiles_of(chunk: Chunk) -> int:
    rows, cols = chunk.tile_rows, chunk.tile_cols
    return (rows[1] - rows[0]) * (cols[1] - cols[0])
