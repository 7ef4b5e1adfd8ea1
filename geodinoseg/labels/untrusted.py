"""What is opened as labels by default: plain vector files, by content and not by name.

GDAL reads 60 vector formats; some of them access the network, open other files or start programs.
pyogrio takes no list of drivers, so a file's first bytes are checked before GDAL sees it, and the
driver that accepted it afterwards; meanwhile GDAL is kept from the network.

What is wrong with a file is a clause that follows `it`, and None where it is plain.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import pyogrio

from geodinoseg.errors import LabelError
from geodinoseg.labels.paths import file_of

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
"""Drivers that read a file and its sidecars, and follow no reference."""

_HEAD_BYTES = 1 << 16
_PIECE_BYTES = 1 << 22
_LONGEST_FIND = 1 << 12
_BINARY = (b"SQLite format 3\0", b"\0\0\x27\x0a", b"fgb\x03fgb", b"PAR1")
_ZIP = b"PK\x03\x04"
_GEODATABASE = "a00000001.gdbtable"

# Limits on archives.
_MOST_MEMBERS = 10_000
_LARGEST_RATIO = 2_000
# Where an archive has several files GDAL opens these alone; a lone file may have any name.
_OPENED_MEMBER = re.compile(
    r"\.(shp|gpkg|geojson|json|geojsonl|fgb|kml|gml|tab|mif|sqlite|db|vrt|xml|csv|tsv)$",
    re.IGNORECASE,
)
# Their sidecars: metadata, styles, schemas.
_SIDECAR = re.compile(r"\.(shp|gpkg|gml|kml|tab)\.xml$|(^|/)metadata\.xml$", re.IGNORECASE)
_GEODATABASE_MEMBER = re.compile(r"a00000001\.gdbtable$")
_ARCHIVE_ERRORS = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    RuntimeError,  # it wants a password
)

# By these words near the start GDAL recognizes formats that read other files or addresses.
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
# Letters of ASCII that are escaped as numbers, which no honest writer does.
_HIDDEN_LETTER = re.compile(rb"\\u00(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])", re.IGNORECASE)
_TAB = re.compile(rb"\s*!table", re.IGNORECASE)
_TAB_OF_OTHERS = re.compile(rb"isseamless|open\s+table|create\s+view", re.IGNORECASE)
_MIF = re.compile(rb"\s*version\s+\d+.{0,2000}\bcolumns\s+\d+", re.IGNORECASE | re.DOTALL)
_CSV = re.compile(rb'(.*[,;\t])?"?_?wkt', re.IGNORECASE)
# A second barrier for files that pass: every request goes to a port where nothing listens.
_OFFLINE: dict[str, str | int] = {
    "GDAL_HTTP_PROXY": "127.0.0.1:9",
    "GDAL_HTTP_MAX_RETRY": 0,
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/nowhere",
    "GML_DOWNLOAD_SCHEMA": "NO",
}


def check_is_plain(path: str) -> None:
    """Refuse a file that is not a plain vector file, or lies on a server, before GDAL opens it."""
    fault = _fault_of(file_of(path))
    if fault:
        raise _refusal(path, fault)


def check_driver(path: str, driver: str) -> None:
    """Refuse a file that a driver opened which is not plain."""
    if driver not in PLAIN_VECTOR_DRIVERS:
        raise _refusal(path, f"is a {driver} file")


@contextmanager
def offline(*, allow_external: bool) -> Iterator[None]:
    """Disable network access of pyogrio's GDAL, unless `allow_external` is set.

    GDAL's settings apply to the whole process. While threads read with network access, threads
    that need it disabled wait, and vice versa; the last thread to leave restores the former values.
    """
    with _barrier.entered(is_up=not allow_external):
        yield


class _Barrier:
    """GDAL settings of the process that stay in effect while any thread needs them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_up = False
        self._threads = 0
        self._before: dict[str, Any] = {}

    @contextmanager
    def entered(self, *, is_up: bool) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._threads or self._is_up == is_up)
            if not self._threads:
                self._is_up = is_up
                self._set()
            self._threads += 1
        try:
            yield
        finally:
            with self._changed:
                self._threads -= 1
                if not self._threads:
                    pyogrio.set_gdal_config_options(self._before)
                    self._changed.notify_all()

    def _set(self) -> None:
        settings = _OFFLINE if self._is_up else {}
        self._before = {name: pyogrio.get_gdal_config_option(name) for name in settings}
        pyogrio.set_gdal_config_options(settings)


_barrier = _Barrier()


def _refusal(path: str, fault: str) -> LabelError:
    return LabelError(
        f"{path}: cannot be read as polygons or as a label raster; it {fault}. Give a plain file, "
        f"for instance made with ogr2ogr labels.gpkg FILE, or --allow-external if you trust it."
    )


