"""What may be opened as labels unasked: plain vector files, by content and not by name.

GDAL reads 60 vector formats, and some of them fetch addresses, open other files or start programs.
pyogrio takes no list of drivers, so a file's first bytes are looked at before GDAL sees it, and the
driver that took it afterwards; meanwhile GDAL is kept from the network.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO
from xml.parsers import expat

import pyogrio

from geodinoseg.errors import LabelError
from geodinoseg.labels.paths import file_of

_MOST_MEMBERS = 10_000
_LARGEST_RATIO = 2_000
# Where there are several files GDAL opens folders of these alone; a lone file may have any name.
_OPENED = re.compile(
    r"\.(shp|gpkg|geojson|json|geojsonl|fgb|kml|gml|tab|mif|sqlite|db|vrt|xml|csv|tsv)$",
    re.IGNORECASE,
)
# What lies beside them: metadata, styles, schemas.
_BESIDE = re.compile(r"\.(shp|gpkg|gml|kml|tab)\.xml$|(^|/)metadata\.xml$", re.IGNORECASE)
_GEODATABASE_MEMBER = re.compile(r"a00000001\.gdbtable$")
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def found_in_archive(path: str, look: Callable[[IO[bytes], str], str | None]) -> str | None:
    """What is wrong with an archive, as a clause that follows `it`; None where nothing is.

    Args:
        path: of the archive.
        look: says the same of the content of a file, given its name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _found_in_members(archive, look)
    except (*_READ_ERRORS, RuntimeError) as error:  # RuntimeError: it wants a password
        return f"is an archive that cannot be read ({error})"


def _found_in_members(
    archive: zipfile.ZipFile, look: Callable[[IO[bytes], str], str | None]
) -> str | None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MOST_MEMBERS:
        return f"is an archive of more than {_MOST_MEMBERS:,} files"
    names = [member.filename for member in members]
    opened = [
        member
        for member in members
        if len(members) == 1
        or (_OPENED.search(member.filename) and not _is_beside(member.filename))
    ]
    if not opened and not any(map(_GEODATABASE_MEMBER.search, names)):
        return "is an archive without a plain vector file"
    for member in opened:
        if member.file_size > _LARGEST_RATIO * max(member.compress_size, 1):
            return f"is an archive whose {member.filename} claims a size that it cannot have"
        with archive.open(member) as handle:
            found = look(handle, member.filename)
        if found:
            return f"is an archive whose {member.filename} {found}"
    return None


def _is_beside(name: str) -> bool:
    return _BESIDE.search(name) is not None


PLAIN_VECTOR_DRIVERS = frozenset(
    {
        "GPKG",
        "SQLite",
        "ESRI Shapefile",
        "FlatGeobuf",
        "GeoJSON",
        "GeoJSONSeq",
        "JSONFG",
        "ESRIJSON",
        "TopoJSON",
        "KML",
        "LIBKML",
        "GML",
        "MapInfo File",
        "OpenFileGDB",
        "CSV",
    }
)
"""Drivers that read a file and what lies beside it under its name, and follow no reference."""

_HEAD_BYTES = 1 << 16
_PIECE_BYTES = 1 << 22
_LONGEST_FIND = 1 << 12
_BINARY = (b"SQLite format 3\0", b"\0\0\x27\x0a", b"fgb\x03fgb", b"PAR1")
_ZIP = b"PK\x03\x04"
_GEODATABASE = "a00000001.gdbtable"
# By these words near the start of a file GDAL takes it for what reads other files or addresses.
_ACTIVE = re.compile(
    rb"<ogr(vrt|wfs|oapif|csw)|wfs_capabilities|gdal_streamed_alg|<vrtdataset|<gdal", re.IGNORECASE
)
_JSON = re.compile(
    rb'"type"\s*:\s*"(Feature|FeatureCollection|GeometryCollection|Topology|(Multi)?(Polygon'
    rb'|LineString|Point))"|"geometryType"\s*:\s*"esri'
)
# Where all of these occur a coordinate system may be fetched from an address.
_LINKED_CRS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rb'"crs"\s*:\s*\{',
        rb'"type"\s*:\s*"(link|url)"',
        rb'"(href|url)"\s*:\s*"\s*http',
    )
)
# Letters of ASCII that are written as numbers, as nobody does who has nothing to hide.
_HIDDEN_LETTER = re.compile(rb"\\u00(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])", re.IGNORECASE)
_TAB = re.compile(rb"\s*!table", re.IGNORECASE)
_TAB_OF_OTHERS = re.compile(rb"isseamless|open\s+table|create\s+view", re.IGNORECASE)
_MIF = re.compile(rb"\s*version\s+\d+.{0,2000}\bcolumns\s+\d+", re.IGNORECASE | re.DOTALL)
_CSV = re.compile(rb'(.*[,;\t])?"?_?wkt', re.IGNORECASE)
# So that nothing is fetched even by what passes: every request goes to a port where nobody is.
_OFFLINE: dict[str, str | int] = {
    "GDAL_HTTP_PROXY": "127.0.0.1:9",
    "GDAL_HTTP_MAX_RETRY": 0,
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/nowhere",
    "GML_DOWNLOAD_SCHEMA": "NO",
}


