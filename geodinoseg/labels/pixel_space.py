"""Where labels lie on a scene: coordinates of any CRS, brought into the scene's pixel space."""

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
"""Least x, least y, greatest x, greatest y."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSpace:
    """The way from a CRS to the pixels of a scene, where (0, 0) is its upper left corner."""

    geobox: GeoBox
    """The scene."""
    crs: pyproj.CRS | None
    """CRS of the coordinates that come in; None where they are the scene's own."""

    def to_pixels(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel coordinates.

        Args:
            coordinates: (points, 2), x and y.

        Returns:
            (points, 2), column and row; infinite where the projection has no place for the point.
        """
        x, y = coordinates.T
        if self.crs is not None:
            x, y = _transformer(self.crs, self._scene_crs).transform(x, y)
        inverse = ~self.geobox.transform
        with np.errstate(invalid="ignore"):
            cols = inverse.a * x + inverse.b * y + inverse.c
            rows = inverse.d * x + inverse.e * y + inverse.f
        return np.column_stack([cols, rows])

    def scene_bounds(self) -> Bounds:
        """A rectangle of the incoming CRS that holds the scene.

        Raises:
            ProjError: no part of the scene has a place in that CRS.
        """
        left, bottom, right, top = self._outline()
        if left > right:  # the scene lies across the 180th meridian
            left, right = -180.0, 180.0
        return left, bottom, right, top

    def pixel_length(self) -> float:
        """About the length of a pixel's side in units of the incoming CRS."""
        left, bottom, right, top = self._outline()
        across = right - left + (360.0 if left > right else 0.0)
        diagonal_px = math.hypot(self.geobox.width, self.geobox.height)
        return math.hypot(across, top - bottom) / diagonal_px

    def _outline(self) -> Bounds:
        """Bounds as PROJ gives them: the left may be east of the right."""
        outline = bounds_of(self.geobox)
        if self.crs is None:
            return outline
        transformer = _transformer(self._scene_crs, self.crs)
        left, bottom, right, top = transformer.transform_bounds(*outline, errcheck=True)
        return left, bottom, right, top

    @property
    def _scene_crs(self) -> pyproj.CRS:
        return pyproj.CRS.from_user_input(self.geobox.crs)


def pixel_space(path: str, crs: pyproj.CRS | None, geobox: GeoBox) -> PixelSpace:
    """The way from the CRS of labels to a scene's pixels.

    A scene without CRS takes coordinates as they are.

    Args:
        path: file of the labels, for messages.
        crs: their CRS, None where the file says none.
        geobox: the scene.

    Raises:
        LabelError: the scene has a CRS and the labels have none, or nothing leads from one to
            the other.
    """
    if geobox.crs is None:
        return PixelSpace(geobox=geobox, crs=None)
    scene_crs = pyproj.CRS.from_user_input(geobox.crs)
    if crs is None:
        raise LabelError(
            f"{path}: does not say its CRS; set it in QGIS (Layer > Set Layer CRS, then export), "
            f"or with: ogr2ogr -a_srs {_code(scene_crs)} labels.gpkg {path}, if it is the scene's."
        )
    if crs.equals(scene_crs, ignore_axis_order=True):
        return PixelSpace(geobox=geobox, crs=None)
    space = PixelSpace(geobox=geobox, crs=crs)
    try:
        space.scene_bounds()
    except ProjError as error:
        raise LabelError(
            f"{path}: its CRS {crs.name!r} has no place for the scene in {scene_crs.name!r}; "
            f"reproject the labels to the scene's CRS ({one_line(error)})."
        ) from error
    return space


def bounds_of(geobox: GeoBox) -> Bounds:
    """The rectangle of the raster's own CRS that holds it."""
    corners = [(0, 0), (geobox.width, 0), (0, geobox.height), (geobox.width, geobox.height)]
    x, y = zip(*(geobox.transform @ corner for corner in corners), strict=True)
    return min(x), min(y), max(x), max(y)


def elsewhere(path: str, space: PixelSpace, label_bounds: Bounds) -> LabelError:
    """The error that labels lie outside the scene, and where both are."""
    return LabelError(
        f"{path}: lies outside the scene; the labels cover {_said(label_bounds)}, the scene "
        f"{_said(space.scene_bounds())} in the same coordinates. Give labels of this scene, or "
        f"correct the CRS of one of them."
    )


def may_meet(space: PixelSpace, scene: GeoBox, window: Window) -> bool:
    """Whether another raster may have a pixel under one of a window's.

    Args:
        space: from the scene's coordinates to pixels of the other raster.
        scene: whose window it is.
        window: inside the scene.
    """
    cols, rows = _projected(space, scene, _lattice(window)).reshape(-1, 2).T
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
        scene: whose window it is. Each pixel gets the same answer in whatever window it is asked.
        window: inside the scene.

    Returns:
        columns, rows: (height, width) each; both -1 where the other raster has no pixel.
    """
    corners = _projected(space, scene, _lattice(window))
    down, down_part = _places(window.row_off, window.height)
    across, across_part = _places(window.col_off, window.width)
    along = _between(corners, across, across_part[:, None], axis=1)
    cols, rows = np.moveaxis(_between(along, down, down_part[:, None, None], axis=0), 2, 0)
    inside = np.isfinite(cols) & np.isfinite(rows)
    inside &= (cols >= -_TIE_PX) & (cols + _TIE_PX < space.geobox.width)
    inside &= (rows >= -_TIE_PX) & (rows + _TIE_PX < space.geobox.height)
    return _floored(cols, inside), _floored(rows, inside)


@lru_cache(maxsize=16)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    # To find the best of PROJ's operations takes milliseconds, and a window asks each time.
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _said(bounds: Bounds) -> str:
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


def _projected(
    space: PixelSpace, scene: GeoBox, lattice: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Pixels of the other raster at the points of a lattice, (rows, columns, 2): column, row."""
    cols, rows = np.meshgrid(*lattice)
    affine = scene.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    points = np.column_stack([x.ravel(), y.ravel()])
    return space.to_pixels(points).reshape(*cols.shape, 2)


def _places(offset: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each pixel of an axis the lattice interval that its centre lies in, and how far along."""
    pixels = np.arange(offset, offset + length, dtype=np.int64)
    intervals = pixels // _LATTICE_PX
    part = (pixels - intervals * _LATTICE_PX + 0.5) / _LATTICE_PX
    return intervals - intervals[0], part


def _between(
    values: NDArray[np.float64],
    intervals: NDArray[np.int64],
    part: NDArray[np.float64],
    *,
    axis: int,
) -> NDArray[np.float64]:
    before, after = np.take(values, intervals, axis), np.take(values, intervals + 1, axis)
    with np.errstate(invalid="ignore"):  # infinite where a projection has no place for a point
        return np.asarray(before + (after - before) * part, dtype=np.float64)


def _floored(positions: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.floor(np.where(inside, positions + _TIE_PX, -1.0)).astype(np.int64)
