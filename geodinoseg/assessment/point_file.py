"""A sample of points as a GeoPackage: a layer for the interpreter, and tables out of sight.

The layer says nothing of the map's class at a point, since who knows it sees it there: points come
in random order, and what `evaluate` needs lies in two tables that the list of layers leaves out.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from geodinoseg.assessment.point_style import POINT_FIELD, REFERENCE_FIELD, sample_points_qml
from geodinoseg.errors import LabelError, OutputError, one_line
from geodinoseg.labels.vector_layer import crs_of, file_of, open_vector_layer
from geodinoseg.outputs import written_beside
from geodinoseg.polygons.geopackage_style import add_layer_style, check_layer_name
from geodinoseg.polygons.side_files import find_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyproj
    from numpy.typing import NDArray
    from rasterio.crs import CRS

STRATA_TABLE = "geodinoseg_strata"
"""A row for each class that was sampled."""
POINTS_TABLE = "geodinoseg_points"
"""The class that the map has at each point."""
PARTS = (".gpkg-wal", ".gpkg-shm", ".gpkg-journal")
"""Endings of files that belong to an open or broken GeoPackage."""
_WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """A class of a map as it was sampled."""

    class_id: int
    """In the raster."""
    name: str
    """As the map's legend has it."""
    pixels: int
    """Of this class on the map."""
    area_m2: float
    """Of this class on the map, square metres."""
    points: int
    """Drawn from it."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PointSample:
    """What a file of sampled points holds."""

    strata: tuple[Stratum, ...]
    """The classes."""
    crs: pyproj.CRS | None
    """Of the coordinates."""
    point_ids: NDArray[np.int64]
    """(points,) numbers of the points that are in the layer."""
    coordinates: NDArray[np.float64]
    """(points, 2), x and y."""
    references: tuple[str, ...]
    """(points,) what was filled in, without blanks round it; empty where nothing was."""
    map_class_ids: dict[int, int]
    """Class id of the map at each point that was drawn, by its number."""


def check_point_output(target: Path) -> None:
    """Refuse a name that a layer cannot have.

    Raises:
        OutputError: the stem of the file is that of a table of ours or of the format.
    """
    check_layer_name(target)
    if target.stem.lower().startswith("geodinoseg_"):
        raise OutputError(
            f"{target}: the layer takes its name from the file, and names that begin with "
            f"geodinoseg_ are taken; give another."
        )


def write_points(
    target: Path,
    coordinates: NDArray[np.float64],
    class_ids: NDArray[np.int64],
    *,
    crs: CRS | None,
    strata: Sequence[Stratum],
) -> Path:
    """Write a sample; a file of this name is replaced.

    Args:
        target: a `.gpkg`.
        coordinates: (points, 2), x and y, in the order of their numbers.
        class_ids: (points,) class of the map at each.
        crs: of the coordinates.
        strata: the classes, in the order of the list to choose from.

    Raises:
        OutputError: the disk is full.
    """
    numbers = np.arange(1, len(coordinates) + 1, dtype=np.int64)
    frame = geopandas.GeoDataFrame(
        {POINT_FIELD: numbers, REFERENCE_FIELD: pd.Series([None] * len(numbers), dtype="str")},
        geometry=shapely.points(coordinates),
        crs=None if crs is None else crs.to_wkt(),
    )
    with written_beside(target, old_parts=find_parts(target, PARTS)) as path:
        try:
            _write_layer(frame, path)
            with closing(sqlite3.connect(path)) as database, database:
                _write_tables(
                    database, strata, zip(numbers.tolist(), class_ids.tolist(), strict=True)
                )
        except (*_WRITE_ERRORS, sqlite3.Error, RuntimeError) as error:
            raise OutputError(
                f"{target}: could not be written; is the disk full? ({one_line(error)})."
            ) from error
        qml = sample_points_qml([stratum.name for stratum in strata])
        add_layer_style(path, qml, target=target)
    return target


def read_points(path: str) -> PointSample:
    """Read a sample that `write_points` wrote and a person filled in.

    Raises:
        LabelError: the file is missing, damaged or none of ours, or its points are not those that
            were drawn.
    """
    strata, map_class_ids = _read_tables(path)
    layer = open_vector_layer(path)
    missing = [name for name in (POINT_FIELD, REFERENCE_FIELD) if name not in layer.columns]
    if missing:
        raise LabelError(
            f"{path}: has no column {missing[0]!r} any more; draw the sample again, or give the "
            f"column its name back."
        )
    frame = layer.read([POINT_FIELD, REFERENCE_FIELD])
    geometries = np.array(frame.geometry.array, dtype=object)
    if not all(isinstance(geometry, shapely.Point) for geometry in geometries):
        raise LabelError(f"{path}: holds something that is no point; draw the sample again.")
    return PointSample(
        strata=strata,
        crs=crs_of(frame),
        point_ids=_point_ids(path, frame[POINT_FIELD], map_class_ids),
        coordinates=shapely.get_coordinates(geometries),
        references=tuple(_text(value) for value in frame[REFERENCE_FIELD].tolist()),
        map_class_ids=map_class_ids,
    )


def _write_layer(frame: Any, path: Path) -> None:
    pyogrio.write_dataframe(
        frame,
        os.fspath(path),
        layer=path.stem,
        driver="GPKG",
        geometry_type="Point",
        dataset_options={"VERSION": "1.2"},
        layer_options={"GEOMETRY_NAME": "geom"},
    )


def _write_tables(database: sqlite3.Connection, strata: Sequence[Stratum], points: Any) -> None:
    # Left out of gpkg_contents on purpose: GDAL and QGIS then do not offer them as layers.
    database.execute(
        f"CREATE TABLE {STRATA_TABLE} (class_id INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "pixels INTEGER NOT NULL, area_m2 REAL NOT NULL, points INTEGER NOT NULL)"
    )
    database.executemany(
        f"INSERT INTO {STRATA_TABLE} VALUES (?, ?, ?, ?, ?)",  # noqa: S608 (a constant)
        [(s.class_id, s.name, s.pixels, s.area_m2, s.points) for s in strata],
    )
    database.execute(
        f"CREATE TABLE {POINTS_TABLE} (point_id INTEGER PRIMARY KEY, class_id INTEGER NOT NULL)"
    )
    database.executemany(f"INSERT INTO {POINTS_TABLE} VALUES (?, ?)", points)  # noqa: S608


def _read_tables(path: str) -> tuple[tuple[Stratum, ...], dict[int, int]]:
    file = Path(file_of(path))
    if not file.is_file():
        raise LabelError(f"{path}: no such file; draw a sample with geodinoseg sample.")
    try:
        # Only to read, as a path that is no database would otherwise become one.
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(
                f"SELECT class_id, name, pixels, area_m2, points FROM {STRATA_TABLE}"  # noqa: S608
            ).fetchall()
            points = database.execute(
                f"SELECT point_id, class_id FROM {POINTS_TABLE}"  # noqa: S608
            ).fetchall()
    except sqlite3.Error as error:
        raise LabelError(
            f"{path}: is no sample that geodinoseg drew: what it noted of the map's classes is "
            f"missing. Give the .gpkg that geodinoseg sample wrote, filled in, not a copy "
            f"exported from it ({one_line(error)})."
        ) from error
    names = ("class_id", "name", "pixels", "area_m2", "points")
    strata = tuple(Stratum(**dict(zip(names, row, strict=True))) for row in rows)
    return strata, dict(points)


def _point_ids(path: str, column: Any, drawn: dict[int, int]) -> NDArray[np.int64]:
    values = column.tolist()
    strange = [value for value in values if value not in drawn]
    if strange:
        raise LabelError(
            f"{path}: {len(strange)} points were not drawn, but added later (point_id "
            f"{strange[0]}); remove them, as only points drawn at random count."
        )
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise LabelError(f"{path}: point {twice:.0f} is there twice; remove one of them.")
    return np.array(values, dtype=np.int64)


def _text(value: Any) -> str:
    """What was typed: empty for None and NaN; whole numbers without a decimal point."""
    if value is None or value != value:  # noqa: PLR0124 (NaN is not itself)
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
