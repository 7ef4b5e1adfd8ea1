"""Names of files of which rasterio or pyogrio opens another: they take paths for addresses."""

from __future__ import annotations

import os
import re

from geodinoseg.errors import OutputError

# rasterio and pyogrio take a path that begins so for an address, also that of a file here.
SCHEME = re.compile(
    r"(file|zip|tar|gzip|https?|ftp|s3|gs|az|oss|adls?|hdfs|webhdfs)(\+\w+)*:", re.IGNORECASE
)
# pyogrio cuts off what follows a semicolon, takes an exclamation mark for the end of an archive,
# and drops tabs and line breaks.
_MISREAD = re.compile(r"[;!\t\r\n]")


def misread_part(path: str | os.PathLike[str]) -> str:
    """The part of a local path for which another file would be opened; empty where none would."""
    text = os.fspath(path)
    if text.startswith("/vsi"):
        return ""
    found = SCHEME.match(text) or _MISREAD.search(text)
    return found[0] if found else ""


def check_vector_name(target: str | os.PathLike[str]) -> None:
    """Refuse a vector output that would be written elsewhere.

    Raises:
        OutputError: its path holds a part that is not taken literally.
    """
    part = misread_part(target)
    if part:
        raise OutputError(
            f"{target}: vector files whose path holds {part!r} cannot be written; give another "
            f"name."
        )
