"""From the class ids of a map to positions in its legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.errors import SceneError
from geodinoseg.labels.open import IGNORE
from geodinoseg.legend import LARGEST_CLASS_ID

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.rasters.class_raster import ClassRaster


_MOST_CLASSES = 1_000


def check_class_count(raster: ClassRaster) -> None:
    """Refuse rasters whose pixels are numbers of things rather than classes.

    Raises:
        SceneError: more than 1,000 classes, whose confusion would be a million numbers.
    """
    if len(raster.legend) > _MOST_CLASSES:
        raise SceneError(
            f"{raster.path}: has {len(raster.legend):,} classes, more than {_MOST_CLASSES:,}; give "
            f"a raster of classes, not of object numbers."
        )


class ChannelTable:
    """Looks up the channel of class ids: their position in the legend of a raster."""

    def __init__(self, raster: ClassRaster) -> None:
        """Make the table.

        Args:
            raster: whose legend it is, and whose nodata value is no class.
        """
        self._channels = np.full(LARGEST_CLASS_ID + 2, IGNORE, dtype=np.int32)
        self._channels[raster.legend.class_ids] = np.arange(len(raster.legend), dtype=np.int32)
        if raster.nodata is not None and 0 <= raster.nodata < len(self._channels):
            self._channels[raster.nodata] = IGNORE

    def of(self, class_ids: NDArray[Any]) -> NDArray[np.int32]:
        """Channels of class ids.

        Args:
            class_ids: whole numbers, any shape.

        Returns:
            The same shape; IGNORE where an id is no class of the legend, such as nodata.
        """
        if class_ids.dtype in (np.uint8, np.uint16):
            channels: NDArray[np.int32] = self._channels[class_ids]
            return channels
        inside = (class_ids >= 0) & (class_ids < len(self._channels))
        channels = self._channels[np.where(inside, class_ids, 0)]
        channels[~inside] = IGNORE
        return channels
