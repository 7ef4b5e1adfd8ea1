"""Class rasters: their header and legend, and how their pixels are read.

Rasters of other programs are supported if their pixels are class ids.
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
from rasterio.enums import ColorInterp, MaskFlags

from geodinoseg.errors import LabelError, LegendError, SceneError
from geodinoseg.files.arguments import path_text
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, same_grid
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
    raster_style,
    warn_of_lost_names,
    with_legend_file,
)
from geodinoseg.rasters.mosaic_legend import shared_tag
from geodinoseg.rasters.seams import Seams
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

LEGEND_TAG = "GEODINOSEG_LEGEND"
"""Tag of a class raster that holds its legend as JSON."""
CONFIDENCE_TAG = "GEODINOSEG_CONFIDENCE"
"""Tag of a class raster that holds the path of its confidence raster, relative to its folder."""
MAP_TAG = "GEODINOSEG_MAP"
"""Tag of all rasters of a map: a digest of their pixels, by which they know each other."""
CONTENT_TAG = "GEODINOSEG_CONTENT"
"""Tag of every raster of a map: `classes`, `confidence` or `probabilities`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRaster:
    """A raster of class ids. A value without a file handle, made by `open_class_raster`."""

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Georeferencing and size."""
    legend: Legend
    """Ids, names and colours of the classes."""
    is_named: bool
    """Whether any source names the classes; else their names are derived from their ids."""
    pixel_type: PixelType
    """Type in which the ids are stored and read."""
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer dtype of the pixels as read."""
        return self.pixel_type.dtype

    @property
    def nodata(self) -> int | None:
        """Nodata value of the pixels as read; None if every pixel has a class."""
        return self.pixel_type.nodata

    @property
    def seams(self) -> Seams | None:
        """How much the map shows the tiles that it was computed in; None if it does not say."""
        return Seams.of_tags(self.tags)

    @contextmanager
    def reader(self, *, cache_bytes: int | None = None) -> Iterator[ClassReader]:
        """Open the file for many reads by one thread.

        Raises:
            SceneError: the file can no longer be opened.
        """
        with open_reader(self.source, cache_bytes=cache_bytes) as reader:
            yield ClassReader(self.path, reader, self.pixel_type, self.legend)

    def read(self, window: Window) -> NDArray[Any]:
        """Class ids (height, width) of a window in the raster's dtype; nodata marks no class.

        Raises:
            SceneError: a block cannot be read, or holds a number that is not in the legend.
        """
        with self.reader() as reader:
            return reader.read(window)


def open_class_raster(
    path: PathLike, *, allow_external: bool = False, legend_file: PathLike | None = None
) -> ClassRaster:
    """Read the header and the legend of a class raster.

    A class raster of geodinoseg has its legend in the header; colours of a QGIS style beside it
    (`.qml`) take precedence. One of another program is read once
    in full, to find the ids that occur; they may be stored as floating point if they are integers.
    Names and colours come from the legend file, else from the raster and the files beside it:
    attribute tables (`.aux.xml`, `.vat.dbf`), category names, styles (`.qml`, `.clr`), the colour
    table, or the files of a mosaic. A warning is logged if the classes have no names.

    Args:
        path: a file, or any path that GDAL reads (`https://...`, a VRT).
        allow_external: as in `open_scene`.
        legend_file: names and colours of class ids, in any form that `--legend` takes. They take
            precedence, and its classes are in the legend even if they do not occur.

    Raises:
        SceneError: the file is missing or not a raster, its pixels are not class ids, or it has
            more than one band.
        LabelError: the legend file cannot be read, or does not fit the raster.

    Example:
        >>> import geodinoseg as gds
        >>> raster = gds.open_class_raster("landcover.tif")
        >>> raster.legend.names, raster.nodata
        (('field', 'roof', 'water'), 255)
    """
    text = path_text(path, "class raster", "a path or a ClassRaster", error=SceneError)
    if legend_file is not None:
        path_text(legend_file, "legend_file", error=LabelError)
    source = RasterSource.of(text, trusted=allow_external)
    raster = describe_class_raster(source, legend_file=legend_file)
    if not raster.is_named:
        warn_of_lost_names(raster.path, raster.legend)
    return raster


def describe_class_raster(
    source: RasterSource, *, legend_file: PathLike | None = None, with_styles: bool = True
) -> ClassRaster:
    """Open a class raster as `open_class_raster` does, without a warning if names are missing.

    Args:
        source: the raster.
        legend_file: names and colours that take precedence.
        with_styles: whether to read a `.qml` or `.clr` beside the raster, whose colours take
            precedence.

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
    if dataset.count == 2 and dataset.colorinterp[1] == ColorInterp.alpha:
        raise SceneError(
            f"{path}: has an alpha band, but a class raster marks missing pixels by a nodata "
            f"value. If no class is 255, convert it: gdalwarp -dstnodata 255 {path} marked.tif, "
            f"then gdal_translate -b 1 marked.tif classes.tif."
        )
    if dataset.count != 1:
        raise SceneError(
            f"{path}: has {dataset.count} bands, but a class raster has one; extract it with "
            f"gdal_translate -b, or segment this scene first."
        )
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        raise SceneError(
            f"{path}: has a mask band, but a class raster marks missing pixels by a nodata value; "
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
    """The legend in the tags of the raster or of all files of a mosaic, else one of its ids."""
    path, text = source.path, tags.get(LEGEND_TAG)
    if text is None and reader.dataset.driver == "VRT":
        text = shared_tag(source, LEGEND_TAG, same=_without_colors)
    if text is not None:
        legend = _legend_of_tag(path, text)
        if with_styles:
            legend = legend.recolored(raster_style(path).colors_by_id())
        colors = {entry.class_id: entry.color for entry in legend}
        return FoundLegend(legend=legend, is_named=True, colors=colors)
    class_ids = class_ids_in(path, reader, pixel_type)
    return find_legend(reader.dataset, path, class_ids, with_styles=with_styles)


def _without_colors(text: str | None) -> object:
    """What legends of the files of a mosaic have in common, which may be coloured one by one."""
    try:
        return [(entry["class_id"], entry["name"]) for entry in json.loads(text or "")]
    except (ValueError, RecursionError, KeyError, TypeError):
        return text


def _legend_of_tag(path: PathLike, text: str) -> Legend:
    try:
        return Legend.from_json(json.loads(text))
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
        if dataset.dtypes[0] != "uint8":
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}: it has pixels of type "
                f"{dataset.dtypes[0]}, not percent in uint8 with nodata 255; convert it."
            )
        if not same_grid(geobox, raster.geobox):
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}, which has another grid; move "
                f"it away, or segment again with --confidence."
            )
        run = raster.tags.get(MAP_TAG)
        if dataset.tags().get(MAP_TAG, run) != run:  # other programs write no such tag
            raise SceneError(
                f"{path}: is not the confidence of {raster.path}, but of another run; segment "
                f"again with --confidence."
            )
        yield reader


@contextmanager
def confidence_reader(raster: ClassRaster) -> Iterator[RasterReader | None]:
    """A reader of the confidence raster, or None, with a warning, if it cannot be used."""
    with ExitStack() as stack:
        reader = None
        if raster.confidence_path is not None:
            try:
                reader = stack.enter_context(open_confidence(raster))
            except SceneError as error:
                _log.warning("%s It is ignored.", error)
        yield reader


def with_usable_confidence(raster: ClassRaster) -> ClassRaster:
    """The class raster without a confidence raster that cannot be used, with a warning."""
    with confidence_reader(raster) as reader:
        return raster if reader is not None else replace(raster, confidence_path=None)
