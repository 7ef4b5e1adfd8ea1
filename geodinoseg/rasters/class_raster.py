"""A finished map: what the header of a class raster says, and how its pixels are read.

Rasters that others made are welcome, as long as their pixels are class ids.
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
"""Tag of a class raster: its legend as JSON."""
CONFIDENCE_TAG = "GEODINOSEG_CONFIDENCE"
"""Tag of a class raster: path of its confidence raster, as seen from its folder."""
CONTENT_TAG = "GEODINOSEG_CONTENT"
"""Tag of every raster of ours: `classes`, `confidence` or `probabilities`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRaster:
    """A raster of class ids. A plain value: holds no handle. Made by `open_class_raster`."""

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Place and size."""
    legend: Legend
    """What the ids mean."""
    nodata: int | None
    """Value of pixels without a class; None where every pixel has one."""
    dtype: np.dtype[Any]
    """Of the pixels: whole numbers."""
    block_shape: tuple[int, int]
    """Rows and columns of a block as the file is stored."""
    confidence_path: Path | None
    """Confidence raster of the same grid, where there is one: percent, nodata 255."""
    tags: dict[str, str]
    """GDAL metadata of the file; ours begin with GEODINOSEG_."""

    @property
    def path(self) -> Path | str:
        """The file; text where it is an address, of which a Path would drop a slash."""
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
        """A handle of one's own, for one thread and many reads.

        Raises:
            SceneError: the file cannot be opened any more.
        """
        with open_reader(self.source, cache_bytes=cache_bytes) as reader:
            yield reader

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class ids of a window, in the raster's dtype; nodata where unclassified.

        Raises:
            SceneError: a block cannot be read.
        """
        with self.reader() as reader:
            return reader.read(window)


def open_class_raster(path: PathLike, *, allow_external: bool = False) -> ClassRaster:
    """Look at a class raster, ours or another's, and say what its ids mean.

    The legend of ours is in its header. One that others made is read through once, to find the
    ids that occur.

    Args:
        path: a file, or any path that GDAL reads (`https://...`, a VRT).
        allow_external: as in `open_scene`.

    Raises:
        SceneError: the file is missing or no raster, its pixels are not class ids, or it has more
            than one band.
    """
    source = RasterSource.of(path, trusted=allow_external)
    with open_reader(source, deadline_s=FIRST_DEADLINE_S) as reader:
        dataset = reader.dataset
        tags: dict[str, str] = dataset.tags()
        dtype = _class_dtype(path, dataset, tags)
        nodata = _whole_nodata(dataset.nodata, dtype)
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
            f"{path}: has {dataset.count} bands, a class raster has one; take it out with "
            f"gdal_translate -b, or segment this scene first."
        )
    if not holds_whole_numbers(dataset):
        raise SceneError(
            f"{path}: holds {dataset.dtypes[0]} numbers, class ids are whole ones; if these are, "
            f"convert them with gdal_translate -ot UInt16."
        )
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        raise SceneError(
            f"{path}: has a mask band, a class raster marks missing pixels by a nodata value; "
            f"convert it with gdalwarp -dstnodata."
        )
    name: str = dataset.dtypes[0]
    return np.dtype(name)


def _whole_nodata(value: float | None, dtype: np.dtype[Any]) -> int | None:
    """A nodata value that a pixel can have; others mark nothing."""
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
            f"{path}: its tag {LEGEND_TAG} is no legend ({error}); remove it with gdal_edit "
            f"-unsetmd, then the ids that occur are taken as classes."
        ) from error


def _confidence_path(path: PathLike, tags: dict[str, str]) -> Path | None:
    if CONFIDENCE_TAG not in tags:
        return None
    beside = Path(path).parent / tags[CONFIDENCE_TAG]
    # Path.is_file raises where a name is longer than the file system takes.
    return beside if os.path.isfile(beside) else None


@contextmanager
def open_confidence(raster: ClassRaster) -> Iterator[RasterReader]:
    """A reader of the confidence raster that a class raster names: percent, nodata 255.

    Raises:
        SceneError: it names none, or one that is missing, of another type or on another grid.
    """
    path = raster.confidence_path
    if path is None:
        raise SceneError(f"{raster.path}: names no confidence raster; segment with --confidence.")
    with open_reader(RasterSource.of(path, trusted=raster.source.trusted)) as reader:
        dataset = reader.dataset
        content = dataset.tags().get(CONTENT_TAG, "confidence")
        if content != "confidence":
            raise SceneError(f"{path}: holds {content}, not the confidence of {raster.path}.")
        place = geobox_of(path, dataset)
        if not same_grid(place, raster.geobox) or dataset.dtypes[0] != "uint8":
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}, which has another grid; move "
                f"it away, or segment again with --confidence."
            )
        yield reader
