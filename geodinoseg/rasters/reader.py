"""A raster that is read window by window; of one on a server, again where the server stumbles."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rasterio
from rasterio.errors import RasterioError

from geodinoseg.errors import SceneError
from geodinoseg.rasters.dataset import RasterPath, open_patiently, settings_for, unreadable
from geodinoseg.rasters.gdal_env import bounded_settings
from geodinoseg.rasters.retry import is_remote, with_patience
from geodinoseg.windows import Window

_T = TypeVar("_T")
_FAULTS = (RasterioError, OSError)


class RasterReader:
    """An open raster. Belongs to the thread that opened it; made by `opened_reader`."""

    def __init__(self, path: RasterPath, *, allow_external: bool, deadline_s: float) -> None:
        self._path = path
        self._allow_external = allow_external
        self._dataset: rasterio.DatasetReader | None = self._opened(deadline_s)

    @property
    def dataset(self) -> rasterio.DatasetReader:
        """The handle; a new one where the last one failed.

        Raises:
            SceneError: the file cannot be opened any more.
        """
        if self._dataset is None:
            self._dataset = self._opened(math.inf)
        return self._dataset

    def read(self, window: Window, take: Callable[[rasterio.DatasetReader], _T]) -> _T:
        """What is taken from a window, once it can be read.

        Args:
            window: where, for the message.
            take: reads from the handle that it is given; it may be called again.

        Raises:
            SceneError: a block cannot be read; of a raster on a server, within the deadline.
        """
        try:
            return take(self.dataset)
        except _FAULTS as error:
            if not is_remote(os.fspath(self._path)):
                raise unreadable(self._path, window, error) from error
        # A handle that failed once may give wrong pixels the next time.
        self.close()
        try:
            return with_patience(
                lambda left_s: self._taken_anew(take, left_s),
                path=os.fspath(self._path),
                faults=(*_FAULTS, SceneError),
            )
        except (*_FAULTS, SceneError) as error:
            raise unreadable(self._path, window, error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def _taken_anew(self, take: Callable[[rasterio.DatasetReader], _T], left_s: float) -> _T:
        """With a handle that is not kept, as its requests have little time."""
        with bounded_settings(left_s), self._opened(0) as dataset:
            return take(dataset)

    def _opened(self, deadline_s: float) -> rasterio.DatasetReader:
        return open_patiently(
            os.fspath(self._path), allow_external=self._allow_external, deadline_s=deadline_s
        )


@contextmanager
def opened_reader(
    path: RasterPath,
    *,
    allow_external: bool = False,
    cache_bytes: int | None = None,
    deadline_s: float = math.inf,
) -> Iterator[RasterReader]:
    """A reader of one's own for the block, for one thread and many reads.

    Args:
        path: as in `raster_file.opened_raster`.
        allow_external: whether it may be of any kind that GDAL knows.
        cache_bytes: size of GDAL's block cache where the default does not fit.
        deadline_s: for how long a server is asked for the header, at most.

    Raises:
        SceneError: as in `raster_file.opened_raster`.
    """
    with settings_for(os.fspath(path), allow_external=allow_external, cache_bytes=cache_bytes):
        reader = RasterReader(path, allow_external=allow_external, deadline_s=deadline_s)
        try:
            yield reader
        finally:
            reader.close()
