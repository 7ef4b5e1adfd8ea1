"""Files beside a GeoTIFF that GDAL and QGIS read as part of it, by its name or its stem."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rasterio.errors import RasterioError

from geodinoseg.errors import OutputError, OutputExistsError, one_line
from geodinoseg.geobox import GeoBox, dataset_geobox, same_georeferencing
from geodinoseg.rasters.cog import reopen

# After the whole name: metadata, overviews, masks, ArcGIS's attribute table.
_BY_NAME = (
    ".aux.xml",
    ".ovr",
    ".ovr.ovr",
    ".msk",
    ".msk.ovr",
    ".aux",
    ".rrd",
    ".vat.dbf",
    ".vat.cpg",
    ".xml",
)
# After the stem, and of a GeoTIFF alone: world files, styles.
_BY_STEM = (".tfw", ".tifw", ".tiffw", ".qml", ".clr")
# After the stem, and perhaps of another file with this stem: never removed.
_SHARED = (".wld", ".tab", ".aux", ".rrd", ".rpb", "_rpc.txt", ".imd", ".pvl")


def raster_sidecars(path: Path) -> list[Path]:
    """The existing files that belong to a GeoTIFF at a path, and go where it is replaced."""
    return _existing(path, [path.name + end for end in _BY_NAME], [path.stem + e for e in _BY_STEM])


def check_sidecars(path: Path, *, overwrite: bool) -> None:
    """Refuse a GeoTIFF at a path where other files would be read as part of it.

    Raises:
        OutputExistsError: one exists and the raster may not be replaced.
        OutputError: one exists that may belong to another file.
    """
    shared = _existing(path, [], [path.stem + end for end in _SHARED])
    if shared:
        raise OutputError(
            f"{path}: {shared[0].name} lies beside it, and GDAL would read that as part of it; "
            f"give another name, or move that file away."
        )
    own = [] if overwrite else raster_sidecars(path)
    if own:
        raise sidecar_exists(own[0], path)


def sidecar_exists(sidecar: Path, target: Path) -> OutputExistsError:
    """The error for an existing file that would be read as part of a target."""
    return OutputExistsError(
        f"{sidecar}: exists already, and would be read as part of {target.name}; give another "
        f"name, or --overwrite."
    )


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a finished raster says of itself at its final name."""

    geobox: GeoBox
    """Georeferencing and size."""
    block_shape: tuple[int, int]
    """Rows and columns of a block."""
    tags: dict[str, str]
    """GDAL metadata of the file."""


def check_in_place(path: Path, geobox: GeoBox) -> Header:
    """Check a finished raster at its final name: georeferencing, and no file of another beside it.

    Returns:
        Its header as read back.

    Raises:
        OutputError: readers would not see what was written.
    """
    try:
        with reopen(path) as dataset:
            listed = dataset.files
            header = Header(
                geobox=dataset_geobox(dataset),
                block_shape=dataset.block_shapes[0],
                tags=dataset.tags(),
            )
    except (OSError, RasterioError) as error:
        raise OutputError(
            f"{path}: was written, but cannot be read back ({one_line(error)}); check the disk."
        ) from error
    written = (path.name, f"{path.name}.aux.xml")
    foreign = sorted(name for name in map(os.path.basename, listed) if name not in written)
    if foreign:
        raise OutputError(
            f"{path}: was written, but GDAL reads {foreign[0]} beside it as part of it, which was "
            f"not; remove that file and check the map."
        )
    if not same_georeferencing(header.geobox, geobox):
        raise OutputError(
            f"{path}: was written, but reads back with another georeferencing; a file beside it "
            f"overrides it, move that away."
        )
    return header


def _existing(path: Path, names: list[str], stems: list[str]) -> list[Path]:
    """Files beside a path. Endings may be in any case, as for GDAL; the rest is matched exactly."""
    wanted = {name.lower(): len(path.name) for name in names}
    wanted |= {name.lower(): len(path.stem) for name in stems}
    try:
        found = os.listdir(path.parent)
    except OSError:
        return []  # the check of the output folder reports it
    return sorted(
        path.parent / name
        for name in found
        if (kept := wanted.get(name.lower())) is not None and name[:kept] == path.name[:kept]
    )
