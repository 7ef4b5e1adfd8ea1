"""Warnings about a scene: values unlike those of the training, and collars that nothing marks.

A model is not right in other units. A brighter day or other land is no reason to warn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.windows import Window

logger = logging.getLogger(__name__)

_PLACES_A_SIDE, _WINDOW_PX = 5, 64
"""Windows lie in a grid of cells, each at a random place in its cell."""
_MOST_BYTES = 256 << 20
"""Of blocks to decode; fewer windows are read of a file with giant blocks."""
_FEWEST_PIXELS = 100
_PERCENTILES = (2.0, 50.0, 98.0)
_FAR = 1.0
"""Training ranges that the middle value may lie outside the range; twice as bright stays within."""
_SQUEEZED = 1 / 6
"""Of a training range: all bands that vary less, beside the range, are on another scale."""
_DIM = 1 / 8
"""Of the training's bright end, in all bands: 8 bit where 12 bit were learnt are 1 / 16."""
_SCALE_TOLERANCE = 4.0
_REFLECTANCE_SCALE = 10_000.0
_MOST_BANDS_TO_REORDER = 5
_WARN_RESOLUTION = 1.5


def warn_of_input(scene: Scene, model: TileModel, settings: SegmentationSettings) -> None:
    """Warn where type, resolution or values of a scene are unlike those of a model's training.

    Args:
        scene: with the bands in the model's order.
        model: any; only one that knows its statistics and resolution is compared.
        settings: a resolution in them takes the place of the scene's.
    """
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    if statistics is not None and str(scene.dtype) != statistics.dtype:
        logger.warning(
            "%s: has pixels of type %s, the model was trained on %s; where the values are not on "
            "the same scale the map is worthless.",
            scene.source.name,
            scene.dtype,
            statistics.dtype,
        )
    _warn_of_resolution(scene, getattr(model, "pixel_size_m", None), settings)
    warn_of_far_values(scene, model)


def _warn_of_resolution(
    scene: Scene, trained_m: float | None, settings: SegmentationSettings
) -> None:
    if trained_m is None:
        return
    pixel_size_m = settings.resolution_m or scene.geobox.pixel_size_m
    if pixel_size_m is None:
        logger.warning(
            "%s: has no CRS that tells its ground resolution; it is taken for the model's own, "
            "%.3g m per pixel. Give --resolution if it is another.",
            scene.source.name,
            trained_m,
        )
    elif max(pixel_size_m / trained_m, trained_m / pixel_size_m) > _WARN_RESOLUTION:
        logger.warning(
            "%s: has %.3g m per pixel on the ground, the model was trained at %.3g m; tiles are "
            "resampled, but look at the map with care.",
            scene.source.name,
            pixel_size_m,
            trained_m,
        )


def warn_of_far_values(scene: Scene, model: TileModel) -> None:
    """Say so in one line where a scene's values lie far outside those of a model's training.

    Reads a few small windows. What cannot be read is not said here: whoever needs it will say so.

    Args:
        scene: with the bands in the model's order.
        model: any; only one that knows its statistics is looked at.
    """
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    if statistics is None or len(statistics.low) != len(scene.bands):
        return
    message = far_values(sampled_values(scene), statistics, dtype=str(scene.dtype))
    if message is not None:
        logger.warning("%s: %s", scene.path, message)


def sampled_values(scene: Scene, *, seed: int = 0) -> NDArray[np.float64]:
    """Valid pixels of small windows that are spread over a scene.

    Args:
        scene: any size; one block of the file is decoded for each of at most 25 windows.
        seed: of the places.

    Returns:
        (bands, pixels); no pixel where nothing valid could be read.
    """
    taken = [np.zeros((len(scene.bands), 0), dtype=np.float64)]
    try:
        with scene.reader() as reader:
            for window in _windows(scene, np.random.default_rng(seed)):
                try:
                    pixels, valid = reader.read(window)
                except SceneError:
                    continue
                taken.append(pixels[:, valid].astype(np.float64))
    except SceneError:
        pass
    return np.concatenate(taken, axis=1)


