"""A raster opened to read; whatever is wrong with the file is one line, raised here."""

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
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, read_geobox
from geodinoseg.rasters.retry import retry
from geodinoseg.rasters.source import RasterSource
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


def holds_whole_numbers(dataset: rasterio.DatasetReader) -> bool:
    """Whether the first band holds whole numbers, as class ids are."""
    name: str = dataset.dtypes[0]
    # GDAL's complex integers are no numpy type.
    return "complex" not in name and np.dtype(name).kind in "iu"


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
    with source.settings():
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
