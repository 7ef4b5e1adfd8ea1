"""A raster file opened to read: what can be wrong with it is said in one line, once."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geodinoseg.errors import SceneError, one_line
from geodinoseg.gdal_settings import gdal_settings
from geodinoseg.geobox import GeoBox, read_geobox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geodinoseg.grid import Window

RasterPath = str | os.PathLike[str]


@contextmanager
def opened_raster(path: RasterPath, *, is_small: bool = False) -> Iterator[rasterio.DatasetReader]:
    """A handle of one's own for the block, for one thread.

    Args:
        path: a file, or any path that GDAL reads (`/vsizip/...`, a VRT).
        is_small: it has so few blocks that threads would cost more than they bring.

    Raises:
        SceneError: the file is missing, empty, a folder or no raster.
    """
    name = os.fspath(path)
    _check_is_there(name)
    threads = {"GDAL_NUM_THREADS": 1} if is_small else {}
    with gdal_settings(), rasterio.Env(**threads), _open(name) as dataset:
        yield dataset


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


def unreadable(path: RasterPath, window: Window, error: Exception) -> SceneError:
    """The error for a block that GDAL cannot decode."""
    return SceneError(
        f"{path}: rows {window.row_off} to {window.row_end - 1} cannot be read; the file is "
        f"damaged or incomplete, copy it again ({one_line(error.__cause__ or error)})."
    )


def _open(name: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A raster without a place is read on its pixel grid.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # A handle that is shared between threads is not safe to read from.
            return rasterio.open(name, sharing=False)
        except UnicodeEncodeError as error:
            raise SceneError(
                f"{name!a}: the name is not written in UTF-8; give the file another."
            ) from error
        # GDAL quotes what it read, and a damaged file holds anything.
        except (RasterioError, OSError, UnicodeDecodeError) as error:
            raise SceneError(
                f"{name}: is not a raster that can be read; it is damaged, incomplete or of "
                f"another kind, copy it again or give another "
                f"({one_line(error.__cause__ or error)})."
            ) from error


def _check_is_there(name: str) -> None:
    if name.startswith("/vsi") or "://" in name:
        return
    if not os.path.exists(name):  # noqa: PTH110 (a GDAL path need not be a file's)
        raise SceneError(f"{name}: no such file; check the name.")
    if os.path.isdir(name):  # noqa: PTH112
        raise SceneError(f"{name}: is a folder; give a raster file in it.")
    if os.path.getsize(name) == 0:  # noqa: PTH202
        raise SceneError(f"{name}: the file is empty; copy or download it again.")
