"""From the class ids of a map to positions in its legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.labels.label_set import IGNORE
from geodinoseg.legend import LARGEST_CLASS_ID

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.class_rasters.class_raster import ClassRaster


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