def _fault_of(name: str) -> str | None:
    archive = _archive_of(name)
    if archive is not None:
        return _archive_fault(archive)
    if name.startswith("/vsi") or "://" in name:
        return "lies on a server or inside another file, where it cannot be checked first"
    if os.path.isdir(name):  # Path raises where a name is too long
        is_plain = (Path(name) / _GEODATABASE).is_file()
        return None if is_plain else "is a folder but not a file geodatabase"
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return "does not exist"
    return _file_fault(name, state.st_ino, state.st_size, state.st_mtime_ns)


# A file is opened several times, and a large GeoJSON is read through.
@lru_cache(maxsize=1024)
def _file_fault(name: str, *_: int) -> str | None:
    try:
        with Path(name).open("rb") as handle:
            if handle.read(len(_ZIP)) == _ZIP:
                return _archive_fault(name)
            handle.seek(0)
            return _content_fault(handle, name)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"


def _archive_of(name: str) -> str | None:
    """The local archive that a path leads into; None of other paths."""
    for prefix in ("/vsizip/", "zip://"):
        if name.startswith(prefix):
            inside = name.removeprefix(prefix).lstrip("{").replace("!", "/")
            for path in (Path(inside), *Path(inside).parents):
                if path.is_file():
                    return str(path)
    return None


def _archive_fault(path: str) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > _MOST_MEMBERS:
                return f"is an archive of more than {_MOST_MEMBERS:,} files"
            opened = members if len(members) == 1 else list(filter(_is_opened, members))
            names = [member.filename for member in members]
            if not opened and not any(map(_GEODATABASE_MEMBER.search, names)):
                return "is an archive without a plain vector file"
            faults = (_member_fault(archive, member) for member in opened)
            return next(filter(None, faults), None)
    except _ARCHIVE_ERRORS as error:
        return f"is an archive that cannot be read ({error})"


def _is_opened(member: zipfile.ZipInfo) -> bool:
    """Whether GDAL may open a member of an archive."""
    name = member.filename
    return _OPENED_MEMBER.search(name) is not None and _SIDECAR.search(name) is None


def _member_fault(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    if member.file_size > _LARGEST_RATIO * max(member.compress_size, 1):
        return f"is an archive whose {name} claims an impossible size"
    with archive.open(member) as handle:
        fault = _content_fault(handle, name)
    return f"is an archive whose {name} {fault}" if fault else None


def _content_fault(handle: IO[bytes], name: str) -> str | None:
    """What is wrong with the content of a file or of a member of an archive."""
    head = handle.read(_HEAD_BYTES)
    if head.startswith(_BINARY):
        return None
    active = _ACTIVE.search(head)
    if active:
        return f"refers to other files or addresses ({active[0].decode(errors='replace')})"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x1e")
    if text.startswith(b"<"):
        return _xml_fault(text)
    if text.startswith(b"{"):
        return _json_fault(handle, head)
    return _table_fault(head, text, name)


def _table_fault(head: bytes, text: bytes, name: str) -> str | None:
    """MapInfo's text files, and CSV with geometries as WKT."""
    if _TAB.match(head):
        return "is a table made of others" if _TAB_OF_OTHERS.search(head) else None
    if _MIF.match(head) or (name.lower().endswith((".csv", ".tsv")) and _CSV.match(text)):
        return None
    return "is damaged, or not of a plain vector format"


def _xml_fault(head: bytes) -> str | None:
    """KML and GML are plain without a document type, which may define entities."""
    roots: list[str] = []
    doctypes: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: roots.append(name)
    parser.StartDoctypeDeclHandler = lambda name, *_: doctypes.append(name)
    # What precedes an XML error counts; GDAL reports the rest.
    with contextlib.suppress(expat.ExpatError, LookupError):
        parser.Parse(head, False)  # noqa: FBT003 (expat's signature)
    if doctypes:
        return "is XML with a document type, which may define entities"
    if not roots:
        return "is XML that is damaged"
    root = roots[0].rpartition(":")[2]
    is_gml = b"opengis.net/gml" in head or root == "FeatureCollection"
    return None if root == "kml" or is_gml else f"is XML but neither KML nor GML ({root[:40]})"


def _json_fault(handle: IO[bytes], head: bytes) -> str | None:
    if _JSON.search(head) is None:
        return "is JSON but not GeoJSON"
    missing = set(_LINKED_CRS)
    piece = head
    while piece:
        if _HIDDEN_LETTER.search(piece):
            return "escapes letters as numbers, which hides what it refers to"
        missing -= {pattern for pattern in missing if pattern.search(piece)}
        if not missing:
            return "has a coordinate system that may lie at an address"
        more = handle.read(_PIECE_BYTES)
        piece = piece[-_LONGEST_FIND:] + more if more else b""
    return None
