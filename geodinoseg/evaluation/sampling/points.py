"""A sample of points as a GeoPackage: a layer for the interpreter, and a note in the metadata.

The layer does not tell the map's class at a point, as the interpretation would be biased towards
it: points are in random order, and what `evaluate` needs is in the file's metadata.
"""

from __future__ import annotations

import math
import os
import sqlite3
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geodinoseg.errors import LabelError, OutputError, one_line
from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.files.misread_names import check_vector_name
from geodinoseg.labels.paths import file_of
from geodinoseg.labels.vector_layer import crs_of, open_vector_layer
from geodinoseg.polygons.checks import check_crs
from geodinoseg.polygons.sidecars import check_sidecars, find_sidecars
from geodinoseg.polygons.writer import GEOPACKAGE, WRITE_ERRORS
from geodinoseg.qgis.geopackage import add_layer_style, add_note, check_layer_name, read_note
from geodinoseg.qgis.point_style import POINT_FIELD, REFERENCE_FIELD, sample_points_qml
from geodinoseg.rasters.class_raster import ClassRaster


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """A class of a map and its points in a sample."""

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
    """The contents of a file of sampled points."""

    strata: tuple[Stratum, ...]
    """The classes."""
    crs: pyproj.CRS | None
    """Of the coordinates."""
    point_ids: NDArray[np.int64]
    """(points,) numbers of the points in the layer."""
    coordinates: NDArray[np.float64]
    """(points, 2), x and y."""
    references: tuple[str, ...]
    """(points,) answers without surrounding blanks; empty where there is none."""
    map_class_ids: dict[int, int]
    """Class id of the map at each point drawn, by its number."""


def check_point_output(output: PathLike, raster: ClassRaster, *, overwrite: bool) -> Path:
    """Check before any work whether a sample of a map can be written."""
    target = check_output(output, overwrite=overwrite, suffixes=(".gpkg",), inputs=[raster.path])
    check_vector_name(target)
    check_layer_name(target)
    if not overwrite:
        check_sidecars(target, GEOPACKAGE.sidecars)
    check_crs(target, raster.geobox)
    return target


def write_points(
    target: Path,
    coordinates: NDArray[np.float64],
    class_ids: NDArray[np.int64],
    *,
    crs: CRS | None,
    strata: Sequence[Stratum],
) -> None:
    """Write a sample; an existing file is replaced.

    Args:
        target: a `.gpkg`.
        coordinates: (points, 2), x and y, in the order of their numbers.
        class_ids: (points,) class of the map at each.
        crs: of the coordinates.
        strata: the classes, in the order of the list of answers.
    """
    numbers = np.arange(1, len(coordinates) + 1, dtype=np.int64)
    with atomic_file(target, stale_sidecars=find_sidecars(target, GEOPACKAGE.sidecars)) as path:
        try:
            _write_layer(path, numbers, coordinates, crs)
            add_note(path, _note(strata, numbers, class_ids))
        except (*WRITE_ERRORS, sqlite3.Error, RuntimeError) as error:
            raise OutputError(
                f"{target}: could not be written; is the disk full? ({one_line(error)})."
            ) from error
        qml = sample_points_qml([stratum.name for stratum in strata])
        add_layer_style(path, qml, target=target)


def read_points(path: str) -> PointSample:
    """Read a sample that `write_points` wrote and a person filled in."""
    strata, map_class_ids = _read_note(path)
    layer = open_vector_layer(path)
    missing = [name for name in (POINT_FIELD, REFERENCE_FIELD) if name not in layer.columns]
    if missing:
        raise LabelError(
            f"{path}: no longer has a column {missing[0]!r}; draw the sample again, or restore the "
            f"column's name."
        )
    frame = layer.read([POINT_FIELD, REFERENCE_FIELD])
    geometries = np.array(frame.geometry.array, dtype=object)
    kinds = shapely.get_type_id(geometries)  # -1 where there is none
    if (kinds != shapely.GeometryType.POINT).any() or shapely.is_empty(geometries).any():
        raise LabelError(f"{path}: holds a geometry that is not a point; draw the sample again.")
    return PointSample(
        strata=strata,
        crs=crs_of(frame),
        point_ids=_point_ids(path, frame[POINT_FIELD], map_class_ids),
        coordinates=shapely.get_coordinates(geometries),
        references=tuple(_text(value) for value in frame[REFERENCE_FIELD].tolist()),
        map_class_ids=map_class_ids,
    )


