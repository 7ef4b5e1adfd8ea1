"""Where the parts of a run are stored: beside the output, in another folder, in an object store."""

from __future__ import annotations

import os
from pathlib import Path

from geodinoseg.errors import OutputError
from geodinoseg.files.atomic import PathLike
from geodinoseg.segmentation.parts.store import FolderStore, PartStore


def part_store(output: Path, under: PathLike | None = None) -> PartStore:
    """The store for the parts of an output, `<name>.parts`. Sends no request to a server.

    Args:
        output: the class raster.
        under: a folder, or an address in an object store such as `s3://bucket/runs`; the output's
            own folder where not given.

    Raises:
        OutputError: an address of another kind.
    """
    name = f"{output.name}.parts"
    if under is None:
        return FolderStore(output.parent / name)
    place = os.fspath(under)
    if "://" not in place:
        return store_at(os.path.join(place, name))  # `Path` would normalize addresses
    address, mark, options = place.partition("?")
    folder = address if address.endswith("://") else address.rstrip("/")
    return store_at(f"{folder}/{name}{mark}{options}")


def store_at(place: str) -> PartStore:
    """The store at a folder or an address; raises OutputError for an unsupported address."""
    if "://" not in place and not place.startswith("/vsi"):
        return FolderStore(Path(place))
    from geodinoseg.segmentation.parts.object_store import SCHEMES, ObjectStore  # noqa: PLC0415 (pyarrow.fs is large)

    if not place.startswith(SCHEMES):
        raise OutputError(
            f"{place}: parts cannot be stored there; give a folder, or an address that begins with "
            f"{', '.join(SCHEMES)}."
        )
    return ObjectStore(place)
