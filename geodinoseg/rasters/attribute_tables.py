"""Raster attribute tables: names and colours of classes as GDAL and ArcGIS store them.

A table gives the class ids of its rows in a column, as ranges in a pair of columns (lowest,
highest), as equal steps, or by the positions of the rows. The names may be in a text column of any
name.
"""

from __future__ import annotations

import math
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodinoseg.legend import LARGEST_CLASS_ID

# Meaning of a column: by GDAL's GDALRATFieldUsage, else by its name, in order of preference.
_USAGES = {"2": "name", "3": "low", "4": "high", "5": "value"}
_USAGES |= {"6": "red", "7": "green", "8": "blue"}
_NAMES = {
    "value": ("value", "classvalue", "class_value", "class_id", "classid", "code"),
    "low": ("min", "minimum", "value_min"),
    "high": ("max", "maximum", "value_max"),
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
}
# A text column with one of these words in its name is preferred as the column of class names.
_NAME_WORDS = re.compile(r"class|name|label|categ|descr|legend|type|land", re.IGNORECASE)
_CHANNELS = ("red", "green", "blue")
_WHOLE, _REAL, _TEXT = "0", "1", "2"
_LARGEST_TABLE_BYTES = 64 << 20
_MOST_ROWS = LARGEST_CLASS_ID + 2


@dataclass(frozen=True, slots=True)
class KnownClasses:
    """Names and colours that a source gives to class ids, not necessarily to all of them."""

    names: dict[int, str] = field(default_factory=dict)
    """Names by class id."""
    colors: dict[int, str] = field(default_factory=dict)
    """Colours, #rrggbb, by class id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column and its cells."""

    name: str
    usage: str
    """Number of GDAL's GDALRATFieldUsage; 0 if none is declared."""
    kind: str
    """Number of GDAL's GDALRATFieldType: 0 integer, 1 real, 2 string."""
    cells: Sequence[str]


def classes_of_table(table: ET.Element, class_ids: Sequence[int]) -> KnownClasses:
    """Names and colours of these ids in GDAL's XML form of an attribute table."""
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    columns = [
        _Column(
            name=definition.findtext("Name", ""),
            usage=definition.findtext("Usage", "0"),
            kind=definition.findtext("Type", _TEXT),
            cells=[row[position] if position < len(row) else "" for row in rows],
        )
        for position, definition in enumerate(table.findall("FieldDefn"))
    ]
    ranges = _value_ranges(columns)
    if ranges is None:
        first, step = (_number(table.get(key, "")) for key in ("Row0Min", "BinSize"))
        ranges = _step_ranges(len(rows), first, step)
    return _known(columns, ranges, class_ids)


def classes_of_dbf(path: Path, class_ids: Sequence[int]) -> KnownClasses:
    """Names and colours of these ids in a dBase table, such as ArcGIS's `x.tif.vat.dbf`.

    The result is empty if the table is missing or invalid. It is read here and not by GDAL, which
    would open a file of any format under that name.
    """
    try:
        if path.stat().st_size > _LARGEST_TABLE_BYTES:
            return KnownClasses()
        columns = _read_dbf(path.read_bytes(), _code_page(path))
    except (OSError, ValueError, struct.error):
        return KnownClasses()
    ranges = _value_ranges(columns)
    return KnownClasses() if ranges is None else _known(columns, ranges, class_ids)


def _known(
    columns: Sequence[_Column], ranges: NDArray[np.float64], class_ids: Sequence[int]
) -> KnownClasses:
    """Names and colours of ids; `ranges` are (rows, 2) lowest and highest id of each row."""
    low, high = ranges.T
    names, colors = _name_cells(columns), _colors(columns)
    known = KnownClasses()
    for class_id in class_ids:
        rows = np.flatnonzero((low <= class_id) & (class_id <= high))
        if not len(rows):
            continue
        if names and names[rows[0]].strip():
            known.names[class_id] = names[rows[0]]
        if colors and colors[rows[0]]:
            known.colors[class_id] = colors[rows[0]]
    return known


def _value_ranges(columns: Sequence[_Column]) -> NDArray[np.float64] | None:
    """(rows, 2) lowest and highest id of each row, from its columns; None without such columns."""
    low, high = _column_of(columns, "low"), _column_of(columns, "high")
    value = _column_of(columns, "value")
    if low is None or high is None:
        low = high = value or low or high
    if low is None or high is None:
        return None
    ends = [[_number(cell) for cell in column.cells] for column in (low, high)]
    return np.array(ends, dtype=np.float64).T.reshape(-1, 2)  # None becomes NaN


