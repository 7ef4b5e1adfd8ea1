"""A raster read window by window; one on a server is asked again where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geodinoseg.errors import SceneError
from geodinoseg.rasters.dataset import open_handle, unreadable
from geodinoseg.rasters.gdal_env import bounded_settings
from geodinoseg.rasters.retry import retry
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

_T = TypeVar("_T")
_FAULTS = (RasterioError, OSError)


class RasterReader:
    """An open raster. Belongs to the thread that opened it; made by `open_reader`."""

    def __init__(self, source: RasterSource, *, deadline_s: float) -> None:
        self._source = source
        self._dataset: rasterio.DatasetReader | None = open_handle(source, deadline_s=deadline_s)

    @property
    def dataset(self) -> rasterio.DatasetReader:
        """The handle; a new one where the last one failed."""
        if self._dataset is None:
            self._dataset = open_handle(self._source)
        return self._dataset

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) pixels of the first band, in the raster's dtype.

        Args:
            window: inside the raster.

        Raises:
            SceneError: a block cannot be read; of a raster on a server, within the deadline.
        """
        pixels: NDArray[Any] = self.read_with(
            window, lambda dataset: dataset.read(1, window=window.ranges)
        )
        return pixels

    def read_with(self, window: Window, take: Callable[[rasterio.DatasetReader], _T]) -> _T:
        """What a function takes from the handle, once the window can be read.

        Args:
            window: where, for the message.
            take: reads from the handle that it is given; it may be called again.
        """
        try:
            return take(self.dataset)
        except _FAULTS as error:
            if not self._source.is_remote:
                raise unreadable(self._source, window, error) from error
        # A handle that failed once may give wrong pixels the next time.
        self.close()
        try:
            return retry(
                lambda left_s: self._taken_anew(take, left_s),
                path=self._source.path,
                faults=(*_FAULTS, SceneError),
            )
        except (*_FAULTS, SceneError) as error:
            raise unreadable(self._source, window, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def _taken_anew(self, take: Callable[[rasterio.DatasetReader], _T], left_s: float) -> _T:
        """With a handle that is not kept, as its requests have little time."""
        with bounded_settings(left_s), open_handle(self._source, deadline_s=0) as dataset:
            return take(dataset)


@contextmanager
def open_reader(
    source: RasterSource, *, cache_bytes: int | None = None, deadline_s: float = math.inf
) -> Iterator[RasterReader]:
    """A reader of one's own for the block, for one thread and many reads.

    Args:
        source: what to read.
        cache_bytes: size of GDAL's block cache where the default does not fit.
        deadline_s: for how long a server is asked for the header, at most.

    Raises:
        SceneError: as `dataset.open_dataset`.
    """
    with source.settings(cache_bytes=cache_bytes):
        reader = RasterReader(source, deadline_s=deadline_s)
        try:
            yield reader
        finally:
            reader.close()
