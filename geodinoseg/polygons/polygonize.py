"""Class rasters to polygons that tile the plane: as a GeoDataFrame, or streamed into a file."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from geodinoseg.polygons.ground import check_place
from geodinoseg.polygons.stream import PolygonOptions, PolygonStream
from geodinoseg.polygons.table import GEOMETRY
from geodinoseg.polygons.writer import (
    PolygonLayer,
    check_vector_output,
    crs_in_file,
    write_batches,
)
from geodinoseg.prefetch import prefetch
from geodinoseg.progress import Progress, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster

__all__ = ["PolygonOptions", "polygonize", "write_polygons"]

if TYPE_CHECKING:
    import geopandas

_LOG = logging.getLogger(__name__)

_STRETCH_WARNED = 0.02
"""Share by which areas on the map may differ from those on the ground without a word."""

RasterSource = str | os.PathLike[str] | ClassRaster


_DEFAULTS = PolygonOptions()


def polygonize(
    raster: RasterSource,
    *,
    min_area_m2: float = 0.0,
    simplify_px: float = 0.0,
    options: PolygonOptions = _DEFAULTS,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Polygons of a class raster, all in memory.

    Args:
        raster: a class raster, ours or another's.
        min_area_m2: polygons below this area go to the neighbour with the longest border.
        simplify_px: distance, in pixels, by which an outline may move; 0 = follows the pixels.
        options: what is seldom asked for.
        progress: told how far the work is.

    Returns:
        class_id, class_name, area_m2, perim_m, conf_mean where there is a confidence raster, and
        geometry; in order of the polygons' last rows, then their first pixels.

    Raises:
        SceneError: the raster cannot be read, or is no georeferenced class raster.
        LegendError: a class is asked for that the raster has not.
        GridError: a size below 0.
    """
    import geopandas  # noqa: PLC0415 (costs 60 MB that writing a file does without)

    source = _opened(raster)
    stream = PolygonStream.of(
        source,
        crs=source.geobox.crs,
        min_area_m2=min_area_m2,
        simplify_px=simplify_px,
        options=options,
    )
    with closing(prefetch(lambda: stream.batches(progress), ahead=1)) as batches:
        rows = pa.Table.from_batches(batches, schema=stream.table.schema)
    geometry = shapely.from_wkb(np.asarray(rows[GEOMETRY].to_numpy(), dtype=object))
    frame = rows.drop_columns(GEOMETRY).to_pandas()
    return geopandas.GeoDataFrame(frame, geometry=geometry, crs=source.geobox.crs)


def write_polygons(
    raster: RasterSource,
    output: str | os.PathLike[str],
    *,
    min_area_m2: float = 0.0,
    simplify_px: float = 0.0,
    options: PolygonOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Write the polygons of a class raster, without ever holding all of them.

    Args:
        raster: a class raster, ours or another's.
        output: file to write; its ending says the format.
        min_area_m2: polygons below this area go to the neighbour with the longest border.
        simplify_px: distance, in pixels, by which an outline may move; 0 = follows the pixels.
        options: what is seldom asked for.
        overwrite: whether a file that is there may be replaced.
        progress: told how far the work is.

    Returns:
        The file.

    Raises:
        SceneError: the raster cannot be read, or is no georeferenced class raster.
        LegendError: a class is asked for that the raster has not.
        GridError: a size below 0.
        OutputError: the output cannot be written, or its format cannot hold the polygons.
    """
    source = _opened(raster)
    target = check_vector_output(
        output, legend=source.legend, overwrite=overwrite, inputs=[source.path]
    )
    crs = crs_in_file(target, source.geobox.crs)
    stream = PolygonStream.of(
        source, crs=crs, min_area_m2=min_area_m2, simplify_px=simplify_px, options=options
    )
    layer = PolygonLayer(
        crs=crs,
        legend=source.legend,
        schema=stream.table.schema,
        geometry_type="MultiPolygon" if options.dissolve else "Polygon",
    )
    with closing(prefetch(lambda: stream.batches(progress), ahead=1)) as batches:
        return write_batches(batches, target, layer=layer)


def _opened(raster: RasterSource) -> ClassRaster:
    source = raster if isinstance(raster, ClassRaster) else open_class_raster(raster)
    geobox = source.geobox
    check_place(source.path, geobox)
    stretch = geobox.areal_scale
    if abs(stretch - 1) > _STRETCH_WARNED:
        _LOG.warning(
            "%s: areas are in units of the map, %.2f times those on the ground; for true areas, "
            "warp the raster to an equal-area or local CRS first.",
            source.path,
            stretch,
        )
    return source
