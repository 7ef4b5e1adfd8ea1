"""Whether a model is right as often as it says: accuracy by confidence.

Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", ICML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Of confidence: from 0 to below 10 percent, and so on; the last holds 100 percent too."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """How often a model is right, by how sure it says it is.

    Bin i of n holds confidences from i / n to (i + 1) / n, the last one 1 as well.
    """

    count: NDArray[np.int64]
    """(bins,) predictions."""
    confidence: NDArray[np.float64]
    """(bins,) their mean confidence, 0 to 1; NaN in an empty bin."""
    accuracy: NDArray[np.float64]
    """(bins,) share of them that is right; NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|, NaN without a prediction.

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
    """Count predictions and how many are right, by their confidence.

    Args:
        confidence: any shape, probability of the winner, 0 to 1.
        right: of the same shape, True where the winner is the label.
        bins: of equal width.

    Raises:
        ValueError: the shapes differ, or there is no bin.
    """
    sure = np.asarray(confidence, dtype=np.float64).ravel()
    hit = np.asarray(right, dtype=np.float64).ravel()
    if sure.shape != hit.shape or bins < 1:
        raise ValueError(f"{sure.shape} confidences, {hit.shape} outcomes, {bins} bins.")
    place = np.clip((sure * bins).astype(np.int64), 0, bins - 1)
    return reliability_of_sums(
        np.bincount(place, minlength=bins),
        np.bincount(place, weights=sure, minlength=bins),
        np.bincount(place, weights=hit, minlength=bins),
    )


def reliability_of_sums(
    count: NDArray[Any], confidence: NDArray[Any], right: NDArray[Any]
) -> Reliability:
    """From what was added up bin by bin.

    Args:
        count: (bins,) predictions.
        confidence: (bins,) sum of their confidence, each 0 to 1.
        right: (bins,) how many of them are right.
    """
    full = np.where(count > 0, count, np.nan)
    return Reliability(
        count=count.astype(np.int64), confidence=confidence / full, accuracy=right / full
    )


_PERCENTS = 101


@dataclass(frozen=True, eq=False, kw_only=True)
class ConfidenceCounts:
    """Pixels by the percent of confidence that the map gives them."""

    pixels: NDArray[np.int64]
    """(101,) pixels compared that have this confidence."""
    right: NDArray[np.int64]
    """(101,) those of them that are right."""

    def __add__(self, other: ConfidenceCounts) -> ConfidenceCounts:
        """Counts of both parts."""
        return ConfidenceCounts(pixels=self.pixels + other.pixels, right=self.right + other.right)

    def reliability(self) -> Reliability:
        """Accuracy by confidence, in ten bins."""
        percents = np.arange(_PERCENTS, dtype=np.int64)
        bins = (percents * BINS // 100).clip(max=BINS - 1)
        sums = [
            np.bincount(bins, weights=values, minlength=BINS)
            for values in (self.pixels, self.pixels * percents / 100, self.right)
        ]
        return reliability_of_sums(*sums)


def count_confidence(percent: NDArray[Any], right: NDArray[np.bool_]) -> ConfidenceCounts:
    """Count pixels by their confidence.

    Args:
        percent: (pixels,) 0 to 100; others have no confidence and do not count.
        right: (pixels,) whether the map is right there.
    """
    known = percent < _PERCENTS
    return ConfidenceCounts(
        pixels=np.bincount(percent[known], minlength=_PERCENTS),
        right=np.bincount(percent[known & right], minlength=_PERCENTS),
    )
