"""The features of a vector file as labels: polygons that are sound, each with its class.

Coordinates stay as they are in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.labels.classes import FeatureClasses, class_columns, feature_classes
from geodinoseg.labels.layer_styles import one_color, vector_style
from geodinoseg.labels.paths import ClassFiles
from geodinoseg.labels.styles import ClassStyle, StyledClass
from geodinoseg.labels.vector_layer import crs_of, open_vector_layer

_log = logging.getLogger(__name__)
_FARTHEST = 1e100


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFeatures:
    """The polygons of a layer and their classes, in the order of the file."""

    path: str
    """The file, for messages."""
    crs: pyproj.CRS | None
    """None where the file says none."""
    polygons: NDArray[Any]
    """(features,) shapely polygons and multipolygons, valid, two-dimensional, not empty."""
    classes: FeatureClasses
    """Class of each of them."""
    style: ClassStyle
    """What the layer's own style says of the classes."""


def read_features(
    path: str,
    *,
    class_field: str | None,
    ignore_classes: Sequence[str],
    legend_names: Mapping[int, str] | None = None,
    is_named_by_style: bool = True,
    allow_external: bool = False,
) -> LabelFeatures:
    """Read a layer whole.

    Args:
        path: any vector file; `file.gpkg|layername=roofs`, as QGIS writes it, picks a layer.
        class_field: column that holds the class; None finds one of the usual names.
        ignore_classes: classes whose polygons are areas to ignore.
        legend_names: names of class numbers that come before those of the file.
        is_named_by_style: whether numbers that have no name take that of the layer's style.
        allow_external: as in `open_vector_layer`.

    Raises:
        LabelError: none or several layers, no feature, no polygon, no such column, or classes
            that contradict each other.
    """
    layer = open_vector_layer(path, allow_external=allow_external)
    field, names_field = class_columns(path, layer.columns, class_field)
    columns = tuple(column for column in (field, names_field) if column is not None)
    frame = layer.read(columns)
    polygons, kept = sound_polygons(path, np.array(frame.geometry.array, dtype=object))
    style = vector_style(path, layer.name, columns)
    classes = feature_classes(
        path,
        field,
        _values(frame[field], kept),
        names=None if names_field is None else _values(frame[names_field], kept),
        ignore_classes=ignore_classes,
        legend_names=legend_names,
        style_names=style.names_by_id() if is_named_by_style else None,
    )
    return LabelFeatures(
        path=path, crs=crs_of(frame), polygons=polygons, classes=classes, style=style
    )


def read_class_files(
    files: ClassFiles,
    *,
    ignore_classes: Sequence[str],
    legend_names: Mapping[int, str] | None = None,
    allow_external: bool = False,
) -> list[LabelFeatures]:
    """Read files that hold one class each; what their columns say does not count.

    Args:
        files: and the class of each; classes that are all whole numbers are class ids.
        ignore_classes: classes whose polygons are areas to ignore.
        legend_names: names of class numbers.
        allow_external: as in `open_vector_layer`.

    Raises:
        LabelError: a file is damaged, or has no polygon.
    """
    layers = [
        (name, *read_areas(file, allow_external=allow_external)) for name, file in files.files
    ]
    names = [name for name, _, polygons in layers for _ in polygons]
    classes = feature_classes(
        files.name, "class", names, ignore_classes=ignore_classes, legend_names=legend_names
    )
    ends = np.cumsum([len(polygons) for _, _, polygons in layers])
    ids = np.split(classes.class_ids, ends[:-1])
    return [
        LabelFeatures(
            path=file,
            crs=crs,
            polygons=polygons,
            classes=replace(classes, class_ids=ids_of_file),
            style=_plain_style(file, name, allow_external=allow_external),
        )
        for (name, file), (_, crs, polygons), ids_of_file in zip(
            files.files, layers, ids, strict=True
        )
    ]


def read_areas(
    path: str, *, allow_external: bool = False
) -> tuple[pyproj.CRS | None, NDArray[Any]]:
    """CRS and polygons of a layer whose columns do not count.

    Raises:
        LabelError: the file is damaged, or has no polygon.
    """
    frame = open_vector_layer(path, allow_external=allow_external).read(())
    polygons, _ = sound_polygons(path, np.array(frame.geometry.array, dtype=object))
    return crs_of(frame), polygons


def sound_polygons(path: str, geometries: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The polygons among geometries: valid, two-dimensional, not empty.

    Self-crossing ones are repaired, and all that cannot be an area is left out; a warning counts
    either.

    Args:
        path: for messages.
        geometries: (features,) shapely geometries or None.

    Returns:
        polygons: (kept,) polygons and multipolygons.
        kept: (kept,) index of each in what was given.

    Raises:
        LabelError: no polygon is left.
    """
    flat = shapely.force_2d(geometries)
    empty = shapely.is_missing(flat) | shapely.is_empty(flat) | has_nonfinite(flat)
    flat[empty] = None
    crossed = ~empty & ~shapely.is_valid(flat)
    flat[crossed] = shapely.make_valid(flat[crossed])
    polygons = np.array([_polygonal(geometry) for geometry in flat], dtype=object)
    kept = np.flatnonzero([polygon is not None for polygon in polygons])
    others = len(flat) - len(kept) - int(empty.sum())
    if not len(kept):
        raise LabelError(
            f"{path}: holds {_kinds(flat[~empty]) or 'only empty geometries'} and no polygon; "
            f"labels are areas, draw polygons round them."
        )
    if crossed.any():
        _log.warning("%s: repaired %d self-crossing polygons.", path, int(crossed.sum()))
    if empty.any():
        _log.warning("%s: left out %d features without a geometry.", path, int(empty.sum()))
    if others:
        _log.warning("%s: left out %d features that are not polygons.", path, others)
    return polygons[kept], kept


def has_nonfinite(geometries: NDArray[Any]) -> NDArray[np.bool_]:
    """Which geometries have a coordinate that is no place; None has none.

    NaN and infinity are none, nor is one so large that areas overflow.
    """
    coordinates, feature = shapely.get_coordinates(geometries, return_index=True)
    found = np.zeros(len(geometries), dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        is_place = (np.abs(coordinates) < _FARTHEST).all(axis=1)
    found[feature[~is_place]] = True
    return found


def _polygonal(geometry: shapely.Geometry | None) -> shapely.Geometry | None:
    """The areas of a geometry, None without any; `make_valid` may add lines to them."""
    if geometry is None or isinstance(geometry, (shapely.Polygon, shapely.MultiPolygon)):
        return geometry
    if not isinstance(geometry, shapely.GeometryCollection):
        return None
    parts = [part for part in map(_polygonal, geometry.geoms) if part is not None]
    return shapely.union_all(parts) if parts else None


def _kinds(geometries: NDArray[Any]) -> str:
    return " and ".join(sorted({f"{geometry.geom_type}s" for geometry in geometries}))


def _values(column: Any, kept: NDArray[np.intp]) -> list[Any]:
    column = column.iloc[kept]
    missing = column.isna().tolist()
    pairs = zip(column.tolist(), missing, strict=True)
    return [None if is_missing else value for value, is_missing in pairs]


def _plain_style(file: str, name: str, *, allow_external: bool) -> ClassStyle:
    """The one colour that a class's own file is drawn in."""
    color = one_color(file, open_vector_layer(file, allow_external=allow_external).name)
    return ClassStyle((StyledClass(name=name, color=color),)) if color else ClassStyle()