def far_values(
    values: NDArray[np.float64], statistics: BandStatistics, *, dtype: str
) -> str | None:
    """What is wrong with the values of a scene for a model, and what to do; None where nothing is.

    A band is far off where its middle value lies more than a training range outside the range.
    All bands are where each has its middle value outside and varies less than a sixth of the
    range, or where none is an eighth as bright as in training.

    Args:
        values: (bands, pixels) of the scene.
        statistics: of the training.
        dtype: of the scene's pixels.
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
    cells = _PLACES_A_SIDE**2
    order = rng.permutation(cells)
    places = rng.random((cells, 2))
    for cell in order[: max(1, min(cells, _MOST_BYTES // _decoded_bytes(scene)))].tolist():
        row, col = divmod(cell, _PLACES_A_SIDE)
        down, across = (np.array((row, col)) + places[cell]) / _PLACES_A_SIDE
        yield Window(
            col_off=int(across * (scene.geobox.width - width)),
            row_off=int(down * (scene.geobox.height - height)),
            width=width,
            height=height,
        )


def _decoded_bytes(scene: Scene) -> int:
    """Of the blocks that a window touches, at the least."""
    rows, cols = (max(side, _WINDOW_PX) for side in scene.block_shape)
    return rows * cols * len(scene.bands) * scene.dtype.itemsize


def _is_far(
    found: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(bands,), from percentiles (3, bands) and the training's low and high (bands,)."""
    dark, middle, bright = found
    length = high - low
    known = length > 0  # a band that was constant in training goes in as 0 whatever it holds
    far = (middle < low - _FAR * length) | (middle > high + _FAR * length)
    # Water alone is darker than any land in one band or two; another scale shows in all.
    beside = (middle < low) | (middle > high)
    squeezed = (beside & (bright - dark < _SQUEEZED * length))[known].all()
    measured = known & (low >= 0) & (high > 0)
    dim = measured.any() and (bright[measured] < _DIM * high[measured]).all()
    return np.asarray(known & (far | bool(squeezed or dim)))


def _bands_text(far: NDArray[np.bool_]) -> str:
    if far.all() and len(far) > 1:
        return "all bands hold"
    numbers = [str(band + 1) for band in np.flatnonzero(far)]
    return f"band {numbers[0]} holds" if len(numbers) == 1 else f"bands {', '.join(numbers)} hold"


def _advice(found: NDArray[np.float64], statistics: BandStatistics, dtype: str) -> str:
    low, high = np.array(statistics.low), np.array(statistics.high)
    if _order_fits(found, low, high):
        return "its bands may be in another order, choose them with --bands"
    positive = (high > 0) & (found[2] > 0)
    ratio = float(np.median(found[2, positive] / high[positive])) if positive.any() else 1.0
    for scale, here, there in (
        (_REFLECTANCE_SCALE, "reflectance times 10,000", "0 to 1"),
        (1 / _REFLECTANCE_SCALE, "reflectance of 0 to 1", "reflectance times 10,000"),
    ):
        if scale / _SCALE_TOLERANCE < ratio < scale * _SCALE_TOLERANCE:
            return f"it looks like {here} and the model takes {there}, so rescale it first"
    if "uint8" in {dtype, statistics.dtype} and dtype != statistics.dtype:
        return (
            f"the scene has {dtype} and the model was trained on {statistics.dtype}, so give the "
            f"product in the units of the training, not one stretched for viewing"
        )
    return "bring it to the units of the training scenes, or train on such scenes"


