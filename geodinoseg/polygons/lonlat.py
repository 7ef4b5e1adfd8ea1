"""Outlines in longitude and latitude, as GeoJSON requires (RFC 7946).

Long edges get additional vertices where straight lines of the map are curves in longitude and
latitude. Polygons are cut at the 180th meridian; one around a pole is closed along its latitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox
from geodinoseg.polygons.coverage.chains import offsets_of
from geodinoseg.polygons.coverage.paths import segment_ends
from geodinoseg.polygons.unrolled import TURN, cut_polygons
from geodinoseg.polygons.wkb import Multipart, RaggedPolygons, encode_polygons
from geodinoseg.transformations import degrees_per_unit, find_transformation

GEOJSON_CRS = CRS.from_epsg(4326)
"""The only CRS of GeoJSON."""
_LONGEST_EDGE_PX = 16.0
"""Edges up to this length are treated as straight, unless a pole is near."""
_CHORD_PX = 0.05
"""Largest distance of an edge to the straight line of the map."""
_MOST_PARTS, _MOST_ROUNDS = 16, 8
_AT_POLE = 1e-9
"""Distance to a pole, in degrees (0.1 mm), up to which a point counts as the pole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LonLatEncoder:
    """Encodes the polygons of one raster in longitude and latitude."""

    path: PathLike
    """The raster, for messages."""
    geobox: GeoBox
    """Grid of the raster."""

    def encode(self, polygons: RaggedPolygons) -> Multipart:
        """Encode polygons as WKB in degrees; those that are cut have 9 decimals.

        Args:
            polygons: in coordinates of the raster's CRS, exteriors counter-clockwise.

        Raises:
            SceneError: a vertex has no longitude and latitude.
        """
        if self._is_plain:
            polygons = _split_at_meridian(self._degrees(polygons))
            polygons, special = _moved_by_turns(polygons)
        else:
            polygons = _split_at_meridian(self._degrees(self._densified(polygons)))
            special = _at_meridian_or_pole(polygons)
        return _with_cut(encode_polygons(polygons), cut_polygons(polygons, special), special)

    @property
    def _is_plain(self) -> bool:
        """Whether the raster's coordinates are longitudes and latitudes, not a derived CRS."""
        return self.geobox.is_geographic and not _parsed(self.geobox.crs).is_derived

    def _degrees(self, polygons: RaggedPolygons) -> RaggedPolygons:
        """Transform polygons to longitude and latitude; neighbours still share their points."""
        xs, ys = find_transformation(self.geobox.crs, GEOJSON_CRS).transform(
            polygons.xs, polygons.ys
        )
        if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
            raise SceneError(
                f"{self.path}: has pixels without longitude and latitude; write a .gpkg, which "
                f"keeps the raster's own CRS."
            )
        if self._is_plain:
            xs = xs + TURN * np.round((self._longitudes(polygons.xs) - xs) / TURN)
        return replace(polygons, xs=xs, ys=ys)

    def _longitudes(self, xs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Longitudes of the raster as degrees east of Greenwich, not limited to one turn."""
        crs = _parsed(self.geobox.crs)
        meridian = crs.prime_meridian
        east = 0.0
        if meridian is not None:
            east = math.degrees(meridian.longitude * float(meridian.unit_conversion_factor))
        return np.asarray(xs * degrees_per_unit(crs) + east, dtype=np.float64)

    def _densified(self, polygons: RaggedPolygons) -> RaggedPolygons:
        """Add vertices to edges that are curves in longitude and latitude."""
        poles = self._poles()
        for pole in poles:
            polygons = _with_vertex(polygons, pole, self._pixel_side)
        shortest = 0.0 if poles else _LONGEST_EDGE_PX * self._pixel_side
        for _ in range(_MOST_ROUNDS):
            parts = self._parts_of_edges(polygons, shortest)
            if (parts == 1).all():
                break
            polygons = _split_evenly(polygons, parts)
        return polygons

    def _parts_of_edges(self, polygons: RaggedPolygons, shortest: float) -> NDArray[np.int64]:
        """(points,) number of parts to split the edge after each point into."""
        parts = np.ones(len(polygons.xs), dtype=np.int64)
        first = polygons.xs + 1j * polygons.ys
        last = first[segment_ends(polygons.ring_offsets)]
        edges = np.flatnonzero(np.abs(last - first) > shortest)
        if len(edges):
            # From the smaller end, since the neighbour has the same edge in the other direction.
            ends = np.sort([first[edges], last[edges]], axis=0)
            off_px = self._off_px(ends[0], ends[1])
            parts[edges] = np.clip(np.ceil(np.sqrt(off_px / _CHORD_PX)), 1, _MOST_PARTS)
        return parts

    def _off_px(
        self, first: NDArray[np.complex128], last: NDArray[np.complex128]
    ) -> NDArray[np.float64]:
        """Distance, in pixels, of the middle of an edge in longitude and latitude to the map's.

        Args:
            first: (edges,) x + iy of one end, in coordinates of the raster's CRS.
            last: (edges,) x + iy of the other end.
        """
        to_degrees = find_transformation(self.geobox.crs, GEOJSON_CRS)
        (lon, lat), (lon_end, lat_end) = (
            to_degrees.transform(end.real, end.imag) for end in (first, last)
        )
        middle = first + (last - first) / 2
        with np.errstate(invalid="ignore"):  # infinite where a point is not on the earth
            half_lon = ((lon_end - lon + TURN / 2) % TURN - TURN / 2) / 2
            mean = lon + half_lon, (lat + lat_end) / 2
            x, y = find_transformation(GEOJSON_CRS, self.geobox.crs).transform(*mean)
            off = np.hypot(x - middle.real, y - middle.imag) / self._pixel_side
        return np.where(np.isfinite(off), off, 0.0)

    def _poles(self) -> list[tuple[float, float]]:
        """Coordinates, in the raster's CRS, of poles that are single points in or near it."""
        box = self.geobox
        found = []
        for latitude in (-90.0, 90.0):
            lons, lats = np.arange(0.0, TURN, TURN / 8), np.full(8, latitude)
            xs, ys = find_transformation(GEOJSON_CRS, box.crs).transform(lons, lats)
            if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
                continue
            if max(np.ptp(xs), np.ptp(ys)) > self._pixel_side:
                continue  # in this CRS the pole is a line
            col, row = ~box.transform @ (float(xs[0]), float(ys[0]))
            if -box.width < col < 2 * box.width and -box.height < row < 2 * box.height:
                found.append((float(xs[0]), float(ys[0])))
        return found

    @property
    def _pixel_side(self) -> float:
        """The shorter side of a pixel, in units of the CRS."""
        transform = self.geobox.transform
        return float(min(np.hypot(transform.a, transform.d), np.hypot(transform.b, transform.e)))


def _parsed(crs: CRS) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(crs)


def _with_vertex(
    polygons: RaggedPolygons, place: tuple[float, float], side: float
) -> RaggedPolygons:
    """Add a vertex at a position to the edges that pass through it."""
    following = segment_ends(polygons.ring_offsets)
    x_steps, y_steps = polygons.xs[following] - polygons.xs, polygons.ys[following] - polygons.ys
    u, v = place[0] - polygons.xs, place[1] - polygons.ys
    length = np.maximum(np.hypot(x_steps, y_steps), np.finfo(np.float64).tiny)
    beside, along = (x_steps * v - y_steps * u) / length, (x_steps * u + y_steps * v) / length
    tiny = 1e-6 * side
    passed = np.flatnonzero((np.abs(beside) < tiny) & (along > tiny) & (along < length - tiny))
    places = np.full((2, len(passed)), np.array([place]).T, dtype=np.float64)
    return _inserted(polygons, passed, *places)


def _split_evenly(polygons: RaggedPolygons, parts: NDArray[np.int64]) -> RaggedPolygons:
    """Split the edge after each point into equal parts; both sides of a border get equal points."""
    edges = np.flatnonzero(parts > 1)
    counts = parts[edges] - 1
    of_edge = np.repeat(edges, counts)
    number = (
        np.arange(len(of_edge), dtype=np.int64) - np.repeat(offsets_of(counts)[:-1], counts) + 1
    )
    first = polygons.xs + 1j * polygons.ys
    last = first[segment_ends(polygons.ring_offsets)]
    # As in `_parts_of_edges`.
    turned = (first > last)[of_edge]
    fraction = np.where(turned, parts[of_edge] - number, number) / parts[of_edge]
    low = np.where(turned, last[of_edge], first[of_edge])
    high = np.where(turned, first[of_edge], last[of_edge])
    points = low + (high - low) * fraction
    return _inserted(polygons, of_edge, points.real, points.imag)


def _split_at_meridian(polygons: RaggedPolygons) -> RaggedPolygons:
    """Add a vertex wherever an edge crosses the 180th meridian."""
    following = segment_ends(polygons.ring_offsets)
    lon, lat = polygons.xs, polygons.ys
    at_pole = np.abs(lat) >= 90 - _AT_POLE
    jumps = np.abs(lon[following] - lon) > TURN / 2
    jumps &= ~at_pole & ~at_pole[following]
    polygons = _crossed(polygons, jumps, following, 180.0)
    for meridian in (-180.0, 180.0, 540.0):
        following = segment_ends(polygons.ring_offsets)
        lon = polygons.xs
        least, most = np.minimum(lon, lon[following]), np.maximum(lon, lon[following])
        passes = (least < meridian) & (most > meridian)
        polygons = _crossed(polygons, passes, following, meridian)
    return polygons


def _crossed(
    polygons: RaggedPolygons,
    crosses: NDArray[np.bool_],
    following: NDArray[np.int64],
    meridian: float,
) -> RaggedPolygons:
    edges = np.flatnonzero(crosses)
    lon, lat = polygons.xs, polygons.ys
    ends = np.stack([lon[edges], lon[following[edges]]])
    ends = np.where((np.ptp(ends, axis=0) > TURN / 2) & (ends < 0), ends + TURN, ends)
    west, east = ends.min(axis=0), ends.max(axis=0)
    inside = (west < meridian) & (east > meridian)
    edges, ends, west, east = edges[inside], ends[:, inside], west[inside], east[inside]
    first_is_west = ends[0] == west
    low = np.where(first_is_west, lat[edges], lat[following[edges]])
    high = np.where(first_is_west, lat[following[edges]], lat[edges])
    crossings = low + (high - low) * ((meridian - west) / (east - west))
    return _inserted(polygons, edges, np.full(len(edges), meridian), crossings)


def _inserted(
    polygons: RaggedPolygons,
    after: NDArray[np.int64],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
) -> RaggedPolygons:
    """Insert points, each after a given point; points after the same one keep their order."""
    added = offsets_of(np.bincount(after, minlength=len(polygons.xs)))
    return replace(
        polygons,
        xs=np.insert(polygons.xs, after + 1, xs),
        ys=np.insert(polygons.ys, after + 1, ys),
        ring_offsets=polygons.ring_offsets + added[polygons.ring_offsets],
    )


def _moved_by_turns(polygons: RaggedPolygons) -> tuple[RaggedPolygons, NDArray[np.int64]]:
    """Shift polygons to longitudes of -180 to 180.

    Returns:
        The polygons, and the indexes of those that must be cut at the 180th meridian.
    """
    starts = polygons.ring_offsets[polygons.polygon_offsets[:-1]]
    if not len(starts):
        return polygons, np.empty(0, dtype=np.int64)
    west, east = np.minimum.reduceat(polygons.xs, starts), np.maximum.reduceat(polygons.xs, starts)
    turns = np.floor(((west + east) / 2 + TURN / 2) / TURN)
    is_whole = (west >= TURN * turns - TURN / 2) & (east <= TURN * turns + TURN / 2)
    counts = np.diff(polygons.ring_offsets[polygons.polygon_offsets])
    moves = np.repeat(np.where(is_whole, -TURN * turns, 0.0), counts)
    return replace(polygons, xs=polygons.xs + moves), np.flatnonzero(~is_whole)


def _at_meridian_or_pole(polygons: RaggedPolygons) -> NDArray[np.int64]:
    """Indexes of the polygons with a vertex at a pole, or on both sides of the 180th meridian."""
    following = segment_ends(polygons.ring_offsets)
    marked = np.abs(polygons.xs[following] - polygons.xs) > TURN / 2
    marked |= np.abs(polygons.ys) >= 90 - _AT_POLE
    marked |= np.abs(polygons.xs) > TURN / 2
    starts = polygons.ring_offsets[polygons.polygon_offsets]
    return np.unique(np.searchsorted(starts, np.flatnonzero(marked), side="right") - 1)


def _with_cut(
    encoded: pa.Array, cut: Iterator[list[shapely.Polygon]], special: NDArray[np.int64]
) -> Multipart:
    """Replace some encoded polygons by their parts."""
    counts = np.ones(len(encoded), dtype=np.int64)
    parts: list[bytes] = []
    for index, pieces in zip(special.tolist(), cut, strict=True):
        counts[index] = len(pieces)
        parts += shapely.to_wkb(pieces, byte_order=1).tolist()
    if not len(special):
        return Multipart(parts=encoded, counts=counts)
    is_special = np.zeros(len(encoded), dtype=bool)
    is_special[special] = True
    order = np.repeat(np.arange(len(encoded), dtype=np.int64), counts)
    replaced = is_special[order]
    order[replaced] = len(encoded) + np.arange(len(parts), dtype=np.int64)
    joined = pa.concat_arrays([encoded, pa.array(parts, pa.large_binary())])
    return Multipart(parts=joined.take(pa.array(order)), counts=counts)
