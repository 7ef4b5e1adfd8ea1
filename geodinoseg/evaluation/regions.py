"""Named regions of a vector file, on the pixels of a map."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.coverage import covers_center
from geodinoseg.labels.features import valid_polygons
from geodinoseg.labels.paths import VectorFile
from geodinoseg.labels.polygon_source import (
    PolygonSource,
    intersecting_scene,
    polygon_source,
    to_pixel_space,
)
from geodinoseg.labels.vector_layer import crs_of, open_vector_layer
from geodinoseg.rasters.legend_sources import listed
from geodinoseg.windows import Window

USUAL_FIELDS = ("region", "name", "id")
"""Columns that may hold the regions' names by default; the first one present is used."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A named part of a map: one polygon, or all polygons of one name."""

    name: str
    """As in the file."""
    source: PolygonSource
    """Burns the polygons: 0 inside, IGNORE outside."""

    def inside(self, window: Window) -> NDArray[np.bool_] | None:
        """(height, width) True = the pixel's centre is inside; None where no pixel is."""
        if not self.source.reaches(window):
            return None
        inside: NDArray[np.bool_] = self.source.read(window) != IGNORE
        return inside if inside.any() else None


def read_regions(
    file: VectorFile, geobox: GeoBox, *, field: str | None, allow_external: bool = False
) -> tuple[Region, ...]:
    """The regions of a vector file that intersect a map, in the order of the file.

    They may overlap. Features of one name are one region; features without a name and regions
    outside the map are left out with a warning.

    Args:
        file: any vector file in any CRS, or a table.
        geobox: the map.
        field: column with the names; None = region, name or id.
        allow_external: as in `open_vector_layer`.
    """
    layer, path = open_vector_layer(file, allow_external=allow_external), str(file)
    frame = layer.read([_name_field(path, layer.columns, field)])
    polygons, kept = valid_polygons(path, np.array(frame.geometry.array, dtype=object))
    names = [_name_of(value) for value in frame.iloc[kept, 0].tolist()]
    if "" in names:
        _log.warning("%s: left out %d regions without a name.", path, names.count(""))
    areas = to_pixel_space(path, crs_of(frame), polygons, geobox)
    members: dict[str, list[int]] = {name: [] for name in names if name}
    for index in intersecting_scene(areas, geobox).tolist():
        if names[index]:
            members[names[index]].append(index)
    regions = tuple(
        Region(name=name, source=_burnt(areas[indexes]))
        for name, indexes in members.items()
        if indexes
    )
    if not regions:
        raise LabelError(
            f"{path}: none of its {len(members)} regions reaches the map; give regions of the same "
            f"area."
        )
    _warn_of_lost(path, areas, {r.name: members[r.name] for r in regions}, geobox)
    if len(regions) < len(members):
        _log.warning("%s: left out %d regions outside the map.", path, len(members) - len(regions))
    return regions


def _warn_of_lost(
    path: str, areas: NDArray[Any], members: Mapping[str, Sequence[int]], geobox: GeoBox
) -> None:
    """Warn of regions without pixels, and of other polygons that cover no pixel's centre."""
    covers = {name: covers_center(areas[list(at)], geobox) for name, at in members.items()}
    empty = [name for name, found in covers.items() if not found.any()]
    lost = sum(int((~found).sum()) for found in covers.values())
    if lost:
        _log.warning(
            "%s: %d of %d polygons cover no pixel's centre, so they are not measured%s.",
            path,
            lost,
            sum(map(len, covers.values())),
            f"; regions without pixels: {listed(empty)}" if empty else "",
        )


def _name_field(path: str, columns: Sequence[str], field: str | None) -> str:
    by_name = {column.casefold(): column for column in reversed(columns)}
    for name in [field] if field is not None else USUAL_FIELDS:
        if name.casefold() in by_name:
            return by_name[name.casefold()]
    present = ", ".join(columns) or "none"
    if field is not None:
        raise LabelError(f"{path}: has no column {field!r}; its columns are {present}.")
    raise LabelError(
        f"{path}: has no column {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}; name the "
        f"column of the regions' names with --region-field: {present}."
    )


def _name_of(value: Any) -> str:
    """A name on one line, from a column of any type; empty where there is none."""
    if value is None or value != value:  # noqa: PLR0124 (NaN is not itself)
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers come as floats where one of them is missing
    return " ".join(str(value).split())


def _burnt(areas: NDArray[Any]) -> PolygonSource:
    class_indices = np.zeros(len(areas), dtype=np.int64)
    return polygon_source(areas, class_indices, fill=IGNORE, dtype=np.dtype(np.int16))
