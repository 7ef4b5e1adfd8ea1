"""Calibration of a confidence: accuracy by bins of confidence.

Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", ICML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Of confidence, of equal width: 0 to below 10 percent, and so on; the last includes 100."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """Accuracy by confidence: bin i of n holds confidences from i / n to below (i + 1) / n."""

    count: NDArray[np.int64]
    """(bins,) predictions."""
    confidence: NDArray[np.float64]
    """(bins,) their mean confidence, 0 to 1; NaN in an empty bin."""
    accuracy: NDArray[np.float64]
    """(bins,) fraction of them that is correct; NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|; NaN without predictions.

        Naeini et al. (2015), Obtaining well calibrated probabilities using Bayesian binning.
        """
        full = self.count > 0
        if not full.any():
            return math.nan
        gap = np.abs(self.accuracy[full] - self.confidence[full])
        return float(np.average(gap, weights=self.count[full]))

    def to_json(self) -> dict[str, Any]:
        """Plain values; None where there is no prediction."""
        return {
            "expected_calibration_error": None if math.isnan(self.ece) else self.ece,
            "count": self.count.tolist(),
            "confidence": [None if math.isnan(v) else v for v in self.confidence.tolist()],
            "accuracy": [None if math.isnan(v) else v for v in self.accuracy.tolist()],
        }


def reliability(confidence: NDArray[Any], right: NDArray[Any], *, bins: int = BINS) -> Reliability:
    """Sort predictions into bins by their confidence.

    Args:
        confidence: any shape, probability of the predicted class, 0 to 1.
        right: of the same shape, True where the predicted class is the label.
        bins: of equal width.
    """
    predicted = np.asarray(confidence, dtype=np.float64).ravel()
    hit = np.asarray(right, dtype=np.float64).ravel()
    if predicted.shape != hit.shape or bins < 1:
        raise ValueError(f"{predicted.shape} confidences, {hit.shape} outcomes, {bins} bins.")
    bin_of = np.clip((predicted * bins).astype(np.int64), 0, bins - 1)
    return _reliability_of_sums(
        np.bincount(bin_of, minlength=bins),
        np.bincount(bin_of, weights=predicted, minlength=bins),
        np.bincount(bin_of, weights=hit, minlength=bins),
    )


def _reliability_of_sums(
    count: NDArray[Any], confidence: NDArray[Any], right: NDArray[Any]
) -> Reliability:
    """From sums by bin, (bins,): predictions, their confidences, and correct predictions."""
    full = np.where(count > 0, count, np.nan)
    return Reliability(
        count=count.astype(np.int64), confidence=confidence / full, accuracy=right / full
    )


_PERCENTS = 101


@dataclass(frozen=True, eq=False, kw_only=True)
class ConfidenceCounts:
    """Compared pixels by their confidence in percent."""

    pixels: NDArray[np.int64]
    """(101,) pixels of each confidence, 0 to 100 percent."""
    right: NDArray[np.int64]
    """(101,) those of them that are correct."""

    def __add__(self, other: ConfidenceCounts) -> ConfidenceCounts:
        return ConfidenceCounts(pixels=self.pixels + other.pixels, right=self.right + other.right)

    def reliability(self) -> Reliability:
        """Accuracy by confidence, in ten bins."""
        percents = np.arange(_PERCENTS, dtype=np.int64)
        bins = (percents * BINS // 100).clip(max=BINS - 1)
        sums = [
            np.bincount(bins, weights=values, minlength=BINS)
            for values in (self.pixels, self.pixels * percents / 100, self.right)
        ]
        return _reliability_of_sums(*sums)


def count_confidence(percent: NDArray[Any], right: NDArray[np.bool_]) -> ConfidenceCounts:
    """Count pixels by their confidence.

    Args:
        percent: (pixels,) 0 to 100; other values are not counted.
        right: (pixels,) whether the map is correct there.
    """
    known = percent < _PERCENTS
    return ConfidenceCounts(
        pixels=np.bincount(percent[known], minlength=_PERCENTS),
        right=np.bincount(percent[known & right], minlength=_PERCENTS),
    )
