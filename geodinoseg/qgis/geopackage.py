"""The style inside a GeoPackage, by which QGIS opens its layer named and coloured."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from geodinoseg.errors import OutputError, one_line

NO_TIME = "1970-01-01T00:00:00.000Z"
"""Stands where the format wants the time of making, so that the same map gives the same bytes."""

_STYLES = "layer_styles"
"""QGIS's table of styles."""
_RESERVED = ("gpkg", "sqlite_", _STYLES)
"""What a layer's name may not begin with: such tables are the format's and ours."""


def check_layer_name(target: Path) -> None:
    """Refuse a file whose stem cannot be the name of its layer.

    Raises:
        OutputError: a table of the format has or may have this name.
    """
    if target.stem.lower().startswith(_RESERVED):
        raise OutputError(
            f"{target}: the layer takes its name from the file, and in a GeoPackage names that "
            f"begin with {', '.join(_RESERVED)} are taken; give another."
        )


def add_layer_style(path: Path, qml: str, *, target: Path) -> None:
    """Write QGIS's table of styles into a GeoPackage.

    QGIS finds the row only where the schema is '' (not NULL) and the geometry column is the true
    one.

    Args:
        path: the file, with one layer of its stem's name and geometry column `geom`.
        qml: the style, as a `.qml` file would hold it.
        target: what the file will be called, for messages.

    Raises:
        OutputError: the disk is full.
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            _write(database, layer=path.stem, qml=qml)
    except sqlite3.Error as error:
        raise OutputError(
            f"{target}: could not be written; is the disk full? ({one_line(error)})."
        ) from error


def _write(database: sqlite3.Connection, *, layer: str, qml: str) -> None:
    database.execute(
        f"CREATE TABLE {_STYLES} (id INTEGER PRIMARY KEY AUTOINCREMENT, "
        "f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), "
        "f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, "
        "useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
        "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
    )
    database.execute(
        f"INSERT INTO {_STYLES} (f_table_catalog, f_table_schema, f_table_name, "  # noqa: S608
        "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
        "update_time) VALUES ('', '', ?, 'geom', 'classes', ?, '', 1, 'Land-cover classes', '', ?)",
        (layer, qml, NO_TIME),
    )
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
        "VALUES (?1, 'attributes', ?1)",
        (_STYLES,),
    )
    database.execute("UPDATE gpkg_contents SET last_change = ?", (NO_TIME,))
