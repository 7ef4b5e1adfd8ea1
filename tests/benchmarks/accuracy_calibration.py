"""Whether a map is right as often as it says: reliability and expected calibration error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from accuracy_data import how_read

from geodinoseg import open_class_raster
from geodinoseg.grid import Window
from geodinoseg.labels.label_set import open_labels
from geodinoseg.training.settings import LabelOptions

BINS = 20
"""Of confidence, each 5 percent wide."""
_NODATA = 255


def reliability(map_path: Path, labels: Path, options: LabelOptions) -> dict[str, Any]:
    """Confidence of a map against how often it is right, over all labelled pixels.

    The expected calibration error is sum_b n_b / n |right_b - confidence_b| over the bins b of
    confidence (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    Args:
        map_path: class raster, with `<stem>_confidence.tif` beside it.
        labels: of the land it shows.
        options: how they are read.

    Returns:
        ece; per bin that holds pixels: pixels, confidence (mean, 0 to 1), right (share).
    """
    raster = open_class_raster(map_path)
    known = open_labels(
        labels,
        raster.geobox,
        legend=raster.legend,
        **how_read(options),
    )
    everything = Window(col_off=0, row_off=0, width=raster.width, height=raster.height)
    reference = known.read(everything)
    with rasterio.open(map_path.with_name(f"{map_path.stem}_confidence.tif")) as source:
        percent = source.read(1)
    with rasterio.open(map_path) as source:
        class_ids = source.read(1)
    counted = (reference >= 0) & (percent != _NODATA)
    right = raster.legend.class_ids[reference[counted]] == class_ids[counted]
    return binned(percent[counted] / 100, right)


def binned(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The reliability of pixels (n,) whose confidence is 0 to 1."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    pixels = np.bincount(place, minlength=BINS)
    held = pixels > 0
    said = np.bincount(place, confidence, minlength=BINS)[held] / pixels[held]
    share = np.bincount(place, right, minlength=BINS)[held] / pixels[held]
    return {
        "ece": float((pixels[held] * np.abs(share - said)).sum() / pixels.sum()),
        "pixels": pixels[held].tolist(),
        "confidence": said.tolist(),
        "right": share.tolist(),
    }
