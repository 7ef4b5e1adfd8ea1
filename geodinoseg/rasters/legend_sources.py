"""Legends of rasters of other programs: from tables, sidecars, styles, or the ids only."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile

from geodinoseg.errors import LabelError, one_line
from geodinoseg.files.atomic import PathLike
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.legend import Legend, default_name
from geodinoseg.rasters.attribute_tables import KnownClasses, classes_of_dbf, classes_of_table
from geodinoseg.rasters.class_style import ClassStyle, StyleError, read_raster_qml
from geodinoseg.rasters.legend_file import read_legend_file, read_text
from geodinoseg.rasters.source import RasterSource

_LARGEST_DESCRIPTION_BYTES = 64 << 20
_MOST_LISTED = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLegend:
    """A legend, and which of its names and colours come from a source."""

    legend: Legend
    """The classes."""
    is_named: bool
    """Whether any source names the classes; else their names are derived from their ids."""
    colors: Mapping[int, str]
    """Colours by id that do not come from the palette."""


def find_legend(
    dataset: rasterio.DatasetReader,
    path: PathLike,
    class_ids: Sequence[int],
    *,
    with_styles: bool = True,
) -> FoundLegend:
    """The legend of some class ids, from the best source available.

    Names come from the raster's attribute table (in it, in its `.aux.xml`, or in `x.tif.vat.dbf`),
    else from its category names, else from a style beside it; a class without a name is called
    `class N`. Colours come from the style, the attribute table, the colour table, or the palette.

    Args:
        dataset: the open raster.
        path: of the raster.
        class_ids: the ids of the legend.
        with_styles: whether to read a `.qml` or `.clr` beside the raster.
    """
    style = _of_style(raster_style(path) if with_styles else ClassStyle())
    tables = list(_tables(dataset, path, class_ids))
    names = _first_known([*(table.names for table in tables), style.names], class_ids)
    colors = _first_known([style.colors, *(table.colors for table in tables)], class_ids)
    readable = _readable_names({class_id: names.get(class_id, "") for class_id in class_ids})
    return FoundLegend(
        legend=Legend.of_names(readable, colors), is_named=bool(names), colors=colors
    )


def with_legend_file(path: PathLike, found: FoundLegend, legend_file: PathLike) -> FoundLegend:
    """Add the ids, names and colours of a legend file to a legend; they take precedence.

    A warning lists the unnamed classes of the raster that the file lacks.

    Raises:
        LabelError: the file cannot be read, has no ids where they are needed, or gives a class the
            name of another class of the raster.
    """
    style = read_legend_file(os.fspath(legend_file))
    given = _of_style(style)
    numbered = {entry.class_id for entry in style.classes if entry.class_id is not None}
    own = {entry.class_id: entry.name for entry in found.legend}
    kept = {class_id: name for class_id, name in own.items() if class_id not in given.names}
    if not numbered and not set(own.values()) & {entry.name for entry in style.classes}:
        raise LabelError(
            f"{legend_file}: has no ids, but the classes of {path} are known by their ids only; "
            f"add ids, for instance '3 water #4477aa'."
        )
    for class_id, name in kept.items():
        if name in given.names.values():
            raise LabelError(
                f"{legend_file}: gives the name {name!r} to another class than {path}, where it "
                f"belongs to class {class_id}; name class {class_id} in the legend file, too."
            )
    if not found.is_named and kept:
        _log.warning(
            "%s: has no name for class %s of %s; add one.",
            legend_file,
            listed(sorted(kept)),
            path,
        )
    names = kept | given.names
    names |= {class_id: default_name(class_id) for class_id in numbered - names.keys()}
    colors = {
        class_id: style.color_of(class_id, name) or found.colors.get(class_id)
        for class_id, name in names.items()
    }
    legend = Legend.of_names(names, {key: color for key, color in colors.items() if color})
    return FoundLegend(legend=legend, is_named=True, colors=found.colors)


def warn_of_lost_names(path: PathLike, legend: Legend) -> None:
    """Warn that no source names the classes of a raster."""
    names = listed(legend.names)
    _log.warning(
        "%s: no class names were found in the file or beside it, so the classes are named %s; "
        "give names with --legend FILE.",
        path,
        names,
    )


def listed(values: Sequence[object]) -> str:
    """The values as text; of many, only the first ones."""
    shown = ", ".join(map(str, values[:_MOST_LISTED]))
    return shown if len(values) <= _MOST_LISTED else f"{shown}, ..."


def raster_style(path: PathLike) -> ClassStyle:
    """The style in a `.qml` beside a raster, else in a `.clr`; empty for a URL."""
    for suffix in (".qml", ".clr"):
        sidecar = _beside(path, suffix)
        if sidecar is None:
            continue
        try:
            if suffix == ".qml":
                return read_raster_qml(read_text(str(sidecar)))
            return read_legend_file(str(sidecar))
        except (StyleError, LabelError) as error:
            _log.warning("%s: cannot be read, so it is ignored (%s).", sidecar, one_line(error))
    return ClassStyle()


def _tables(
    dataset: rasterio.DatasetReader, path: PathLike, class_ids: Sequence[int]
) -> Iterator[KnownClasses]:
    """The tables in and beside a raster, in order of preference."""
    described = _description(dataset)
    table = described.find("GDALRasterAttributeTable")
    if table is not None:
        yield classes_of_table(table, class_ids)
    for beside in (Path(f"{path}.vat.dbf"), Path(path).with_suffix(".vat.dbf")):
        yield classes_of_dbf(beside, class_ids)
    yield KnownClasses(names=_category_names(described))
    yield KnownClasses(colors=_color_table(dataset))


def _first_known(sources: Sequence[dict[int, str]], class_ids: Sequence[int]) -> dict[int, str]:
    """The entry of each id in the first source that has one."""
    found: dict[int, str] = {}
    for source in reversed(sources):
        found |= source
    return {class_id: found[class_id] for class_id in class_ids if class_id in found}


def _of_style(style: ClassStyle) -> KnownClasses:
    return KnownClasses(names=style.names_by_id(), colors=style.colors_by_id())


def _description(dataset: rasterio.DatasetReader) -> ET.Element:
    """Band 1 as GDAL describes it in a VRT; rasterio reads neither tables nor category names."""
    nothing = ET.Element("VRTRasterBand")
    try:
        band = parse_xml(_vrt_of(dataset)).find("VRTRasterBand")
    except (OSError, XmlError):
        return nothing
    return nothing if band is None else band


def _vrt_of(dataset: rasterio.DatasetReader) -> bytes:
    with MemoryFile(ext=".vrt") as file:
        try:
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
        except Exception as error:
            # This call raises GDAL's own errors, which have no public class in rasterio.
            raise OSError(one_line(error)) from error
        file.seek(0)
        text: bytes = file.read(_LARGEST_DESCRIPTION_BYTES)
        return text


def _category_names(band: ET.Element) -> dict[int, str]:
    categories = band.findall("CategoryNames/Category")
    return {
        position: category.text
        for position, category in enumerate(categories)
        if category.text and category.text.strip()
    }


def _color_table(dataset: rasterio.DatasetReader) -> dict[int, str]:
    try:
        table = dataset.colormap(1)
    except ValueError:  # rasterio raises it if there is none
        return {}
    return {
        value: f"#{red:02x}{green:02x}{blue:02x}" for value, (red, green, blue, _) in table.items()
    }


def _beside(path: PathLike, suffix: str) -> Path | None:
    """The file with another suffix beside a raster; None if there is none."""
    if not RasterSource.of(path).is_plain_path:
        return None
    sidecar = Path(path).with_suffix(suffix)
    try:
        return sidecar if sidecar.is_file() else None
    except OSError:
        return None


def _readable_names(names: dict[int, str]) -> dict[int, str]:
    """Make names valid for a legend: printable and unique."""
    printable = {
        class_id: "".join(char for char in name if char.isprintable()).strip()
        or default_name(class_id)
        for class_id, name in names.items()
    }
    while (count := Counter(printable.values())).total() > len(count):
        # One pass may not be enough: of "a", "a" and "a (1)", the first would become "a (1)".
        printable = {
            class_id: name if count[name] == 1 else f"{name} ({class_id})"
            for class_id, name in printable.items()
        }
    return printable
