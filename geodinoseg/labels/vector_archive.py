"""ZIP archives of vector files: each file in them that GDAL may open is looked at, too."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

_MOST_MEMBERS = 10_000
_LARGEST_RATIO = 2_000
# Where there are several files GDAL opens folders of these alone; a lone file may have any name.
_OPENED = re.compile(
    r"\.(shp|gpkg|geojson|json|geojsonl|fgb|kml|gml|tab|mif|sqlite|db|vrt|xml|csv|tsv)$",
    re.IGNORECASE,
)
# What lies beside them: metadata, styles, schemas.
_BESIDE = re.compile(r"\.(shp|gpkg|gml|kml|tab)\.xml$|(^|/)metadata\.xml$", re.IGNORECASE)
_GEODATABASE = re.compile(r"a00000001\.gdbtable$")
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def found_in_archive(path: str, look: Callable[[IO[bytes], str], str | None]) -> str | None:
    """What is wrong with an archive, as a clause that follows `it`; None where nothing is.

    Args:
        path: of the archive.
        look: says the same of the content of a file, given its name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _found(archive, look)
    except (*_READ_ERRORS, RuntimeError) as error:  # RuntimeError: it wants a password
        return f"is an archive that cannot be read ({error})"


def _found(archive: zipfile.ZipFile, look: Callable[[IO[bytes], str], str | None]) -> str | None:
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
    if not opened and not any(map(_GEODATABASE.search, names)):
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
