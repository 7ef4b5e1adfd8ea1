"""Whether a raster of another program holds measured values or classes, judged from a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from geodinoseg.errors import SceneError
from geodinoseg.legend import LARGEST_CLASS_ID
from geodinoseg.rasters.class_raster import CONTENT_TAG, LEGEND_TAG
from geodinoseg.rasters.class_reader import PixelType
from geodinoseg.rasters.dataset import RasterReader, open_reader
from geodinoseg.rasters.legend_sources import find_legend
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

_MOST_CLASSES = 64
"""A single band with more distinct values than this is taken for measured values."""
_WINDOW_PX = 512
_WINDOWS_ALONG = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterKind:
    """What a raster appears to hold."""

    kind: Literal["scene", "class raster", "either"]
    """`either` is a single band with few distinct integers and no class names."""
    values: tuple[int, ...] = ()
    """For `either`, the integers that occur in a sample, ascending."""


def kind_of(source: RasterSource) -> RasterKind:
    """Recognize class rasters by our tags, a palette or class names; reads a sample of pixels.

    Raises:
        SceneError: the raster cannot be read.
    """
    with open_reader(source) as reader:
        dataset = reader.dataset
        if LEGEND_TAG in dataset.tags() or ColorInterp.palette in dataset.colorinterp:
            return RasterKind(kind="class raster")
        if dataset.count != 1 or CONTENT_TAG in dataset.tags() or "complex" in dataset.dtypes[0]:
            return RasterKind(kind="scene")
        values = _whole_numbers(source.path, reader)
        if not values:
            return RasterKind(kind="scene")
        if find_legend(dataset, source.path, values).is_named:
            return RasterKind(kind="class raster")
        if len(values) > _MOST_CLASSES:
            return RasterKind(kind="scene")
        return RasterKind(kind="either", values=tuple(values))


def _whole_numbers(path: str, reader: RasterReader) -> list[int]:
    """The values that occur in a sample, ascending; empty if one cannot be a class id."""
    pixel_type = PixelType.of(path, reader.dataset)
    found: set[int] = set()
    for window in _sample(reader.dataset):
        try:
            class_ids = pixel_type.class_ids(path, window, reader.read(window))
            found.update(np.unique(class_ids).tolist())
        except SceneError:
            return []
    if pixel_type.nodata is not None:
        found.discard(pixel_type.nodata)
    return sorted(found) if all(0 <= value <= LARGEST_CLASS_ID for value in found) else []


def _sample(dataset: rasterio.DatasetReader) -> list[Window]:
    """Windows spread over a raster, with at most 4 million pixels."""
    tops, lefts = (
        sorted({round(at) for at in np.linspace(0, max(length - _WINDOW_PX, 0), _WINDOWS_ALONG)})
        for length in (dataset.height, dataset.width)
    )
    return [
        Window(
            col_off=left,
            row_off=top,
            width=min(_WINDOW_PX, dataset.width),
            height=min(_WINDOW_PX, dataset.height),
        )
        for top in tops
        for left in lefts
    ]