def _step_ranges(rows: int, first: float | None, step: float | None) -> NDArray[np.float64]:
    """(rows, 2) lowest and highest id of each row, from equal steps, else from its position."""
    positions = np.arange(rows, dtype=np.float64)
    if first is None or step is None or step <= 0:
        return np.column_stack([positions, positions])
    starts = first + positions * step
    # The end of a step is the start of the next.
    return np.column_stack([starts, np.nextafter(starts + step, -np.inf)])


def _column_of(columns: Sequence[_Column], meaning: str) -> _Column | None:
    """The column with a meaning: by its declared usage, else by its name."""
    for column in columns:
        if _USAGES.get(column.usage) == meaning:
            return column
    by_name = {column.name.lower(): column for column in reversed(columns) if column.kind != _TEXT}
    by_name |= {c.name.lower(): c for c in columns if c.name.lower() == "value"}
    return next((by_name[name] for name in _NAMES.get(meaning, ()) if name in by_name), None)


def _name_cells(columns: Sequence[_Column]) -> Sequence[str]:
    """The cells of the column that names the classes; empty without one."""
    declared = _column_of(columns, "name")
    value = _column_of(columns, "value")
    texts = [c for c in columns if c.kind == _TEXT and c.usage not in _USAGES and c is not value]

    def merit(column: _Column) -> tuple[bool, bool, bool, int]:
        cells = {cell.strip() for cell in column.cells} - {""}
        says_more = any(_number(cell) is None for cell in cells)
        differ = len(cells) > 1 or len(column.cells) == 1
        return says_more, differ, _NAME_WORDS.search(column.name) is not None, len(cells)

    found = declared or max(texts, key=merit, default=None)
    return found.cells if found else ()


def _colors(columns: Sequence[_Column]) -> list[str]:
    """Colours of the rows; empty text where a row has none, an empty list without columns."""
    channels = [_column_of(columns, channel) for channel in _CHANNELS]
    numbers = [[_number(cell) for cell in column.cells] for column in channels if column]
    if len(numbers) < len(_CHANNELS):
        return []
    # ArcGIS writes real channels from 0 to 1, GDAL from 0 to 255.
    given = [number for cells in numbers for number in cells if number is not None]
    are_real = all(column is not None and column.kind == _REAL for column in channels)
    factor = 255 if are_real and max(given, default=0) <= 1 else 1
    return [_hex(rgb, factor) for rgb in zip(*numbers, strict=True)]


def _hex(rgb: Sequence[float | None], factor: int) -> str:
    values = [round(number * factor) for number in rgb if number is not None]
    if len(values) < len(_CHANNELS) or not all(value in range(256) for value in values):
        return ""
    return "#{:02x}{:02x}{:02x}".format(*values)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _code_page(path: Path) -> str | None:
    """The encoding that a `.cpg` beside a dBase table names."""
    try:
        return path.with_suffix(".cpg").read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _read_dbf(content: bytes, encoding: str | None) -> list[_Column]:
    """The columns of a dBase III table.

    The header has the number of rows, its own length and that of a row, followed by 32 bytes per
    column: its name, type and width. Each row starts with a byte that marks deleted rows.
    """
    count, header_bytes, row_bytes = struct.unpack_from("<IHH", content, 4)
    fields = list(_dbf_fields(content[32:header_bytes]))
    if not fields or row_bytes < 1 + sum(width for _, _, width in fields):
        raise ValueError("no dBase table")
    last = min(count, _MOST_ROWS, (len(content) - header_bytes) // row_bytes)
    starts = (header_bytes + row_bytes * row for row in range(last))
    rows = [content[start : start + row_bytes] for start in starts]
    kept = [row for row in rows if row[:1] != b"*"]
    ends = np.cumsum([1, *(width for _, _, width in fields)]).tolist()
    return [
        _Column(
            name=name,
            usage="0",
            kind=kind,
            cells=[_decoded(row[start:end], encoding) for row in kept],
        )
        for (name, kind, _), (start, end) in zip(fields, pairwise(ends), strict=True)
    ]


def _dbf_fields(header: bytes) -> Iterator[tuple[str, str, int]]:
    """Name, kind (number of GDAL's GDALRATFieldType) and width of each column."""
    for start in range(0, len(header) - 31, 32):
        entry = header[start : start + 32]
        if entry[:1] == b"\r":
            return
        name = entry[:11].partition(b"\0")[0].decode("ascii", "replace")
        kind, width, decimals = chr(entry[11]), entry[16], entry[17]
        yield name, _TEXT if kind == "C" else _REAL if decimals or kind == "F" else _WHOLE, width


def _decoded(cell: bytes, encoding: str | None) -> str:
    for candidate in filter(None, (encoding, "utf-8")):
        try:
            return cell.decode(candidate).strip(" \0")
        except (UnicodeDecodeError, LookupError):
            continue
    return cell.decode("cp1252", "replace").strip(" \0")
