"""Warnings about what marks the missing pixels of a scene."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from geodinoseg.errors import SceneError
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.scene_fingerprint import scene_files
from geodinoseg.segmentation.input_checks import sampled_values

logger = logging.getLogger(__name__)

_GRADED_FRACTION = 0.1
"""Fraction of pixels that are neither transparent nor opaque; feathered edges are fewer."""
_MOST_SOURCES = 50


def report_alpha(scene: Scene) -> None:
    """Log which band is left out as alpha, and warn if it looks like a measured band.

    GDAL takes the fourth band of many files of red, green, blue and near infrared for alpha. Alpha
    is 0 or the maximum almost everywhere; a few small windows are read to find out.
    """
    band = scene.alpha_band
    if band is None or band in scene.bands:
        return
    if _is_graded(scene, band):
        logger.warning(
            "%s: band %d is left out, because the file marks it as alpha, but it varies like a "
            "measured band. If it is one, such as near infrared, name it in --bands, or mark it "
            "as undefined: gdal_edit.py -colorinterp_%d undefined.",
            scene.source.name,
            band,
            band,
        )
    else:
        logger.info(
            "%s: band %d is alpha: it marks missing pixels and is left out.",
            scene.source.name,
            band,
        )


def warn_of_lost_nodata(scene: Scene) -> None:
    """Warn if a source of a VRT marks missing pixels and the VRT does not.

    Opens up to 50 of the sources. For a scene without nodata, mask and alpha.
    """
    if scene.validity or not scene.path.lower().endswith(".vrt"):
        return
    sources = [path for path in scene_files(scene) if not path.lower().endswith((".vrt", ".xml"))]
    for path in sources[:: -(-len(sources) // _MOST_SOURCES) or 1]:
        mark = _mark_of_missing(path, scene)
        if mark is not None:
            logger.warning(
                "%s: its source %s marks missing pixels with %s, but the VRT does not, so they "
                "count as measured; build it again with gdalbuildvrt -srcnodata and -vrtnodata, "
                "or give --nodata.",
                scene.source.name,
                path,
                mark,
            )
            return


def _mark_of_missing(path: str, scene: Scene) -> str | None:
    try:
        source = open_scene(path, allow_external=scene.source.trusted)
    except SceneError:
        return None  # another kind of file, such as a table
    if "nodata" in source.validity:
        return f"nodata {next(value for value in source.nodata if value is not None):g}"
    return "a mask" if "mask" in source.validity else None


def _is_graded(scene: Scene, band: int) -> bool:
    alpha = dataclasses.replace(scene, bands=(band,), nodata=(None,), validity=())
    values = sampled_values(alpha)[0]
    most = np.iinfo(scene.dtype).max if scene.dtype.kind in "ui" else 1
    between = (values > 0) & (values < most)
    return values.size > 0 and float(between.mean()) > _GRADED_FRACTION
