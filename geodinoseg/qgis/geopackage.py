"""Our rows in a GeoPackage: the default style of a layer in QGIS, and the note of a sample."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from geodinoseg.errors import OutputError, one_line

NO_TIME = "1970-01-01T00:00:00.000Z"
"""Takes the place of the creation time, so that the same map gives the same bytes."""

_STYLES = "layer_styles"
"""QGIS's table of styles."""
_RESERVED = ("gpkg", "sqlite_", _STYLES)
"""Prefixes that a layer's name must not have: such tables belong to the format or to QGIS."""
_URI = "urn:geodinoseg:sample"
"""Distinguishes our note from other metadata."""
# The tables as the standard defines them (OGC 12-128r15, F.8), and their registration.
_TABLES = (
    "CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name TEXT, column_name TEXT, "
    "extension_name TEXT NOT NULL, definition TEXT NOT NULL, scope TEXT NOT NULL, "
    "CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name))",
    "CREATE TABLE IF NOT EXISTS gpkg_metadata ("
    "id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL, "
    "md_scope TEXT NOT NULL DEFAULT 'dataset', md_standard_uri TEXT NOT NULL, "
    "mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata TEXT NOT NULL DEFAULT '')",
    "CREATE TABLE IF NOT EXISTS gpkg_metadata_reference (reference_scope TEXT NOT NULL, "
    "table_name TEXT, column_name TEXT, row_id_value INTEGER, timestamp DATETIME NOT NULL "
    "DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')), md_file_id INTEGER NOT NULL, "
    "md_parent_id INTEGER, "
    "CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id), "
    "CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id))",
)
_CHANGE_COUNTERS = (24, 92)
"""Offsets of the count of transactions, and of the count when the version of SQLite was stored."""
_EXTENSION = "http://www.geopackage.org/spec120/#extension_metadata"


def check_layer_name(target: Path) -> None:
    """Refuse a file whose stem cannot be the name of its layer."""
    if target.stem.lower().startswith(_RESERVED):
        raise OutputError(
            f"{target}: the layer is named after the file, and in a GeoPackage names that begin "
            f"with {', '.join(_RESERVED)} are reserved; give another name."
        )


def add_layer_style(path: Path, qml: str, *, target: Path) -> None:
    """Write QGIS's table of styles into a GeoPackage, as the last step of writing it.

    QGIS finds the row only if the schema is '' (not NULL) and the geometry column is correct.

    Args:
        path: the file, with one layer named after its stem and the geometry column `geom`.
        qml: the content of a `.qml` file.
        target: the final path, for messages.
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            _write(database, layer=path.stem, qml=qml)
        _set_change_counter(path)
    except (sqlite3.Error, OSError) as error:
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


def add_note(path: Path, facts: dict[str, Any]) -> None:
    """Write plain values into a GeoPackage.

    Raises:
        sqlite3.Error: the disk is full.
    """
    with closing(sqlite3.connect(path)) as database, database:
        for statement in _TABLES:
            database.execute(statement)
        database.executemany(
            "INSERT OR IGNORE INTO gpkg_extensions VALUES (?, NULL, 'gpkg_metadata', ?, "
            "'read-write')",
            [(table, _EXTENSION) for table in ("gpkg_metadata", "gpkg_metadata_reference")],
        )
        note = database.execute(
            "INSERT INTO gpkg_metadata (md_standard_uri, mime_type, metadata) "
            "VALUES (?, 'application/json', ?)",
            (_URI, json.dumps(facts, ensure_ascii=False)),
        )
        database.execute(
            "INSERT INTO gpkg_metadata_reference (reference_scope, timestamp, md_file_id) "
            "VALUES ('geopackage', ?, ?)",
            (NO_TIME, note.lastrowid),
        )


def _set_change_counter(path: Path) -> None:
    """Give the count of transactions a constant value, so that the same map gives the same bytes.

    GDAL now and then writes with one transaction more. Readers use the count only to find out
    whether another process has changed an open file (https://www.sqlite.org/fileformat2.html).
    """
    with path.open("r+b") as file:
        for offset in _CHANGE_COUNTERS:
            file.seek(offset)
            file.write((1).to_bytes(4, "big"))


def read_note(path: Path) -> dict[str, Any]:
    """Read what `add_note` wrote.

    Raises:
        sqlite3.Error: the file is not a GeoPackage, or has no metadata.
        ValueError: it has no note of ours.
    """
    # Read-only, as a path that is not a database would otherwise become one.
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        row = database.execute(
            "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?", (_URI,)
        ).fetchone()
    try:
        facts = json.loads(row[0]) if row else None
    except (RecursionError, TypeError) as error:
        raise ValueError("its note of geodinoseg is damaged") from error
    if not isinstance(facts, dict):
        raise ValueError("it has no note of geodinoseg")  # noqa: TRY004 (a fault of the file)
    return facts
