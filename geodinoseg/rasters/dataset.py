"""Opens rasters for reading; every fault of a file is raised here as a one-line error."""

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
from geodinoseg.geobox import GeoBox, dataset_geobox
from geodinoseg.rasters.retry import retry
from geodinoseg.rasters.source import RasterSource, bounded_settings
from geodinoseg.rasters.untrusted import (
    PLAIN_DRIVERS,
    check_local,
    check_opened,
    external,
)
from geodinoseg.windows import Window

FIRST_DEADLINE_S = 10.0
"""For the first access: a mistyped address should not take minutes to be refused."""

_NO_RANGES = "Range downloading not supported"
_NOT_A_RASTER = re.compile("not recognized as|TIFF|PNG|JPEG|header", re.IGNORECASE)
# Permanent errors of a server, for which no further attempt is made.
_FINAL = re.compile(
    rf"{_NO_RANGES}|\b(400|401|403|404|410)\b|does not exist|not exist|No such|AccessDenied|NoSuch"
    rf"|InvalidCredentials|credentials|Could not resolve",
    re.IGNORECASE,
)

_DENIED = re.compile(r"\b(401|403)\b|AccessDenied|ExpiredToken|InvalidCredentials", re.IGNORECASE)


@contextmanager
def open_dataset(source: RasterSource) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for one thread.

    Raises:
        SceneError: the file is missing, empty, a folder or not a raster, or it refers to other
            files or addresses and is not trusted.
    """
    with source.settings(), open_handle(source, deadline_s=FIRST_DEADLINE_S) as dataset:
        yield dataset


def open_handle(source: RasterSource, *, deadline_s: float = math.inf) -> rasterio.DatasetReader:
    """Open a raster; requests to a server that fail are repeated, those that it refuses are not.

    Args:
        source: the raster to open.
        deadline_s: seconds after which no further attempt is made.
    """
    if not source.is_remote:
        return _open_checked(source)
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
    """A request to a server failed; another attempt may succeed."""


class _DeniedError(SceneError):
    """A server refuses access; no further attempt is made."""


def _open_remote(source: RasterSource) -> rasterio.DatasetReader:
    try:
        return _open_checked(source)
    except SceneError as error:
        # A truncated header and a web page look alike: both are requested again.
        if _FINAL.search(str(error.__cause__)) or error.__cause__ is None:
            raise
        raise _TransientError(str(error)) from error


def geobox_of(path: PathLike, dataset: rasterio.DatasetReader) -> GeoBox:
    """The georeferencing of an open raster."""
    geobox = dataset_geobox(dataset)
    if not geobox.is_invertible:
        raise SceneError(
            f"{path}: its geotransform {dataset.transform.to_gdal()} gives pixels no area, so "
            f"their position is undefined; correct it, for instance with gdal_edit -a_ullr."
        )
    return geobox


def unreadable(source: RasterSource, window: Window, error: Exception) -> SceneError:
    """The error for a block that GDAL cannot decode."""
    fault = one_line(error.__cause__ or error)
    rows = f"{source}: rows {window.row_off} to {window.row_end - 1} cannot be read"
    if source.is_remote:
        return SceneError(
            f"{rows}; the server does not send them, or the file is damaged. Try again later, or "
            f"download the file and use the copy ({fault})."
        )
    return SceneError(f"{rows}; the file is damaged or incomplete, copy it again ({fault}).")


def _open_checked(source: RasterSource) -> rasterio.DatasetReader:
    _check_exists(source)
    drivers = _drivers(source)
    dataset = _open(source, drivers)
    try:
        check_opened(source.path, dataset, trusted=source.trusted)
    except BaseException:
        dataset.close()
        raise
    return dataset


def _drivers(source: RasterSource) -> tuple[str, ...] | None:
    """The drivers allowed to open a source; None for all drivers of GDAL."""
    if source.trusted:
        return None
    if source.is_assembled:
        raise external(source.path, "is a path that assembles a file from others")
    return check_local(source.path) if os.path.isfile(source.path) else PLAIN_DRIVERS


def _open(source: RasterSource, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # Rasters without georeferencing are supported.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return _open_with(source.path, drivers)
        except UnicodeEncodeError as error:
            raise SceneError(
                f"{source.path!a}: the name is not valid UTF-8; rename the file or give another."
            ) from error
        except (RasterioError, OSError, ValueError) as error:
            raise _open_error(source, error) from error


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_with(name: str, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    """Like `rasterio.open`, which accepts no list of drivers before rasterio 1.5.

    Handles are not shared, since reading from a shared handle is not thread-safe.
    """
    return rasterio.DatasetReader(name, driver=list(drivers) if drivers else None, sharing=False)


def _open_error(source: RasterSource, error: Exception) -> SceneError:
    fault = one_line(error.__cause__ or error)
    if _NO_RANGES in fault:
        return SceneError(
            f"{source}: the server sends whole files only, not ranges; download the file and use "
            f"the copy."
        )
    if source.is_remote and _DENIED.search(fault):
        return _DeniedError(
            f"{source}: the server refuses access; the address may have expired, or you lack the "
            f"rights. The same command with a new address resumes a run that was stopped by this "
            f"({fault})."
        )
    if source.is_remote and not _NOT_A_RASTER.search(fault):
        return SceneError(
            f"{source}: cannot be fetched; check the address and your access rights ({fault})."
        )
    formats = "" if source.trusted else " Formats other than plain rasters need --allow-external."
    return SceneError(
        f"{source}: is not a readable raster; it is damaged, incomplete or of another format, copy "
        f"it again or give another ({fault}).{formats}"
    )


def _check_exists(source: RasterSource) -> None:
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
    """An open raster, made by `open_reader`; used only by the thread that opened it."""

    def __init__(self, source: RasterSource, *, deadline_s: float) -> None:
        self._source = source
        self._dataset: rasterio.DatasetReader | None = open_handle(source, deadline_s=deadline_s)

    @property
    def dataset(self) -> rasterio.DatasetReader:
        """The handle; a new one if the previous one failed."""
        if self._dataset is None:
            self._dataset = open_handle(self._source)
        return self._dataset

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels (height, width) of the first band in the raster's dtype; the window is inside it.

        Raises:
            SceneError: a block cannot be read; from a server, not within the deadline.
        """
        pixels: NDArray[Any] = self.read_with(
            window, lambda dataset: dataset.read(1, window=window.ranges)
        )
        return pixels

    def read_with(self, window: Window, take: Callable[[rasterio.DatasetReader], _T]) -> _T:
        """The result of a function that reads from the handle; failed reads are repeated.

        Args:
            window: the pixels that are read, for the error message.
            take: reads from the handle; may be called more than once.
        """
        try:
            return take(self.dataset)
        except _FAULTS as error:
            if not self._source.is_remote:
                raise unreadable(self._source, window, error) from error
        # A handle that failed once may return wrong pixels the next time.
        self.close()
        try:
            return retry(
                lambda left_s: self._read_anew(take, left_s),
                path=self._source.path,
                faults=(*_FAULTS, SceneError),
                final=(_DeniedError,),
            )
        except _DeniedError:
            raise
        except (*_FAULTS, SceneError) as error:
            raise unreadable(self._source, window, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def _read_anew(self, take: Callable[[rasterio.DatasetReader], _T], left_s: float) -> _T:
        """Read with a new handle, which is not kept, since its requests time out early."""
        with bounded_settings(left_s), open_handle(self._source, deadline_s=0) as dataset:
            return take(dataset)


@contextmanager
def open_reader(
    source: RasterSource, *, cache_bytes: int | None = None, deadline_s: float = math.inf
) -> Iterator[RasterReader]:
    """Open a raster for many reads by one thread; SceneError as for `open_dataset`.

    Args:
        source: the raster to read.
        cache_bytes: size of GDAL's block cache; None for the default.
        deadline_s: seconds after which the header is not requested again.
    """
    with source.settings(cache_bytes=cache_bytes):
        reader = RasterReader(source, deadline_s=deadline_s)
        try:
            yield reader
        finally:
            reader.close()
