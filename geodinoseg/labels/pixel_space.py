"""From coordinates of any CRS to the pixel space of a raster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geodinoseg.errors import LabelError, one_line
from geodinoseg.geobox import GeoBox
from geodinoseg.windows import Window

# Positions are projected at every 16th pixel of the scene and interpolated between: off by at
# most (16 px)^2 / 8 earth radii, 0.005 px where a pixel is a kilometre.
_LATTICE_PX = 16
# Where the centre of a pixel lies on an edge between two, rounding must not decide.
_TIE_PX = 1e-6
Bounds = tuple[float, float, float, float]
"""Minimum x, minimum y, maximum x, maximum y."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSpace:
    """Transforms a CRS to the pixels of a scene, where (0, 0) is its upper left corner."""

    geobox: GeoBox
    """The scene."""
    crs: pyproj.CRS | None
    """CRS of the coordinates given; None where it is the scene's own."""

    @classmethod
    def for_labels(cls, path: str, crs: pyproj.CRS | None, geobox: GeoBox) -> PixelSpace:
        """From the CRS of labels to a scene's pixels; without a scene CRS, coordinates are kept.

        Raises:
            LabelError: the scene has a CRS and the labels have none, or no transformation leads
                from one to the other.
        """
        if geobox.crs is None:
            return cls(geobox=geobox, crs=None)
        scene_crs = pyproj.CRS.from_user_input(geobox.crs)
        if crs is None:
            raise LabelError(
                f"{path}: has no CRS; set it in QGIS (Layer > Set Layer CRS, then export), or with "
                f"ogr2ogr -a_srs {_code(scene_crs)} labels.gpkg {path}, if it is the scene's."
            )
        if crs.equals(scene_crs, ignore_axis_order=True):
            return cls(geobox=geobox, crs=None)
        space = cls(geobox=geobox, crs=crs)
        try:
            space.scene_bounds()
        except ProjError as error:
            raise LabelError(
                f"{path}: the scene cannot be projected from {scene_crs.name!r} to the CRS of the "
                f"labels, {crs.name!r}; reproject the labels to the scene's ({one_line(error)})."
            ) from error
        return space

    def to_pixels(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """From (points, 2) x and y to column and row; infinite where the projection fails."""
        x, y = coordinates.T
        if self.crs is not None:
            x, y = _transformer(self.crs, self._scene_crs).transform(x, y)
        inverse = ~self.geobox.transform
        with np.errstate(invalid="ignore"):
            cols = inverse.a * x + inverse.b * y + inverse.c
            rows = inverse.d * x + inverse.e * y + inverse.f
        return np.column_stack([cols, rows])

    def scene_bounds(self) -> Bounds:
        """A rectangle in the given CRS that contains the scene; else a ProjError."""
        left, bottom, right, top = self._outline()
        if left > right:  # the scene lies across the 180th meridian
            left, right = -180.0, 180.0
        return left, bottom, right, top

    def pixel_length(self) -> float:
        """Approximate side length of a pixel in units of the given CRS."""
        left, bottom, right, top = self._outline()
        across = right - left + (360.0 if left > right else 0.0)
        diagonal_px = math.hypot(self.geobox.width, self.geobox.height)
        return math.hypot(across, top - bottom) / diagonal_px

    def _outline(self) -> Bounds:
        """Bounds as PROJ returns them: the left may be east of the right."""
        outline = bounds_of(self.geobox)
        if self.crs is None:
            return outline
        transformer = _transformer(self._scene_crs, self.crs)
        left, bottom, right, top = transformer.transform_bounds(*outline, errcheck=True)
        return left, bottom, right, top

    @property
    def _scene_crs(self) -> pyproj.CRS:
        return pyproj.CRS.from_user_input(self.geobox.crs)


def bounds_of(geobox: GeoBox) -> Bounds:
    """Bounds of a raster in its own CRS."""
    corners = [(0, 0), (geobox.width, 0), (0, geobox.height), (geobox.width, geobox.height)]
    x, y = zip(*(geobox.transform @ corner for corner in corners), strict=True)
    return min(x), min(y), max(x), max(y)


def outside_error(path: str, space: PixelSpace, label_bounds: Bounds) -> LabelError:
    """The error that labels lie outside the scene, with the bounds of both."""
    return LabelError(
        f"{path}: lies outside the scene; the labels cover {_format(label_bounds)}, the scene "
        f"{_format(space.scene_bounds())} in the same coordinates. Give labels of this scene, or "
        f"correct the CRS of one of them."
    )


def may_overlap(space: PixelSpace, scene: GeoBox, window: Window) -> bool:
    """Whether another raster may have a pixel under one of a window's; see `nearest_pixels`."""
    cols, rows = _project_lattice(space, scene, _lattice(window)).reshape(-1, 2).T
    known = np.isfinite(cols) & np.isfinite(rows)
    if not known.any():
        return False
    cols, rows = cols[known], rows[known]
    beside = cols.max() < 0 or cols.min() > space.geobox.width
    return not (beside or rows.max() < 0 or rows.min() > space.geobox.height)


def nearest_pixels(
    space: PixelSpace, scene: GeoBox, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixel of another raster under the centre of each pixel of a window.

    Args:
        space: from the scene's coordinates to pixels of the other raster.
        scene: whose window it is. The answer for a pixel does not depend on the window.
        window: inside the scene.

    Returns:
        columns, rows: (height, width) each; both -1 where the other raster has no pixel.
    """
    corners = _project_lattice(space, scene, _lattice(window))
    down, down_fraction = _lattice_intervals(window.row_off, window.height)
    across, across_fraction = _lattice_intervals(window.col_off, window.width)
    along = _interpolate(corners, across, across_fraction[:, None], axis=1)
    cols, rows = np.moveaxis(_interpolate(along, down, down_fraction[:, None, None], axis=0), 2, 0)
    inside = np.isfinite(cols) & np.isfinite(rows)
    inside &= (cols >= -_TIE_PX) & (cols + _TIE_PX < space.geobox.width)
    inside &= (rows >= -_TIE_PX) & (rows + _TIE_PX < space.geobox.height)
    return _floored(cols, inside), _floored(rows, inside)


@lru_cache(maxsize=16)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    # Choosing among PROJ's operations takes milliseconds, and every window needs one.
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _format(bounds: Bounds) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.8g} to {right:.8g}, y {bottom:.8g} to {top:.8g}"


def _code(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else "EPSG:..."


def _lattice(window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of the scene's lattice that enclose a window."""
    cols = np.arange(window.col_off // _LATTICE_PX, (window.col_end - 1) // _LATTICE_PX + 2)
    rows = np.arange(window.row_off // _LATTICE_PX, (window.row_end - 1) // _LATTICE_PX + 2)
    return (cols * _LATTICE_PX).astype(np.float64), (rows * _LATTICE_PX).astype(np.float64)


def _project_lattice(
    space: PixelSpace, scene: GeoBox, lattice: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Pixels of the other raster at the points of a lattice, (rows, columns, 2): column, row."""
    cols, rows = np.meshgrid(*lattice)
    affine = scene.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    points = np.column_stack([x.ravel(), y.ravel()])
    return space.to_pixels(points).reshape(*cols.shape, 2)


def _lattice_intervals(offset: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each pixel of an axis the lattice interval of its centre, and the fraction along it."""
    pixels = np.arange(offset, offset + length, dtype=np.int64)
    intervals = pixels // _LATTICE_PX
    fraction = (pixels - intervals * _LATTICE_PX + 0.5) / _LATTICE_PX
    return intervals - intervals[0], fraction


def _interpolate(
    values: NDArray[np.float64],
    intervals: NDArray[np.int64],
    fraction: NDArray[np.float64],
    *,
    axis: int,
) -> NDArray[np.float64]:
    before, after = np.take(values, intervals, axis), np.take(values, intervals + 1, axis)
    with np.errstate(invalid="ignore"):  # infinite where a point cannot be projected
        return np.asarray(before + (after - before) * fraction, dtype=np.float64)


def _floored(positions: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.floor(np.where(inside, positions + _TIE_PX, -1.0)).astype(np.int64)
