"""Polygons of different classes that claim the same ground: how much of it, and which classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodinoseg.labels.classes import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.geobox import GeoBox

_log = logging.getLogger(__name__)
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
        path, pixels, _on_ground(pixels, geobox),
        100 * pixels / _labelled_px(placed, geobox, pixels), most, names[low], names[high],
    )  # fmt: skip


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
