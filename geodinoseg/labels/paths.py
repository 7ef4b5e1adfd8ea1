"""What may be given as labels: a file or a GeoDataFrame, or one per class, or a folder of these.

A class's own file is `NAME=FILE`, or the value of its name in a dictionary. Looks at names alone;
opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from geodinoseg.errors import LabelError
from geodinoseg.files.arguments import path_text
from geodinoseg.labels.tables import LabelTable, table_of

if TYPE_CHECKING:
    import geopandas

LabelsPath = str | os.PathLike[str]
VectorFile = str | LabelTable
"""A vector file, or a table in its place."""
Areas = Union[LabelsPath, LabelTable, "geopandas.GeoDataFrame", "geopandas.GeoSeries"]
"""Polygons without classes."""
_EXPECTED = "a path, NAME=FILE or a GeoDataFrame"

VECTOR_SUFFIXES = (
    *(".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".geoparquet"),
    *(".kml", ".kmz", ".gml", ".tab", ".mif", ".gdb", ".sqlite", ".zip"),
)
_LAYER_SEPARATOR = "|layername="
# A file geodatabase is a folder that GDAL reads as one file.
_GEODATABASE_SUFFIX = ".gdb"
# Characters of paths, connection strings and layer names that no class name has.
_NOT_IN_CLASS_NAMES = "/\\|:"
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFiles:
    """Vector files that hold one class each; where they overlap, the later file counts."""

    name: str
    """As messages call them."""
    files: tuple[tuple[str, VectorFile], ...]
    """Class and file of each, in order; a class may have several files."""

    def __str__(self) -> str:
        """The name."""
        return self.name


LabelFiles = VectorFile | ClassFiles
"""Labels of a scene: one file with all classes, or one file per class."""
GivenLabels = Union[LabelsPath, LabelFiles, Mapping[str, Any], "geopandas.GeoDataFrame"]
"""Labels of a scene as a caller gives them."""


def label_files(given: Sequence[GivenLabels]) -> list[LabelFiles]:
    """Read what was given as labels.

    `NAME=FILE` is the file of one class, unless the whole is an existing file, a URL or a path;
    all of these together are the labels of every scene. A folder holds one file per class, named
    by the files' stems, in the order of their names. A dictionary holds the file or the
    GeoDataFrame of each class.

    Args:
        given: files, `NAME=FILE`, folders, GeoDataFrames or dictionaries.

    Returns:
        One for all scenes, or one for each.

    Raises:
        LabelError: a file is missing or empty, a folder holds no vector file, files of one
            class are mixed with files of all classes, or something else was given.
    """
    sources = [
        _source(source, "labels" if len(given) == 1 else f"labels {number}")
        for number, source in enumerate(given, start=1)
    ]
    named = [_class_and_file(source) for source in sources if isinstance(source, str)]
    found = [pair for pair in named if pair is not None]
    if found and len(found) < len(sources):
        raise LabelError(
            f"{found[0][1]}: holds the class {found[0][0]!r} alone, and other labels were given "
            f"without NAME=; give one file per class as NAME=FILE each, or files with all classes."
        )
    for _, file in found:
        check_is_there(file)
    if found:
        return [ClassFiles(name=_short_name(found), files=tuple(found))]
    return [_file_or_folder(source) if isinstance(source, str) else source for source in sources]


def areas_file(given: Areas, what: str) -> VectorFile:
    """The file of polygons without classes, or their table.

    Args:
        given: a path, a GeoDataFrame or a GeoSeries.
        what: what the polygons are, for messages.
    """
    table = table_of(given, what, needs_columns=False)
    return table or path_text(given, what, "a path or a GeoDataFrame", error=LabelError)


def recorded_name(files: LabelFiles) -> str:
    """How a model folder names labels: files without their folders, tables by their content."""
    if isinstance(files, LabelTable):
        return files.recorded_name
    if isinstance(files, ClassFiles) and files.name == _short_name(files.files):
        return _short_name([(name, recorded_name(file)) for name, file in files.files])
    file, separator, layer = str(files).partition(_LAYER_SEPARATOR)
    return f"{Path(file).name}{separator}{layer}"


def file_of(path: str) -> str:
    """The file of a path that may name a layer (`file.gpkg|layername=roofs`)."""
    return path.partition(_LAYER_SEPARATOR)[0]


def layer_of(path: str) -> str:
    """The layer that a path names, or nothing."""
    return path.partition(_LAYER_SEPARATOR)[2]


def with_layer(path: str, layer: str) -> str:
    """The path that names a layer, as QGIS writes it."""
    return f"{path}{_LAYER_SEPARATOR}{layer}"


def check_is_there(path: VectorFile) -> None:
    """Refuse a file that is missing or empty."""
    if isinstance(path, LabelTable):
        return
    file = Path(file_of(path))
    if path.startswith("/vsi") or "://" in path:
        return
    if not os.path.exists(file):  # Path raises where a name is too long
        raise LabelError(f"{path}: no such file; give polygons or a label raster.")
    if file.is_file() and not file.stat().st_size:
        raise LabelError(f"{path}: the file is empty; export or copy it again.")


def is_folder(path: Any) -> bool:
    """Whether a path is a folder of files, rather than one that GDAL reads as a file."""
    if not isinstance(path, str | os.PathLike):
        return False
    return os.path.isdir(path) and not str(path).rstrip("/").lower().endswith(_GEODATABASE_SUFFIX)


def _source(given: Any, what: str) -> LabelFiles:
    """One of those given, a path as text."""
    if isinstance(given, ClassFiles):
        return given
    if isinstance(given, Mapping):
        return _files_by_class(given, what)
    return table_of(given, what) or path_text(given, what, _EXPECTED, error=LabelError)


def _files_by_class(given: Mapping[Any, Any], what: str) -> ClassFiles:
    if not given:
        raise LabelError(f"{what}: an empty dictionary; give the file of each class by its name.")
    files: list[tuple[str, VectorFile]] = []
    for name, file in given.items():
        place = f"{what}[{name!r}]"
        table = table_of(file, place, needs_columns=False)
        found = table or path_text(file, place, "a path or a GeoDataFrame", error=LabelError)
        check_is_there(found)
        files.append((str(name), found))
    return ClassFiles(name=_short_name(files), files=tuple(files))


def _class_and_file(source: str) -> tuple[str, str] | None:
    """Class and file of `NAME=FILE`; None where it is a file."""
    name, separator, file = source.partition("=")
    exists = os.path.exists(file_of(source))
    if not separator or exists or any(char in name for char in _NOT_IN_CLASS_NAMES):
        return None
    if not name.strip() or not file.strip():
        raise LabelError(
            f"{source}: no such file, and no class name; give NAME=FILE, for instance tin=tin.gpkg."
        )
    return name.strip(), file.strip()


def _file_or_folder(source: str) -> LabelFiles:
    check_is_there(source)
    if not is_folder(source):
        return source
    files = sorted(
        str(path)
        for path in Path(source).iterdir()
        if path.suffix.lower() in VECTOR_SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise LabelError(
            f"{source}: holds no vector file; give a folder with one file per class (the file's "
            f"name is the class), or for label chips the folder of their images as the scene."
        )
    for file in files:
        check_is_there(file)
    return ClassFiles(name=source, files=tuple((Path(file).stem, file) for file in files))


def _short_name(files: Sequence[tuple[str, VectorFile]]) -> str:
    names = [f"{name}={file}" for name, file in files[:_MOST_NAMES]]
    return ", ".join([*names, *(["..."] if len(files) > _MOST_NAMES else [])])
