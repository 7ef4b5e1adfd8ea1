"""Comparison of a map with labels, window by window, for the whole map and for each region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.evaluation.agreement import Agreement, AgreementSums
from geodinoseg.evaluation.boundaries import (
    BoundaryAgreement,
    BoundaryPixels,
    Reach,
    boundary_pixels,
)
from geodinoseg.evaluation.calibration import Reliability, count_confidence
from geodinoseg.evaluation.regions import Region
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.labels import Labels
from geodinoseg.legend import LARGEST_CLASS_ID
from geodinoseg.progress import Progress
from geodinoseg.rasters.class_raster import ClassRaster, confidence_reader, with_usable_confidence
from geodinoseg.rasters.dataset import RasterReader
from geodinoseg.windows import Window, windows_over

WINDOW_PX = (512, 4096)
"""Rows and columns compared at once: whole blocks of our maps, 2 million pixels."""
_MOST_CLASSES = 1_000
_NO_CONFIDENCE = 255


def check_class_count(raster: ClassRaster) -> None:
    """Refuse rasters whose pixels are object numbers rather than classes."""
    if len(raster.legend) > _MOST_CLASSES:
        raise SceneError(
            f"{raster.path}: has {len(raster.legend):,} classes, more than {_MOST_CLASSES:,}; give "
            f"a raster of classes, not of object numbers."
        )


class ClassIndexTable:
    """Looks up class indices: the positions of class ids in the legend of a raster."""

    def __init__(self, raster: ClassRaster) -> None:
        self._table = np.full(LARGEST_CLASS_ID + 2, IGNORE, dtype=np.int32)
        self._table[raster.legend.class_ids] = np.arange(len(raster.legend), dtype=np.int32)
        if raster.nodata is not None and 0 <= raster.nodata < len(self._table):
            self._table[raster.nodata] = IGNORE

    def of(self, class_ids: NDArray[Any]) -> NDArray[np.int32]:
        """Class indices, same shape; IGNORE where an id is not in the legend, such as nodata."""
        if class_ids.dtype in (np.uint8, np.uint16):
            indices: NDArray[np.int32] = self._table[class_ids]
            return indices
        inside = (class_ids >= 0) & (class_ids < len(self._table))
        indices = self._table[np.where(inside, class_ids, 0)]
        indices[~inside] = IGNORE
        return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionEvaluation:
    """The measures of a region of a map, or of the whole map."""

    name: str
    """Of the region; `all` for the whole map."""
    accuracy: Accuracy
    """Pixel by pixel."""
    boundary: BoundaryAgreement
    """Of the borders between classes."""
    reliability: Reliability | None
    """Of the map's confidence; None without a confidence raster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of `compare`."""

    whole: RegionEvaluation
    """Of every labelled pixel."""
    regions: tuple[RegionEvaluation, ...]
    """Of those in each region, in the order given."""
    agreement: Agreement
    """Where the map is correct, as a picture."""


