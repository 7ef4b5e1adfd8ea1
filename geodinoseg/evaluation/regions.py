"""Named regions of a vector file, on the pixels of a map."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.features import valid_polygons
from geodinoseg.labels.polygon_source import (
    PolygonSource,
    intersecting_scene,
    polygon_source,
    to_pixel_space,
)
from geodinoseg.labels.vector_layer import crs_of, open_vector_layer
from geodinoseg.windows import Window

USUAL_FIELDS = ("region", "name", "id")
"""Columns that are taken for the regions' name unasked, the first that is there."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of a map that has a name: one polygon, or all those of one name."""

    name: str
    """As in the file."""
    source: PolygonSource
    """Burns the polygons: 0 inside, IGNORE outside."""

    def inside(self, window: Window) -> NDArray[np.bool_] | None:
        """(height, width) which pixels of a window have their centre inside; None for none."""
        if not self.source.reaches(window):
            return None
        inside: NDArray[np.bool_] = self.source.read(window) != IGNORE
        return inside if inside.any() else None


def read_regions(
    path: str, geobox: GeoBox, *, field: str | None, allow_external: bool = False
) -> tuple[Region, ...]:
    """The regions of a vector file that reach a map, in the order of the file.

    They may overlap. Features of one name are one region; those without a name, and regions that
    lie elsewhere, are left out with a warning.

    Args:
        path: any vector file in any CRS.
        geobox: the map.
        field: column with the names; None finds region, name or id.
        allow_external: as in `open_vector_layer`.

    Raises:
        LabelError: the file cannot be read, has no such column or no polygon, or none reaches the
            map.
    """
    layer = open_vector_layer(path, allow_external=allow_external)
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
            f"place."
        )
    if len(regions) < len(members):
        _log.warning("%s: left out %d regions outside the map.", path, len(members) - len(regions))
    return regions


def _name_field(path: str, columns: Sequence[str], field: str | None) -> str:
    by_name = {column.casefold(): column for column in reversed(columns)}
    for name in [field] if field is not None else USUAL_FIELDS:
        if name.casefold() in by_name:
            return by_name[name.casefold()]
    there = ", ".join(columns) or "none"
    if field is not None:
        raise LabelError(f"{path}: has no column {field!r}; its columns are {there}.")
    raise LabelError(
        f"{path}: has no column {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}; say which "
        f"holds the regions' names with --region-field: {there}."
    )


def _name_of(value: Any) -> str:
    """A name on one line, whatever the column's type; empty where there is none."""
    if value is None or value != value:  # noqa: PLR0124 (NaN is not itself)
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers come as floats where one of them is missing
    return " ".join(str(value).split())


def _burnt(areas: NDArray[Any]) -> PolygonSource:
    class_indices = np.zeros(len(areas), dtype=np.int64)
    return polygon_source(areas, class_indices, fill=IGNORE, dtype=np.dtype(np.int16))
