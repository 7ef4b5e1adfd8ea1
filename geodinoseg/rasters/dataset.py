"""A raster file opened to read: what can be wrong with it is said in one line, once."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import rasterio
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geodinoseg.errors import SceneError, one_line
from geodinoseg.geobox import GeoBox, read_geobox
from geodinoseg.rasters.gdal_env import gdal_settings
from geodinoseg.rasters.retry import is_remote, with_patience
from geodinoseg.rasters.untrusted import (
    PLAIN_DRIVERS,
    check_local,
    check_opened,
    check_sizes,
    external,
)
from geodinoseg.windows import Window

RasterPath = str | os.PathLike[str]

FIRST_DEADLINE_S = 10.0
"""For the first look: a mistyped address should not take minutes to be refused."""

_NO_RANGES = "Range downloading not supported"
_NO_RASTER = re.compile("not recognized as|TIFF|PNG|JPEG|header", re.IGNORECASE)
# What a server says once and for all.
_FINAL = re.compile(
    rf"{_NO_RANGES}|\b(400|401|403|404|410)\b|does not exist|not exist|No such|AccessDenied|NoSuch"
    rf"|InvalidCredentials|credentials|Could not resolve",
    re.IGNORECASE,
)
# Files of GDAL's that say where other files lie, and text in place of a file.
_WITHIN_FILES = re.compile(r"/vsi(sparse|subfile)|\s*[<{\[]")


@contextmanager
def opened_raster(
    path: RasterPath, *, allow_external: bool = False
) -> Iterator[rasterio.DatasetReader]:
    """A handle of one's own for the block, for one thread.

    Args:
        path: a file, or any path that GDAL reads (`/vsizip/...`, `https://...`, a VRT).
        allow_external: whether it may be of any kind that GDAL knows, and reach where it likes.

    Raises:
        SceneError: the file is missing, empty, a folder, no raster, or one that reaches further
            than plain rasters do.
    """
    name = os.fspath(path)
    with settings_for(name, allow_external=allow_external):
        dataset = open_patiently(name, allow_external=allow_external, deadline_s=FIRST_DEADLINE_S)
        with dataset:
            yield dataset


def settings_for(
    name: str, *, allow_external: bool = False, cache_bytes: int | None = None
) -> rasterio.Env:
    """GDAL's settings for reading a path."""
    return gdal_settings(
        cache_bytes=cache_bytes,
        reading=True,
        remote=allow_external or is_remote(name),
        # Beside a raster in an archive or on a server may lie what cannot be looked at first; on
        # a server the list of a folder costs more than the raster.
        alone=not allow_external and (name.startswith("/vsi") or "://" in name),
    )


def open_patiently(
    name: str, *, allow_external: bool = False, deadline_s: float = math.inf
) -> rasterio.DatasetReader:
    """A new handle. A server that stumbles is asked again; one that refuses is not.

    Args:
        name: the path.
        allow_external: see `opened_raster`.
        deadline_s: for how long a server is asked, at most.

    Raises:
        SceneError: see `opened_raster`.
    """
    if not is_remote(name):
        return _opened(name, allow_external=allow_external)
    try:
        return with_patience(
            lambda _: _open_remote(name, allow_external=allow_external),
            path=name,
            faults=(_StumbleError,),
            deadline_s=deadline_s,
        )
    except _StumbleError as error:
        raise SceneError(str(error)) from error


class _StumbleError(Exception):
    """A server did not answer as it should; it may next time."""


def _open_remote(name: str, *, allow_external: bool) -> rasterio.DatasetReader:
    try:
        return _opened(name, allow_external=allow_external)
    except SceneError as error:
        # Said of a cut header as of a page that is no raster: asked again all the same.
        if _FINAL.search(str(error.__cause__)) or error.__cause__ is None:
            raise
        raise _StumbleError(str(error)) from error


