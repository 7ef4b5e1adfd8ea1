"""Names of vector files of which pyogrio opens another: it takes every path for an address."""

from __future__ import annotations

import os
import re

from geodinoseg.errors import OutputError

# It cuts off what follows a semicolon, takes an exclamation mark for the end of an archive, drops
# tabs and line breaks, and knows schemes such as s3.
_MISREAD = re.compile(r"[;!\t\r\n]|\A\w{2,}(\+\w+)*:")


def misread_part(path: str | os.PathLike[str]) -> str:
    """The part of a local path for which another file would be opened; empty where none would."""
    text = os.fspath(path)
    found = None if text.startswith("/vsi") else _MISREAD.search(text)
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
