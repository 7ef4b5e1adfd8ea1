"""Class rasters: their header and legend, and how their pixels are read.

Rasters of other programs are supported if their pixels are class ids.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from geodinoseg.errors import LegendError, SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, same_grid
from geodinoseg.legend import Legend
from geodinoseg.rasters.dataset import (
    FIRST_DEADLINE_S,
    RasterReader,
    geobox_of,
    holds_whole_numbers,
    open_reader,
)
from geodinoseg.rasters.legend_sources import class_ids_in, find_legend
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

LEGEND_TAG = "GEODINOSEG_LEGEND"
"""Tag of a class raster that holds its legend as JSON."""
CONFIDENCE_TAG = "GEODINOSEG_CONFIDENCE"
"""Tag of a class raster that holds the path of its confidence raster, relative to its folder."""
CONTENT_TAG = "GEODINOSEG_CONTENT"
"""Tag of every raster of a map: `classes`, `confidence` or `probabilities`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRaster:
    """A raster of class ids. A value without a file handle, made by `open_class_raster`."""

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Georeferencing and size."""
    legend: Legend
    """Ids, names and colours of the classes."""
    nodata: int | None
    """Nodata value, of pixels without a class; None if every pixel has one."""
    dtype: np.dtype[Any]
    """Integer dtype of the pixels."""
    block_shape: tuple[int, int]
    """Rows and columns of a block of the file."""
    confidence_path: Path | None
    """Confidence raster on the same grid, in percent, nodata 255; None if there is none."""
    tags: dict[str, str]
    """GDAL metadata of the file; geodinoseg's own keys start with GEODINOSEG_."""

    @property
    def path(self) -> Path | str:
        """The file; text for an address, since a Path would drop a slash."""
        return Path(self.source.path) if self.source.is_plain_path else self.source.path

    @property
    def height(self) -> int:
        """Rows."""
        return self.geobox.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.geobox.width

    @contextmanager
    def reader(self, *, cache_bytes: int | None = None) -> Iterator[RasterReader]:
        """Open the file for many reads by one thread.

        Raises:
            SceneError: the file can no longer be opened.
        """
        with open_reader(self.source, cache_bytes=cache_bytes) as reader:
            yield reader

    def read(self, window: Window) -> NDArray[Any]:
        """Class ids (height, width) of a window in the raster's dtype; nodata marks no class.

        Raises:
            SceneError: a block cannot be read.
        """
        with self.reader() as reader:
            return reader.read(window)


def open_class_raster(path: PathLike, *, allow_external: bool = False) -> ClassRaster:
    """Read the header and the legend of a class raster.

    A class raster of geodinoseg has its legend in the header. One of another program is read once
    as a whole, to find the ids that occur.

    Args:
        path: a file, or any path that GDAL reads (`https://...`, a VRT).
        allow_external: as in `open_scene`.

    Raises:
        SceneError: the file is missing or not a raster, its pixels are not class ids, or it has
            more than one band.

    Example:
        >>> import geodinoseg as gds
        >>> raster = gds.open_class_raster("landcover.tif")
        >>> raster.legend.names, raster.nodata
        (('field', 'roof', 'water'), 255)
    """
    source = RasterSource.of(path, trusted=allow_external)
    with open_reader(source, deadline_s=FIRST_DEADLINE_S) as reader:
        dataset = reader.dataset
        tags: dict[str, str] = dataset.tags()
        dtype = _class_dtype(path, dataset, tags)
        nodata = _integer_nodata(dataset.nodata, dtype)
        return ClassRaster(
            source=source,
            geobox=geobox_of(path, dataset),
            legend=_legend(path, reader, tags, nodata),
            nodata=nodata,
            dtype=dtype,
            block_shape=dataset.block_shapes[0],
            confidence_path=_confidence_path(path, tags),
            tags=tags,
        )


def _class_dtype(
    path: PathLike, dataset: rasterio.DatasetReader, tags: dict[str, str]
) -> np.dtype[Any]:
    if tags.get(CONTENT_TAG, "classes") != "classes":
        raise SceneError(
            f"{path}: holds {tags[CONTENT_TAG]}, not classes; give the class raster it belongs to."
        )
    if dataset.count != 1:
        raise SceneError(
            f"{path}: has {dataset.count} bands, but a class raster has one; extract it with "
            f"gdal_translate -b, or segment this scene first."
        )
    if not holds_whole_numbers(dataset):
        raise SceneError(
            f"{path}: has pixels of type {dataset.dtypes[0]}, but class ids are integers; if the "
            f"values are class ids, convert them with gdal_translate -ot UInt16."
        )
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        raise SceneError(
            f"{path}: has a mask band, but a class raster marks missing pixels by a nodata value; "
            f"convert it with gdalwarp -dstnodata."
        )
    name: str = dataset.dtypes[0]
    return np.dtype(name)


def _integer_nodata(value: float | None, dtype: np.dtype[Any]) -> int | None:
    """The nodata value if a pixel of this dtype can have it, else None."""
    if value is None or not np.isfinite(value) or value != int(value):
        return None
    limits = np.iinfo(dtype)
    return int(value) if limits.min <= value <= limits.max else None


def _legend(
    path: PathLike, reader: RasterReader, tags: dict[str, str], nodata: int | None
) -> Legend:
    if LEGEND_TAG not in tags:
        class_ids = class_ids_in(reader, path, nodata=nodata)
        return find_legend(reader.dataset, path, class_ids)
    try:
        return Legend.from_json(json.loads(tags[LEGEND_TAG]))
    except (ValueError, RecursionError, LegendError) as error:
        raise SceneError(
            f"{path}: the tag {LEGEND_TAG} is not a legend ({error}); remove it with gdal_edit "
            f"-unsetmd to use the ids that occur as classes."
        ) from error


def _confidence_path(path: PathLike, tags: dict[str, str]) -> Path | None:
    if CONFIDENCE_TAG not in tags:
        return None
    beside = Path(path).parent / tags[CONFIDENCE_TAG]
    # Path.is_file raises if a name is longer than the file system allows.
    return beside if os.path.isfile(beside) else None


@contextmanager
def open_confidence(raster: ClassRaster) -> Iterator[RasterReader]:
    """Open the confidence raster named by a class raster: percent, nodata 255.

    Raises:
        SceneError: none is named, or it is missing, of another type or on another grid.
    """
    path = raster.confidence_path
    if path is None:
        raise SceneError(f"{raster.path}: has no confidence raster; segment with --confidence.")
    with open_reader(RasterSource.of(path, trusted=raster.source.trusted)) as reader:
        dataset = reader.dataset
        content = dataset.tags().get(CONTENT_TAG, "confidence")
        if content != "confidence":
            raise SceneError(f"{path}: holds {content}, not the confidence of {raster.path}.")
        geobox = geobox_of(path, dataset)
        if not same_grid(geobox, raster.geobox) or dataset.dtypes[0] != "uint8":
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}, which has another grid; move "
                f"it away, or segment again with --confidence."
            )
        yield reader
