"""The files beside a polygon file: what belongs to an old one, and the style of another layer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from geodinoseg.errors import OutputError, OutputExistsError

_VECTOR_STYLE = b"<renderer-v2"
"""What every `.qml` of a vector layer holds, and no raster's."""


def find_parts(target: Path, endings: Iterable[str]) -> list[Path]:
    """The files of a target's folder that have its stem and one of these endings.

    Args:
        target: the main file; need not be there.
        endings: what follows the stem, lower case, such as `.dbf` or `.gpkg-wal`; files are found
            whatever their case.
    """
    stem, wanted = target.stem, set(endings)
    return [
        entry
        for entry in target.parent.iterdir()
        if entry.name.startswith(stem) and entry.name[len(stem) :].lower() in wanted
    ]


def check_parts(target: Path, endings: Iterable[str]) -> None:
    """Refuse to replace a part of another file unasked: a table `x.dbf` where `x.shp` shall be.

    Raises:
        OutputExistsError: such a part is there.
    """
    for part in find_parts(target, endings):
        raise OutputExistsError(
            f"{target}: {part.name} is there already and would be replaced; give another name, "
            f"or --overwrite."
        )


def check_style_file(target: Path) -> None:
    """Refuse to replace a raster's style: QGIS looks for that of every layer in `<stem>.qml`.

    Raises:
        OutputError: the file is there, and is no vector layer's style.
    """
    style = target.with_suffix(".qml")
    if style.exists() and not (style.is_file() and _VECTOR_STYLE in style.read_bytes()):
        raise OutputError(
            f"{target}: its style would replace {style.name}, which is that of a raster or of "
            f"something else; give another name, or write a .gpkg, which holds its style."
        )
