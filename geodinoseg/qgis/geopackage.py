"""Our rows in a GeoPackage: the default style of a layer in QGIS, and the note of a sample."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodinoseg.errors import OutputError, one_line

NO_TIME = "1970-01-01T00:00:00.000Z"
"""Takes the place of the creation time, so that the same map gives the same bytes."""

_STYLES = "layer_styles"
"""QGIS's table of styles."""
OUR_STYLE = "classes"
"""Name of our style."""
_MOST_STYLES = 100
_MOST_STEPS = 10_000_000
_QUERY = (
    f"SELECT styleQML, styleName, description FROM {_STYLES} "  # noqa: S608 (a constant)
    "WHERE f_table_name = ? ORDER BY useAsDefault DESC, id DESC LIMIT ?"
)
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


@dataclass(frozen=True, slots=True)
class LayerStyle:
    """A row of QGIS's table of styles."""

    qml: str
    """The content of a `.qml` file."""
    name: str = OUR_STYLE
    """Unique among the styles of a layer."""
    is_default: bool = True
    """Whether QGIS opens the layer with it."""
    description: str = "Land-cover classes"
    """Shown by QGIS beside the name."""


def add_layer_style(path: Path, qml: str, *, target: Path) -> None:
    """Write QGIS's table of styles into a GeoPackage, as the last step of writing it.

    QGIS finds the row only if the schema is '' (not NULL) and the geometry column is correct.

    Args:
        path: the file, with one layer named after its stem and the geometry column `geom`.
        qml: the content of a `.qml` file.
        target: the final path, for messages.
    """
    with _writing(path, target) as database:
        _write(database, layer=path.stem, qml=qml)


def add_further_styles(path: Path, styles: Sequence[LayerStyle], *, target: Path) -> None:
    """Add styles after `add_layer_style`; if one of them is the default, ours is not."""
    with _writing(path, target) as database:
        if any(style.is_default for style in styles):
            database.execute(f"UPDATE {_STYLES} SET useAsDefault = 0")  # noqa: S608 (a constant)
        for style in styles:
            _insert(database, path.stem, style)


@contextmanager
def _writing(path: Path, target: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path)) as database, database:
            yield database
        _set_change_counter(path)
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"{target}: could not be written; is the disk full? ({one_line(error)})."
        ) from error


def read_layer_styles(path: Path, layer: str) -> list[LayerStyle]:
    """The styles of a layer, the one that QGIS opens it with first; empty without a table.

    Only the first one counts as the default.
    """
    if not path.is_file():
        return []
    # Read only: SQLite would otherwise leave files of its own beside it.
    name = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(name, uri=True)) as database:
            # In place of a table there may be a view that never ends.
            database.set_progress_handler(lambda: 1, _MOST_STEPS)
            rows = database.execute(_QUERY, (layer, _MOST_STYLES)).fetchall()
    except (sqlite3.Error, OverflowError):  # usually, no such table
        return []
    return [
        LayerStyle(qml, str(name or ""), is_default=index == 0, description=str(text or ""))
        for index, (qml, name, text) in enumerate(rows)
        if isinstance(qml, str)
    ]


def is_locked(path: Path) -> bool:
    """Whether another program has locked a database; False for a file that is none."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
    return False


def replace_layer_styles(path: Path, layer: str, qml_of: Callable[[str], str]) -> None:
    """Change the styles of a layer in place, in one transaction; other columns stay.

    Raises:
        sqlite3.Error: the file is not a GeoPackage, is locked, or the disk is full.
    """
    with closing(sqlite3.connect(path)) as database, database:
        database.set_progress_handler(lambda: 1, _MOST_STEPS)
        rows = database.execute(
            f"SELECT id, styleQML FROM {_STYLES} WHERE f_table_name = ?",  # noqa: S608
            (layer,),
        ).fetchall()
        for number, qml in rows:
            if isinstance(qml, str):
                database.execute(
                    f"UPDATE {_STYLES} SET styleQML = ? WHERE id = ?",  # noqa: S608
                    (qml_of(qml), number),
                )


def _write(database: sqlite3.Connection, *, layer: str, qml: str) -> None:
    database.execute(
        f"CREATE TABLE {_STYLES} (id INTEGER PRIMARY KEY AUTOINCREMENT, "
        "f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), "
        "f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, "
        "useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
        "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
    )
    _insert(database, layer, LayerStyle(qml))
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
        "VALUES (?1, 'attributes', ?1)",
        (_STYLES,),
    )
    database.execute("UPDATE gpkg_contents SET last_change = ?", (NO_TIME,))


def _insert(database: sqlite3.Connection, layer: str, style: LayerStyle) -> None:
    database.execute(
        f"INSERT INTO {_STYLES} (f_table_catalog, f_table_schema, f_table_name, "  # noqa: S608
        "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
        "update_time) VALUES ('', '', ?, 'geom', ?, ?, '', ?, ?, '', ?)",
        (layer, style.name, style.qml, int(style.is_default), style.description, NO_TIME),
    )


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
