"""Legend files that people write: names and colours of classes, in any usual form."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geodinoseg.errors import LabelError, one_line
from geodinoseg.legend import LARGEST_CLASS_ID
from geodinoseg.rasters.class_style import ClassStyle, StyledClass, StyleError, hex_color, read_qml

_MOST_BYTES = 16 << 20
_COLUMNS = {
    **dict.fromkeys(("id", "class_id", "classid", "value", "classvalue", "code", "number"), "id"),
    **dict.fromkeys(("name", "class_name", "classname", "class", "label", "category"), "name"),
    **dict.fromkeys(("color", "colour", "hex", "rgb"), "color"),
    **dict.fromkeys(("red", "r"), "red"),
    **dict.fromkeys(("green", "g"), "green"),
    **dict.fromkeys(("blue", "b"), "blue"),
}
_RGB = ("red", "green", "blue")
_WAY_OUT = "give columns id, name and color, or lines such as '3 water #4477aa'"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|\d?\d)"
_APART = r"[\s,;:]+"
# Value, red, green, blue, perhaps alpha, perhaps a label: QGIS's export of a palette, and the
# .clr of ArcGIS and GDAL.
_COLOR_MAP_ROW = re.compile(
    rf"(\d+){_APART}({_BYTE}{_APART}{_BYTE}{_APART}{_BYTE})(?:{_APART}{_BYTE})?(?:{_APART}(.*))?"
)
_TEXT_ROW = re.compile(r"(?:(\d+)[\s,;:]+)?(.*?)[\s,;:]*(#[0-9a-fA-F]{3,8})?")


def read_legend_file(path: str) -> ClassStyle:
    """Read the classes of a legend file.

    CSV has columns for number, name and colour in the usual spellings (`id`, `value`; `name`,
    `class`; `color`, `hex`, or `red`, `green`, `blue`), JSON a list of such objects (an Esri
    `.emd` too); `.qml` is a QGIS style, `.clr` a colour map; text has one line per class, `water
    #4477aa` or `3 water #4477aa`. Number or colour may be missing.

    Raises:
        LabelError: the file is missing or unreadable, an entry is not a class, a colour not a
            colour, or a number or name occurs twice.
    """
    text = read_text(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".qml":
        try:
            entries = read_qml(text).classes
        except StyleError as error:
            raise LabelError(f"{path}: cannot be read as a QGIS style: {error}.") from error
    elif suffix in {".json", ".emd"}:
        entries = classes_of_json(path, text)
    else:
        entries = tuple(_classes_of_table(path, text) or _classes_of_lines(path, text))
    _check(path, entries)
    return ClassStyle(entries)


def classes_of_json(path: str, text: str) -> tuple[StyledClass, ...]:
    """The classes of a JSON list of objects, or of one under `classes` or `legend`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelError(
            f"{path}: is not valid JSON; write it again ({one_line(error)})."
        ) from error
    if isinstance(content, dict):
        by_name = {str(key).casefold(): value for key, value in content.items()}
        content = by_name.get("classes", by_name.get("legend"))
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise LabelError(
            f"{path}: holds no list of classes; give objects with class_id, name and color."
        )
    return tuple(
        _styled_class(
            f"{path}: entry {number}",
            {_COLUMNS.get(str(key).casefold(), ""): value for key, value in entry.items()},
        )
        for number, entry in enumerate(content, start=1)
    )


def read_text(path: str) -> str:
    """The text of a small file."""
    if not os.path.exists(path):  # Path raises where a name is too long
        raise LabelError(f"{path}: no such file; {_WAY_OUT}.")
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise LabelError(f"{path}: is too large for a legend; give a text file.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({one_line(error)}).") from error
    if not content:
        raise LabelError(f"{path}: the file is empty; {_WAY_OUT}.")
    if b"\0" in content:
        raise LabelError(f"{path}: is not a text file; {_WAY_OUT}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _classes_of_table(path: str, text: str) -> list[StyledClass]:
    """The rows of a table with a header; nothing where the header is unknown."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=None), delimiter=delimiter))
    except csv.Error as error:
        raise LabelError(f"{path}: cannot be read as a table ({error}); {_WAY_OUT}.") from error
    columns = [_COLUMNS.get(cell.strip().casefold().replace(" ", "_"), "") for cell in rows[0]]
    if not {"id", "name"} & set(columns) or not {"name", "color", "red"} & set(columns):
        return []
    return [
        _styled_class(f"{path}: row {number}", dict(zip(columns, row, strict=False)))
        for number, row in enumerate(rows[1:], start=2)
        if any(cell.strip() for cell in row)
    ]


def _classes_of_lines(path: str, text: str) -> list[StyledClass]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        comment = stripped.startswith("#") and not hex_color(stripped.split()[0])
        if stripped and not comment and not stripped.startswith("INTERPOLATION:"):
            found.append(_class_of_line(f"{path}: line {number}", stripped))
    return found


def _class_of_line(where: str, line: str) -> StyledClass:
    if row := _COLOR_MAP_ROW.fullmatch(line):
        color = re.split(_APART, row[2])
        return _styled_class(where, {"id": row[1], "color": color, "name": row[3]})
    row = _TEXT_ROW.fullmatch(line)
    if row is None or not (row[1] or row[3]):
        raise LabelError(f"{where}: {line[:60]!r} has no colour and no number; {_WAY_OUT}.")
    return _styled_class(where, {"id": row[1], "name": row[2], "color": row[3]})


def _styled_class(where: str, values: Mapping[str, Any]) -> StyledClass:
    given = {
        key: value for key, value in values.items() if value is not None and str(value).strip()
    }
    if all(key in given for key in _RGB):
        given["color"] = [given[key] for key in _RGB]
    color = hex_color(given["color"]) if "color" in given else None
    if "color" in given and color is None:
        raise LabelError(
            f"{where}: {given['color']!r} is not a colour; give #rrggbb, such as #4477aa."
        )
    name = str(given["name"]).strip() if "name" in given else None
    class_id = _class_id(where, given["id"]) if "id" in given else None
    if (name is None and class_id is None) or not (name or "").isprintable():
        raise LabelError(f"{where}: has neither a readable name nor a number; {_WAY_OUT}.")
    return StyledClass(class_id=class_id, name=name, color=color)


def _class_id(where: str, value: Any) -> int:
    try:
        number = float(str(value).strip())
    except ValueError:
        number = -1.0
    if not (number.is_integer() and 0 <= number <= LARGEST_CLASS_ID):
        raise LabelError(
            f"{where}: {value!r} is not a class id; give a whole number from 0 to "
            f"{LARGEST_CLASS_ID}."
        )
    return int(number)


def _check(path: str, entries: Sequence[StyledClass]) -> None:
    if not entries:
        raise LabelError(f"{path}: holds no class; {_WAY_OUT}.")
    ids = [entry.class_id for entry in entries if entry.class_id is not None]
    names = [entry.name for entry in entries if entry.name is not None]
    for what, count in (("id", Counter(map(str, ids))), ("name", Counter(names))):
        twice = [value for value, times in count.items() if times > 1]
        if twice:
            raise LabelError(
                f"{path}: two classes have the {what} {twice[0]!r}; give each its own."
            )
