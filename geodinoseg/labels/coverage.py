"""Which polygons cover the centre of a pixel: the others label nothing, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.polygon_source import ScenePolygons
from geodinoseg.windows import Window, windows_over

_MOST_CENTERS = 16
"""Centres in a polygon's bounds that are looked at one by one."""
_BURNT_PX = 1024
"""Side of the windows in which larger polygons are burnt, to see whether any pixel is."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Coverage:
    """Which labelled polygons of a file cover the centre of a pixel of a scene."""

    features: NDArray[np.int64]
    """(polygons,) number of each in the file."""
    class_ids: NDArray[np.int64]
    """(polygons,) its class."""
    is_covering: NDArray[np.bool_]
    """(polygons,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostPolygons:
    """How many polygons of a class label nothing in any scene."""

    name: str
    """The class."""
    lost: int
    """Polygons that cover no pixel's centre."""
    total: int
    """All that reach a scene."""


def coverage_of(found: ScenePolygons, geobox: GeoBox) -> Coverage:
    """Which labelled polygons cover the centre of a pixel of their scene."""
    labelled = found.class_ids != IGNORE
    return Coverage(
        features=found.features[labelled],
        class_ids=found.class_ids[labelled],
        is_covering=covers_center(found.polygons[labelled], geobox),
    )


def covers_center(polygons: NDArray[Any], geobox: GeoBox) -> NDArray[np.bool_]:
    """(polygons,) which polygons in a scene's pixel space cover the centre of a pixel.

    One that reaches over the scene's edge counts as if it did: what is cut off is no surprise.
    """
    covers = ~_is_inside(polygons, geobox)
    bounds = shapely.bounds(polygons)
    with np.errstate(invalid="ignore"):
        # The first and last centre that the bounds enclose, from 0 along each axis.
        first, last = np.ceil(bounds[:, :2] - 0.5), np.floor(bounds[:, 2:] - 0.5)
        centers = np.maximum(last - first + 1, 0).prod(axis=1)
    left = np.flatnonzero(~covers & (centers > 0))
    inner = shapely.point_on_surface(polygons[left])
    x, y = np.floor(shapely.get_x(inner)) + 0.5, np.floor(shapely.get_y(inner)) + 0.5
    covers[left] = shapely.contains_xy(polygons[left], x, y)
    left = left[~covers[left]]
    small = left[centers[left] <= _MOST_CENTERS]
    unsure = _look_at_each(polygons, small, first, last, covers)
    for index in [*unsure.tolist(), *left[centers[left] > _MOST_CENTERS].tolist()]:
        covers[index] = _burns(polygons[index], geobox)
    return covers


def lost_polygons(found: Iterable[Coverage], names: Mapping[int, str]) -> list[LostPolygons]:
    """The classes with polygons that cover no centre, of one file in all scenes.

    Args:
        found: coverage of the file's polygons in each scene.
        names: of the class ids.
    """
    parts = list(found)
    features = np.concatenate([part.features for part in parts])
    class_ids = np.concatenate([part.class_ids for part in parts])
    is_covering = np.concatenate([part.is_covering for part in parts])
    unique, first, inverse = np.unique(features, return_index=True, return_inverse=True)
    covers = np.zeros(len(unique), dtype=np.bool_)
    np.logical_or.at(covers, inverse.reshape(-1), is_covering)
    class_of = class_ids[first]
    counts = {
        class_id: (int((~covers[class_of == class_id]).sum()), int((class_of == class_id).sum()))
        for class_id in np.unique(class_of[class_of != IGNORE]).tolist()
    }
    return [
        LostPolygons(name=names[class_id], lost=lost, total=total)
        for class_id, (lost, total) in counts.items()
        if lost
    ]


def counted(classes: Sequence[LostPolygons]) -> str:
    """Such as: 175 of 200 polygons of 'tree' and 20 of 21 of 'road'."""
    head, *rest = classes
    texts = [f"{head.lost:,} of {head.total:,} polygons of {head.name!r}"]
    texts += [f"{entry.lost:,} of {entry.total:,} of {entry.name!r}" for entry in rest]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _is_inside(polygons: NDArray[Any], geobox: GeoBox) -> NDArray[np.bool_]:
    """Which polygons lie in a scene as a whole; empty ones do not."""
    left, top, right, bottom = shapely.bounds(polygons).T
    with np.errstate(invalid="ignore"):
        inside = (left >= 0) & (top >= 0) & (right <= geobox.width) & (bottom <= geobox.height)
    return np.asarray(inside, dtype=np.bool_)


def _look_at_each(
    polygons: NDArray[Any],
    indexes: NDArray[np.intp],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    covers: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Mark the polygons of `indexes` that contain a centre.

    Returns:
        Those that contain none but have one on their outline, where GDAL decides.
    """
    touches = np.zeros(len(polygons), dtype=np.bool_)
    for col in range(_MOST_CENTERS):
        for row in range(_MOST_CENTERS // (col + 1)):
            center = first[indexes] + (col, row)
            here = indexes[(center <= last[indexes]).all(axis=1) & ~covers[indexes]]
            x, y = (first[here] + (col, row)).T + 0.5
            covers[here] = shapely.contains_xy(polygons[here], x, y)
            touches[here] |= shapely.intersects_xy(polygons[here], x, y)
    return indexes[touches[indexes] & ~covers[indexes]]


def _burns(polygon: shapely.Geometry, geobox: GeoBox) -> bool:
    """Whether GDAL burns a polygon into any pixel."""
    left, top, right, bottom = shapely.bounds(polygon)
    rough = Window(
        col_off=int(left),
        row_off=int(top),
        width=max(1, int(np.ceil(right)) - int(left)),
        height=max(1, int(np.ceil(bottom)) - int(top)),
    )
    whole = rough.clipped_to(height=geobox.height, width=geobox.width)
    tiles = windows_over(height=whole.height, width=whole.width, rows=_BURNT_PX, cols=_BURNT_PX)
    shapely.prepare(polygon)
    for tile in tiles:
        window = tile.shifted_by(rows=whole.row_off, cols=whole.col_off)
        box = shapely.box(window.col_off, window.row_off, window.col_end, window.row_end)
        if (
            shapely.intersects(polygon, box)
            and rasterize(
                [(polygon, 1)],
                out_shape=(window.height, window.width),
                transform=Affine.translation(window.col_off, window.row_off),
                dtype="uint8",
            ).any()
        ):
            return True
    return False
