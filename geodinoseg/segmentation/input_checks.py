"""Warnings about a scene whose values, resolution or size differ from those of the training.

They concern other units or scales; a brighter day or another landscape gives no warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.shifted_values import shifted_values
from geodinoseg.windows import Window

logger = logging.getLogger(__name__)

_CELLS_PER_SIDE, _WINDOW_PX = 5, 64
"""The scene is divided into cells; each window is at a random position in its cell."""
_MOST_BYTES = 256 << 20
"""Limit of the blocks to decode; fewer windows are read from a file with very large blocks."""
_FEWEST_PIXELS = 100
_PERCENTILES = (2.0, 50.0, 98.0)
_FAR = 1.0
"""Training ranges by which the median may lie outside; a scene twice as bright is within."""
_SQUEEZED = 1 / 6
"""Fraction of the training range: bands outside it that vary less have another scale."""
_DIM = 1 / 8
"""Fraction of the training's upper percentile, in all bands; 8 bit instead of 12 bit is 1/16."""
_SCALE_TOLERANCE = 4.0
_REFLECTANCE_SCALE = 10_000.0
_MOST_BANDS_TO_REORDER = 5
_WARN_RESOLUTION = 1.5


def warn_of_input(plan: Plan, model: TileModel, settings: SegmentationSettings) -> None:
    """Warn if dtype, resolution or values of a scene differ from those of a model's training.

    Also if an overlap of tiles was given, and there is one tile.

    Args:
        plan: its scene has the bands in the model's order.
        model: models without statistics or resolution are not compared.
        settings: a resolution in them replaces that of the scene.
    """
    scene = plan.scene
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    if statistics is not None and str(scene.dtype) != statistics.dtype:
        logger.warning(
            "%s: has pixels of type %s, but the model was trained on %s; unless the values have "
            "the same scale, the map will be wrong.",
            scene.source.name,
            scene.dtype,
            statistics.dtype,
        )
    _warn_of_resolution(scene, getattr(model, "pixel_size_m", None), settings)
    warn_of_far_values(scene, model)
    _warn_of_unused_overlap(plan, settings)


def _warn_of_unused_overlap(plan: Plan, settings: SegmentationSettings) -> None:
    if settings.overlap_px and len(plan.grid) == 1:
        logger.warning(
            "%s: --overlap has no effect, because the scene lies within one tile of %d px.",
            plan.scene.source.name,
            plan.grid.tile_px,
        )


def _warn_of_resolution(
    scene: Scene, trained_m: float | None, settings: SegmentationSettings
) -> None:
    if trained_m is None:
        if settings.resolution_m is not None:
            logger.warning(
                "%s: --resolution has no effect, because the model does not record the ground "
                "resolution of its training; tiles are not resampled.",
                scene.source.name,
            )
        return
    pixel_size_m = settings.resolution_m or scene.geobox.pixel_size_m
    if pixel_size_m is None:
        logger.warning(
            "%s: has no CRS that defines its ground resolution; assuming the model's own, "
            "%.3g m per pixel. Give --resolution if it differs.",
            scene.source.name,
            trained_m,
        )
    elif max(pixel_size_m / trained_m, trained_m / pixel_size_m) > _WARN_RESOLUTION:
        logger.warning(
            "%s: has %.3g m per pixel on the ground, but the model was trained at %.3g m; tiles "
            "are resampled, check the map carefully.",
            scene.source.name,
            pixel_size_m,
            trained_m,
        )


def warn_of_far_values(scene: Scene, model: TileModel) -> None:
    """Warn in one line if a scene's values are far outside the range of a model's training.

    Reads a few small windows, and ignores blocks that cannot be read.

    Args:
        scene: with the bands in the model's order.
        model: models without statistics are not compared.
    """
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    if statistics is None or len(statistics.low) != len(scene.bands):
        return
    values, dtype = sampled_values(scene), str(scene.dtype)
    message = far_values(values, statistics, dtype=dtype)
    if message is None and values.shape[1] >= _FEWEST_PIXELS:
        message = shifted_values(values, statistics, dtype=dtype)
    if message is not None:
        logger.warning("%s: %s", scene.path, message)


def sampled_values(scene: Scene, *, seed: int = 0) -> NDArray[np.float64]:
    """Valid pixels (bands, pixels) of at most 25 small windows spread over a scene.

    There are none if nothing valid can be read. The seed determines the positions of the windows.
    """
    nothing = np.zeros((len(scene.bands), 0), dtype=np.float64)
    samples = (pixels[:, valid].astype(np.float64) for pixels, valid in _samples(scene, seed))
    return np.concatenate([nothing, *samples], axis=1)


def has_valid_pixels(scene: Scene) -> bool:
    """Whether the windows of `sampled_values` hold any, reading no more of them than needed."""
    return any(valid.any() for _, valid in _samples(scene, 0))


def _samples(scene: Scene, seed: int) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """The windows that can be read, as the reader of the scene returns them."""
    try:
        with scene.reader() as reader:
            for window in _windows(scene, np.random.default_rng(seed)):
                try:
                    read = reader.read(window)
                except SceneError:
                    continue
                yield read
    except SceneError:
        pass


