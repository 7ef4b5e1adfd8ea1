"""The features of a vector file as labels: valid polygons, each with its class.

Coordinates stay as they are in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.labels.classes import FeatureClasses, class_columns, feature_classes
from geodinoseg.labels.layer_styles import single_symbol_color, vector_style
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import ClassFiles, VectorFile
from geodinoseg.labels.vector_layer import crs_of, open_vector_layer
from geodinoseg.rasters.class_style import ClassStyle, StyledClass

_log = logging.getLogger(__name__)
_FARTHEST = 1e100


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFeatures:
    """The polygons of a layer and their classes, in the order of the file."""

    path: str
    """The file or the table, for messages."""
    crs: pyproj.CRS | None
    """None where the file has none."""
    polygons: NDArray[Any]
    """(features,) shapely polygons and multipolygons, valid, two-dimensional, not empty."""
    classes: FeatureClasses
    """Class of each of them."""
    style: ClassStyle
    """What the layer's own style says of the classes."""


def read_features(
    file: VectorFile,
    options: LabelOptions,
    *,
    legend_names: Mapping[int, str],
    is_named_by_style: bool,
) -> LabelFeatures:
    """Read the polygons of a layer and their classes.

    Args:
        file: any vector file (`file.gpkg|layername=roofs`, as QGIS writes it, picks a layer), or a
            table.
        options: class column, classes to ignore and whether the file may refer to others.
        legend_names: names of class numbers that take precedence over those of the file.
        is_named_by_style: whether numbers without a name take that of the layer's style.
    """
    layer, path = open_vector_layer(file, allow_external=options.allow_external), str(file)
    field, names_field = class_columns(path, layer.columns, options.class_field)
    columns = tuple(column for column in (field, names_field) if column is not None)
    frame = layer.read(columns)
    polygons, kept = valid_polygons(path, np.array(frame.geometry.array, dtype=object))
    style = vector_style(file, layer.name, columns)
    classes = feature_classes(
        path,
        field,
        _values(frame[field], kept),
        names=None if names_field is None else _values(frame[names_field], kept),
        ignore_classes=options.ignore_classes,
        legend_names=legend_names,
        style_names=style.names_by_id() if is_named_by_style else None,
    )
    return LabelFeatures(
        path=path, crs=crs_of(frame), polygons=polygons, classes=classes, style=style
    )


def read_class_files(
    files: ClassFiles, options: LabelOptions, *, legend_names: Mapping[int, str]
) -> list[LabelFeatures]:
    """Read files that hold one class each; their columns do not count.

    Classes that are all whole numbers are class ids, named by `legend_names`.
    """
    allow_external = options.allow_external
    layers = [
        (name, *read_areas(file, allow_external=allow_external)) for name, file in files.files
    ]
    classes = feature_classes(
        files.name,
        "class",
        [name for name, _, polygons in layers for _ in polygons],
        ignore_classes=options.ignore_classes,
        legend_names=legend_names,
    )
    ends = np.cumsum([len(polygons) for _, _, polygons in layers])
    ids = np.split(classes.class_ids, ends[:-1])
    return [
        LabelFeatures(
            path=str(file),
            crs=crs,
            polygons=polygons,
            classes=replace(
                classes,
                class_ids=ids_of_file,
                is_unknown=np.zeros(len(ids_of_file), dtype=np.bool_),
            ),
            style=_single_style(file, name, allow_external=allow_external),
        )
        for (name, file), (_, crs, polygons), ids_of_file in zip(
            files.files, layers, ids, strict=True
        )
    ]


def read_areas(file: VectorFile, *, allow_external: bool) -> tuple[pyproj.CRS | None, NDArray[Any]]:
    """CRS and polygons of a layer whose columns do not count."""
    frame = open_vector_layer(file, allow_external=allow_external).read(())
    polygons, _ = valid_polygons(str(file), np.array(frame.geometry.array, dtype=object))
    return crs_of(frame), polygons


def valid_polygons(path: str, geometries: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The polygons among geometries: valid, two-dimensional, not empty.

    Self-crossing ones are repaired, and geometries that are not areas are left out; a warning
    counts either. Where none is left, that is a LabelError.

    Args:
        path: for messages.
        geometries: (features,) shapely geometries or None.

    Returns:
        (kept,) polygons and multipolygons, and (kept,) index of each in `geometries`.
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
            f"labels are areas, draw polygons around them."
        )
    if crossed.any():
        _log.warning("%s: repaired %d self-crossing polygons.", path, int(crossed.sum()))
    if empty.any():
        _log.warning("%s: left out %d features without a geometry.", path, int(empty.sum()))
    if others:
        _log.warning("%s: left out %d features that are not polygons.", path, others)
    return polygons[kept], kept


def has_nonfinite(geometries: NDArray[Any]) -> NDArray[np.bool_]:
    """Which geometries have a coordinate that is NaN, infinite or so large that areas overflow.

    False where a geometry is None.
    """
    coordinates, feature = shapely.get_coordinates(geometries, return_index=True)
    found = np.zeros(len(geometries), dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        is_finite = (np.abs(coordinates) < _FARTHEST).all(axis=1)
    found[feature[~is_finite]] = True
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


def _single_style(file: VectorFile, name: str, *, allow_external: bool) -> ClassStyle:
    """The one colour that a class's own file is drawn in."""
    layer = open_vector_layer(file, allow_external=allow_external)
    color = single_symbol_color(file, layer.name)
    return ClassStyle((StyledClass(name=name, color=color),)) if color else ClassStyle()
