"""The features of a vector file as labels: its one layer, the class column, sound polygons.

Coordinates stay as they are in the file.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import shapely
from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FeatureError, GeometryError

from geodinoseg.errors import LabelError, one_line
from geodinoseg.label_classes import FeatureClasses, class_columns, feature_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyproj
    from numpy.typing import NDArray

_READ_ERRORS = (DataSourceError, DataLayerError, FeatureError, GeometryError, CRSError, OSError)
_LAYER_SEPARATOR = "|layername="
_log = logging.getLogger(__name__)


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


def vector_layers(path: str) -> list[str] | None:
    """Names of the layers with geometries; None where the file is no vector file.

    Raises:
        LabelError: a file that a vector driver knows but cannot read.
    """
    try:
        layers = pyogrio.list_layers(_file_of(path))
    except DataSourceError:
        return None
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    return [str(name) for name, geometry_type in layers if geometry_type is not None]


def read_features(
    path: str, *, class_field: str | None, ignore_classes: Sequence[str]
) -> LabelFeatures:
    """Read a layer whole.

    Args:
        path: any vector file; `file.gpkg|layername=roofs`, as QGIS writes it, picks a layer.
        class_field: column that holds the class; None finds one of the usual names.
        ignore_classes: classes whose polygons are areas to ignore.

    Raises:
        LabelError: none or several layers, no feature, no polygon, no such column, or classes
            that contradict each other.
    """
    layer = _layer_of(path)
    columns, names = _columns(path, layer, class_field)
    wanted = [column for column in (columns, names) if column is not None]
    try:
        frame = pyogrio.read_dataframe(
            _file_of(path), layer=layer, columns=wanted, on_invalid="ignore"
        )
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    if not len(frame):
        raise LabelError(f"{path}: holds no feature; give a file with labelled polygons.")
    polygons, kept = sound_polygons(path, np.asarray(frame.geometry.array, dtype=object))
    classes = feature_classes(
        path,
        columns,
        _values(frame[columns], kept),
        names=None if names is None else _values(frame[names], kept),
        ignore_classes=ignore_classes,
    )
    return LabelFeatures(path=path, crs=_crs(frame.crs), polygons=polygons, classes=classes)


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
    empty = shapely.is_missing(flat) | shapely.is_empty(flat) | _has_nonfinite(flat)
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


def _polygonal(geometry: shapely.Geometry | None) -> shapely.Geometry | None:
    """The areas of a geometry, None without any; `make_valid` may add lines to them."""
    if geometry is None or isinstance(geometry, (shapely.Polygon, shapely.MultiPolygon)):
        return geometry
    if not isinstance(geometry, shapely.GeometryCollection):
        return None
    parts = [part for part in map(_polygonal, geometry.geoms) if part is not None]
    return shapely.union_all(parts) if parts else None


def _has_nonfinite(geometries: NDArray[Any]) -> NDArray[np.bool_]:
    coordinates, feature = shapely.get_coordinates(geometries, return_index=True)
    found = np.zeros(len(geometries), dtype=np.bool_)
    found[feature[~np.isfinite(coordinates).all(axis=1)]] = True
    return found


def _kinds(geometries: NDArray[Any]) -> str:
    return " and ".join(sorted({f"{geometry.geom_type}s" for geometry in geometries}))


def _layer_of(path: str) -> str:
    layers = vector_layers(path)
    asked = path.partition(_LAYER_SEPARATOR)[2]
    if not layers:
        raise LabelError(f"{path}: holds no layer with geometries; give a file with polygons.")
    if asked:
        if asked not in layers:
            raise LabelError(f"{path}: has no layer {asked!r}; it has {', '.join(layers)}.")
        return asked
    if len(layers) > 1:
        raise LabelError(
            f"{path}: has {len(layers)} layers ({', '.join(layers)}); say which, for instance "
            f"'{path}{_LAYER_SEPARATOR}{layers[0]}'."
        )
    return layers[0]


def _columns(path: str, layer: str, class_field: str | None) -> tuple[str, str | None]:
    try:
        info = pyogrio.read_info(_file_of(path), layer=layer)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    return class_columns(path, [str(name) for name in info["fields"]], class_field)


def _values(column: Any, kept: NDArray[np.intp]) -> list[Any]:  # noqa: ANN401 (a pandas Series)
    column = column.iloc[kept]
    missing = column.isna().tolist()
    pairs = zip(column.tolist(), missing, strict=True)
    return [None if is_missing else value for value, is_missing in pairs]


def _crs(crs: pyproj.CRS | None) -> pyproj.CRS | None:
    """The CRS; None for the "undefined" ones that formats put where there is none."""
    return None if crs is None or crs.is_engineering else crs


def _file_of(path: str) -> str:
    return os.fspath(path).partition(_LAYER_SEPARATOR)[0]


def _unreadable(path: str, error: BaseException) -> LabelError:
    return LabelError(
        f"{path}: cannot be read as polygons; the file may be damaged or incomplete, export or "
        f"copy it again ({one_line(error)})."
    )
