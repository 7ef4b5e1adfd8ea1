"""Labels from polygons: transformed to the scene's pixel space once, burnt window by window."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.features import LabelFeatures, has_nonfinite
from geodinoseg.labels.meridian import Bounds, turned_into, unwrapped
from geodinoseg.labels.pixel_space import PixelSpace, bounds_of, outside_error
from geodinoseg.windows import Window

# Polygons are kept this far around the scene, a fraction of its size, so that no cut shows in it.
_MARGIN = 0.02
_M2_PER_HECTARE = 10_000
# Side of the squares of the fixed grid in which polygons are burnt with `all_touched`.
_SQUARE_PX = 512
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonSource:
    """Labels that are burnt from polygons when a window is read."""

    polygons: NDArray[Any]
    """(polygons,) in pixel space; where two overlap the later one counts."""
    class_indices: NDArray[np.int64]
    """(polygons,) class index of each, or IGNORE."""
    tree: shapely.STRtree
    """Over the polygons."""
    fill: int
    """Class index of pixels in no polygon, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""
    all_touched: bool = False
    """Whether a pixel belongs to a polygon that touches it rather than to the one that covers its
    centre."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""
        return len(self.tree.query(_box(window))) > 0

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) class indices; see `all_touched`."""
        if self.all_touched:
            return self._read_touched(window)
        return self._burn(window)

    def _read_touched(self, window: Window) -> NDArray[Any]:
        """Read a window from the squares of a fixed grid.

        Where an outline passes through the corner of a pixel, what GDAL burns depends on the
        window; squares at fixed positions make the result independent of it.
        """
        burnt = np.empty((window.height, window.width), dtype=self.dtype)
        for square in _squares_over(window):
            shared = square.intersection(window)
            if shared is not None:
                into = shared.shifted_by(rows=-window.row_off, cols=-window.col_off)
                of = shared.shifted_by(rows=-square.row_off, cols=-square.col_off)
                burnt[into.slices] = self._burn(square)[of.slices]
        return burnt

    def _burn(self, window: Window) -> NDArray[Any]:
        burnt = np.full((window.height, window.width), self.fill, dtype=self.dtype)
        found = np.sort(self.tree.query(_box(window)))
        if len(found):
            rasterize(
                zip(self.polygons[found], self.class_indices[found].tolist(), strict=True),
                out=burnt,
                transform=Affine.translation(window.col_off, window.row_off),
                all_touched=self.all_touched,
            )
        return burnt


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePolygons:
    """The polygons that intersect a scene, in its pixel space, those to ignore last."""

    polygons: NDArray[Any]
    """(polygons,) shapely polygons; x is the column, y the row, corners of pixels are whole."""
    class_ids: NDArray[np.int64]
    """(polygons,), IGNORE for areas to ignore."""
    features: NDArray[np.int64]
    """(polygons,) index of each polygon over all layers."""


def polygon_source(
    polygons: NDArray[Any],
    class_indices: NDArray[np.int64],
    *,
    fill: int,
    dtype: np.dtype[Any],
    all_touched: bool = False,
) -> PolygonSource:
    """Polygons in pixel space, ready to be burnt as the class indices given."""
    return PolygonSource(
        polygons=polygons,
        class_indices=class_indices,
        tree=shapely.STRtree(polygons),
        fill=fill,
        dtype=dtype,
        all_touched=all_touched,
    )


def scene_polygons(layers: Sequence[LabelFeatures], geobox: GeoBox, *, name: str) -> ScenePolygons:
    """The polygons of layers that intersect a scene, in its pixel space and in their order.

    Where polygons overlap, the later one counts. Messages use `name` for all layers.
    """
    polygons, ids, unknown, features, first_feature = [], [], [], [], 0
    for layer in layers:
        pixels = to_pixel_space(layer.path, layer.crs, layer.polygons, geobox)
        inside = intersecting_scene(pixels, geobox)
        polygons.append(pixels[inside])
        ids.append(layer.classes.class_ids[inside])
        unknown.append(layer.classes.is_unknown[inside])
        features.append(inside.astype(np.int64) + first_feature)
        first_feature += len(pixels)
    if not any(map(len, polygons)):
        first = layers[0]
        raise outside_scene_error(first.path, first.crs, first.polygons, geobox)
    class_ids = np.concatenate(ids)
    order = np.argsort(class_ids == IGNORE, kind="stable")
    found = ScenePolygons(
        polygons=np.concatenate(polygons)[order],
        class_ids=class_ids[order],
        features=np.concatenate(features)[order],
    )
    _warn_of_overlaps(name, found, layers[0].classes.names, geobox)
    _warn_of_unknown(name, found, np.concatenate(unknown)[order], geobox)
    return found


