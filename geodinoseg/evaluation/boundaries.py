"""Boundary accuracy of a map: precision, recall and F-score of the borders between classes.

After Csurka, Larlus, Perronnin (2013), "What is a good evaluation measure for semantic
segmentation?", BMVC. There the tolerance is a fraction of the image's diagonal; a map has no size
of its own, so here it is a distance in pixels or metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.evaluation.accuracy import ratio
from geodinoseg.geobox import GeoBox
from geodinoseg.polygons.ground import metres_fault
from geodinoseg.transformations import degrees_per_unit

DEFAULT_TOLERANCE_PX = 3.0
"""Default distance within which two borders match."""
_LARGEST_REACH_PX = 100
_NO_BOUNDARY = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Distance within which a border of one side matches a border of the other."""

    distance: float
    """0 or more, in `unit`, inclusive."""
    unit: str
    """px or m."""

    def __str__(self) -> str:
        """Such as 3 px or 0.5 m."""
        return f"{self.distance:g} {self.unit}"


@dataclass(frozen=True, eq=False, kw_only=True)
class BoundaryAgreement:
    """Boundary pixels of each class, and how many of them match one of the other side.

    A boundary pixel of a class has that class and a neighbour, across an edge, of another one.
    """

    reference: NDArray[np.int64]
    """(classes,) boundary pixels of the reference."""
    reference_matched: NDArray[np.int64]
    """(classes,) those within the tolerance of such a pixel of the map."""
    mapped: NDArray[np.int64]
    """(classes,) boundary pixels of the map."""
    mapped_matched: NDArray[np.int64]
    """(classes,) those within the tolerance of such a pixel of the reference."""

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """Fraction of the map's border that is matched, (classes,); NaN where it has none."""
        return ratio(self.mapped_matched, self.mapped)

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """Fraction of the reference's border that is matched, (classes,); NaN where it has none."""
        return ratio(self.reference_matched, self.reference)

    @cached_property
    def f_score(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, (classes,).

        NaN where the reference has no border of the class; 0 where only the map has none.
        """
        precision = np.nan_to_num(self.precision)
        return np.where(
            self.reference > 0,
            np.nan_to_num(ratio(2 * precision * self.recall, precision + self.recall)),
            np.nan,
        )

    @property
    def mean_f_score(self) -> float:
        """Mean of `f_score` over classes with a border in the reference; NaN if there are none."""
        scored = self.f_score[np.isfinite(self.f_score)]
        return float(scored.mean()) if len(scored) else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryPixels:
    """The boundary pixels of one side in a window."""

    rows: NDArray[np.intp]
    """(pixels,) from the window's first row."""
    cols: NDArray[np.intp]
    """(pixels,) from its first column."""
    class_indices: NDArray[Any]
    """(pixels,) class of each."""
    is_matched: NDArray[np.bool_]
    """(pixels,) True = the other side has a boundary pixel of this class within the tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The pixels within the tolerance of a pixel."""

    offsets: NDArray[np.int64]
    """(offsets, 2) rows and columns, nearest first, (0, 0) included."""

    @property
    def halo_px(self) -> int:
        """Pixels around a window that are needed to match its boundary pixels."""
        # One more: whether a pixel is a boundary depends on its neighbours.
        return int(np.abs(self.offsets).max()) + 1


def reach_of(tolerance: Tolerance, geobox: GeoBox) -> Reach:
    """The pixels within a tolerance, on a map's grid.

    Metres are measured on the ground at the map's centre, rows and columns each at their own
    scale.

    Raises:
        LabelError: the tolerance is not a distance, too large, or in metres although lengths on
            the ground are unknown.
    """
    if not (math.isfinite(tolerance.distance) and tolerance.distance >= 0):
        raise LabelError(
            f"a boundary tolerance of {tolerance} is not a distance; give 0 or more, such as 3."
        )
    fault = metres_fault(geobox) if tolerance.unit == "m" else ""
    if fault:
        raise LabelError(
            f"a boundary tolerance of {tolerance} cannot be applied, as the map {fault}; give it "
            f"in pixels, such as 3, or assign the map's CRS, for instance with gdal_edit -a_srs."
        )
    step = np.eye(2) if tolerance.unit == "px" else pixel_step_m(geobox)
    far = tolerance.distance * np.linalg.norm(np.linalg.inv(step), axis=1)
    if not (far <= _LARGEST_REACH_PX).all():
        raise LabelError(
            f"a boundary tolerance of {tolerance} is {far.max():.0f} px of this map, more than "
            f"{_LARGEST_REACH_PX}; give a smaller one."
        )
    cols, rows = (
        grid.ravel()
        for grid in np.meshgrid(*(np.arange(-int(n) - 1, int(n) + 2) for n in far), indexing="ij")
    )
    distances = np.hypot(*(step @ np.stack([cols, rows])))
    # Rounding must not exclude a pixel exactly at the tolerance.
    near = np.flatnonzero(distances <= tolerance.distance * (1 + 1e-9))
    near = near[np.argsort(distances[near], kind="stable")]
    return Reach(offsets=np.column_stack([rows[near], cols[near]]))


def boundary_pixels(
    side: NDArray[Any], other: NDArray[Any], core: tuple[slice, slice], reach: Reach
) -> BoundaryPixels:
    """Boundary pixels of one side in the core of a window, and which of them the other matches.

    Args:
        side: (height, width) class indices, below 0 where the pixel is not compared; such a
            neighbour makes no boundary.
        other: the other side, the same shape, below 0 at the same pixels.
        core: rows and columns without the halo.
        reach: the pixels within the tolerance.
    """
    rows, cols = np.nonzero(_is_boundary(side)[core])
    top, left = core[0].start, core[1].start
    found = side[rows + top, cols + left]
    pad = reach.halo_px
    target = np.pad(
        np.where(_is_boundary(other), other, _NO_BOUNDARY), pad, constant_values=_NO_BOUNDARY
    )
    is_matched = _find_matches(rows + top + pad, cols + left + pad, found, target, reach)
    return BoundaryPixels(rows=rows, cols=cols, class_indices=found, is_matched=is_matched)


def _is_boundary(side: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels have an edge neighbour that is known and of another class."""
    known = side >= 0
    edge = np.zeros(side.shape, dtype=np.bool_)
    for first, second in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = (side[first] != side[second]) & known[first] & known[second]
        edge[first] |= differ
        edge[second] |= differ
    return edge


def _find_matches(
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    class_indices: NDArray[Any],
    target: NDArray[Any],
    reach: Reach,
) -> NDArray[np.bool_]:
    """Which pixels have their class in `target` within reach; most are found at the first steps."""
    is_matched = np.zeros(len(rows), dtype=np.bool_)
    left = np.arange(len(rows), dtype=np.intp)
    for row_step, col_step in reach.offsets.tolist():
        hit = target[rows[left] + row_step, cols[left] + col_step] == class_indices[left]
        is_matched[left[hit]] = True
        left = left[~hit]
        if not len(left):
            break
    return is_matched


def pixel_step_m(geobox: GeoBox) -> NDArray[np.float64]:
    """(2, 2) metres on the ground: rows east and north, columns one pixel right and one down."""
    transform = geobox.transform
    step = np.array([[transform.a, transform.b], [transform.d, transform.e]], dtype=np.float64)
    if not geobox.is_geographic:
        return step * (geobox.crs_unit_m / math.sqrt(geobox.areal_scale))
    crs = pyproj.CRS.from_user_input(geobox.crs)
    degrees = degrees_per_unit(crs)
    lon, lat = np.array(transform @ (geobox.width / 2, geobox.height / 2)) * degrees
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    small = 1e-3
    east = geod.line_length([lon, lon + small], [lat, lat]) / small
    north = geod.line_length([lon, lon], [lat - small / 2, lat + small / 2]) / small
    return np.asarray(step * degrees * np.array([[east], [north]]), dtype=np.float64)
