"""How many points a stratified sample needs, and how many of them go to each class.

After Olofsson et al. (2014), Remote Sensing of Environment 148, section 5.1; sample sizes after
Cochran (1977), Sampling Techniques, eq. 5.25.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError

Allocation = Literal["balanced", "proportional", "equal"]
"""How points are given to classes; see `allocate`."""

STANDARD_ERROR = 0.02
"""Of overall accuracy, where neither it nor a number of points is asked for."""
EXPECTED_ACCURACY = 0.8
"""User's accuracy of each class as it is guessed before the sample is there."""
MIN_PER_CLASS = 50
"""Points of a class at least; the paper advises 50 to 100 for rare ones."""
FEWEST_PER_CLASS = 2
"""Points below which a class has no variance."""


def sample_size(
    weights: NDArray[np.float64], expected_accuracy: NDArray[np.float64], standard_error: float
) -> int:
    """Points for a standard error of overall accuracy: (sum_i W_i S_i / S(O))^2, rounded up.

    S_i = sqrt(U_i (1 - U_i)); the map has so many pixels that the finite population does not
    count.

    Args:
        weights: (classes,) W_i, share of each class in the map's area.
        expected_accuracy: (classes,) U_i, user's accuracy as it is expected, 0 to 1.
        standard_error: S(O), above 0.
    """
    spread = np.sqrt(expected_accuracy * (1 - expected_accuracy))
    return math.ceil(float((weights * spread).sum() / standard_error) ** 2)


def allocate(
    points: int,
    *,
    weights: NDArray[np.float64],
    pixels: NDArray[np.int64],
    allocation: Allocation,
    min_per_class: int,
) -> NDArray[np.int64]:
    """Give points to classes.

    `proportional`: by area, at least 2. `equal`: the same number each. `balanced`, between the
    two as the paper advises: rare classes get `min_per_class`, and what is left is given to the
    others by area. A class gets no more points than it has pixels; others then get more.

    Args:
        points: in all.
        weights: (classes,) share of each class in the map's area.
        pixels: (classes,) pixels of each class, at least 1.
        allocation: the rule.
        min_per_class: of `balanced`.

    Returns:
        (classes,) points; their sum is `points`.

    Raises:
        SceneError: the map has fewer pixels, or every class cannot have its least number.
    """
    least = np.minimum(min_per_class if allocation == "balanced" else FEWEST_PER_CLASS, pixels)
    if points < least.sum():
        raise SceneError(
            f"{points} points are too few for {len(pixels)} classes with at least {least.max()} "
            f"each; give --points {least.sum()} or more, or lower --min-per-class."
        )
    if points > pixels.sum():
        raise SceneError(f"{points} points are more than the {pixels.sum()} pixels of the map.")
    shares = np.ones(len(weights)) if allocation == "equal" else weights
    return _rounded(_filled(points, shares, least, pixels), points, pixels)


def _filled(points: int, shares: Any, least: Any, most: Any) -> NDArray[np.float64]:
    """Shares times the one factor by which, cut to least and most, they add up to the points."""
    low, high = 0.0, float((most / shares).max()) + 1
    for _ in range(200):
        factor = (low + high) / 2
        if np.clip(factor * shares, least, most).sum() < points:
            low = factor
        else:
            high = factor
    return np.asarray(np.clip(high * shares, least, most), dtype=np.float64)


def _rounded(
    wanted: NDArray[np.float64], points: int, most: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Whole numbers that add up: rounded down, then up where most is cut off."""
    # The search ends a hair beside whole numbers.
    whole: NDArray[np.int64] = np.floor(wanted + 1e-6).astype(np.int64)
    order = np.argsort(-np.where(whole < most, wanted - whole, -np.inf), kind="stable")
    whole[order[: points - int(whole.sum())]] += 1
    return whole
