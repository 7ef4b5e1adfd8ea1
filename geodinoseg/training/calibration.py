"""Confidence that means what it says: temperature scaling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.05, 20.0
"""Bounds of the search: a model that is always right would be made surer for ever."""

_STEPS = 40
"""Of bisection: each halves the logarithm of the bracket, 6 at first."""


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