def _order_fits(
    found: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> bool:
    """Whether every middle value lies within the training range of some other order of bands."""
    bands = len(low)
    if not 1 < bands <= _MOST_BANDS_TO_REORDER:
        return False

    def fits(order: tuple[Any, ...]) -> bool:
        middle = found[1, list(order)]
        return bool(((low <= middle) & (middle <= high)).all())

    first, *others = permutations(range(bands))
    return not fits(first) and any(fits(order) for order in others)


_OPAQUE = (255, 65_535)
"""Of transparency in 8 and in 16 bit; 0 is transparent."""


def warn_of_untagged_alpha(scene: Scene) -> None:
    """Say so where the last band of a scene looks like transparency and is read as measured values.

    That is where it holds nothing but 0 and 255. Reads a few small windows. For bands that nobody
    chose; who names such a band wants it.
    """
    if len(scene.bands) < 2 or scene.dtype.kind not in "ui":
        return
    values = set(np.unique(sampled_values(scene)[-1]).tolist())
    opaque = next((value for value in _OPAQUE if value in values), None)
    if opaque is None or not values <= {0, opaque}:
        return
    band, others = scene.bands[-1], ",".join(map(str, scene.bands[:-1]))
    logger.warning(
        "%s: band %d holds %s, as transparency does, and nothing in the file says that it is: it "
        "is read as measured values, and what it masks counts as data. If it is transparency, tag "
        "it (gdal_edit.py -colorinterp_%d alpha FILE), or leave it out with --bands %s and mask "
        "what is missing with --nodata.",
        scene.source.name,
        band,
        f"only 0 and {opaque}" if 0 in values else f"only {opaque}",
        band,
        others,
    )


_STEP_PX = 16  # a sample of rows and columns costs nothing and finds any collar worth a word
_WORTH_A_WORD = 0.02


def collar_values(scene: Scene) -> tuple[int, ...]:
    """Values that look empty where all bands of a pixel have one: 0 and the largest.

    None of a scene that says which pixels are missing. In one or two bands such values are
    ordinary; in floating point nothing is suspicious.
    """
    is_watched = not scene.validity and scene.dtype.kind in "ui" and len(scene.bands) >= 3
    return (0, int(np.iinfo(scene.dtype).max)) if is_watched else ()


def is_worth_a_word(pixels: float, of: float) -> bool:
    """Whether so many pixels that look empty are too many to be shade or glint."""
    return pixels > 0 and pixels >= _WORTH_A_WORD * of


class CollarWatch:
    """Counts pixels that are 0, or the largest value, in every band of a scene without nodata."""

    def __init__(self, scene: Scene) -> None:
        self._path = scene.source.name
        self._values = collar_values(scene)
        self._counts = dict.fromkeys(self._values, 0)
        self._seen = 0

    def look(self, pixels: NDArray[Any]) -> None:
        """Look at a sample of pixels, (bands, height, width)."""
        if not self._values:
            return
        sample = pixels[:, ::_STEP_PX, ::_STEP_PX]
        self._seen += sample[0].size
        for value in self._values:
            self._counts[value] += int((sample == value).all(axis=0).sum())

    def taken(self) -> dict[str, Any]:
        """What was counted since it was last taken, as plain JSON."""
        taken = {"seen": self._seen, "counts": [self._counts[value] for value in self._values]}
        self._seen, self._counts = 0, dict.fromkeys(self._values, 0)
        return taken

    def add(self, taken: Mapping[str, Any]) -> None:
        """Count what another watch of the same scene has taken."""
        self._seen += taken["seen"]
        for value, count in zip(self._values, taken["counts"], strict=True):
            self._counts[value] += count

    def warn(self) -> None:
        """Log a warning where a noticeable share of the pixels looked empty."""
        for value, count in self._counts.items():
            share = count / max(self._seen, 1)
            if is_worth_a_word(count, self._seen):
                logger.warning(
                    "%s: %.0f%% of the pixels are %d in every band, and nothing in the file says "
                    "that they are missing; if they are, run again with --nodata %d.",
                    self._path,
                    100 * share,
                    value,
                    value,
                )
