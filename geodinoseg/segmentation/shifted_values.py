"""Values that are shifted by the offset of newer Sentinel-2 products, where no tag says so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geodinoseg.model.band_statistics import BandStatistics

OFFSET = 1000
"""Added to the stored values of Sentinel-2 from baseline 04.00 on (January 2022)."""
_TOLERANCE = 400
"""Of the shift of a band."""
_DARK = 700
"""Most scenes have pixels below this in their visible bands: water and shade."""
_LEAST_BRIGHT = 900
"""With the offset no band has pixels below this."""
_FEWEST_BANDS = 3
_FEWEST_DARK_BANDS = 2
_ENOUGH = 0.75
"""Fraction of the dark bands that are shifted."""
_TYPES = ("uint16", "int16")


def shifted_values(
    values: NDArray[np.float64], statistics: BandStatistics, *, dtype: str
) -> str | None:
    """Why all values of a scene may be shifted, and what to do; None if they are not.

    On one side, the scene or the training, some bands have dark pixels; on the other none has, and
    the darkest pixels of these bands are about 1,000 brighter.

    Args:
        values: (bands, pixels) of the scene.
        statistics: statistics of the training data.
        dtype: dtype of the scene.
    """
    if dtype not in _TYPES or dtype != statistics.dtype or len(values) < _FEWEST_BANDS:
        return None
    here, training = np.percentile(values, 1, axis=1), np.array(statistics.low)
    for darker, brighter, more in ((training, here, "higher"), (here, training, "lower")):
        dark = (darker < _DARK) & (darker >= 0)
        if dark.sum() < _FEWEST_DARK_BANDS or brighter.min() < _LEAST_BRIGHT:
            continue
        is_shifted = np.abs(brighter - darker - OFFSET)[dark] <= _TOLERANCE
        if is_shifted.mean() >= _ENOUGH:
            return (
                f"the darkest values of {int(is_shifted.sum())} bands are about {OFFSET:,} {more} "
                f"than in the training of the model, as between Sentinel-2 products from baseline "
                f"04.00 on and older ones; if that is the reason, the map will be wrong: give both "
                f"the same offset, or set it as a tag (gdal_edit.py -offset)."
            )
    return None
