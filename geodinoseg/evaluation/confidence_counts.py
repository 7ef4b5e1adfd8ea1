"""Compared pixels counted by the confidence that the map gives them; counts of parts add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.evaluation.calibration import BINS, Reliability, reliability_of_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
