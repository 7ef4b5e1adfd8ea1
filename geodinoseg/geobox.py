"""The georeferencing of a raster: CRS, affine transform and size as one value."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.rpc import RPC
from rasterio.transform import from_gcps

from geodinoseg.errors import SceneError, one_line
from geodinoseg.transformations import degrees_per_unit, same_place
from geodinoseg.windows import Window

_FEWEST_POINTS = 3
"""Ground control points needed to fit an affine transform."""
_POLE = 90.0 + 1e-9


@dataclass(frozen=True, kw_only=True)
class GroundControl:
    """Ground control points or RPCs of a raster whose grid is not aligned with any CRS."""

    points: tuple[tuple[float, float, float, float, float], ...] = ()
    """(row, column, x, y, z) of each point; x, y and z in its CRS."""
    crs: CRS | None = None
    """CRS of the points."""
    rpcs: RPC | None = None
    """Rational polynomial coefficients; None if there are none."""

    @property
    def gcps(self) -> list[GroundControlPoint]:
        """The points as objects of rasterio."""
        return [GroundControlPoint(*point) for point in self.points]

    def shifted(self, *, rows: int, cols: int) -> GroundControl:
        """The control of a raster that starts this many rows and columns further down and right."""
        points = tuple((row - rows, col - cols, x, y, z) for row, col, x, y, z in self.points)
        rpcs = copy.copy(self.rpcs)
        if rpcs is not None:
            rpcs.line_off -= rows
            rpcs.samp_off -= cols
        return replace(self, points=points, rpcs=rpcs)


@dataclass(frozen=True, kw_only=True)
class GeoBox:
    """The grid of a raster: pixel (col, row) has its upper left corner at transform @ (col, row).

    Any affine transform is supported: rotated, sheared, south-up.
    """

    crs: CRS | None
    """None if the file has none."""
    transform: Affine
    """From pixel corners (col, row) to coordinates (x, y) of the CRS."""
    width: int
    """Columns."""
    height: int
    """Rows."""
    control: GroundControl | None = None
    """Ground control points or RPCs; None if the file has none."""

    def crop(self, window: Window) -> GeoBox:
        """The grid of a window; rotation and shear are kept."""
        return GeoBox(
            crs=self.crs,
            transform=self.transform @ Affine.translation(window.col_off, window.row_off),
            width=window.width,
            height=window.height,
            control=self.control and self.control.shifted(rows=window.row_off, cols=window.col_off),
        )

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are longitude and latitude, in degrees or another angular unit."""
        return self.crs is not None and bool(self.crs.is_geographic)

    @property
    def is_georeferenced(self) -> bool:
        """Whether the raster has a CRS or a transform other than the identity."""
        return self.crs is not None or self.transform != Affine.identity()

    @property
    def is_invertible(self) -> bool:
        """Whether pixels have a finite area above 0; if not, the transform is damaged."""
        return 0 < abs(self.transform.determinant) < math.inf and all(
            map(math.isfinite, self.transform)
        )

    @cached_property
    def crs_unit_m(self) -> float:
        """Metres in one unit of a projected CRS; 1 if there is no CRS or a geographic one."""
        if self.crs is None or self.is_geographic:
            return 1.0
        return float(pyproj.CRS.from_user_input(self.crs).axis_info[0].unit_conversion_factor)

    @cached_property
    def _degrees_per_unit(self) -> float:
        return degrees_per_unit(pyproj.CRS.from_user_input(self.crs))

    @cached_property
    def row_areas_m2(self) -> NDArray[np.float64]:
        """Area of one pixel in each row, square metres, (height,).

        In a projected CRS every pixel has the area of its parallelogram in map units: what GIS
        programs call planimetric area. In a geographic CRS it is the area on the ellipsoid between
        the pixel's parallels and meridians; on a rotated grid, that of the pixel in the middle
        column.
        """
        determinant = abs(self.transform.determinant)
        if not self.is_geographic:
            return np.full(self.height, determinant * self.crs_unit_m**2, dtype=np.float64)
        radians = math.radians(self._degrees_per_unit)
        rows = np.arange(self.height, dtype=np.float64)
        middle = self.width / 2
        latitude = self.transform.d * middle + self.transform.e * (rows + 0.5) + self.transform.f
        half_height = determinant / math.hypot(self.transform.a, self.transform.d) / 2
        lon_units = determinant / (2 * half_height)
        south, north = radians * (latitude - half_height), radians * (latitude + half_height)
        zones = self._zone_area(north) - self._zone_area(south)
        return np.asarray(zones * (radians * lon_units), dtype=np.float64)

    @cached_property
    def pixel_size_m(self) -> float | None:
        """Side of a square of a pixel's area on the ground, metres, at the raster's centre.

        The scale of the projection is taken into account: a pixel of 0.149 m in Web Mercator at
        27.6 degrees north is 0.132 m on the ground. None without a CRS or beyond a pole.
        """
        if self.crs is None:
            return self._control_pixel_size_m
        if self.is_geographic:
            return math.sqrt(float(self.row_areas_m2[self.height // 2])) or None
        planar = abs(self.transform.determinant) * self.crs_unit_m**2
        return math.sqrt(planar / self.areal_scale)

    @cached_property
    def pixel_aspect(self) -> float:
        """Width of a pixel over its height, both measured on the ground at the raster's centre.

        At 65 degrees north, a pixel that is square in degrees is 0.42 times as wide as high. 1 if
        unknown.
        """
        if self.crs is None:
            fitted = self._fitted_to_control
            return 1.0 if fitted is None else fitted.pixel_aspect
        centre = (self.width / 2, self.height / 2)
        steps = ((centre[0] + 0.5, centre[1]), (centre[0], centre[1] + 0.5))
        width, height = (2 * self._ground_distance(centre, step) for step in steps)
        return width / height if min(width, height) > 0 else 1.0

    def _ground_distance(self, one: tuple[float, float], other: tuple[float, float]) -> float:
        """Distance between two places given as column and row, metres.

        In map units if the CRS defines no place on an ellipsoid.
        """
        ends = [self.transform @ place for place in (one, other)]
        geod = pyproj.CRS.from_user_input(self.crs).get_geod()
        start, end = (self._degrees(*place) for place in ends)
        if geod is None or start is None or end is None:
            return math.dist(*ends) * self.crs_unit_m
        return float(geod.inv(*start, *end)[2])

    def _degrees(self, x: float, y: float) -> tuple[float, float] | None:
        """Longitude and latitude of coordinates in the CRS; None if PROJ cannot compute them."""
        if self.is_geographic:
            scale = self._degrees_per_unit
            found = (scale * x, scale * y)
        else:
            try:
                # Not by way of the geodetic CRS, whose unit may be the grad, as in EPSG:27572.
                found = self._projection(x, y, inverse=True, errcheck=True)
            except (ProjError, TypeError, AttributeError):
                return None  # a local or unusual CRS
        return found if all(map(math.isfinite, found)) and abs(found[1]) <= _POLE else None

    @property
    def _projection(self) -> pyproj.Proj:
        return pyproj.Proj(pyproj.CRS.from_user_input(self.crs))

    @property
    def _control_pixel_size_m(self) -> float | None:
        return None if self._fitted_to_control is None else self._fitted_to_control.pixel_size_m

    @cached_property
    def _fitted_to_control(self) -> GeoBox | None:
        """The grid of the affine transform fitted to the ground control points, if there are."""
        if self.control is None or len(self.control.points) < _FEWEST_POINTS:
            return None
        transform = from_gcps(self.control.gcps)
        fitted = GeoBox(
            crs=self.control.crs, transform=transform, width=self.width, height=self.height
        )
        return fitted if fitted.is_invertible else None

    @property
    def advice(self) -> str:
        """How to georeference the raster, as the end of an error message."""
        if self.control is None:
            return "georeference it, for instance with gdal_translate -a_srs -a_ullr"
        if self.control.points:
            return "it has ground control points only: warp it first, gdalwarp -tps IN.tif OUT.tif"
        return "it has RPCs only: warp it first, gdalwarp -rpc -t_srs EPSG:... IN.tif OUT.tif"

    @cached_property
    def areal_scale(self) -> float:
        """Ratio of the area on the map to that on the ground, at the raster's centre.

        1 if the CRS is absent or geographic, or if PROJ cannot compute the ratio.
        """
        if self.crs is None or self.is_geographic:
            return 1.0
        degrees = self._degrees(*self.transform @ (self.width / 2, self.height / 2))
        if degrees is None:
            return 1.0  # only map units are known
        try:
            scale = float(self._projection.get_factors(*degrees).areal_scale)
        except ProjError:
            return 1.0
        return scale if math.isfinite(scale) and scale > 0 else 1.0

    def _zone_area(self, latitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Area from the equator to a latitude (radians), m2 per radian of longitude.

        The closed form of the ellipsoidal zone (Snyder 1987, Map Projections, eq. 3-12).
        """
        geod = pyproj.CRS.from_user_input(self.crs).get_geod()
        semi_major, squared = (geod.a, geod.es) if geod else (6_378_137.0, 0.0)
        sine = np.sin(np.clip(latitude, -math.pi / 2, math.pi / 2))
        if squared < 1e-12:  # a sphere
            return np.asarray(semi_major**2 * sine, dtype=np.float64)
        e = math.sqrt(squared)
        q = sine / (1 - squared * sine**2) + np.arctanh(e * sine) / e
        return np.asarray(semi_major**2 * (1 - squared) / 2 * q, dtype=np.float64)


def read_geobox(
    crs: object,
    transform: Affine,
    width: int,
    height: int,
    *,
    gcps: tuple[Sequence[GroundControlPoint], CRS | None] = ((), None),
    rpcs: RPC | None = None,
) -> GeoBox:
    """A GeoBox from the fields of a raster's header; an empty CRS counts as none."""
    if crs:
        _check_proj()
    parsed = CRS.from_user_input(crs) if crs else None
    points, points_crs = gcps
    control = None
    if points or rpcs is not None:
        control = GroundControl(
            points=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
            crs=points_crs or None,
            rpcs=rpcs,
        )
    return GeoBox(crs=parsed, transform=transform, width=width, height=height, control=control)


def dataset_geobox(dataset: DatasetReader) -> GeoBox:
    """The GeoBox of an open raster."""
    return read_geobox(
        dataset.crs,
        dataset.transform,
        dataset.width,
        dataset.height,
        gcps=dataset.gcps,
        rpcs=dataset.rpcs,
    )


@cache
def _check_proj() -> None:
    """Raise SceneError if PROJ finds no database: GDAL would make every CRS unknown, silently.

    Other programs, such as QGIS and conda, set its path to a database of another version.
    """
    try:
        CRS.from_epsg(4326)
    except CRSError as error:
        raise SceneError(
            f"coordinate systems cannot be looked up ({one_line(error)}); remove PROJ_DATA and "
            f"PROJ_LIB from the environment if another program has set them."
        ) from error


def same_grid(first: GeoBox, second: GeoBox) -> bool:
    """Whether two rasters have the same size and georeferencing, within 1e-6 of a pixel."""
    if (first.width, first.height) != (second.width, second.height) or first.crs != second.crs:
        return False
    to_second = ~second.transform @ first.transform
    corners = [(0, 0), (first.width, 0), (0, first.height), (first.width, first.height)]
    return first.control == second.control and all(
        math.dist(to_second @ corner, corner) < 1e-6 for corner in corners
    )


def same_georeferencing(found: GeoBox, wanted: GeoBox) -> bool:
    """Whether a raster lies where it should, as read back from a file.

    As `same_grid`, but CRSs may differ in what does not move a pixel, such as names; RPCs, which
    are stored as text, are not compared by value.
    """
    if (found.control is None) != (wanted.control is None) or not _same_crs(found.crs, wanted.crs):
        return False
    if found.control is not None and wanted.control is not None:
        rpcs = (found.control.rpcs is None) == (wanted.control.rpcs is None)
        same = found.control.points == wanted.control.points and rpcs
        if not same or not _same_crs(found.control.crs, wanted.control.crs):
            return False
    bare = replace(found, crs=wanted.crs, control=None)
    return same_grid(bare, replace(wanted, control=None))


def _same_crs(found: CRS | None, wanted: CRS | None) -> bool:
    if found is None or wanted is None or found == wanted:
        return found == wanted
    return same_place(found, wanted)
