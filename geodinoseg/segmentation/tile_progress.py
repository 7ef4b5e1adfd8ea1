"""Progress of a segmentation, counted in tiles."""

from __future__ import annotations

import time
from collections.abc import Iterable

from geodinoseg.progress import Progress
from geodinoseg.segmentation.tile_grid import Chunk


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
