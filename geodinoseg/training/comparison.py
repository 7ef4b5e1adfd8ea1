"""Which of two models is better, by their log loss on blocks that neither was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class BlockLosses:
    """The log loss of a model on validation blocks."""

    sums: NDArray[np.float64]
    """(blocks,) of -log of the probability of the true class."""
    pixels: NDArray[np.float64]
    """(blocks,) labelled pixels."""

    @property
    def mean(self) -> float:
        """Log loss of a pixel."""
        return float(self.sums.sum() / self.pixels.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much lower one log loss is than another, on the same blocks."""

    gain: float
    """Positive if the new model is better."""
    standard_error: float
    """Of the gain, over draws of blocks; 0 for a single block."""
    blocks: int

    @property
    def margin(self) -> float:
        """What is left of the gain beyond one standard error."""
        return self.gain - self.standard_error

    @property
    def is_clear(self) -> bool:
        """Whether the new model is better by more than one standard error."""
        return self.margin > 0


def compared(new: BlockLosses, old: BlockLosses) -> Comparison:
    """Compare two models by a bootstrap over blocks: pixels of one block are not independent.

    Efron (1979), Bootstrap methods: another look at the jackknife.
    """
    differences, pixels = old.sums - new.sums, old.pixels
    blocks = len(pixels)
    drawn = np.random.default_rng(0).integers(blocks, size=(_RESAMPLES, blocks))
    gains = differences[drawn].sum(axis=1) / pixels[drawn].sum(axis=1)
    return Comparison(
        gain=float(differences.sum() / pixels.sum()),
        standard_error=float(gains.std()),
        blocks=blocks,
    )
