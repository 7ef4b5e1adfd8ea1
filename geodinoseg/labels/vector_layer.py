"""A layer of a vector file: which one, its columns, its CRS; what is wrong with it in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyogrio
import pyproj
from pandas.api.types import is_string_dtype
from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FeatureError, GeometryError
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError

from geodinoseg.errors import LabelError, one_line
from geodinoseg.files.misread_names import misread_part
from geodinoseg.labels.paths import VectorFile, file_of, layer_of, with_layer
from geodinoseg.labels.tables import LabelTable
from geodinoseg.labels.untrusted import check_driver, check_is_plain, offline

_PARQUET_SUFFIXES = (".parquet", ".geoparquet")
# ValueError and KeyError: pyarrow's errors of a damaged Parquet file, and geopandas' of one without
# geometry. UnboundLocalError: pyogrio's of a CRS that is not text.
_READ_ERRORS = (
    *(DataSourceError, DataLayerError, FeatureError, GeometryError, CRSError, ShapelyError),
    *(ProjError, OSError, ValueError, KeyError, UnboundLocalError, pa.ArrowException),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorLayer:
    """A layer with geometries. A plain value; made by `open_vector_layer`."""

    path: str
    """As it was given, for messages; `file.gpkg|layername=roofs` names a layer as QGIS does."""
    name: str | None
    """Of the layer; None in a format that has one only, and of a table."""
    columns: tuple[str, ...]
    """All but the geometry."""
    allow_external: bool = False
    """Whether the file may be of any kind that GDAL reads, and refer to other files."""
    table: LabelTable | None = None
    """The features, where they are in memory."""

    def read(self, columns: Sequence[str]) -> Any:
        """The features with these columns, a GeoDataFrame; a broken geometry reads as None."""
        with _clear_errors(self.path):
            frame = self._read(list(columns))
        if not len(frame):
            raise LabelError(f"{self.path}: holds no feature; give a file with labelled polygons.")
        return frame

    def _read(self, columns: list[str]) -> Any:
        if self.table is not None:
            return self.table.read(columns)
        if self.name is None:
            frame = geopandas.read_parquet(file_of(self.path))
            frame = frame[[*columns, frame.geometry.name]]
            # Arrow decodes text when it is converted to Python: here, where errors are caught.
            texts = [name for name in columns if is_string_dtype(frame[name].dtype)]
            return frame.astype(dict.fromkeys(texts, object))
        with _quiet(), offline(allow_external=self.allow_external):
            return pyogrio.read_dataframe(
                file_of(self.path), layer=self.name, columns=columns, on_invalid="ignore"
            )


def has_vector_layer(path: str, *, allow_external: bool) -> bool:
    """Whether a file has geometries, rather than being a raster or broken."""
    try:
        return bool(_layers(path, allow_external=allow_external))
    except LabelError:
        return False


def open_vector_layer(path: VectorFile, *, allow_external: bool = False) -> VectorLayer:
    """Find the one layer of a vector file.

    Args:
        path: of the file; it may name a layer. Or a table in its place.
        allow_external: whether it may be of any kind that GDAL reads, and refer to other files.

    Raises:
        LabelError: the file is damaged or not a vector file, refers to other files without
            `allow_external`, has no
            layer with geometries, not the one asked for, or several and none was asked for.
    """
    if isinstance(path, LabelTable):
        return VectorLayer(path=path.name, name=None, columns=path.columns, table=path)
    if _is_parquet(path):
        if not allow_external:
            check_is_plain(path)
        name, columns = None, _parquet_columns(path)
    else:
        name = _choose_layer(path, _layers(path, allow_external=allow_external))
        columns = _columns(path, name, allow_external=allow_external)
    return VectorLayer(path=path, name=name, columns=columns, allow_external=allow_external)


def crs_of(frame: Any) -> pyproj.CRS | None:
    """CRS of a GeoDataFrame; None also for the "undefined" ones that a GeoPackage has for none."""
    crs: pyproj.CRS | None = frame.crs
    if crs is None or crs.name.lower().startswith("undefined"):
        return None
    return crs


def _layers(path: str, *, allow_external: bool) -> list[str]:
    """Names of the layers with geometries."""
    if not allow_external:
        check_is_plain(path)
    if _is_parquet(path):
        return [Path(path).stem]
    _check_name(file_of(path))
    with _clear_errors(path), _quiet(), offline(allow_external=allow_external):
        layers = pyogrio.list_layers(file_of(path))
    return [str(name) for name, geometry_type in layers if geometry_type is not None]


def _check_name(file: str) -> None:
    """Refuse the name of an existing file for which another would be read."""
    part = misread_part(file)
    if part and os.path.exists(file):
        raise LabelError(
            f"{file}: vector files whose path holds {part!r} cannot be read, as another file would "
            f"be; rename it."
        )


def _choose_layer(path: str, layers: Sequence[str]) -> str:
    asked = layer_of(path)
    if not layers:
        raise LabelError(
            f"{path}: holds no layer with geometries; give a file with polygons, or export it "
            f"again if it should have some: it may be damaged."
        )
    if asked:
        if asked not in layers:
            raise LabelError(f"{path}: has no layer {asked!r}; it has {', '.join(layers)}.")
        return asked
    if len(layers) > 1:
        raise LabelError(
            f"{path}: has {len(layers)} layers ({', '.join(layers)}); choose one, for instance "
            f"'{with_layer(path, layers[0])}'."
        )
    return layers[0]


def _columns(path: str, layer: str, *, allow_external: bool) -> tuple[str, ...]:
    with _clear_errors(path), _quiet(), offline(allow_external=allow_external):
        info: dict[str, Any] = pyogrio.read_info(file_of(path), layer=layer)
    if not allow_external:
        check_driver(path, info["driver"])
    return tuple(str(field) for field in info["fields"])


def _is_parquet(path: str) -> bool:
    """Whether geopandas reads it: the GDAL of pyogrio's wheels does not."""
    return path.lower().endswith(_PARQUET_SUFFIXES)


def _parquet_columns(path: str) -> tuple[str, ...]:
    with _clear_errors(path):
        frame = geopandas.read_parquet(path)
    return tuple(str(name) for name in frame.columns if name != frame.geometry.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without GDAL's warnings, which address programmers.

    Missing and invalid geometries are counted by whoever uses them; measures (M) along the outline
    do not affect the area.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", message="Measured .M. geometry types")
        yield


@contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """Turn what the readers raise into one line that names the file."""
    try:
        yield
    except _READ_ERRORS as error:
        raise LabelError(
            f"{path}: cannot be read as polygons or as a label raster; the file may be damaged or "
            f"incomplete, export or copy it again ({one_line(error)})."
        ) from error
