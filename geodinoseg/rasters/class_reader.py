"""Reading class ids: pixels of any type as integers, each of them a class of the legend.

A value that is not in the legend is an error wherever it is read. If it were ignored, its pixels
would silently be missing from accuracies and areas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import LARGEST_CLASS_ID, Legend
from geodinoseg.rasters.dataset import RasterReader, geobox_of
from geodinoseg.rasters.legend_sources import listed
from geodinoseg.windows import Window, windows_over

# Type and nodata value as read, for class ids that are stored as floating point.
_WHOLE_DTYPE = np.dtype(np.uint16)
_WHOLE_NODATA = LARGEST_CLASS_ID + 1
_SCAN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelType:
    """Type and nodata value of class ids, as stored and as read."""

    stored: np.dtype[Any]
    """Dtype in the file."""
    stored_nodata: float | None
    """Nodata value in the file; None if there is none that a pixel can have."""
    dtype: np.dtype[Any]
    """Dtype as read: that of the file, or uint16 if that is floating point."""
    nodata: int | None
    """Nodata value as read, to which NaN and infinity are converted."""

    @classmethod
    def of(cls, path: PathLike, dataset: rasterio.DatasetReader) -> PixelType:
        """The pixel type of the first band.

        Raises:
            SceneError: the pixels are complex numbers.
        """
        name: str = dataset.dtypes[0]
        # GDAL's complex integers have no numpy dtype.
        if "complex" in name:
            raise SceneError(
                f"{path}: has pixels of type {name}, but class ids are integers; give a class "
                f"raster."
            )
        stored = np.dtype(name)
        if stored.kind == "f":
            return cls(
                stored=stored,
                stored_nodata=dataset.nodata,
                dtype=_WHOLE_DTYPE,
                nodata=_WHOLE_NODATA,
            )
        nodata = _whole_nodata(dataset.nodata, stored)
        return cls(stored=stored, stored_nodata=nodata, dtype=stored, nodata=nodata)

    def class_ids(self, path: PathLike, window: Window, pixels: NDArray[Any]) -> NDArray[Any]:
        """Convert pixels of the file to class ids in `dtype`.

        Raises:
            SceneError: a value of a floating-point file is not an integer, or is out of the range
                of class ids.
        """
        if self.stored.kind != "f":
            return pixels
        missing = ~np.isfinite(pixels)
        if self.stored_nodata is not None:
            missing |= pixels == self.stored.type(self.stored_nodata)
        numbers = np.where(missing, 0, pixels)
        unfit = (numbers != np.floor(numbers)) | (numbers < 0) | (numbers > LARGEST_CLASS_ID)
        if unfit.any():
            value = float(numbers[unfit][0])
            raise no_class_id(path, window, int(value) if value.is_integer() else value)
        ids: NDArray[Any] = numbers.astype(self.dtype)
        ids[missing] = self.nodata
        return ids


class ClassReader:
    """An open class raster. Belongs to the thread that opened it; made by `ClassRaster.reader`."""

    def __init__(
        self, path: PathLike, reader: RasterReader, pixel_type: PixelType, legend: Legend
    ) -> None:
        self._path, self._reader = path, reader
        self._pixel_type, self._legend = pixel_type, legend
        self._is_known = np.zeros(LARGEST_CLASS_ID + 2, dtype=np.bool_)
        self._is_known[legend.class_ids] = True
        nodata = pixel_type.nodata
        if nodata is not None and 0 <= nodata < len(self._is_known):
            self._is_known[nodata] = True

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class ids of a window, and nodata where there is no class.

        Args:
            window: inside the raster.

        Raises:
            SceneError: a block cannot be read, or contains a value that is not in the legend.
        """
        pixels = self._reader.read(window)
        class_ids = self._pixel_type.class_ids(self._path, window, pixels)
        self._check_known(class_ids)
        return class_ids

    def _check_known(self, window_ids: NDArray[Any]) -> None:
        class_ids = _first_of_equals(window_ids)
        if class_ids.dtype in (np.uint8, np.uint16):
            known = self._is_known[class_ids]
        else:
            inside = (class_ids >= 0) & (class_ids < len(self._is_known))
            known = inside & self._is_known[np.where(inside, class_ids, 0)]
            if self._pixel_type.nodata is not None:
                known |= class_ids == self._pixel_type.nodata
        if not known.all():
            own = listed(sorted(self._legend.class_ids.tolist()))
            raise SceneError(
                f"{self._path}: has pixels of value {class_ids[~known][0]}, which is not a class "
                f"of its legend ({own}); set them to the nodata value, or give "
                f"a legend with this class (--legend)."
            )


def class_ids_in(path: PathLike, reader: RasterReader, pixel_type: PixelType) -> list[int]:
    """The class ids that occur in a single-band raster; reads all of it.

    Returns:
        The ids, ascending, without nodata.

    Raises:
        SceneError: a value cannot be a class id, or every pixel is nodata.
    """
    found: set[int] = set()
    dataset = reader.dataset
    place = geobox_of(path, dataset)
    for window in block_windows(place, dataset.block_shapes[0], pixel_type.stored, _SCAN_BYTES):
        found.update(_distinct(pixel_type.class_ids(path, window, reader.read(window))))
        found.discard(pixel_type.nodata)
        wrong = [value for value in found if not 0 <= value <= LARGEST_CLASS_ID]
        if wrong:
            raise no_class_id(path, window, min(wrong))
    if not found:
        raise SceneError(
            f"{path}: holds no class: every pixel is nodata ({pixel_type.stored_nodata})."
        )
    return sorted(found)


def no_class_id(path: PathLike, window: Window, value: float) -> SceneError:
    """The error for a value that cannot be a class id."""
    rows = f"{path}: rows {window.row_off} to {window.row_end - 1} hold the value {value}"
    if isinstance(value, float):
        return SceneError(
            f"{rows}, but class ids are integers; give a class raster, or segment this scene first."
        )
    return SceneError(
        f"{rows}, but class ids are 0 to {LARGEST_CLASS_ID}; declare it as nodata (gdal_translate "
        f"-a_nodata {value}) or renumber the classes."
    )


def block_windows(
    geobox: GeoBox, block_shape: tuple[int, int], dtype: np.dtype[Any], most_bytes: int
) -> Iterator[Window]:
    """Windows over whole blocks of a raster, so that each is decoded once.

    Args:
        geobox: of the raster.
        block_shape: rows and columns of a block.
        dtype: of the pixels.
        most_bytes: maximum size of a window, unless a block is larger.
    """
    rows, cols = block_shape
    blocks = max(1, most_bytes // (rows * cols * dtype.itemsize))
    blocks_across = -(-geobox.width // cols)
    return windows_over(
        height=geobox.height,
        width=geobox.width,
        rows=rows * max(1, blocks // blocks_across),
        cols=cols * min(blocks, blocks_across),
    )


def _distinct(values: NDArray[Any]) -> list[int]:
    """The values that occur, ascending."""
    found: list[int] = np.unique(_first_of_equals(values)).tolist()
    return found


def _first_of_equals(values: NDArray[Any]) -> NDArray[Any]:
    """All values that occur; runs of equal neighbours, which are long in maps, appear once."""
    flat = values.ravel()
    return np.append(flat[:1], flat[1:][flat[1:] != flat[:-1]])


def _whole_nodata(value: float | None, dtype: np.dtype[Any]) -> int | None:
    """The nodata value as an integer; None if no pixel can have it."""
    if value is None or not np.isfinite(value) or value != int(value):
        return None
    limits = np.iinfo(dtype)
    return int(value) if limits.min <= value <= limits.max else None
