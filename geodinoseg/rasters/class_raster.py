"""A finished map: what the header of a class raster says, and how its pixels are read.

Rasters that others made are welcome, as long as their pixels are class ids.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from geodinoseg.errors import LegendError, SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, same_place
from geodinoseg.legend import Legend
from geodinoseg.rasters.class_reader import ClassReader, PixelType, class_ids_in
from geodinoseg.rasters.dataset import (
    FIRST_DEADLINE_S,
    RasterReader,
    geobox_of,
    open_reader,
)
from geodinoseg.rasters.legend_sources import (
    FoundLegend,
    find_legend,
    warn_of_lost_names,
    with_legend_file,
)
from geodinoseg.rasters.mosaic_legend import shared_tag
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

LEGEND_TAG = "GEODINOSEG_LEGEND"
"""Tag of a class raster: its legend as JSON."""
CONFIDENCE_TAG = "GEODINOSEG_CONFIDENCE"
"""Tag of a class raster: path of its confidence raster, as seen from its folder."""
CONTENT_TAG = "GEODINOSEG_CONTENT"
"""Tag of every raster of ours: `classes`, `confidence` or `probabilities`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRaster:
    """A raster of class ids. A plain value: holds no handle. Made by `open_class_raster`."""

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Place and size."""
    legend: Legend
    """What the ids mean."""
    is_named: bool
    """Whether anything says what the classes are called; else they have the names of numbers."""
    pixel_type: PixelType
    """How the ids are stored and read."""
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels as read: whole numbers."""
        return self.pixel_type.dtype

    @property
    def nodata(self) -> int | None:
        """Value of pixels without a class as read; None where every pixel has one."""
        return self.pixel_type.nodata

    @contextmanager
    def reader(self, *, cache_bytes: int | None = None) -> Iterator[ClassReader]:
        """A handle of one's own, for one thread and many reads.

        Raises:
            SceneError: the file cannot be opened any more.
        """
        with open_reader(self.source, cache_bytes=cache_bytes) as reader:
            yield ClassReader(self.path, reader, self.pixel_type, self.legend)

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class ids of a window, in the raster's dtype; nodata where unclassified.

        Raises:
            SceneError: a block cannot be read, or holds a number that is not in the legend.
        """
        with self.reader() as reader:
            return reader.read(window)


def open_class_raster(
    path: PathLike, *, allow_external: bool = False, legend_file: PathLike | None = None
) -> ClassRaster:
    """Look at a class raster, ours or another's, and say what its ids mean.

    The legend of ours is in its header. One that others made is read through once, to find the
    ids that occur; they may be stored as floating point, as long as they are whole. Names and
    colours come from the legend file, else from what lies in the raster and beside it: attribute
    tables (`.aux.xml`, `.vat.dbf`), category names, styles (`.qml`, `.clr`), the colour table, or
    the files of a mosaic. A warning says where there is no name.

    Args:
        path: a file, or any path that GDAL reads (`https://...`, a VRT).
        allow_external: as in `open_scene`.
        legend_file: names and colours of class ids, in any form that `--legend` takes; what it
            says comes first, and its classes are in the legend whether or not they occur.

    Raises:
        SceneError: the file is missing or no raster, its pixels are not class ids, or it has more
            than one band.
        LabelError: the legend file cannot be read, or does not fit.

    Example:
        >>> import geodinoseg as gds
        >>> raster = gds.open_class_raster("landcover.tif")
        >>> raster.legend.names, raster.nodata
        (('field', 'roof', 'water'), 255)
    """
    source = RasterSource.of(path, trusted=allow_external)
    raster = describe_class_raster(source, legend_file=legend_file)
    if not raster.is_named:
        warn_of_lost_names(raster.path, raster.legend)
    return raster


def describe_class_raster(
    source: RasterSource, *, legend_file: PathLike | None = None, with_styles: bool = True
) -> ClassRaster:
    """A class raster as `open_class_raster` opens it, without a warning of names.

    Args:
        source: the raster.
        legend_file: names and colours that come first.
        with_styles: whether a `.qml` or `.clr` beside the raster counts.

    Raises:
        SceneError: as in `open_class_raster`.
        LabelError: as in `open_class_raster`.
    """
    path = source.path
    with open_reader(source, deadline_s=FIRST_DEADLINE_S) as reader:
        dataset = reader.dataset
        tags: dict[str, str] = dataset.tags()
        _check_pixels(path, dataset, tags)
        pixel_type = PixelType.of(path, dataset)
        geobox, block_shape = geobox_of(path, dataset), dataset.block_shapes[0]
        found = _found_legend(source, reader, tags, pixel_type, with_styles=with_styles)
    if legend_file is not None:
        found = with_legend_file(path, found, legend_file)
    return ClassRaster(
        source=source,
        geobox=geobox,
        legend=found.legend,
        is_named=found.is_named,
        pixel_type=pixel_type,
        block_shape=block_shape,
        confidence_path=_confidence_path(path, tags),
        tags=tags,
    )


def _check_pixels(path: PathLike, dataset: rasterio.DatasetReader, tags: dict[str, str]) -> None:
    if tags.get(CONTENT_TAG, "classes") != "classes":
        raise SceneError(
            f"{path}: holds {tags[CONTENT_TAG]}, not classes; give the class raster it belongs to."
        )
    if dataset.count != 1:
        raise SceneError(
            f"{path}: has {dataset.count} bands, a class raster has one; take it out with "
            f"gdal_translate -b, or segment this scene first."
        )
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        raise SceneError(
            f"{path}: has a mask band, a class raster marks missing pixels by a nodata value; "
            f"convert it with gdalwarp -dstnodata."
        )


def _found_legend(
    source: RasterSource,
    reader: RasterReader,
    tags: dict[str, str],
    pixel_type: PixelType,
    *,
    with_styles: bool,
) -> FoundLegend:
    """The legend in a raster of ours, or in all files of a mosaic; else of the ids that occur."""
    path, text = source.path, tags.get(LEGEND_TAG)
    if text is None and reader.dataset.driver == "VRT":
        text = shared_tag(source, LEGEND_TAG)
    if text is not None:
        legend = _legend_of_tag(path, text)
        colors = {entry.class_id: entry.color for entry in legend}
        return FoundLegend(legend=legend, is_named=True, colors=colors)
    class_ids = class_ids_in(path, reader, pixel_type)
    return find_legend(reader.dataset, path, class_ids, with_styles=with_styles)


def _legend_of_tag(path: PathLike, text: str) -> Legend:
    try:
        return Legend.from_json(json.loads(text))
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
        if not same_place(place, raster.geobox) or dataset.dtypes[0] != "uint8":
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}, which has another grid; move "
                f"it away, or segment again with --confidence."
            )
        yield reader


@contextmanager
def confidence_reader(raster: ClassRaster) -> Iterator[RasterReader | None]:
    """A reader of the confidence raster, or None, with a warning, where it cannot be used."""
    with ExitStack() as stack:
        reader = None
        if raster.confidence_path is not None:
            try:
                reader = stack.enter_context(open_confidence(raster))
            except SceneError as error:
                _log.warning("%s It is left out here.", error)
        yield reader


def with_usable_confidence(raster: ClassRaster) -> ClassRaster:
    """A class raster that names no confidence raster which cannot be used; warns of one."""
    with confidence_reader(raster) as reader:
        return raster if reader is not None else replace(raster, confidence_path=None)