def to_pixel_space(
    path: str, crs: pyproj.CRS | None, polygons: NDArray[Any], geobox: GeoBox
) -> NDArray[Any]:
    """Polygons in a scene's pixel space, including those that do not intersect it."""
    space = PixelSpace.for_labels(path, crs, geobox)
    if geobox.crs is None and crs is not None:
        _log.warning(
            "%s: the scene has no CRS, so the coordinates of the labels (%s) are used unchanged.",
            path,
            crs.name,
        )
    pixels = shapely.transform(_on_map(path, polygons, space), space.map_to_pixels)
    if not geobox.is_georeferenced and shapely.total_bounds(pixels)[3] <= 0:
        # QGIS draws a picture without georeference from y = 0 downwards.
        pixels = shapely.transform(pixels, lambda points: points * (1, -1))
    # Rounding may cross edges that all but touched.
    crossed = ~shapely.is_valid(pixels)
    pixels[crossed] = shapely.buffer(shapely.make_valid(pixels[crossed]), 0)
    return pixels


def intersecting_scene(pixels: NDArray[Any], geobox: GeoBox) -> NDArray[np.intp]:
    """Indices of the polygons in pixel space that intersect a scene."""
    return np.flatnonzero(shapely.intersects(pixels, _scene_box(geobox)))


def outside_scene_error(
    path: str, crs: pyproj.CRS | None, polygons: NDArray[Any], geobox: GeoBox
) -> LabelError:
    """The error that no polygon of a layer intersects a scene."""
    left, bottom, right, top = (float(value) for value in shapely.total_bounds(polygons))
    return outside_error(path, PixelSpace.for_labels(path, crs, geobox), (left, bottom, right, top))


def _on_map(path: str, polygons: NDArray[Any], space: PixelSpace) -> NDArray[Any]:
    """Transform polygons to the scene's CRS, with longitudes shifted to those of the scene."""
    near = _around_scene(space)
    if space.turn is not None:
        polygons = turned_into(polygons, (near[0], near[2]), space.turn)
    if space.crs is None:
        return polygons
    polygons = shapely.segmentize(_clip(polygons, near), space.edge_length())
    placed = shapely.transform(polygons, space.to_map)
    lost = has_nonfinite(placed)
    if lost.any():
        _log.warning(
            "%s: left out %d polygons that cannot be projected to the scene's CRS.",
            path,
            int(lost.sum()),
        )
        placed[lost] = shapely.Polygon()
    turn = space.scene_turn
    if turn is None:
        return placed
    left, _, right, _ = bounds_of(space.geobox)
    return turned_into(unwrapped(placed, turn, turn / 4), (left, right), turn)


def _around_scene(space: PixelSpace) -> Bounds:
    """Bounds of the scene and a margin in the CRS of the labels; at most a turn of longitudes."""
    left, bottom, right, top = space.scene_bounds()
    margin_x, margin_y = _MARGIN * (right - left), _MARGIN * (top - bottom)
    if space.turn is not None:
        margin_x = max(min(margin_x, (space.turn - (right - left)) / 2), 0.0)
    return left - margin_x, bottom - margin_y, right + margin_x, top + margin_y


def _clip(polygons: NDArray[Any], bounds: Bounds) -> NDArray[Any]:
    """Clip polygons to a rectangle, since what is outside it may fail to project."""
    near = shapely.box(*bounds)
    shapely.prepare(near)
    beyond = ~shapely.covers(near, polygons)
    cut = polygons.copy()
    cut[beyond] = shapely.intersection(polygons[beyond], near)
    return cut


