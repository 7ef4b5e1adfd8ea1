"""Labels from polygons: brought into the scene's pixel space once, burnt window by window."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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
from geodinoseg.labels.pixel_space import PixelSpace, elsewhere, pixel_space
from geodinoseg.windows import Window

# The chord of an edge lies off the reprojected one by about its length squared / 8 earth radii:
# 0.008 m at 64 px of 10 m, 0.08 px even where a pixel is a kilometre.
_LONGEST_EDGE_PX = 64.0
# Polygons are kept this far round the scene, in shares of its size, so that no cut shows in it.
_MARGIN = 0.02
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonSource:
    """Labels that are burnt from polygons when a window is read."""

    polygons: NDArray[Any]
    """(polygons,) in pixel space; where two overlap the later one counts."""
    channels: NDArray[np.int64]
    """(polygons,) channel of each, or IGNORE."""
    tree: shapely.STRtree
    """Over the polygons."""
    fill: int
    """Channel of pixels in no polygon, or IGNORE."""
    dtype: np.dtype[Any]
    """int16 or int32."""

    def reaches(self, window: Window) -> bool:
        """Whether a window may hold anything but `fill`."""
        return len(self.tree.query(_box(window))) > 0

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channels of a window; a pixel belongs to the polygon over its centre."""
        burnt = np.full((window.height, window.width), self.fill, dtype=self.dtype)
        found = np.sort(self.tree.query(_box(window)))
        if len(found):
            rasterize(
                zip(self.polygons[found], self.channels[found].tolist(), strict=True),
                out=burnt,
                transform=Affine.translation(window.col_off, window.row_off),
            )
        return burnt


def polygon_source(
    placed: ScenePolygons, channels: NDArray[np.int64], *, fill: int, dtype: np.dtype[Any]
) -> PolygonSource:
    """Polygons made ready to be burnt as the channels given."""
    return PolygonSource(
        polygons=placed.polygons,
        channels=channels,
        tree=shapely.STRtree(placed.polygons),
        fill=fill,
        dtype=dtype,
    )


def polygons_on(layers: Sequence[LabelFeatures], geobox: GeoBox, *, name: str) -> ScenePolygons:
    """The polygons of layers that reach a scene, in its pixel space.

    Args:
        layers: in their order; where polygons overlap, the later layer counts.
        geobox: the scene.
        name: of all of them, for messages.

    Raises:
        LabelError: none does, or a layer's CRS does not lead to the scene's.
    """
    polygons, ids = [], []
    for layer in layers:
        pixels = areas_on(layer.path, layer.crs, layer.polygons, geobox)
        inside = reaching(pixels, geobox)
        polygons.append(pixels[inside])
        ids.append(layer.classes.class_ids[inside])
    if not any(map(len, polygons)):
        first = layers[0]
        raise misses(first.path, first.crs, first.polygons, geobox)
    class_ids = np.concatenate(ids)
    order = np.argsort(class_ids == IGNORE, kind="stable")
    placed = ScenePolygons(polygons=np.concatenate(polygons)[order], class_ids=class_ids[order])
    warn_of_overlaps(name, placed, layers[0].classes.names, geobox)
    return placed


def areas_on(
    path: str, crs: pyproj.CRS | None, polygons: NDArray[Any], geobox: GeoBox
) -> NDArray[Any]:
    """Polygons in a scene's pixel space, those that do not reach it too.

    Raises:
        LabelError: the CRS does not lead to the scene's.
    """
    if geobox.crs is None and crs is not None:
        _log.warning(
            "%s: the scene has no CRS, so the coordinates of the labels (%s) are taken as they "
            "are.",
            path,
            crs.name,
        )
    return _in_pixels(path, polygons, pixel_space(path, crs, geobox))


def reaching(pixels: NDArray[Any], geobox: GeoBox) -> NDArray[np.intp]:
    """Which polygons in pixel space reach a scene."""
    scene = shapely.box(0, 0, geobox.width, geobox.height)
    return np.flatnonzero(shapely.intersects(pixels, scene))


def misses(path: str, crs: pyproj.CRS | None, polygons: NDArray[Any], geobox: GeoBox) -> LabelError:
    """The error that no polygon of a layer reaches a scene."""
    left, bottom, right, top = (float(value) for value in shapely.total_bounds(polygons))
    return elsewhere(path, pixel_space(path, crs, geobox), (left, bottom, right, top))


