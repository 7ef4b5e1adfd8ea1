"""Confidence that means what it says: temperature scaling, and how reliable probabilities are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.05, 20.0
"""Bounds of the search: a model that is always right would be made surer for ever."""

_STEPS = 40
"""Of bisection: each halves the logarithm of the bracket, 6 at first."""


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


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    Guo et al. (2017), On calibration of modern neural networks. In b = 1 / T the mean of
    log sum_c exp(b z_c) - b z_label is convex, so its slope is bisected.

    Args:
        logits: (pixels, classes), finite.
        labels: (pixels,) channel, below 0 where a pixel does not count.

    Returns:
        T from 0.05 to 20; 1 where nothing is labelled or the logits tell no class from another.
    """
    known = np.asarray(labels) >= 0
    # Far from the largest of a pixel: what is left of float32 would not tell.
    z = np.asarray(logits, dtype=np.float64)[known]
    if not z.size or not np.ptp(z, axis=1).any():
        return 1.0
    z = z - z.max(axis=1, keepdims=True)
    at_label = z[np.arange(len(z)), np.asarray(labels)[known].astype(np.int64)].mean()

    def slope(sharpness: float) -> float:
        """Of the negative log-likelihood: mean of E[z] under softmax(b z), less z of the label."""
        weights = np.exp(sharpness * z)
        expected = (weights * z).sum(axis=1) / weights.sum(axis=1)
        return float(expected.mean() - at_label)

    low, high = 1 / LARGEST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if slope(low) >= 0:
        return LARGEST_TEMPERATURE
    if slope(high) <= 0:
        return LEAST_TEMPERATURE
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def reliability(confidence: NDArray[Any], right: NDArray[Any], *, bins: int = 10) -> Reliability:
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
    count = np.bincount(place, minlength=bins)
    empty = np.where(count > 0, count, np.nan)
    return Reliability(
        count=count.astype(np.int64),
        confidence=np.bincount(place, weights=sure, minlength=bins) / empty,
        accuracy=np.bincount(place, weights=hit, minlength=bins) / empty,
    )
