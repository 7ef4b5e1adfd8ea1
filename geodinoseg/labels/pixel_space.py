"""From coordinates of any CRS to the pixel space of a raster."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, TransformationError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.meridian import Bounds, nearest_turn
from geodinoseg.labels.tables import is_table_name
from geodinoseg.transformations import (
    Transformation,
    find_transformation,
    full_turn,
    parsed_crs,
)
from geodinoseg.windows import Window

# Positions are projected at every 16th pixel of the scene and interpolated in between where the
# error is at most _INTERPOLATED_PX; near a pole or the 180th meridian each pixel is projected.
_LATTICE_PX = 16
_INTERPOLATED_PX = 0.01
# Where the centre of a pixel lies on an edge between two, rounding must not decide.
_TIE_PX = 1e-6
# Points along each side of a scene that are projected to find its bounds in another CRS.
_BOUND_POINTS = 33
# A scene counts as lying around a pole or the whole earth if its longitudes leave no gap of the
# first fraction of a turn, or differ by more than the second between neighbouring points.
_SMALLEST_GAP, _LARGEST_STEP = 1 / 16, 1 / 8
# Maximum distance between an edge and the curve that its exact reprojection would be.
_CHORD_PX = 0.05
_LONGEST_EDGE_PX = 64.0
_MOST_HALVINGS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSpace:
    """Transforms a CRS to the pixels of a scene, where (0, 0) is its upper left corner."""

    geobox: GeoBox
    """The scene."""
    crs: pyproj.CRS | None
    """CRS of the coordinates given; None where it is the scene's own."""

    @classmethod
    def for_labels(
        cls, path: str, crs: pyproj.CRS | None, geobox: GeoBox, *, is_raster: bool = False
    ) -> PixelSpace:
        """From the CRS of labels to a scene's pixels; without a scene CRS, coordinates are kept.

        Whether the labels are a raster matters to advice alone.

        Raises:
            LabelError: the scene has a CRS and the labels have none, the labels have a CRS and the
                scene has only control points, or no transformation between the CRSs exists.
        """
        scene_crs = parsed_crs(geobox.crs)
        if scene_crs is None:
            if crs is not None and geobox.control is not None:
                raise LabelError(
                    f"{path}: has a CRS, but the scene is not georeferenced; {geobox.advice}."
                )
            return cls(geobox=geobox, crs=None)
        if crs is None:
            way_out = _way_to_set_crs(path, _code(scene_crs), is_raster=is_raster)
            raise LabelError(f"{path}: has no CRS; {way_out}, if it is the scene's.")
        if crs.equals(scene_crs, ignore_axis_order=True):
            return cls(geobox=geobox, crs=None)
        space = cls(geobox=geobox, crs=crs)
        try:
            find_transformation(crs, scene_crs)
            find_transformation(scene_crs, crs)
        except TransformationError as error:
            raise LabelError(
                f"{path}: {error}, that of the scene; give labels in the scene's CRS, or correct "
                f"the CRS of one of them."
            ) from error
        if not np.isfinite(space.scene_bounds()).all():
            raise LabelError(
                f"{path}: the scene cannot be projected from {scene_crs.name!r} to the CRS of the "
                f"labels, {crs.name!r}; reproject the labels to the scene's."
            )
        return space

    @property
    def turn(self) -> float | None:
        """360 degrees in units of the given CRS; None if it is not geographic."""
        return full_turn(self.crs or parsed_crs(self.geobox.crs))

    @property
    def scene_turn(self) -> float | None:
        """360 degrees in units of the scene's CRS; None if it is not geographic."""
        return full_turn(parsed_crs(self.geobox.crs))

    def to_map(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform (points, 2) x and y to the scene's CRS; infinite where that fails."""
        if self.crs is None:
            return coordinates
        x, y = coordinates.T
        return np.column_stack(find_transformation(self.crs, self.geobox.crs).transform(x, y))

    def to_pixels(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform (points, 2) x and y to column and row; infinite where the projection fails.

        For a scene in a geographic CRS, longitudes are shifted to within half a turn of its centre.
        """
        points = self.to_map(coordinates)
        turn = self.scene_turn
        if turn is not None:
            center, _ = self.geobox.transform @ (self.geobox.width / 2, self.geobox.height / 2)
            points = np.column_stack([nearest_turn(points[:, 0], center, turn), points[:, 1]])
        return self.map_to_pixels(points)

    def map_to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert (points, 2) x and y of the scene's CRS to column and row, without any shift."""
        inverse = ~self.geobox.transform
        x, y = points.T
        with np.errstate(invalid="ignore"):
            cols = inverse.a * x + inverse.b * y + inverse.c
            rows = inverse.d * x + inverse.e * y + inverse.f
        return np.column_stack([cols, rows])

    def scene_bounds(self) -> Bounds:
        """A rectangle in the given CRS that contains the scene; infinite if it cannot be projected.

        Longitudes are continuous across the 180th meridian, so that right > left.
        """
        if self.crs is None:
            return bounds_of(self.geobox)
        x, y = self._places()
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            return math.inf, math.inf, math.inf, math.inf
        bottom, top = float(y[known].min()), float(y[known].max())
        turn = self.turn
        if turn is None:
            return float(x[known].min()), bottom, float(x[known].max()), top
        left, right = _range_of_longitudes(x, known, turn)
        if right - left < turn:
            return left, bottom, right, top
        pole = turn / 4  # the scene may lie around one
        return left, -pole if bottom < -pole / 2 else bottom, right, pole if top > pole / 2 else top

    def edge_length(self) -> float:
        """Longest edge in the given CRS that is straight in the scene to within 0.05 px.

        Beside a pole, where no edge is short enough, the length of a pixel.
        """
        length = _LONGEST_EDGE_PX * self._pixel_length()
        turn = self.turn
        if turn is not None:
            length = min(length, turn / 8)
        for _ in range(_MOST_HALVINGS):
            if self._chord_px(length) <= _CHORD_PX:
                break
            length /= 2
        return length

    def _pixel_length(self) -> float:
        """Median side length of a pixel, in units of the given CRS."""
        points = np.stack(self._places(), axis=-1)
        pixels = np.array([self.geobox.height, self.geobox.width]) / (_BOUND_POINTS - 1)
        steps = [np.linalg.norm(np.diff(points, axis=axis), axis=2) for axis in (0, 1)]
        known = [step[np.isfinite(step)] for step in steps]
        lengths = [
            float(np.median(step) / px)
            for step, px in zip(known, pixels.tolist(), strict=True)
            if len(step)
        ]
        return max(lengths, default=1.0)

    def _chord_px(self, length: float) -> float:
        """Largest distance, in pixels, between the middle of a projected edge and of its chord."""
        places = np.column_stack([values.ravel() for values in self._places()])
        off = 0.0
        for direction in ((1, 0), (0, 1), (1, 1), (1, -1)):
            half = np.array(direction) * length / 2
            first, middle, last = (
                self.to_pixels(places + shift) for shift in (-half, np.zeros(2), half)
            )
            with np.errstate(invalid="ignore"):
                distances = np.linalg.norm((first + last) / 2 - middle, axis=1)
            # Larger distances come from a seam or a pole in between, not from curvature.
            curved = distances[distances < np.hypot(self.geobox.width, self.geobox.height) / 4]
            off = max(off, float(curved.max(initial=0.0)))
        return off

    def _places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates in the given CRS of a grid of points over the scene, (n, n) each."""
        box = self.geobox
        steps = np.linspace(0.0, 1.0, _BOUND_POINTS)
        cols, rows = np.meshgrid(steps * box.width, steps * box.height)
        x, y = box.transform @ (cols, rows)
        return self._from_scene().transform(x, y)

    def _from_scene(self) -> Transformation:
        return find_transformation(self.geobox.crs, self.crs)


def _range_of_longitudes(
    x: NDArray[np.float64], known: NDArray[np.bool_], turn: float
) -> tuple[float, float]:
    """The shortest interval of longitudes that contains all points of a scene; at most one turn.

    Args:
        x: (n, n) longitudes.
        known: (n, n) True where the longitude is finite.
        turn: length of a turn.
    """
    on_circle = np.sort(np.mod(x[known], turn))
    gaps = np.diff(on_circle, append=on_circle[0] + turn)
    widest = int(gaps.argmax())
    steps = [np.abs(nearest_turn(np.diff(x, axis=axis), 0.0, turn)) for axis in (0, 1)]
    longest = max(float(step[np.isfinite(step)].max(initial=0.0)) for step in steps)
    if gaps[widest] < _SMALLEST_GAP * turn or longest > _LARGEST_STEP * turn:
        return -turn / 2, turn / 2
    left = float(on_circle[(widest + 1) % len(on_circle)])
    left -= turn * math.floor(left / turn + 0.5)
    return left, left + turn - float(gaps[widest])


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
    lattice = _lattice(window)
    corners = _project_lattice(space, scene, lattice)
    down, down_fraction = _lattice_intervals(window.row_off, window.height)
    across, across_fraction = _lattice_intervals(window.col_off, window.width)
    along = _interpolate(corners, across, across_fraction[:, None], axis=1)
    positions = _interpolate(along, down, down_fraction[:, None, None], axis=0)
    rough = _rough_cells(space, scene, lattice, corners)
    if rough.any():
        pixels = np.argwhere(rough[np.ix_(down, across)])
        centers = pixels[:, ::-1] + (window.col_off + 0.5, window.row_off + 0.5)
        positions[tuple(pixels.T)] = _project(space, scene, *centers.T)
    cols, rows = np.moveaxis(positions, 2, 0)
    inside = np.isfinite(cols) & np.isfinite(rows)
    inside &= (cols >= -_TIE_PX) & (cols + _TIE_PX < space.geobox.width)
    inside &= (rows >= -_TIE_PX) & (rows + _TIE_PX < space.geobox.height)
    return _floored(cols, inside), _floored(rows, inside)


def _format(bounds: Bounds) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.8g} to {right:.8g}, y {bottom:.8g} to {top:.8g}"


def _way_to_set_crs(path: str, code: str, *, is_raster: bool) -> str:
    if is_table_name(path):
        return f'set it with .set_crs("{code}")'
    command = (
        f"gdal_edit.py -a_srs {code} {path}"
        if is_raster
        else f"ogr2ogr -a_srs {code} labels.gpkg {path}"
    )
    return f"set it in QGIS (Layer > Set Layer CRS, then export), or with {command}"


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
    return _project(space, scene, cols.ravel(), rows.ravel()).reshape(*cols.shape, 2)


def _project(
    space: PixelSpace, scene: GeoBox, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pixels of the other raster at points of the scene, (points, 2): column, row."""
    affine = scene.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    return space.to_pixels(np.column_stack([x, y]))


def _rough_cells(
    space: PixelSpace,
    scene: GeoBox,
    lattice: tuple[NDArray[np.float64], NDArray[np.float64]],
    corners: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(rows, columns) True for cells of a lattice in which interpolation is not exact enough.

    That is where the projected middle of a cell differs from the mean of its corners.
    """
    middle = (axis[:-1] + _LATTICE_PX / 2 for axis in lattice)
    known = _project_lattice(space, scene, (next(middle), next(middle)))
    with np.errstate(invalid="ignore"):  # infinite where a point cannot be projected
        means = (corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]) / 4
        even = (np.abs(known - means) <= _INTERPOLATED_PX).all(axis=2)
    placed = np.asarray(np.isfinite(corners).all(axis=2))
    somewhere = placed[:-1, :-1] | placed[1:, :-1] | placed[:-1, 1:] | placed[1:, 1:]
    return np.asarray(~even & (somewhere | np.isfinite(known).all(axis=2)))


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
