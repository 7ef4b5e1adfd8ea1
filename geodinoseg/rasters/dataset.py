"""A raster opened to read; whatever is wrong with the file is one line, raised here."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import rasterio
from numpy.typing import NDArray
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geodinoseg.errors import SceneError, one_line
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, read_geobox
from geodinoseg.rasters.retry import retry
from geodinoseg.rasters.source import RasterSource, bounded_settings
from geodinoseg.rasters.untrusted import (
    PLAIN_DRIVERS,
    check_local,
    check_opened,
    check_sizes,
    external,
)
from geodinoseg.windows import Window

FIRST_DEADLINE_S = 10.0
"""For the first look: a mistyped address should not take minutes to be refused."""

_NO_RANGES = "Range downloading not supported"
_NO_RASTER = re.compile("not recognized as|TIFF|PNG|JPEG|header", re.IGNORECASE)
# Answers of a server that another try does not change.
_FINAL = re.compile(
    rf"{_NO_RANGES}|\b(400|401|403|404|410)\b|does not exist|not exist|No such|AccessDenied|NoSuch"
    rf"|InvalidCredentials|credentials|Could not resolve",
    re.IGNORECASE,
)


@contextmanager
def open_dataset(source: RasterSource) -> Iterator[rasterio.DatasetReader]:
    """A handle of one's own for the block, for one thread.

    Raises:
        SceneError: the file is missing, empty, a folder, not a raster, or one that reaches further
            than plain rasters do and is not trusted.
    """
    with source.settings(), open_handle(source, deadline_s=FIRST_DEADLINE_S) as dataset:
        yield dataset


def open_handle(source: RasterSource, *, deadline_s: float = math.inf) -> rasterio.DatasetReader:
    """A new handle. A server that fails is asked again; one that refuses is not.

    Args:
        source: what to open.
        deadline_s: for how long a server is asked, at most.

    Raises:
        SceneError: see `open_dataset`.
    """
    if not source.is_remote:
        return _opened(source)
    try:
        return retry(
            lambda _: _open_remote(source),
            path=source.path,
            faults=(_TransientError,),
            deadline_s=deadline_s,
        )
    except _TransientError as error:
        raise SceneError(str(error)) from error


class _TransientError(Exception):
    """A server did not answer as it should; it may next time."""


def _open_remote(source: RasterSource) -> rasterio.DatasetReader:
    try:
        return _opened(source)
    except SceneError as error:
        # A cut header and a page that is not a raster look alike: both are asked for again.
        if _FINAL.search(str(error.__cause__)) or error.__cause__ is None:
            raise
        raise _TransientError(str(error)) from error


def geobox_of(path: PathLike, dataset: rasterio.DatasetReader) -> GeoBox:
    """The place of an open raster."""
    geobox = read_geobox(dataset.crs, dataset.transform, dataset.width, dataset.height)
    if not geobox.is_invertible:
        raise SceneError(
            f"{path}: its geotransform {dataset.transform.to_gdal()} gives pixels no area, so "
            f"their place is undefined; correct it, for instance with gdal_edit -a_ullr."
        )
    return geobox


def unreadable(source: RasterSource, window: Window, error: Exception) -> SceneError:
    """The error for a block that GDAL cannot decode."""
    fault = one_line(error.__cause__ or error)
    rows = f"{source}: rows {window.row_off} to {window.row_end - 1} cannot be read"
    if source.is_remote:
        return SceneError(
            f"{rows}; the server does not send them, or the file is damaged. Try again later, or "
            f"download it and give that ({fault})."
        )
    return SceneError(f"{rows}; the file is damaged or incomplete, copy it again ({fault}).")


def _opened(source: RasterSource) -> rasterio.DatasetReader:
    _check_is_there(source)
    drivers = _drivers(source)
    dataset = _open(source, drivers)
    try:
        if drivers is not None:
            check_opened(source.path, dataset)
        check_sizes(source.path, dataset)
    except BaseException:
        dataset.close()
        raise
    return dataset


def _drivers(source: RasterSource) -> tuple[str, ...] | None:
    """The drivers that may open a source; None for all that GDAL has."""
    if source.trusted:
        return None
    if source.is_assembled:
        raise external(source.path, "is a path that describes a file out of others")
    return check_local(source.path) if os.path.isfile(source.path) else PLAIN_DRIVERS


def _open(source: RasterSource, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without georeference is read on its pixel grid.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return _open_with(source.path, drivers)
        except UnicodeEncodeError as error:
            raise SceneError(
                f"{source.path!a}: the name is not written in UTF-8; give the file another."
            ) from error
        except (RasterioError, OSError, ValueError) as error:
            raise SceneError(_not_opened(source, error)) from error


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_with(name: str, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    """As `rasterio.open`, which takes no list of drivers before rasterio 1.5.

    A handle that is shared between threads is not safe to read from.
    """
    return rasterio.DatasetReader(name, driver=list(drivers) if drivers else None, sharing=False)


def _not_opened(source: RasterSource, error: Exception) -> str:
    fault = one_line(error.__cause__ or error)
    if _NO_RANGES in fault:
        return (
            f"{source}: the server sends whole files only, not parts of them; download the file "
            f"and give that."
        )
    if source.is_remote and not _NO_RASTER.search(fault):
        return f"{source}: cannot be fetched; check the address and your rights ({fault})."
    kinds = "" if source.trusted else " Kinds other than plain rasters need --allow-external."
    return (
        f"{source}: is not a raster that can be read; it is damaged, incomplete or of another "
        f"kind, copy it again or give another ({fault}).{kinds}"
    )


def _check_is_there(source: RasterSource) -> None:
    if not source.is_plain_path:
        return
    if not os.path.exists(source.path):
        raise SceneError(f"{source}: no such file; check the name.")
    if os.path.isdir(source.path):
        raise SceneError(f"{source}: is a folder; give a raster file in it.")
    if os.path.getsize(source.path) == 0:
        raise SceneError(f"{source}: the file is empty; copy or download it again.")


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
