"""The style that a layer brings itself: in its GeoPackage, or in a `.qml` or `.clr` beside it.

Nobody asked for it, so one that cannot be read is left out with a warning.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from geodinoseg.errors import LabelError, one_line
from geodinoseg.labels.legend_file import read_legend_file, read_text
from geodinoseg.labels.paths import file_of
from geodinoseg.labels.styles import ClassStyle, StyleError, read_qml, single_color

_log = logging.getLogger(__name__)
_MOST_STEPS = 10_000_000
_QUERY = (
    "SELECT styleQML FROM layer_styles WHERE f_table_name = ? "
    "ORDER BY useAsDefault DESC, id DESC LIMIT 1"
)


def vector_style(path: str, layer: str | None, fields: tuple[str, ...]) -> ClassStyle:
    """The style of a layer by one of its columns.

    Args:
        path: of the layer, as `open_vector_layer` takes it.
        layer: its name in the file; None in a format that has one only.
        fields: the class column, and the one with the names where there is one.
    """
    try:
        text = _qml_of(path, layer)
        return ClassStyle() if text is None else read_qml(text, fields=fields)
    except (StyleError, LabelError) as error:
        _log.warning(
            "%s: the layer's style is left out, as it cannot be read (%s).", path, one_line(error)
        )
        return ClassStyle()


def one_color(path: str, layer: str | None) -> str | None:
    """The colour of a layer that is drawn in one."""
    try:
        text = _qml_of(path, layer)
        return None if text is None else single_color(text)
    except (StyleError, LabelError) as error:
        _log.warning(
            "%s: the layer's style is left out, as it cannot be read (%s).", path, one_line(error)
        )
        return None


def raster_style(path: str) -> ClassStyle:
    """The palette of a raster in a `.qml`, else in a `.clr` beside it."""
    for suffix in (".qml", ".clr"):
        beside = _beside(path, suffix)
        if beside is None:
            continue
        try:
            return (
                read_qml(read_text(str(beside)))
                if suffix == ".qml"
                else read_legend_file(str(beside))
            )
        except (StyleError, LabelError) as error:
            _log.warning("%s: is left out, as it cannot be read (%s).", beside, one_line(error))
    return ClassStyle()


def _qml_of(path: str, layer: str | None) -> str | None:
    """The text of a layer's style; a GeoPackage's own comes before a file beside it."""
    file = Path(file_of(path))
    inside = None if layer is None or file.suffix.lower() != ".gpkg" else _inside(file, layer)
    beside = _beside(path, ".qml") if inside is None else None
    return read_text(str(beside)) if beside is not None else inside


def _inside(file: Path, layer: str) -> str | None:
    if not file.is_file():
        return None
    # Read only: SQLite would otherwise leave files of its own beside it.
    name = f"{file.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(name, uri=True)) as database:
            # In place of a table there may be a view that never ends.
            database.set_progress_handler(lambda: 1, _MOST_STEPS)
            row = database.execute(_QUERY, (layer,)).fetchone()
    except sqlite3.Error:  # no such table, as a rule
        return None
    return row[0] if row and isinstance(row[0], str) else None


def _beside(path: str, suffix: str) -> Path | None:
    beside = Path(file_of(path)).with_suffix(suffix)
    try:
        return beside if beside.is_file() else None
    except OSError:
        return None
