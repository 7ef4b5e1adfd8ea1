"""New colours for a finished map: the class raster, and the styles of its polygons."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from geodinoseg.errors import LabelError, OutputError, SceneError, one_line
from geodinoseg.files.arguments import listed, output_path, path_text
from geodinoseg.files.atomic import PathLike, atomic_file, check_folder_of
from geodinoseg.files.journal import changing
from geodinoseg.files.locks import lock_output
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.legend import Legend
from geodinoseg.polygons.writer import GEOPACKAGE, VECTOR_FORMATS, format_of
from geodinoseg.progress import log_step
from geodinoseg.qgis.geopackage import is_locked, read_layer_styles, replace_layer_styles
from geodinoseg.qgis.recolor import recolor_categories
from geodinoseg.qgis.styles import qml_text, vector_qml
from geodinoseg.rasters.class_raster import describe_class_raster
from geodinoseg.rasters.class_style import ClassStyle
from geodinoseg.rasters.legend_file import read_legend_file, read_text
from geodinoseg.rasters.legend_sources import listed as in_words
from geodinoseg.rasters.restyle import restyle_raster
from geodinoseg.rasters.source import RasterSource

_log = logging.getLogger(__name__)


def style_map(
    class_raster: PathLike, style: PathLike, *, polygons: PathLike | Iterable[PathLike] = ()
) -> tuple[Path, ...]:
    """Give a finished map other colours; pixels, geometries and class names stay.

    The raster's legend and colour table, its attribute table (`.aux.xml`) and its style (`.qml`)
    get the colours, and so do the styles of its polygons. Each file is replaced as a whole, so that
    it has either the old colours or the new ones at any time. A class without a new colour keeps
    its own.

    Args:
        class_raster: the map, a local file.
        style: colours by class id or name: a QGIS style (`.qml`), CSV with id, name, color, or any
            other form that `--legend` takes.
        polygons: files of its polygons, in addition to a GeoPackage of the same stem beside it.

    Returns:
        The files that have the colours, the raster first.

    Raises:
        SceneError: the map cannot be read.
        LabelError: the style cannot be read, or does not fit the map.
        OutputError: a file cannot be changed.

    Example:
        >>> import geodinoseg as gds
        >>> [path.name for path in gds.style_map("landcover.tif", "landcover.qml")]
        ['landcover.tif', 'landcover.tif.aux.xml', 'landcover.qml', 'landcover.gpkg']
    """
    class_raster = path_text(class_raster, "class_raster", error=SceneError)
    style = path_text(style, "style", error=LabelError)
    polygons = [output_path(path, "polygons") for path in listed(polygons)]
    target = _local_file(class_raster)
    log_step(_log, "recolouring %s with %s.", target, style)
    raster = describe_class_raster(RasterSource.of(target))
    legend = _recolored(class_raster, raster.legend, style, read_legend_file(style))
    layers = _polygon_files(target, polygons)
    beside = [target.with_name(f"{target.name}.aux.xml"), target.with_suffix(".qml")]
    styles = [path.with_suffix(".qml") for path in layers]
    with ExitStack() as locks:
        for path in (target, *layers):
            locks.enter_context(lock_output(path))
        locks.enter_context(changing([target, *beside, *layers, *styles]))
        written = restyle_raster(raster, legend)
        written += [_restyle_polygons(path, legend) for path in layers]
    return tuple(written)


def _local_file(path: PathLike) -> Path:
    """The file to change: where the path is a link, the file that it leads to."""
    source = RasterSource.of(path)
    if not source.is_plain_path or source.is_assembled:
        raise OutputError(f"{path}: is not a local file; copy it here, and give the copy.")
    # A missing file is reported by the reader.
    target = Path(os.path.realpath(path))
    if target.exists():
        check_folder_of(target)
    return target if target.exists() else Path(path)


def _recolored(path: PathLike, legend: Legend, style: PathLike, given: ClassStyle) -> Legend:
    """The legend with the colours that a style gives by class id or name."""
    by_id, by_name = legend.by_id(), {entry.name: entry for entry in legend}
    folded = {name.casefold(): entry for name, entry in by_name.items()}
    colors: dict[int, str] = {}
    strange, renamed = [], []
    for entry in given.classes:
        name = entry.name or ""
        named = by_name.get(name) or folded.get(name.casefold())
        found = named if entry.class_id is None else by_id.get(entry.class_id)
        if named is not None and found is not named:
            raise LabelError(
                f"{style}: gives the name {name!r} to class {entry.class_id}, but in {path} it "
                f"belongs to class {named.class_id}; correct the id, or leave the ids out."
            )
        if found is None:
            strange.append(name or entry.class_id)
            continue
        if name and found.name != name and named is None:
            renamed.append(f"{found.class_id} ({found.name})")
        if entry.color is not None:
            colors[found.class_id] = entry.color
    _report(path, legend, style, colors, strange=strange, renamed=renamed)
    return legend.recolored(colors)


def _report(
    path: PathLike,
    legend: Legend,
    style: PathLike,
    colors: dict[int, str],
    *,
    strange: Sequence[object],
    renamed: Sequence[str],
) -> None:
    """Refuse a style without a colour for the map; warn of what it has too much or too little."""
    if not colors:
        raise LabelError(
            f"{style}: has no colour for a class of {path}, whose classes are "
            f"{in_words([f'{entry.class_id} ({entry.name})' for entry in legend])}."
        )
    if strange:
        _log.warning("%s: %s lacks %s, which is ignored.", style, path, in_words(strange))
    missing = [entry.name for entry in legend if entry.class_id not in colors]
    if missing:
        _log.warning("%s: has no colour for %s, which keeps its own.", style, in_words(missing))
    if renamed:
        _log.warning(
            "%s: has other names for class %s of %s; only colours are changed.",
            style,
            in_words(renamed),
            path,
        )


def _polygon_files(target: Path, given: Iterable[PathLike]) -> list[Path]:
    """The polygons of a map, checked."""
    found = []
    for path in map(Path, given):
        if path.suffix.lower() not in VECTOR_FORMATS:
            raise OutputError(f"{path}: the name must end in {' or '.join(VECTOR_FORMATS)}.")
        if not path.is_file():
            raise OutputError(f"{path}: no such file; give the polygons of {target.name}.")
        if format_of(path) is not GEOPACKAGE and path.with_suffix("") == target.with_suffix(""):
            raise OutputError(
                f"{path}: shares the style file {target.stem}.qml with {target.name}; rename it."
            )
        check_folder_of(path)
        found.append(Path(os.path.realpath(path)))
    beside = target.with_suffix(".gpkg")
    for path in (*found, beside):
        if path.suffix.lower() == beside.suffix and path.is_file() and is_locked(path):
            raise OutputError(f"{path}: is locked; close it in other programs, and try again.")
    if beside.is_file() and beside not in found and read_layer_styles(beside, beside.stem):
        found.append(beside)
    return list(dict.fromkeys(found))


def _restyle_polygons(path: Path, legend: Legend) -> Path:
    """Recolour the styles in a GeoPackage, or the `.qml` beside another file."""
    if format_of(path) is not GEOPACKAGE:
        return _restyle_sidecar(path, legend)
    if not read_layer_styles(path, path.stem):
        _log.warning(
            "%s: has no style of a layer %s, so it stays as it is; write the polygons again.",
            path,
            path.stem,
        )
        return path
    try:
        replace_layer_styles(path, path.stem, lambda qml: _restyled(path, qml, legend))
    except sqlite3.Error as error:
        raise OutputError(
            f"{path}: its style could not be changed ({one_line(error)}); close it in other "
            f"programs, and try again."
        ) from error
    return path


def _restyle_sidecar(path: Path, legend: Legend) -> Path:
    style = path.with_suffix(".qml")
    old = read_text(str(style)) if style.is_file() else ""
    text = _restyled(style, old, legend) if old else vector_qml(legend)
    if text != old:
        with atomic_file(style) as new:
            new.write_text(text, encoding="utf-8")
    return style


def _restyled(path: Path, qml: str, legend: Legend) -> str:
    """A style with the colours of a legend; as it is, with a warning, if it is by no class."""
    try:
        root = parse_xml(qml.removeprefix("\ufeff"))
    except XmlError as error:
        _log.warning("%s: its style cannot be read, and stays as it is (%s).", path, error)
        return qml
    if recolor_categories(root, legend):
        return qml_text(root)
    _log.warning("%s: its style does not show the classes, and stays as it is.", path)
    return qml