def _in_pixels(path: str, polygons: NDArray[Any], space: PixelSpace) -> NDArray[Any]:
    if space.crs is not None:
        polygons = _near_scene(polygons, space)
        polygons = shapely.segmentize(polygons, _LONGEST_EDGE_PX * space.pixel_length())
    pixels = shapely.transform(polygons, space.to_pixels)
    lost = has_nonfinite(pixels)
    if lost.any():
        _log.warning(
            "%s: left out %d polygons that the scene's CRS has no place for.", path, int(lost.sum())
        )
        pixels[lost] = shapely.Polygon()
    if not space.geobox.is_georeferenced and shapely.total_bounds(pixels)[3] <= 0:
        # QGIS draws a picture without georeference from y = 0 downwards.
        pixels = shapely.transform(pixels, lambda points: points * (1, -1))
    # Rounding may cross edges that all but touched.
    crossed = ~shapely.is_valid(pixels)
    pixels[crossed] = shapely.buffer(shapely.make_valid(pixels[crossed]), 0)
    return pixels


def _near_scene(polygons: NDArray[Any], space: PixelSpace) -> NDArray[Any]:
    """What of the polygons lies near the scene; a projection may have no place for the rest."""
    left, bottom, right, top = space.scene_bounds()
    margin_x, margin_y = _MARGIN * (right - left), _MARGIN * (top - bottom)
    near = shapely.box(left - margin_x, bottom - margin_y, right + margin_x, top + margin_y)
    shapely.prepare(near)
    beyond = ~shapely.covers(near, polygons)
    cut = polygons.copy()
    cut[beyond] = shapely.intersection(polygons[beyond], near)
    return cut


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.col_off, window.row_off, window.col_end, window.row_end)


_M2_PER_HECTARE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePolygons:
    """The polygons that reach a scene, in its pixel space, those to ignore last."""

    polygons: NDArray[Any]
    """(polygons,) shapely polygons; x is the column, y the row, corners of pixels are whole."""
    class_ids: NDArray[np.int64]
    """(polygons,), IGNORE for areas to ignore."""


def overlaps_px(placed: ScenePolygons, geobox: GeoBox) -> dict[tuple[int, int], float]:
    """Area that polygons of two classes claim inside a scene.

    Areas to ignore claim nothing, and polygons of one class do not dispute anything.

    Returns:
        Pixels by the two class ids, the smaller first.
    """
    first, second = _pairs_of_classes(placed)
    scene = shapely.box(0, 0, geobox.width, geobox.height)
    shared = shapely.intersection(placed.polygons[first], placed.polygons[second])
    areas = shapely.area(shapely.intersection(shared, scene))
    ids = np.sort(np.column_stack([placed.class_ids[first], placed.class_ids[second]]), axis=1)
    found: dict[tuple[int, int], float] = {}
    for (low, high), area in zip(ids.tolist(), areas.tolist(), strict=True):
        if area > 0:
            found[low, high] = found.get((low, high), 0.0) + area
    return found


def warn_of_overlaps(
    path: str, placed: ScenePolygons, names: Mapping[int, str], geobox: GeoBox
) -> None:
    """Say how much ground is claimed twice, what share of the labelled ground, and by whom."""
    overlaps = overlaps_px(placed, geobox)
    pixels = sum(overlaps.values())
    if pixels < 1:
        return
    low, high = max(overlaps, key=lambda pair: overlaps[pair])
    most = "" if len(overlaps) == 1 else "most of it "
    _log.warning(
        "%s: polygons of different classes overlap on %.0f pixels%s of the scene, %.2g%% of the "
        "labelled area, %sof %r and %r; there the later one counts.",
        path,
        pixels,
        _on_ground(pixels, geobox),
        100 * pixels / _labelled_px(placed, geobox, pixels),
        most,
        names[low],
        names[high],
    )


def _on_ground(pixels: float, geobox: GeoBox) -> str:
    if geobox.crs is None:
        return ""
    area_m2 = pixels * float(geobox.row_areas_m2[geobox.height // 2])
    if area_m2 < _M2_PER_HECTARE:
        return f" ({area_m2:.3g} m2)"
    return f" ({area_m2 / _M2_PER_HECTARE:.3g} ha)"


def _labelled_px(placed: ScenePolygons, geobox: GeoBox, overlap_px: float) -> float:
    """Labelled area inside the scene; what two polygons claim counts once."""
    scene = shapely.box(0, 0, geobox.width, geobox.height)
    labelled = placed.polygons[placed.class_ids != IGNORE]
    total = float(shapely.area(shapely.intersection(labelled, scene)).sum())
    return max(total - overlap_px, overlap_px)


def _pairs_of_classes(placed: ScenePolygons) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of polygons of different classes that touch or overlap, each pair once."""
    tree = shapely.STRtree(placed.polygons)
    first, second = tree.query(placed.polygons, predicate="intersects")
    ids = placed.class_ids
    differ = (first < second) & (ids[first] != ids[second])
    claimed = differ & (ids[first] != IGNORE) & (ids[second] != IGNORE)
    return first[claimed], second[claimed]