def _squares_over(window: Window) -> Iterator[Window]:
    """The squares of a fixed grid that a window intersects."""
    for row in range(window.row_off // _SQUARE_PX, -(-window.row_end // _SQUARE_PX)):
        for col in range(window.col_off // _SQUARE_PX, -(-window.col_end // _SQUARE_PX)):
            yield Window(
                col_off=col * _SQUARE_PX,
                row_off=row * _SQUARE_PX,
                width=_SQUARE_PX,
                height=_SQUARE_PX,
            )


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.col_off, window.row_off, window.col_end, window.row_end)


def _scene_box(geobox: GeoBox) -> shapely.Polygon:
    return shapely.box(0, 0, geobox.width, geobox.height)


def _warn_of_overlaps(
    path: str, found: ScenePolygons, names: Mapping[int, str], geobox: GeoBox
) -> None:
    """Warn of the area claimed twice, its share of the labelled area, and by which classes."""
    overlaps = _overlaps_px(found, geobox)
    pixels = sum(overlaps.values())
    if pixels < 1:
        return
    low, high = max(overlaps, key=lambda pair: overlaps[pair])
    _log.warning(
        "%s: polygons of different classes overlap on %.0f pixels%s of the scene, %.2g%% of the "
        "labelled area, %sof %r and %r; there the later polygon counts.",
        path,
        pixels,
        _area_on_ground(pixels, geobox),
        100 * pixels / _labelled_px(found, geobox, pixels),
        "" if len(overlaps) == 1 else "most of it ",
        names[low],
        names[high],
    )


def _warn_of_unknown(
    path: str, found: ScenePolygons, is_unknown: NDArray[np.bool_], geobox: GeoBox
) -> None:
    """Warn of the area of labelled polygons that polygons without a class cover."""
    labelled = found.polygons[found.class_ids != IGNORE]
    unknown = found.polygons[is_unknown]
    if not len(unknown) or not len(labelled):
        return
    _log.info(
        "%s: polygons without a class: %d; they are areas to ignore.", path, int(is_unknown.sum())
    )
    tree = shapely.STRtree(labelled)
    above, below = tree.query(unknown, predicate="intersects")
    shared = shapely.intersection(unknown[above], labelled[below])
    cut = shapely.intersection(shapely.union_all(shared), _scene_box(geobox))
    pixels = float(shapely.area(cut))
    if pixels < 0.5:
        return
    _log.warning(
        "%s: %d polygons have no class, so they are areas to ignore; they cover %s pixels%s of "
        "polygons with a class. Give them a class, or remove them.",
        path,
        int(is_unknown.sum()),
        f"{pixels:,.0f}",
        _area_on_ground(pixels, geobox),
    )


def _overlaps_px(found: ScenePolygons, geobox: GeoBox) -> dict[tuple[int, int], float]:
    """Pixels of a scene that polygons of two classes claim, by their ids, the smaller first."""
    first, second = _pairs_of_classes(found)
    shared = shapely.intersection(found.polygons[first], found.polygons[second])
    areas = shapely.area(shapely.intersection(shared, _scene_box(geobox)))
    ids = np.sort(np.column_stack([found.class_ids[first], found.class_ids[second]]), axis=1)
    overlaps: dict[tuple[int, int], float] = {}
    for (low, high), area in zip(ids.tolist(), areas.tolist(), strict=True):
        if area > 0:
            overlaps[low, high] = overlaps.get((low, high), 0.0) + area
    return overlaps


def _pairs_of_classes(found: ScenePolygons) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of polygons of different classes that touch or overlap, each pair once."""
    tree = shapely.STRtree(found.polygons)
    first, second = tree.query(found.polygons, predicate="intersects")
    ids = found.class_ids
    differ = (first < second) & (ids[first] != ids[second])
    claimed = differ & (ids[first] != IGNORE) & (ids[second] != IGNORE)
    return first[claimed], second[claimed]


def _area_on_ground(pixels: float, geobox: GeoBox) -> str:
    if geobox.crs is None:
        return ""
    area_m2 = pixels * float(geobox.row_areas_m2[geobox.height // 2])
    if area_m2 < _M2_PER_HECTARE:
        return f" ({area_m2:.3g} m2)"
    return f" ({area_m2 / _M2_PER_HECTARE:.3g} ha)"


def _labelled_px(found: ScenePolygons, geobox: GeoBox, overlap_px: float) -> float:
    """Labelled area inside the scene; what two polygons claim counts once."""
    labelled = found.polygons[found.class_ids != IGNORE]
    total = float(shapely.area(shapely.intersection(labelled, _scene_box(geobox))).sum())
    return max(total - overlap_px, overlap_px)
