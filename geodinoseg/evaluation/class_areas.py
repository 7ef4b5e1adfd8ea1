"""Area of each class of a map, from all of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geodinoseg.evaluation.accuracy import format_table
from geodinoseg.files.atomic import PathLike
from geodinoseg.polygons.ground import area_weights, metres_fault, warn_of_stretched_areas
from geodinoseg.progress import Progress, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.class_reader import block_windows

_READ_BYTES = 4 << 20
_M2_IN_HA = 10_000
_LARGEST_IN_M2 = 1e6
"""Total area from which areas are shown in hectares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassArea:
    """How much of a map is of one class."""

    class_id: int
    name: str
    pixels: int
    area_m2: float | None
    """Square metres, planimetric in a projected CRS; None if lengths on the ground are unknown."""
    fraction: float
    """Of the area with a class, 0 to 1."""


def measure_areas(
    class_raster: PathLike | ClassRaster, *, progress: Progress = no_progress
) -> tuple[ClassArea, ...]:
    """Measure the area of each class of a map as mapped; reads the map once.

    The map's errors are part of these areas; `estimate_areas` corrects them by a sample. A warning
    is logged where the projection stretches areas by more than 1%.

    Args:
        class_raster: the map.
        progress: called with the fraction of the map read.

    Returns:
        One entry for each class of the legend, in its order.

    Raises:
        SceneError: the map cannot be read, or holds a value that is not in its legend.

    Example:
        >>> import geodinoseg as gds
        >>> [(area.name, area.pixels) for area in gds.measure_areas("landcover.tif")]
        [('field', ...), ('roof', ...), ('water', ...)]
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    warn_of_stretched_areas(raster.path, raster.geobox)
    weights = area_weights(raster.geobox)
    row_weights = np.diff(weights.above)
    length = int(raster.legend.class_ids.max()) + 1
    pixels, sums = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.float64)
    windows = list(block_windows(raster.geobox, raster.block_shape, raster.dtype, _READ_BYTES))
    with raster.reader() as reader:
        for done, window in enumerate(windows, start=1):
            class_ids = reader.read(window)
            known = np.full(class_ids.shape, raster.nodata is None) | (class_ids != raster.nodata)
            found = class_ids[known].astype(np.intp)
            pixels += np.bincount(found, minlength=length)
            of_rows = row_weights[window.row_off : window.row_end].astype(np.float64)
            by_pixel = np.repeat(of_rows, known.sum(axis=1))
            sums += np.bincount(found, weights=by_pixel, minlength=length)
            progress(done / len(windows), "counting pixels")
    total, has_metres = float(sums.sum()), not metres_fault(raster.geobox)
    return tuple(
        ClassArea(
            class_id=entry.class_id,
            name=entry.name,
            pixels=int(pixels[entry.class_id]),
            area_m2=float(sums[entry.class_id]) * weights.unit_m2 if has_metres else None,
            fraction=float(sums[entry.class_id]) / total if total else 0.0,
        )
        for entry in raster.legend
    )


def areas_table(areas: Sequence[ClassArea]) -> str:
    """The areas as text for a terminal, in hectares from a total of 1 km2 on."""
    in_m2 = [area.area_m2 for area in areas if area.area_m2 is not None]
    in_ha = sum(in_m2) >= _LARGEST_IN_M2
    head = ["class", "pixels", "area, ha" if in_ha else "area, m2", "fraction"]
    lines = [[area.name, f"{area.pixels:,}", "", f"{area.fraction:.1%}"] for area in areas]
    for line, area_m2 in zip(lines, in_m2, strict=False):
        line[2] = f"{area_m2 / _M2_IN_HA:,.2f}" if in_ha else f"{area_m2:,.1f}"
    columns = range(len(head)) if in_m2 else (0, 1, 3)
    return format_table([tuple(line[column] for column in columns) for line in (head, *lines)])
