"""Whether a map is right as often as it says, over all labelled pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geodinoseg import open_class_raster
from geodinoseg.evaluation.calibration import reliability
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.windows import Window

BINS = 20
"""Of confidence, each 5 percent wide."""
_NODATA = 255


def map_reliability(map_path: Path, labels: Path, options: LabelOptions) -> dict[str, Any]:
    """Confidence of a map against how often it is right.

    Args:
        map_path: class raster, with `<stem>_confidence.tif` beside it.
        labels: of the land it shows.
        options: how they are read.

    Returns:
        ece; per bin that holds pixels: pixels, confidence (mean, 0 to 1), right (share).
    """
    raster = open_class_raster(map_path)
    known = open_labels(labels, raster.geobox, options=options, legend=raster.legend)
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
    """The reliability of pixels (n,) whose confidence is 0 to 1, of the bins that hold any."""
    found = reliability(confidence, right, bins=BINS)
    held = found.count > 0
    return {
        "ece": found.ece,
        "pixels": found.count[held].tolist(),
        "confidence": found.confidence[held].tolist(),
        "right": found.accuracy[held].tolist(),
    }