def geobox_of(path: RasterPath, dataset: rasterio.DatasetReader) -> GeoBox:
    """The place of an open raster.

    Raises:
        SceneError: its transform is no number, or squeezes all pixels onto a line or a point.
    """
    geobox = read_geobox(dataset.crs, dataset.transform, dataset.width, dataset.height)
    if not geobox.is_invertible:
        raise SceneError(
            f"{path}: its geotransform {dataset.transform.to_gdal()} gives pixels no area, so "
            f"nobody knows where they lie; correct it, for instance with gdal_edit -a_ullr."
        )
    return geobox


def holds_whole_numbers(dataset: rasterio.DatasetReader) -> bool:
    """Whether the first band holds whole numbers, as class ids are."""
    name: str = dataset.dtypes[0]
    # GDAL's complex integers are no numpy type.
    return "complex" not in name and np.dtype(name).kind in "iu"


def unreadable(path: RasterPath, window: Window, error: Exception) -> SceneError:
    """The error for a block that GDAL cannot decode."""
    fault = one_line(error.__cause__ or error)
    if is_remote(os.fspath(path)):
        return SceneError(
            f"{path}: rows {window.row_off} to {window.row_end - 1} cannot be read; the server "
            f"does not send them, or the file is damaged. Try again later, or download it and give "
            f"that ({fault})."
        )
    return SceneError(
        f"{path}: rows {window.row_off} to {window.row_end - 1} cannot be read; the file is "
        f"damaged or incomplete, copy it again ({fault})."
    )


def _opened(name: str, *, allow_external: bool) -> rasterio.DatasetReader:
    _check_is_there(name)
    if _WITHIN_FILES.match(name) and not allow_external:
        raise external(name, "is a path that describes a file out of others")
    drivers: tuple[str, ...] | None = None
    if not allow_external:
        drivers = check_local(name) if os.path.isfile(name) else PLAIN_DRIVERS
    with settings_for(name, allow_external=allow_external):
        dataset = _open(name, drivers)
    try:
        if drivers is not None:
            check_opened(name, dataset)
        check_sizes(name, dataset)
    except BaseException:
        dataset.close()
        raise
    return dataset


def _open(name: str, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without a place is read on its pixel grid.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return _open_with(name, drivers)
        except UnicodeEncodeError as error:
            raise SceneError(
                f"{name!a}: the name is not written in UTF-8; give the file another."
            ) from error
        except (RasterioError, OSError, ValueError) as error:
            raise SceneError(_not_opened(name, error, drivers)) from error


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_with(name: str, drivers: tuple[str, ...] | None) -> rasterio.DatasetReader:
    """As `rasterio.open`, which takes no list of drivers before rasterio 1.5.

    A handle that is shared between threads is not safe to read from.
    """
    return rasterio.DatasetReader(name, driver=list(drivers) if drivers else None, sharing=False)


def _not_opened(name: str, error: Exception, drivers: tuple[str, ...] | None) -> str:
    fault = one_line(error.__cause__ or error)
    if _NO_RANGES in fault:
        return (
            f"{name}: the server sends whole files only, not parts of them; download the file and "
            f"give that."
        )
    if is_remote(name) and not _NO_RASTER.search(fault):
        return f"{name}: cannot be fetched; check the address and your rights ({fault})."
    kinds = "" if drivers is None else " Kinds other than plain rasters need --allow-external."
    return (
        f"{name}: is not a raster that can be read; it is damaged, incomplete or of another kind, "
        f"copy it again or give another ({fault}).{kinds}"
    )


def _check_is_there(name: str) -> None:
    if name.startswith("/vsi") or "://" in name:
        return
    if not os.path.exists(name):  # a GDAL path need not be a file's
        raise SceneError(f"{name}: no such file; check the name.")
    if os.path.isdir(name):
        raise SceneError(f"{name}: is a folder; give a raster file in it.")
    if os.path.getsize(name) == 0:
        raise SceneError(f"{name}: the file is empty; copy or download it again.")
