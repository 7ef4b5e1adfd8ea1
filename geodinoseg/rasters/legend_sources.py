"""Legends of rasters of other programs, from sidecars, colour tables, or the ids alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.legend import LARGEST_CLASS_ID, Legend
from geodinoseg.rasters.dataset import RasterReader
from geodinoseg.windows import Window, windows_over

# Meaning of a column of a raster attribute table, by its usage, or by its name if it has none.
_COLUMN_USAGES = {"2": "name", "5": "value", "3": "value", "6": "red", "7": "green", "8": "blue"}
_COLUMN_NAMES = {
    "value": "value",
    "class": "name",
    "class_name": "name",
    "classname": "name",
    "name": "name",
    "label": "name",
    "red": "red",
    "green": "green",
    "blue": "blue",
}
_CHANNELS = ("red", "green", "blue")
_SCAN_BYTES = 16 << 20
_LARGEST_SIDECAR_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _ClassStyles:
    """Names and colours by class id from one source; it may cover only some ids."""

    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, str] = field(default_factory=dict)


def class_ids_in(reader: RasterReader, path: PathLike, *, nodata: int | None) -> list[int]:
    """The class ids that occur in a single-band integer raster, ascending, without nodata.

    Reads the whole raster.
    """
    found: set[int] = set()
    for window in _block_windows(reader.dataset):
        found.update(_distinct(reader.read(window)))
        found.discard(nodata)
        _check_class_ids(path, window, found)
    if not found:
        raise SceneError(f"{path}: holds no class: every pixel is nodata ({nodata}).")
    return sorted(found)


def find_legend(dataset: rasterio.DatasetReader, path: PathLike, class_ids: list[int]) -> Legend:
    """The legend of some class ids, from the best source available.

    Names come from the raster attribute table or the category names in GDAL's sidecar
    `<path>.aux.xml`, else they are `class N`; colours come from that table, from the colour table
    of the file, or from the palette.
    """
    sidecar = _read_sidecar(Path(f"{path}.aux.xml"))
    colors = _color_table(dataset) | sidecar.colors
    return Legend.of_names(
        _readable_names({class_id: sidecar.names.get(class_id, "") for class_id in class_ids}),
        {class_id: colors[class_id] for class_id in class_ids if class_id in colors},
    )


def _block_windows(dataset: rasterio.DatasetReader) -> Iterator[Window]:
    """Windows of whole blocks, at most 16 MiB unless a single block is larger."""
    rows, cols = dataset.block_shapes[0]
    block_bytes = rows * cols * np.dtype(dataset.dtypes[0]).itemsize
    blocks = max(1, _SCAN_BYTES // block_bytes)
    blocks_across = -(-dataset.width // cols)
    return windows_over(
        height=dataset.height,
        width=dataset.width,
        rows=rows * max(1, blocks // blocks_across),
        cols=cols * min(blocks, blocks_across),
    )


def _distinct(values: NDArray[Any]) -> list[int]:
    """The distinct values; of runs of equal values only the first is sorted, which is faster."""
    flat = values.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    found: list[int] = np.unique(flat[np.append(starts, flat.size - 1)]).tolist()
    return found


def _check_class_ids(path: PathLike, window: Window, found: set[int]) -> None:
    wrong = [value for value in found if not 0 <= value <= LARGEST_CLASS_ID]
    if wrong:
        raise SceneError(
            f"{path}: rows {window.row_off} to {window.row_end - 1} hold the value {min(wrong)}, "
            f"but class ids are 0 to {LARGEST_CLASS_ID}; declare it as nodata (gdal_translate "
            f"-a_nodata {min(wrong)}) or renumber the classes."
        )


def _color_table(dataset: rasterio.DatasetReader) -> dict[int, str]:
    try:
        table = dataset.colormap(1)
    except ValueError:  # rasterio raises it if there is none
        return {}
    return {
        value: f"#{red:02x}{green:02x}{blue:02x}" for value, (red, green, blue, _) in table.items()
    }


def _read_sidecar(path: Path) -> _ClassStyles:
    """Names and colours of band 1; none if the file is missing or not XML."""
    try:
        if path.stat().st_size > _LARGEST_SIDECAR_BYTES:
            return _ClassStyles()
        root = parse_xml(path.read_bytes())
    except (OSError, XmlError):
        return _ClassStyles()
    for band in root.iter("PAMRasterBand"):
        if band.get("band") == "1":
            table = _attribute_table(band)
            return _ClassStyles(_category_names(band) | table.names, table.colors)
    return _ClassStyles()


def _category_names(band: ET.Element) -> dict[int, str]:
    categories = band.findall("CategoryNames/Category")
    return {position: category.text or "" for position, category in enumerate(categories)}


def _attribute_table(band: ET.Element) -> _ClassStyles:
    known = _ClassStyles()
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return known
    columns = [_column_meaning(column) for column in table.findall("FieldDefn")]
    for row in table.findall("Row"):
        texts = [cell.text or "" for cell in row.findall("F")]
        cells = dict(zip(reversed(columns), reversed(texts), strict=False))
        _add_row(known, cells)
    return known


def _column_meaning(column: ET.Element) -> str:
    by_usage = _COLUMN_USAGES.get(column.findtext("Usage", ""))
    return by_usage or _COLUMN_NAMES.get(column.findtext("Name", "").lower(), "")


def _add_row(known: _ClassStyles, cells: dict[str, str]) -> None:
    try:
        class_id = int(float(cells["value"]))
        rgb = [int(float(cells[channel])) for channel in _CHANNELS if channel in cells]
    except (KeyError, ValueError):
        return
    if "name" in cells:
        known.names[class_id] = cells["name"]
    if len(rgb) == len(_CHANNELS) and all(channel in range(256) for channel in rgb):
        known.colors[class_id] = "#{:02x}{:02x}{:02x}".format(*rgb)


def _readable_names(names: dict[int, str]) -> dict[int, str]:
    """Make names printable and unique, as a legend requires."""
    printable = {
        class_id: "".join(char for char in name if char.isprintable()).strip()
        or f"class {class_id}"
        for class_id, name in names.items()
    }
    while (count := Counter(printable.values())).total() > len(count):
        # Repeated, since a new name may be in use: "a", "a" and "a (1)" can give "a (1)" twice.
        printable = {
            class_id: name if count[name] == 1 else f"{name} ({class_id})"
            for class_id, name in printable.items()
        }
    return printable