def compare(
    raster: ClassRaster,
    labels: Labels,
    *,
    reach: Reach,
    regions: Sequence[Region],
    progress: Progress,
    window_px: tuple[int, int] = WINDOW_PX,
) -> Comparison:
    """Compare every labelled pixel of a map with its label.

    Holds one window with its halo at a time; the result does not depend on the windows.

    Args:
        raster: the map; its confidence raster is evaluated, too, if it can be used.
        labels: on the map's grid, with the map's legend.
        reach: the tolerance of boundaries.
        regions: parts of the map that are also evaluated separately.
        progress: called with the fraction of the map compared.
        window_px: rows and columns of a window.
    """
    raster = with_usable_confidence(raster)
    classes = len(raster.legend)
    whole = _Sums("all", classes)
    parts = [(region, _Sums(region.name, classes)) for region in regions]
    agreement = AgreementSums(raster.geobox)
    rows, cols = window_px
    windows = list(windows_over(height=raster.height, width=raster.width, rows=rows, cols=cols))
    for done, (window, compared) in enumerate(_compared(raster, labels, windows, reach), start=1):
        whole.add(compared, None)
        for region, sums in parts:
            inside = region.inside(window)
            if inside is not None:
                sums.add(compared, inside)
        agreement.add(window, compared.reference, compared.mapped)
        progress(done / len(windows), "comparing")
    has_confidence = raster.confidence_path is not None
    return Comparison(
        whole=whole.result(has_confidence=has_confidence),
        regions=tuple(sums.result(has_confidence=has_confidence) for _, sums in parts),
        agreement=agreement.result(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Map and labels of a window, without its halo."""

    reference: NDArray[Any]
    """(height, width) class indices, IGNORE where the pixel is not compared."""
    mapped: NDArray[Any]
    """(height, width) class indices, IGNORE at the same pixels."""
    percent: NDArray[np.uint8] | None
    """(height, width) confidence."""
    reference_boundary: BoundaryPixels
    mapped_boundary: BoundaryPixels


def _compared(
    raster: ClassRaster, labels: Labels, windows: Sequence[Window], reach: Reach
) -> Iterator[tuple[Window, _Compared]]:
    table = ClassIndexTable(raster)
    with ExitStack() as stack:
        reader = stack.enter_context(raster.reader())
        confidence = stack.enter_context(confidence_reader(raster))
        for window in windows:
            halo = _with_halo(window, reach.halo_px, raster)
            core = _inside(window, halo)
            mapped, reference = table.of(reader.read(halo)), labels.read(halo)
            unknown = (mapped < 0) | (reference < 0)
            mapped[unknown], reference[unknown] = IGNORE, IGNORE
            yield (
                window,
                _Compared(
                    reference=reference[core],
                    mapped=mapped[core],
                    percent=None if confidence is None else _percent(raster, confidence, window),
                    reference_boundary=boundary_pixels(reference, mapped, core, reach),
                    mapped_boundary=boundary_pixels(mapped, reference, core, reach),
                ),
            )


def _percent(raster: ClassRaster, confidence: RasterReader, window: Window) -> NDArray[np.uint8]:
    """Confidence of a window; refuses a value that is neither a percent nor nodata."""
    percent = confidence.read(window)
    strange = (percent > 100) & (percent != _NO_CONFIDENCE)
    if strange.any():
        raise SceneError(
            f"{raster.confidence_path}: holds the value {percent[strange].max()}; confidence is "
            f"0 to 100 percent, and {_NO_CONFIDENCE} where there is none."
        )
    return percent


class _Sums:
    """Counts of a region, summed up window by window."""

    def __init__(self, name: str, classes: int) -> None:
        self._name, self._classes = name, classes
        self._matrix = np.zeros((classes, classes), dtype=np.int64)
        self._boundary = np.zeros((4, classes), dtype=np.int64)
        self._confidence = count_confidence(np.zeros(0, np.uint8), np.zeros(0, np.bool_))

    def add(self, compared: _Compared, inside: NDArray[np.bool_] | None) -> None:
        """Count the pixels of a window that are `inside`; None = all of them."""
        counted = compared.reference >= 0
        if inside is not None:
            counted &= inside
        if not counted.any():
            return
        reference, mapped = compared.reference[counted], compared.mapped[counted]
        self._matrix += confusion_matrix(reference, mapped, self._classes)
        for first, pixels in enumerate((compared.reference_boundary, compared.mapped_boundary)):
            self._add_boundary(2 * first, pixels, inside)
        if compared.percent is not None:
            self._confidence += count_confidence(compared.percent[counted], reference == mapped)

    def _add_boundary(
        self, line: int, pixels: BoundaryPixels, inside: NDArray[np.bool_] | None
    ) -> None:
        indices, is_matched = pixels.class_indices, pixels.is_matched
        if inside is not None:
            here = inside[pixels.rows, pixels.cols]
            indices, is_matched = indices[here], is_matched[here]
        self._boundary[line] += np.bincount(indices, minlength=self._classes)
        self._boundary[line + 1] += np.bincount(indices[is_matched], minlength=self._classes)

    def result(self, *, has_confidence: bool) -> RegionEvaluation:
        """The measures."""
        reference, reference_matched, mapped, mapped_matched = self._boundary
        return RegionEvaluation(
            name=self._name,
            accuracy=Accuracy(self._matrix),
            boundary=BoundaryAgreement(
                reference=reference,
                reference_matched=reference_matched,
                mapped=mapped,
                mapped_matched=mapped_matched,
            ),
            reliability=self._confidence.reliability() if has_confidence else None,
        )


def _with_halo(window: Window, halo_px: int, raster: ClassRaster) -> Window:
    """A window with its halo, clipped to the map."""
    return window.buffered(halo_px).clipped_to(height=raster.height, width=raster.width)


def _inside(window: Window, outer: Window) -> tuple[slice, slice]:
    """Rows and columns of a window in the array of an outer one."""
    return window.shifted_by(rows=-outer.row_off, cols=-outer.col_off).slices
