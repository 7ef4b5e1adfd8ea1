"""A map whose classes are to have areas, and those areas for a person."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import numpy as np

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.channels import check_class_count
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster

FilePath = str | os.PathLike[str]
_M2_IN_HA = 10_000
_STRETCH_WARNED = 0.01
_log = logging.getLogger(__name__)


def open_with_areas(class_raster: FilePath | ClassRaster) -> ClassRaster:
    """Open a map whose classes are to have areas; warns where those are not true.

    Raises:
        SceneError: it cannot be read, has no place, or more classes than can be told apart.
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    check_class_count(raster)
    if not raster.geobox.is_georeferenced:
        raise SceneError(
            f"{raster.path}: does not say where it lies, so points and areas of it cannot; give it "
            f"a georeference, for instance with gdal_translate -a_srs -a_ullr."
        )
    if raster.geobox.crs is None:
        _log.warning("%s: has no CRS; its coordinates are taken for metres.", raster.path)
    stretch = raster.geobox.areal_scale
    if abs(stretch - 1) > _STRETCH_WARNED:
        _log.warning(
            "%s: areas are in units of the map, %.2f times those on the ground; for true areas, "
            "warp the raster to an equal-area or local CRS first.", raster.path, stretch,
        )  # fmt: skip
    return raster


def hectares(areas_m2: Any) -> list[str]:
    """Areas for a person, hectares: four digits of the largest, the same decimals for all."""
    areas = np.asarray(areas_m2, dtype=np.float64) / _M2_IN_HA
    largest = float(np.max(np.abs(areas[np.isfinite(areas)]), initial=0.0))
    digits = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(4 - digits, 0), 6)
    return [f"{area:,.{decimals}f}" if math.isfinite(area) else "-" for area in areas.tolist()]
