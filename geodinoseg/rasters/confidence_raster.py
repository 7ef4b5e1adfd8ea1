"""The confidence that belongs to a class raster: percent per pixel, on the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.geobox import same_place
from geodinoseg.rasters.class_raster import CONTENT_TAG, ClassRaster
from geodinoseg.rasters.dataset import geobox_of
from geodinoseg.rasters.reader import RasterReader, opened_reader
from geodinoseg.windows import Window


class ConfidenceReader:
    """An open confidence raster. Belongs to the thread that opened it."""

    def __init__(self, raster: RasterReader) -> None:
        self._raster = raster

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Confidence of a window.

        Returns:
            (height, width) percent; 255 where there is none.

        Raises:
            SceneError: a block cannot be read.
        """
        percent: NDArray[np.uint8] = self._raster.read(
            window, lambda dataset: dataset.read(1, window=window.ranges)
        )
        return percent


@contextmanager
def opened_confidence(raster: ClassRaster) -> Iterator[ConfidenceReader]:
    """The confidence raster that a class raster names.

    Raises:
        SceneError: it names none, or one that is missing, of another type or on another grid.
    """
    path = raster.confidence_path
    if path is None:
        raise SceneError(f"{raster.path}: names no confidence raster; segment with --confidence.")
    with opened_reader(path, allow_external=raster.allow_external) as reader:
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
        yield ConfidenceReader(reader)
