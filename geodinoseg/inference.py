"""From tile rows to parts: the network over the tiles of chunks, blended and decided."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodinoseg.class_rasters.block_rows import BLOCK_PX
from geodinoseg.class_rasters.class_rows import PERCENT_NODATA, PROBABILITY_STEPS, ClassRows
from geodinoseg.collar import CollarWatch
from geodinoseg.devices import FittingBatches, give_memory_back, is_out_of_memory, to_device
from geodinoseg.errors import DeviceMemoryError, ModelError
from geodinoseg.grid import Window, windows_over
from geodinoseg.stitcher import Stitcher, most_probable
from geodinoseg.tile_rows import TileRow, read_ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.grid import Chunk
    from geodinoseg.parts import Parts
    from geodinoseg.plan import Plan
    from geodinoseg.progress import Progress
    from geodinoseg.tile_model import TileModel

logger = logging.getLogger(__name__)

_DECIDED_AT_ONCE_PX = 1 << 20
"""Pixels times classes whose probabilities are rounded together."""


class ChunkSegmenter:
    """Writes the parts of chunks; what it learned of the memory, it keeps for the chunks to come.

    Where memory is short it takes smaller batches, then narrower panels.
    """

    def __init__(self, plan: Plan, model: TileModel, told: TileProgress) -> None:
        self._plan = plan
        self._model = model
        self._told = told
        self._batches = FittingBatches(plan.batch_size)
        self._panel_px = max(chunk.core.width for chunk in plan.chunks)
        self._collar = CollarWatch(plan.scene)

    def write(self, chunks: Sequence[Chunk], parts: Parts) -> None:
        """Segment chunks and write their parts, each as soon as it is whole.

        Chunks that follow each other down a panel are gone through as one, so that no tile row is
        computed twice.

        Raises:
            DeviceMemoryError: memory holds not even one tile and the narrowest panel.
            GeodinosegError: a block cannot be read, or a part not be written.
        """
        left = list(chunks)
        while left:
            run = first_run(left)
            try:
                for _ in self._written(run, parts):
                    left.pop(0)
                continue
            except (RuntimeError, MemoryError, DeviceMemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._narrow(run[0].core.width, error)
            # Outside the handler: the error would keep the failed attempt's tensors alive.
            give_memory_back(self._model.device)

    def _written(self, run: Sequence[Chunk], parts: Parts) -> Iterator[Chunk]:
        """Yields each chunk after its part was written."""
        if run[0].core.width <= self._panel_px:
            yield from self._written_at_once(run, parts)
            return
        for chunk in run:
            yield from self._written_at_once([chunk], parts)

    def _written_at_once(self, run: Sequence[Chunk], parts: Parts) -> Iterator[Chunk]:
        with closing(self._pieces(run)) as pieces:
            for chunk in run:
                with parts.write(chunk) as part:
                    while not part.is_complete:
                        part.write(next(pieces))
                    part.remark("collar", self._collar.taken())
                yield chunk

    def _pieces(self, run: Sequence[Chunk]) -> Generator[ClassRows, None, None]:
        """The class rows of chunks one below the other; none reaches over a chunk's end."""
        whole = union_of_cores(run)
        for panel in windows_over(
            height=whole.height, width=whole.width, rows=whole.height, cols=self._panel_px
        ):
            core = panel.shifted_by(rows=whole.row_off, cols=whole.col_off)
            chunk = self._plan.grid.chunk_over(core, index=run[0].index)
            with closing(self._class_rows(chunk)) as finished:
                for rows in finished:
                    yield from _cut_at_ends(rows, run)

    def _class_rows(self, chunk: Chunk) -> Generator[ClassRows, None, None]:
        return class_rows(
            self._plan,
            self._model,
            chunk,
            batches=self._batches,
            told=self._told,
            collar=self._collar,
        )

    def _narrow(self, width: int, error: BaseException) -> None:
        """Halve the panels, in whole blocks.

        Raises:
            DeviceMemoryError: they are as narrow as they can be.
        """
        now = min(width, self._panel_px)
        if now <= BLOCK_PX:
            raise DeviceMemoryError(
                f"memory does not hold one tile of {self._plan.grid.tile_px} px and a panel of "
                f"{now} columns; give smaller tiles (--tile), another device, or a smaller "
                f"backbone, or close other programs."
            ) from error
        self._panel_px = -(-now // 2 // BLOCK_PX) * BLOCK_PX
        logger.warning(
            "memory does not hold a panel of %d columns; going on with %d. The last digits of "
            "probabilities may differ from a run that fits.",
            now,
            self._panel_px,
        )


def class_rows(
    plan: Plan,
    model: TileModel,
    chunk: Chunk,
    *,
    batches: FittingBatches,
    told: TileProgress,
    collar: CollarWatch,
) -> Generator[ClassRows, None, None]:
    """The class rows of one chunk, top to bottom.

    Raises:
        SceneError: a block cannot be read.
        ModelError: the network gives no numbers, or something else than probabilities.
        DeviceMemoryError: memory does not hold one tile.
    """
    stitcher = Stitcher(plan.grid, chunk, classes=len(plan.legend), device=model.device)
    read_rows = plan.memory.read_rows(chunk.halo.width)
    with closing(read_ahead(plan.scene, plan.grid, chunk, read_rows=read_rows)) as tile_rows:
        for tile_row in tile_rows:
            collar.look(tile_row.pixels)
            stitcher.start_row(tile_row.index)
            for tile_cols, pixels, valid in _batches(plan, chunk, tile_row, model.device):
                stitcher.add(tile_cols, _probabilities(model, pixels, valid, batches))
                told.segmented(len(tile_cols))
            told.row_done(chunk)
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


class TileProgress:
    """Counts tiles, and tells the share that is done with a rate."""

    def __init__(self, chunks: Iterable[Chunk], progress: Progress, *, found: int = 0) -> None:
        """Begin to count.

        Args:
            chunks: still to be done.
            progress: is told, from 0 to 1.
            found: pixels that were done before.
        """
        chunks = tuple(chunks)
        self._progress = progress
        self._done = self._in_row = 0
        pixels = sum(chunk.core.width * chunk.core.height for chunk in chunks)
        self._total = sum(map(_tiles_of, chunks))
        self._found_share = found / max(found + pixels, 1)
        self._mpx_per_tile = pixels / max(self._total, 1) / 1e6
        self._share = 0.0
        self._began = time.monotonic()

    def segmented(self, count: int) -> None:
        """A batch went through the network."""
        self._in_row += count
        self._tell()

    def row_done(self, chunk: Chunk) -> None:
        """All tiles of a row are done, those without data too."""
        self._done += chunk.tile_cols[1] - chunk.tile_cols[0]
        self._in_row = 0
        self._tell()

    def _tell(self) -> None:
        done = self._done + self._in_row
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = done * self._mpx_per_tile / seconds
        # Tiles that are done again, after memory was full, do not turn it back.
        self._share = max(self._share, min(done / max(self._total, 1), 1.0))
        share = self._found_share + (1 - self._found_share) * self._share
        self._progress(share, f"{rate:.2f} Mpx/s")


def first_run(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The first chunks that follow each other down one panel without a gap."""
    run = [chunks[0]]
    for chunk in chunks[1:]:
        above, below = run[-1].core, chunk.core
        if (above.col_off, above.width, above.row_end) != (
            below.col_off, below.width, below.row_off
        ):  # fmt: skip
            break
        run.append(chunk)
    return run


def union_of_cores(run: Sequence[Chunk]) -> Window:
    """The window of chunks that follow each other down a panel."""
    first, last = run[0].core, run[-1].core
    return dataclasses.replace(first, height=last.row_end - first.row_off)


def _cut_at_ends(rows: ClassRows, run: Sequence[Chunk]) -> Iterator[ClassRows]:
    for chunk in run:
        inside = rows.window.intersection(chunk.core)
        if inside is not None:
            yield rows.cropped(inside)


def _tiles_of(chunk: Chunk) -> int:
    rows, cols = chunk.tile_rows, chunk.tile_cols
    return (rows[1] - rows[0]) * (cols[1] - cols[0])


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
    expected = (len(pixels), len(model.legend), *pixels.shape[-2:])
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
    """A network that fails must not pass for class 0.

    Raises:
        ModelError: the best probability of a valid pixel is not a number.
    """
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
