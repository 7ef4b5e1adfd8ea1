"""Which polygons cover the centre of a pixel; the others label no pixel."""

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
"""Maximum number of pixel centres in a polygon's bounds that are tested one by one."""
_BURNT_PX = 1024
"""Side of the windows in which larger polygons are burnt, to find whether they cover a pixel."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Coverage:
    """Whether each labelled polygon of a file covers the centre of a pixel of a scene."""

    features: NDArray[np.int64]
    """(polygons,) index of each polygon in the file."""
    class_ids: NDArray[np.int64]
    """(polygons,) class id of each polygon."""
    is_covering: NDArray[np.bool_]
    """(polygons,) True where the polygon covers the centre of a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostPolygons:
    """How many polygons of a class label no pixel in any scene."""

    name: str
    """Name of the class."""
    lost: int
    """Number of polygons that cover no pixel centre."""
    total: int
    """Number of polygons that intersect a scene."""


def coverage_of(found: ScenePolygons, geobox: GeoBox) -> Coverage:
    """Whether each labelled polygon covers the centre of a pixel of its scene."""
    labelled = found.class_ids != IGNORE
    return Coverage(
        features=found.features[labelled],
        class_ids=found.class_ids[labelled],
        is_covering=covers_center(found.polygons[labelled], geobox),
    )


def covers_center(polygons: NDArray[Any], geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether each polygon, in a scene's pixel space, covers the centre of a pixel.

    A polygon that extends beyond the scene counts as covering: the part that it lacks may well
    cover one.

    Returns:
        (polygons,) bool.
    """
    covers = ~_is_inside(polygons, geobox)
    bounds = shapely.bounds(polygons)
    with np.errstate(invalid="ignore"):
        # Indexes of the first and last pixel along each axis whose centre the bounds enclose.
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
    """The classes of one file with polygons that cover no pixel centre in any scene.

    Args:
        found: coverage of the file's polygons in each scene.
        names: class names by class id.
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
    """A phrase such as: 175 of 200 polygons of 'tree' and 20 of 21 of 'road'."""
    head, *rest = classes
    texts = [f"{head.lost:,} of {head.total:,} polygons of {head.name!r}"]
    texts += [f"{entry.lost:,} of {entry.total:,} of {entry.name!r}" for entry in rest]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _is_inside(polygons: NDArray[Any], geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether each polygon lies entirely within the scene; False for empty ones."""
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
    """Set `covers` for the polygons at `indexes` that contain a pixel centre.

    Returns:
        Indexes of the polygons that contain no centre but have one on their outline, where GDAL's
        rule decides.
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
