"""Files beside a vector file that readers treat as part of it because they share its stem."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from geodinoseg.errors import OutputError
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import vector_qml
from geodinoseg.rasters.sidecars import sidecar_exists

_VECTOR_STYLE = b"<renderer-v2"
"""Occurs in every `.qml` of a vector layer, and in none of a raster."""


def find_sidecars(target: Path, endings: Iterable[str]) -> list[Path]:
    """The files beside a target that have its stem and one of these endings, sorted.

    Args:
        target: the main file, which need not exist.
        endings: what follows the stem, such as `.dbf` or `.gpkg-wal`; `*` matches any text without
            a dot. Case is ignored.
    """
    wanted = [re.escape(ending).replace(r"\*", "[^.]*") for ending in endings]
    ending, stem = re.compile("|".join(wanted) or "(?!)", re.IGNORECASE), target.stem
    return sorted(
        entry
        for entry in target.parent.iterdir()
        if entry.name.startswith(stem) and ending.fullmatch(entry.name, len(stem))
    )


def check_sidecars(target: Path, endings: Iterable[str]) -> None:
    """Refuse to write a file if an existing one would be read as part of it: `x.dbf` of `x.shp`.

    Raises:
        OutputExistsError: there is such a file.
    """
    for sidecar in find_sidecars(target, endings):
        raise sidecar_exists(sidecar, target)


def check_style_file(target: Path, legend: Legend, *, overwrite: bool) -> None:
    """Refuse to replace an existing style; QGIS reads the style of any layer from `<stem>.qml`.

    The style of a raster is never replaced. A file equal to the style to be written is accepted.

    Raises:
        OutputExistsError: another style exists, and `overwrite` is not set.
        OutputError: the existing file is not the style of a vector layer.
    """
    style = target.with_suffix(".qml")
    if not style.exists():
        return
    content = style.read_bytes() if style.is_file() else b""
    if _VECTOR_STYLE not in content:
        raise OutputError(
            f"{target}: its style would replace {style.name}, which is not the style of a vector "
            f"layer; give another name, or write a .gpkg, which contains its style."
        )
    if not overwrite and content != vector_qml(legend).encode():
        raise sidecar_exists(style, target)


def check_in_place(target: Path, endings: Iterable[str], *, written: Iterable[str]) -> None:
    """Check that no file of another program has appeared beside a finished file.

    Args:
        target: the finished file.
        endings: as in `find_sidecars`.
        written: names of the files that were written.

    Raises:
        OutputError: such a file exists and would be read as part of the target.
    """
    for foreign in find_sidecars(target, endings):
        if foreign.name not in written:
            raise OutputError(
                f"{target}: was written, but {foreign.name} has appeared beside it in the meantime "
                f"and would be read as part of it; remove that file."
            )
