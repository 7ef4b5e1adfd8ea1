"""Segmentation: from a scene and a model to a class raster. The loop that is the product."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.class_rasters.class_rows import (
    PERCENT_NODATA,
    PROBABILITY_STEPS,
    ClassRows,
    class_raster_writer,
)
from geodinoseg.collar import CollarWatch
from geodinoseg.devices import in_halves_when_full, to_device
from geodinoseg.errors import ModelError, OutputError
from geodinoseg.outputs import check_output
from geodinoseg.plan import Plan, SegmentSettings, loaded_model, make_plan, plan_facts
from geodinoseg.progress import Progress, no_progress
from geodinoseg.scene import Scene, ScenePath, scene_path
from geodinoseg.stitcher import Stitcher, most_probable
from geodinoseg.tile_rows import TileRow, read_ahead
from geodinoseg.value_range import warn_of_far_values
from geodinoseg.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.grid import Chunk, Window
    from geodinoseg.tile_model import TileModel

logger = logging.getLogger(__name__)

_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files of one segmentation, checked to be writable."""

    class_raster: Path
    confidence: Path | None
    probabilities: Path | None


def segment_scene(
    scene: ScenePath | Scene,
    model: str | Path | TileModel,
    output: str | Path,
    *,
    confidence: bool | str | Path = False,
    probabilities: bool | str | Path = False,
    settings: SegmentSettings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ClassRaster:
    """Segment a scene of any size into a class raster on the scene's own grid.

    Args:
        scene: a raster, or an open rasterio dataset.
        model: a model folder, a loaded `Segmentor`, or any other `TileModel`.
        output: the class raster to write, a cloud-optimized GeoTIFF; its QGIS style and attribute
            table are written beside it.
        confidence: also write the winner's probability in percent, to a path, or to
            `<output>_confidence.tif` where True.
        probabilities: also write the probability of each class, to a path, or to
            `<output>_probabilities.tif` where True.
        settings: tiles, overlap, batches, bands.
        device: where a model folder is loaded: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace outputs that are there.
        progress: told the share of tiles done.

    Returns:
        The class raster on disk. Where the scene holds no data it is nodata.

    Raises:
        SceneError: the scene cannot be read, or does not fit the model.
        ModelFolderError: the model cannot be loaded.
        GridError: tile and overlap do not fit.
        DeviceError: the device is absent or too small.
        OutputError: the outputs cannot be written.
    """
    targets = check_outputs(scene, output, confidence, probabilities, overwrite=overwrite)
    settings = settings or SegmentSettings()
    loaded = loaded_model(model, settings, device=device)
    plan, loaded = make_plan(scene, loaded, settings)
    warn_of_far_values(plan.scene, loaded)
    told, collar = _TileProgress(plan, progress), CollarWatch(plan.scene)
    with class_raster_writer(
        targets.class_raster,
        plan.scene.geobox,
        plan.legend,
        confidence_path=targets.confidence,
        probabilities_path=targets.probabilities,
        tags=_tags(plan, model),
    ) as writer:
        for chunk in plan.chunks:
            with closing(
                segment_chunk(plan, loaded, chunk, outputs=targets, told=told, collar=collar)
            ) as finished:
                for rows in finished:
                    writer.write(rows)
        progress(0.97, "building overviews")
    if told.valid_tiles == 0:
        logger.warning("%s: holds no data at all; the map is nodata throughout.", plan.scene.path)
    collar.warn()
    progress(1.0, "done")
    return open_class_raster(targets.class_raster)


def segment_chunk(
    plan: Plan,
    model: TileModel,
    chunk: Chunk,
    *,
    outputs: Outputs,
    told: _TileProgress,
    collar: CollarWatch,
) -> Generator[ClassRows, None, None]:
    """The class rows of one chunk, top to bottom."""
    stitcher = Stitcher(plan.grid, chunk, classes=len(plan.legend), device=model.device)
    with closing(read_ahead(plan.scene, plan.grid, chunk)) as tile_rows:
        for tile_row in tile_rows:
            collar.look(tile_row.pixels)
            stitcher.start_row(tile_row.index)
            for tile_cols, pixels, valid in _batches(plan, chunk, tile_row, model.device):
                stitcher.add(tile_cols, _probabilities(model, pixels, valid))
                told.segmented(len(tile_cols))
            told.row_done(chunk)
            rows = stitcher.finished()
            if rows is not None:
                yield _decided(*rows, tile_row=tile_row, plan=plan, chunk=chunk, outputs=outputs)


def check_outputs(
    scene: Any,
    output: str | Path,
    confidence: bool | str | Path,
    probabilities: bool | str | Path,
    *,
    overwrite: bool,
) -> Outputs:
    """Where the outputs go; says before any work what stands in their way.

    Raises:
        OutputError: one cannot be written, is an input, or two are the same file.
    """
    inputs = [scene_path(scene)]
    main = check_output(output, overwrite=overwrite, suffixes=_SUFFIXES, inputs=inputs)
    chosen: dict[str, Path | None] = {}
    for what, wish in (("confidence", confidence), ("probabilities", probabilities)):
        if wish is False:
            chosen[what] = None
            continue
        path = main.with_name(f"{main.stem}_{what}.tif") if wish is True else Path(wish)
        if path.resolve() in {p.resolve() for p in (main, *chosen.values()) if p}:
            raise OutputError(f"{path}: two outputs cannot be one file; give another name.")
        chosen[what] = check_output(path, overwrite=overwrite, suffixes=_SUFFIXES, inputs=inputs)
    return Outputs(class_raster=main, **chosen)


class _TileProgress:
    """Counts tiles, and tells the share that is done with a rate."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.valid_tiles = 0
        self._done = self._in_row = 0
        self._progress = progress
        # Tiles over a panel's edge are seen by both panels.
        self._total = sum(_tiles_of(chunk) for chunk in plan.chunks)
        self._mpx_per_tile = plan.grid.height * plan.grid.width / self._total / 1e6
        self._began = time.monotonic()

    def segmented(self, count: int) -> None:
        """A batch went through the network."""
        self.valid_tiles += count
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
        share = min(done / self._total, 1.0)
        self._progress(0.95 * share, f"{rate:.2f} Mpx/s")


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
def _probabilities(model: TileModel, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(n, classes, T, T), no gradients; a batch that does not fit the device goes in halves."""
    result = in_halves_when_full(model.probabilities, pixels, valid, torch.cat)
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
    outputs: Outputs,
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
    if outputs.confidence:
        confidence = _in_steps(best_HW, 100)
        confidence[invalid] = PERCENT_NODATA
    if outputs.probabilities:
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
    """Shares of 1 as whole numbers of 1/steps, rounded."""
    rounded = (shares * steps + 0.5).clamp_(0, steps).to(torch.uint8)
    return np.asarray(rounded.cpu().numpy())


def _tags(plan: Plan, model: object) -> dict[str, str]:
    """What made the map, for whoever finds it later."""
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    return {
        "GEODINOSEG_VERSION": __version__,
        "GEODINOSEG_MODEL": name,
        "GEODINOSEG_SCENE": Path(plan.scene.path).name,
        "GEODINOSEG_PLAN": json.dumps(plan_facts(plan)),
    }