def far_values(
    values: NDArray[np.float64], statistics: BandStatistics, *, dtype: str
) -> str | None:
    """Why the values of a scene do not fit a model, and what to do; None if they fit.

    A band does not fit if its median lies outside the training range by more than that range, or if
    it has one value, outside the training range. All bands do not fit if each has its median
    outside and varies less than a sixth of the range, or if none is an eighth as bright as in
    training.

    Args:
        values: (bands, pixels) of the scene.
        statistics: statistics of the training data.
        dtype: dtype of the scene.
    """
    if values.shape[1] < _FEWEST_PIXELS:
        return None
    found = np.percentile(values, _PERCENTILES, axis=1)
    low, high = np.array(statistics.low), np.array(statistics.high)
    far = _is_far(found, low, high)
    if not far.any():
        return None
    first = int(np.flatnonzero(far)[0])
    return (
        f"{_bands_text(far)} values far from those that the model was trained on (band "
        f"{first + 1}: {found[0, first]:.4g} to {found[2, first]:.4g} here, {low[first]:.4g} to "
        f"{high[first]:.4g} in training), so the map will be wrong; "
        f"{_advice(found, statistics, dtype)}."
    )


def _windows(scene: Scene, rng: np.random.Generator) -> Iterator[Window]:
    width, height = min(_WINDOW_PX, scene.geobox.width), min(_WINDOW_PX, scene.geobox.height)
    cells = _CELLS_PER_SIDE**2
    order = rng.permutation(cells)
    positions = rng.random((cells, 2))
    for cell in order[: max(1, min(cells, _MOST_BYTES // _decoded_bytes(scene)))].tolist():
        row, col = divmod(cell, _CELLS_PER_SIDE)
        down, across = (np.array((row, col)) + positions[cell]) / _CELLS_PER_SIDE
        yield Window(
            col_off=int(across * (scene.geobox.width - width)),
            row_off=int(down * (scene.geobox.height - height)),
            width=width,
            height=height,
        )


def _decoded_bytes(scene: Scene) -> int:
    """Minimum size of the blocks that a window intersects."""
    rows, cols = (max(side, _WINDOW_PX) for side in scene.block_shape)
    return rows * cols * len(scene.bands) * scene.dtype.itemsize


def _is_far(
    found: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(bands,), from percentiles (3, bands) and the training's low and high (bands,)."""
    dark, middle, bright = found
    length = high - low
    known = length > 0  # a band constant in training always becomes 0
    far = (middle < low - _FAR * length) | (middle > high + _FAR * length)
    # Water is darker than land in one or two bands; another scale affects all.
    outside = (middle < low) | (middle > high)
    flat = outside & (dark == bright)
    squeezed = (outside & (bright - dark < _SQUEEZED * length))[known].all()
    measured = known & (low >= 0) & (high > 0)
    dim = measured.any() and (bright[measured] < _DIM * high[measured]).all()
    return np.asarray(known & (far | flat | bool(squeezed or dim)))


def _bands_text(far: NDArray[np.bool_]) -> str:
    if far.all() and len(far) > 1:
        return "all bands hold"
    numbers = [str(band + 1) for band in np.flatnonzero(far)]
    return f"band {numbers[0]} holds" if len(numbers) == 1 else f"bands {', '.join(numbers)} hold"


def _advice(found: NDArray[np.float64], statistics: BandStatistics, dtype: str) -> str:
    low, high = np.array(statistics.low), np.array(statistics.high)
    if _order_fits(found, low, high):
        return "the bands may be in another order, choose them with --bands"
    positive = (high > 0) & (found[2] > 0)
    ratio = float(np.median(found[2, positive] / high[positive])) if positive.any() else 1.0
    for scale, here, there in (
        (_REFLECTANCE_SCALE, "reflectance times 10,000", "0 to 1"),
        (1 / _REFLECTANCE_SCALE, "reflectance of 0 to 1", "reflectance times 10,000"),
    ):
        if scale / _SCALE_TOLERANCE < ratio < scale * _SCALE_TOLERANCE:
            return f"they look like {here}, but the model expects {there}; rescale the scene first"
    if "uint8" in {dtype, statistics.dtype} and dtype != statistics.dtype:
        return (
            f"the scene has {dtype}, but the model was trained on {statistics.dtype}; use the "
            f"product in the units of the training data, not one stretched for display"
        )
    return "convert the scene to the units of the training scenes, or train on such scenes"


def _order_fits(
    found: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> bool:
    """Whether all medians are within the training ranges in another order of the bands."""
    bands = len(low)
    if not 1 < bands <= _MOST_BANDS_TO_REORDER:
        return False

    def fits(order: tuple[Any, ...]) -> bool:
        middle = found[1, list(order)]
        return bool(((low <= middle) & (middle <= high)).all())

    first, *others = permutations(range(bands))
    return not fits(first) and any(fits(order) for order in others)
