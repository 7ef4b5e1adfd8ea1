"""What callers give as a path, or as several: plain text of it, or a sentence on what to give.

Objects of other libraries are recognized by the names of their classes; none is imported.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, KeysView, Sequence, Set as AbstractSet, ValuesView
from pathlib import Path
from typing import Any, TypeVar

from geodinoseg.errors import GeodinosegError, OutputError

OptionsT = TypeVar("OptionsT")

_TABLES = {"GeoDataFrame", "GeoSeries"}
_GRIDS = {"DataArray", "Dataset"}
_COLUMNS = {"Series", "Index"}
_AS_GEOTIFF = "write it with rasterio as a GeoTIFF with its CRS and transform, and give that file"
_WAYS_OUT: tuple[tuple[str, AbstractSet[str], str], ...] = (
    (
        "xarray",
        _GRIDS,
        'write it with rioxarray, .rio.to_raster("FILE.tif"), and give that file',
    ),
    ("geopandas", _TABLES, 'write it with .to_file("FILE.gpkg"), and give that file'),
    (
        "pandas",
        {"DataFrame"},
        "make it a GeoDataFrame with geometries and a CRS, or give the path of a file",
    ),
    (
        "shapely",
        {"Geometry", "BaseGeometry"},
        "put it into a GeoDataFrame with its CRS, or give the path of a file",
    ),
    ("numpy", {"ndarray"}, _AS_GEOTIFF),
    ("torch", {"Tensor"}, _AS_GEOTIFF),
    (
        "rasterio",
        {"MemoryFile", "WarpedVRT"},
        "give the path of a file; a warped view can be saved as a VRT",
    ),
    ("rasterio", {"DatasetBase"}, "give its path, which is its name"),
)
"""Package and classes of objects, and what to do with them."""
# Kinds of numpy arrays that may hold paths: text and objects.
_KINDS_OF_PATHS = "UO"


def path_text(
    given: Any,
    what: str,
    expected: str = "a path",
    *,
    error: type[GeodinosegError],
    way_out: str | None = None,
) -> str:
    """A path as text.

    Args:
        given: what a caller gave.
        what: what it stands for, such as `labels`; messages begin with it.
        expected: what may be given.
        error: what is raised if it is not a path.
        way_out: what to do instead; by default, what suits the object.

    Raises:
        GeodinosegError: of the class given; one sentence names what was given and the way out.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if isinstance(text, str):
        return text
    raise wrong_argument(given, what, expected, error=error, way_out=way_out)


def output_path(given: Any, what: str = "output") -> Path:
    """The path of an output; OutputError if it is none."""
    return Path(path_text(given, what, error=OutputError))


def options_of(given: Any, kind: type[OptionsT], what: str) -> OptionsT:
    """An object of options, the default one for None.

    Raises:
        GeodinosegError: it is of another type, such as a dictionary.
    """
    if given is None:
        return kind()
    if isinstance(given, kind):
        return given
    raise wrong_argument(
        given,
        what,
        f"geodinoseg.{kind.__name__}",
        error=GeodinosegError,
        way_out=f"give the values as arguments, {kind.__name__}(name=value)",
    )


def wrong_argument(
    given: Any,
    what: str,
    expected: str,
    *,
    error: type[GeodinosegError],
    way_out: str | None = None,
) -> GeodinosegError:
    """The error that an argument is of a type that cannot be used; see `path_text`."""
    way_out = way_out or _way_out(given)
    return error(f"{what}: expected {expected}, not {_kind_of(given)}; {way_out}.")


def listed(given: Any) -> list[Any]:
    """One thing, or several in any usual container, as a list.

    Tables, arrays of numbers, mappings and open files are one thing.
    """
    return list(given) if _is_several(given) else [given]


def is_named(given: Any, package: str, names: AbstractSet[str]) -> bool:
    """Whether an object is of a class of a package, or of one derived from it."""
    return any(
        kind.__name__ in names and kind.__module__.partition(".")[0] == package
        for kind in type(given).__mro__
    )


def _is_several(given: Any) -> bool:
    if isinstance(given, str | bytes | bytearray | os.PathLike | io.IOBase):
        return False
    if is_named(given, "geopandas", _TABLES):
        return False
    if is_named(given, "numpy", {"ndarray"}):
        return given.ndim == 1 and given.dtype.kind in _KINDS_OF_PATHS
    if is_named(given, "pandas", _COLUMNS):
        return True
    return isinstance(given, Sequence | AbstractSet | Iterator | KeysView | ValuesView)


def _kind_of(given: Any) -> str:
    """The class of an object as a user knows it, such as `geopandas.GeoDataFrame`."""
    if given is None:
        return "None"
    package, name = type(given).__module__.partition(".")[0], type(given).__name__
    return f"an object of type {name if package == 'builtins' else f'{package}.{name}'}"


def _way_out(given: Any) -> str:
    """What to do with an object that is no path."""
    for package, names, way_out in _WAYS_OUT:
        if is_named(given, package, names):
            return way_out
    if isinstance(given, io.IOBase):
        return "give its path"
    if _is_several(given) or isinstance(given, dict):
        return "give one path"
    return "give the path of a file"
