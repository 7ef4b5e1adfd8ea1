"""Styles that a user edited: how they are told from ours, and how they survive a new output.

A program that saves a style writes the whole file anew, so any difference is an edit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from geodinoseg.files.safe_xml import XmlError, parse_xml

_LARGEST_BYTES = 16 << 20
_SAVED = ".qml.old"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StyleFile:
    """The `.qml` of an output that is about to be replaced."""

    path: Path

    @property
    def text(self) -> str | None:
        """Its content, as far as it is text; None if there is no such file."""
        if not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            return file.read(_LARGEST_BYTES).decode("utf-8", "replace")

    def replace_in(self, folder: Path, fresh: str, *, fits: bool) -> bool:
        """Keep an edited style that fits; else write a fresh one, and save the edited one.

        Args:
            folder: where the new output is written before it is moved to the folder of this file.
            fresh: the style to write; empty for none.
            fits: whether the edited style shows all classes of the new output.

        Returns:
            Whether the file stays as it is.
        """
        if fits:
            _log.info("%s: was edited, so it is kept.", self.path)
            return True
        saved = _free_name(self.path)
        (folder / saved).write_bytes(self.path.read_bytes())
        if fresh:
            (folder / self.path.name).write_text(fresh, encoding="utf-8")
        _log.warning(
            "%s: was edited, but does not fit the new output; the new style has its colours for "
            "classes that are the same, and the edited one is kept as %s.",
            self.path,
            saved,
        )
        return False


def is_style(text: str, ours: Iterable[str]) -> bool:
    """Whether a style is one of ours, whatever its blanks and comments."""
    found = _content(text)
    return found is not None and any(found == _content(style) for style in ours)


def is_made_by(text: str, make: Callable[[str], str | None]) -> bool:
    """Whether a style is what `make` writes for the classes that it shows."""
    made = make(text)
    return made is not None and is_style(text, [made])


def _content(text: str) -> object:
    """Elements, attributes and texts; None if it is not XML."""
    try:
        root = parse_xml(text.removeprefix("\ufeff"))
    except (XmlError, RecursionError):
        return None
    return [
        (element.tag, sorted(element.items()), (element.text or "").strip(), len(element))
        for element in root.iter()
    ]


def _free_name(path: Path) -> str:
    """A name beside a style for an older version of it, which no program reads."""
    name, number = f"{path.stem}{_SAVED}", 1
    while (path.parent / name).exists():
        number += 1
        name = f"{path.stem}{_SAVED}{number}"
    return name
