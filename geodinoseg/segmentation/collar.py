"""A black or white collar that nothing in the file marks as missing: said, never guessed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geodinoseg.rasters.scene import Scene

logger = logging.getLogger(__name__)

_STEP_PX = 16  # a sample of rows and columns costs nothing and finds any collar worth a word
_WORTH_A_WORD = 0.02


class CollarWatch:
    """Counts pixels that are 0, or the largest value, in every band of a scene without nodata."""

    def __init__(self, scene: Scene) -> None:
        self._path = printable(scene.path)
        # In one or two bands such values are ordinary; in floating point nothing is suspicious.
        watched = not scene.validity and scene.dtype.kind in "ui" and len(scene.bands) >= 3
        self._values = (0, int(np.iinfo(scene.dtype).max)) if watched else ()
        self._counts = dict.fromkeys(self._values, 0)
        self._seen = 0

    def look(self, pixels: NDArray[Any]) -> None:
        """Look at a sample of pixels, (bands, height, width)."""
        if not self._values:
            return
        sample = pixels[:, ::_STEP_PX, ::_STEP_PX]
        self._seen += sample[0].size
        for value in self._values:
            self._counts[value] += int((sample == value).all(axis=0).sum())

    def taken(self) -> dict[str, Any]:
        """What was counted since it was last taken, as plain JSON."""
        taken = {"seen": self._seen, "counts": [self._counts[value] for value in self._values]}
        self._seen, self._counts = 0, dict.fromkeys(self._values, 0)
        return taken

    def add(self, taken: Mapping[str, Any]) -> None:
        """Count what another watch of the same scene has taken."""
        self._seen += taken["seen"]
        for value, count in zip(self._values, taken["counts"], strict=True):
            self._counts[value] += count

    def warn(self) -> None:
        """Log a warning where a noticeable share of the pixels looked empty."""
        for value, count in self._counts.items():
            share = count / max(self._seen, 1)
            if share >= _WORTH_A_WORD:
                logger.warning(
                    "%s: %.0f%% of the pixels are %d in every band, and nothing in the file says "
                    "that they are missing; if they are, run again with --nodata %d.",
                    self._path,
                    100 * share,
                    value,
                    value,
                )
