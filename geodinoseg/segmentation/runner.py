"""From chunks to parts: runs of chunks segmented, with smaller pieces where memory is short."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from geodinoseg.errors import DeviceMemoryError
from geodinoseg.model.devices import FittingBatches, give_memory_back, is_out_of_memory
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.block_rows import BLOCK_PX
from geodinoseg.rasters.map_writer import ClassRows
from geodinoseg.rasters.scene_fingerprint import SceneWatch
from geodinoseg.segmentation.inference import TileProgress, class_rows
from geodinoseg.segmentation.input_checks import CollarWatch
from geodinoseg.segmentation.memory import return_freed_memory
from geodinoseg.segmentation.parts.run import Parts
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.tile_grid import Chunk, first_run, union_of_cores
from geodinoseg.windows import windows_over

logger = logging.getLogger(__name__)


class ChunkSegmenter:
    """Writes the parts of chunks, and keeps what it learned of the memory for later chunks.

    Where memory is short it takes smaller batches, then narrower panels.
    """

    def __init__(
        self, plan: Plan, model: TileModel, tiles: TileProgress, watch: SceneWatch
    ) -> None:
        self._plan = plan
        self._model = model
        self._tiles = tiles
        self._watch = watch
        self._batches = FittingBatches(plan.batch_size)
        self._panel_px = max(chunk.core.width for chunk in plan.chunks)
        self._collar = CollarWatch(plan.scene)

    def write(self, chunks: Sequence[Chunk], parts: Parts) -> None:
        """Segment chunks and write their parts, each as soon as it is whole.

        Chunks that follow each other down a panel are gone through as one, so that no tile row is
        computed twice.
        """
        left = list(chunks)
        while left:
            run = first_run(left)
            try:
                for _ in self._written(run, parts):
                    left.pop(0)
                # Panel after panel, what each leaves would add up.
                return_freed_memory()
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
                    self._watch.check()
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
            tiles=self._tiles,
            collar=self._collar,
        )

    def _narrow(self, width: int, error: BaseException) -> None:
        """Halve the panels, in whole blocks."""
        now = min(width, self._panel_px)
        if now <= BLOCK_PX:
            raise DeviceMemoryError(
                f"memory does not hold one tile of {self._plan.grid.tile_px} px and a panel of "
                f"{now} columns; give smaller tiles (--tile), another device, or a smaller "
                f"backbone, or close other programs."
            ) from error
        self._panel_px = -(-now // 2 // BLOCK_PX) * BLOCK_PX
        logger.warning(
            "memory does not hold a panel of %d columns; continuing with %d. The last digits of "
            "probabilities may differ from a run that fits.",
            now,
            self._panel_px,
        )


def _cut_at_ends(rows: ClassRows, run: Sequence[Chunk]) -> Iterator[ClassRows]:
    for chunk in run:
        inside = rows.window.intersection(chunk.core)
        if inside is not None:
            yield rows if inside == rows.window else rows.cropped(inside)