def check_is_plain(path: str, *, allow_external: bool = False) -> None:
    """Look at a vector file before GDAL does.

    Args:
        path: of the file; it may name a layer.
        allow_external: whether it may be of any kind all the same.

    Raises:
        LabelError: it is no plain vector file, or lies on a server.
    """
    found = None if allow_external else _found(file_of(path))
    if found:
        raise refused(path, found)


def check_driver(path: str, driver: str) -> None:
    """Refuse a file that another than a plain driver took.

    Raises:
        LabelError: it is one.
    """
    if driver not in PLAIN_VECTOR_DRIVERS:
        raise refused(path, f"is a {driver} file")


def refused(path: str, found: str) -> LabelError:
    """The error for what is not opened unasked."""
    return LabelError(
        f"{path}: cannot be read as polygons or as a label raster; it {found}. Give a plain file, "
        f"for instance made with ogr2ogr labels.gpkg FILE, or --allow-external if you trust it."
    )


@contextmanager
def offline(*, allow_external: bool) -> Iterator[None]:
    """Keep the GDAL that pyogrio brings from the network, unless that is allowed."""
    settings = {} if allow_external else _OFFLINE
    before = {name: pyogrio.get_gdal_config_option(name) for name in settings}
    pyogrio.set_gdal_config_options(settings)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _found(name: str) -> str | None:
    """What is wrong with a file, as a clause that follows `it`; None where it is plain."""
    archive = _archive_of(name)
    if archive is not None:
        return found_in_archive(archive, _found_in)
    if name.startswith("/vsi") or "://" in name:
        return "lies on a server or within another file, where nobody can look at it first"
    if os.path.isdir(name):  # Path raises where a name is too long
        is_plain = (Path(name) / _GEODATABASE).is_file()
        return None if is_plain else "is a folder and no geodatabase"
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return "is no such file"
    return _found_in_file(name, state.st_ino, state.st_size, state.st_mtime_ns)


# A file is opened several times, and a large GeoJSON is gone through.
@lru_cache(maxsize=1024)
def _found_in_file(name: str, *_: int) -> str | None:
    try:
        with Path(name).open("rb") as handle:
            if handle.read(len(_ZIP)) == _ZIP:
                return found_in_archive(name, _found_in)
            handle.seek(0)
            return _found_in(handle, name)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"


def _found_in(handle: IO[bytes], name: str) -> str | None:
    """What is wrong with the content of a file or of a member of an archive."""
    head = handle.read(_HEAD_BYTES)
    if head.startswith(_BINARY):
        return None
    active = _ACTIVE.search(head)
    if active:
        return f"names other files or addresses ({active[0].decode(errors='replace')})"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x1e")
    if text.startswith(b"<"):
        return _found_in_xml(text)
    if text.startswith(b"{"):
        return _found_in_json(handle, head)
    return _found_in_table(head, text, name)


def _found_in_table(head: bytes, text: bytes, name: str) -> str | None:
    """MapInfo's text files, and CSV with outlines as WKT."""
    if _TAB.match(head):
        return "is a table made of others" if _TAB_OF_OTHERS.search(head) else None
    if _MIF.match(head) or (name.lower().endswith((".csv", ".tsv")) and _CSV.match(text)):
        return None
    return "is damaged, or of another kind than plain vector files"


def _found_in_xml(head: bytes) -> str | None:
    """KML and GML, without a document type, which may define entities."""
    roots: list[str] = []
    doctypes: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: roots.append(name)
    parser.StartDoctypeDeclHandler = lambda name, *_: doctypes.append(name)
    # What comes before a fault counts; of the rest GDAL will say.
    with contextlib.suppress(expat.ExpatError, LookupError):
        parser.Parse(head, False)  # noqa: FBT003 (expat's signature)
    if doctypes:
        return "is XML with a document type, which may define entities"
    if not roots:
        return "is XML that is damaged"
    root = roots[0].rpartition(":")[2]
    is_gml = b"opengis.net/gml" in head or root == "FeatureCollection"
    return None if root == "kml" or is_gml else f"is XML of another kind ({root[:40]})"


def _found_in_json(handle: IO[bytes], head: bytes) -> str | None:
    if _JSON.search(head) is None:
        return "is JSON of another kind than GeoJSON"
    missing = set(_LINKED_CRS)
    piece = head
    while piece:
        if _HIDDEN_LETTER.search(piece):
            return "writes letters as numbers, which hides what it names"
        missing -= {pattern for pattern in missing if pattern.search(piece)}
        if not missing:
            return "has a coordinate system that may lie at an address"
        more = handle.read(_PIECE_BYTES)
        piece = piece[-_LONGEST_FIND:] + more if more else b""
    return None


def _archive_of(name: str) -> str | None:
    """The local archive that a path leads into; None of other paths."""
    for prefix in ("/vsizip/", "zip://"):
        if name.startswith(prefix):
            inside = name.removeprefix(prefix).lstrip("{").replace("!", "/")
            for place in (Path(inside), *Path(inside).parents):
                if place.is_file():
                    return str(place)
    return None
