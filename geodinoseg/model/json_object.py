"""Reading JSON files of models and backbones as objects, with a message if a file is invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geodinoseg.errors import one_line

_LARGEST_BYTES = 16 << 20
_LONGEST_TEXT = 10_000
"""Maximum length of a string: far above any name, far below what would slow down later checks."""
_KINDS = {
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class WrongJsonError(ValueError):
    """A JSON file is invalid; the message is a predicate, such as 'is missing'."""


class OtherJsonError(WrongJsonError):
    """The file is JSON, but not an object, such as 'holds a list ...'."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; the length of its strings is limited.

    Raises:
        WrongJsonError: the file is missing, empty, damaged or too large, or holds something else.
    """
    try:
        size = path.stat().st_size
        text = path.read_text("utf-8") if size <= _LARGEST_BYTES else ""
    except FileNotFoundError as error:
        raise WrongJsonError("is missing") from error
    except (OSError, ValueError) as error:
        raise WrongJsonError(f"cannot be read: {one_line(error)[:160]}") from error
    if size > _LARGEST_BYTES:
        raise WrongJsonError(f"is too large: {size:,} bytes")
    if not text.strip():
        raise WrongJsonError("cannot be read: it is empty")
    try:
        values = json.loads(text)
        _check_lengths(values)
    except (ValueError, RecursionError) as error:
        raise WrongJsonError(f"cannot be read: {one_line(error)[:160]}") from error
    if not isinstance(values, dict):
        raise OtherJsonError(f"holds {_KINDS[type(values)]} where an object is expected")
    return values


def _check_lengths(value: Any) -> None:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"a string of {len(value):,} characters, {value[:40]!r}...")
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_lengths(key)
            _check_lengths(entry)
    elif isinstance(value, list):
        for entry in value:
            _check_lengths(entry)