def _write_layer(
    path: Path, numbers: NDArray[np.int64], coordinates: NDArray[np.float64], crs: CRS | None
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        # Not from a GeoDataFrame: pyogrio writes its CRS as WKT 1, which some CRSs do not have.
        pyogrio.raw.write(
            os.fspath(path),
            geometry=shapely.to_wkb(shapely.points(coordinates)),
            field_data=[numbers, np.full(len(numbers), None, dtype=object)],
            fields=[POINT_FIELD, REFERENCE_FIELD],
            layer=path.stem,
            crs=None if crs is None else _crs_text(crs),
            driver=GEOPACKAGE.driver,
            geometry_type="Point",
            dataset_options=GEOPACKAGE.dataset_options,
            layer_options=GEOPACKAGE.layer_options,
        )


def _crs_text(crs: CRS) -> str:
    """The EPSG code of a CRS if it has one, else its WKT."""
    epsg = pyproj.CRS.from_user_input(crs).to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())


def _note(
    strata: Sequence[Stratum], numbers: NDArray[np.int64], class_ids: NDArray[np.int64]
) -> dict[str, Any]:
    return {
        "strata": [asdict(stratum) for stratum in strata],
        "points": list(zip(numbers.tolist(), class_ids.tolist(), strict=True)),
    }


def _read_note(path: str) -> tuple[tuple[Stratum, ...], dict[int, int]]:
    file = Path(file_of(path))
    if file.is_dir():
        raise LabelError(f"{path}: is a folder; give the .gpkg that geodinoseg sample wrote.")
    if not file.is_file():
        raise LabelError(f"{path}: no such file; draw a sample with geodinoseg sample.")
    try:
        return _parse_note(read_note(file))
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path}: is not a sample drawn by geodinoseg: its note on the map's classes is "
            f"missing. Give the .gpkg that geodinoseg sample wrote, filled in, not a copy "
            f"exported from it ({one_line(error)})."
        ) from error


def _parse_note(note: dict[str, Any]) -> tuple[tuple[Stratum, ...], dict[int, int]]:
    """The strata, and the class id of each point; refuses a note that `_note` cannot have made."""
    strata = tuple(
        Stratum(
            class_id=int(stratum["class_id"]),
            name=str(stratum["name"]),
            pixels=int(stratum["pixels"]),
            area_m2=float(stratum["area_m2"]),
            points=int(stratum["points"]),
        )
        for stratum in note["strata"]
    )
    points = {int(number): int(class_id) for number, class_id in note["points"]}
    counts = Counter(points.values())
    is_sound = all(
        s.pixels > 0 and 0 < s.area_m2 < math.inf and counts[s.class_id] == s.points for s in strata
    )
    if not is_sound or sum(stratum.points for stratum in strata) != len(points):
        raise ValueError("points and classes do not match")
    return strata, points


def _point_ids(path: str, column: Any, drawn: dict[int, int]) -> NDArray[np.int64]:
    values = column.tolist()
    strange = [value for value in values if value not in drawn]
    if strange:
        raise LabelError(
            f"{path}: holds points that were not drawn but added later, {len(strange)} in total "
            f"(point_id {strange[0]}); remove them, as only points drawn at random count."
        )
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise LabelError(f"{path}: point {twice:.0f} occurs twice; remove one of them.")
    return np.array(values, dtype=np.int64)


def _text(value: Any) -> str:
    """What was typed: empty for None and NaN; whole numbers without a decimal point."""
    if value is None or value != value:  # noqa: PLR0124 (NaN is not itself)
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
