"""The published example of Olofsson et al. (2014)."""

from __future__ import annotations

import numpy as np

# Olofsson et al. (2014), section 5: deforestation, forest gain, stable forest, stable non-forest.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
