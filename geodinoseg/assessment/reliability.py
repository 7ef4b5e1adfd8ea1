"""Whether a map is right as often as its confidence says.

Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", ICML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.accuracy import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10
"""Number of bins of confidence: from 0 to below 10 percent, and so on; the last holds 100 too."""
_PERCENTS = 101


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """Pixels by the percent of confidence that the map gives them. Those of parts add up."""

    pixels: NDArray[np.int64]
    """(101,) pixels compared that have this confidence."""
    right: NDArray[np.int64]
    """(101,) those of them that are right."""

    @cached_property
    def bin_pixels(self) -> NDArray[np.int64]:
        """(10,) pixels of each bin."""
        return _binned(self.pixels)

    @cached_property
    def bin_confidence(self) -> NDArray[np.float64]:
        """(10,) mean confidence of each bin, 0 to 1; NaN where it is empty."""
        percents = np.arange(_PERCENTS, dtype=np.int64)
        return ratio(_binned(self.pixels * percents), 100 * self.bin_pixels)

    @cached_property
    def bin_accuracy(self) -> NDArray[np.float64]:
        """(10,) share of each bin that is right; NaN where it is empty."""
        return ratio(_binned(self.right), self.bin_pixels)

    @property
    def expected_calibration_error(self) -> float:
        """ECE: sum over bins of their share times |accuracy - mean confidence|; NaN without any."""
        total = int(self.pixels.sum())
        if not total:
            return math.nan
        gaps = np.nan_to_num(np.abs(self.bin_accuracy - self.bin_confidence))
        return float((self.bin_pixels * gaps).sum() / total)


def count_reliability(percent: NDArray[Any], right: NDArray[np.bool_]) -> Reliability:
    """Count pixels by their confidence.

    Args:
        percent: (pixels,) 0 to 100; others have no confidence and do not count.
        right: (pixels,) whether the map is right there.
    """
    known = percent < _PERCENTS
    return Reliability(
        pixels=np.bincount(percent[known], minlength=_PERCENTS),
        right=np.bincount(percent[known & right], minlength=_PERCENTS),
    )


def _binned(values: NDArray[np.int64]) -> NDArray[np.int64]:
    bins = (np.arange(_PERCENTS) // (100 // BINS)).clip(max=BINS - 1)
    sums = np.zeros(BINS, dtype=np.int64)
    np.add.at(sums, bins, values)
    return sums
