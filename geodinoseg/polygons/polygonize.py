"""Polygons of class rasters, as a GeoDataFrame or streamed into a file."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from geodinoseg.files.atomic import PathLike
from geodinoseg.polygons.checks import check_vector_output
from geodinoseg.polygons.ground import check_place, warn_of_areas
from geodinoseg.polygons.lonlat import GEOJSON_CRS
from geodinoseg.polygons.settings import PolygonSettings
from geodinoseg.polygons.stream import PolygonOptions, PolygonStream
from geodinoseg.polygons.table import GEOMETRY
from geodinoseg.polygons.writer import PolygonLayer, is_lonlat, write_batches
from geodinoseg.prefetch import prefetch
from geodinoseg.progress import Progress, log_step, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster, with_usable_confidence
from geodinoseg.redaction import redact_path

if TYPE_CHECKING:
    import geopandas

_log = logging.getLogger(__name__)
_DEFAULTS = PolygonOptions()


def polygonize(
    raster: PathLike | ClassRaster,
    *,
    min_area_m2: float = 0.0,
    simplify_px: float = 0.0,
    options: PolygonOptions = _DEFAULTS,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Make polygons of a class raster, all in memory.

    Args:
        raster: any georeferenced class raster.
        min_area_m2: polygons below this area are merged with the neighbour of the longest border.
        simplify_px: distance, in pixels, by which an outline may move; 0 = follow the pixels.
        options: further options.
        progress: called with the fraction done.

    Returns:
        class_id, class_name, area_m2, perim_m, conf_mean where there is a confidence raster, and
        geometry; ordered by the polygons' last rows, then their first pixels.

    Raises:
        SceneError: the raster cannot be read, or is not a georeferenced class raster.
        LegendError: the raster has no such class.
        GridError: a size below 0.

    Example:
        >>> import geodinoseg as gds
        >>> polygons = gds.polygonize("landcover.tif", simplify_px=1.0)
        >>> list(polygons.columns)
        ['class_id', 'class_name', 'area_m2', 'perim_m', 'conf_mean', 'geometry']
    """
    import geopandas  # noqa: PLC0415 (60 MB that writing a file does not need)

    source = _opened(raster)
    stream = PolygonStream.of(
        source, min_area_m2=min_area_m2, simplify_px=simplify_px, options=options
    )
    warn_of_areas(source.path, source.geobox)
    with closing(prefetch(lambda: stream.batches(progress), ahead=1)) as batches:
        rows = pa.Table.from_batches(batches, schema=stream.table.schema)
    geometry = shapely.from_wkb(np.asarray(rows[GEOMETRY].to_numpy(), dtype=object))
    frame = rows.drop_columns(GEOMETRY).to_pandas()
    return geopandas.GeoDataFrame(frame, geometry=geometry, crs=source.geobox.crs)


def write_polygons(
    raster: PathLike | ClassRaster,
    output: PathLike,
    *,
    min_area_m2: float = 0.0,
    simplify_px: float = 0.0,
    options: PolygonOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Write the polygons of a class raster as a stream, never holding all of them in memory.

    Args:
        raster: any georeferenced class raster.
        output: file to write; the suffix selects the format.
        min_area_m2: polygons below this area are merged with the neighbour of the longest border.
        simplify_px: distance, in pixels, by which an outline may move; 0 = follow the pixels.
        options: further options.
        overwrite: whether an existing file may be replaced.
        progress: called with the fraction done.

    Returns:
        The file.

    Raises:
        SceneError: the raster cannot be read, or is not a georeferenced class raster.
        LegendError: the raster has no such class.
        GridError: a size below 0.
        OutputError: the output cannot be written, or its format cannot hold the polygons.

    Example:
        >>> import geodinoseg as gds
        >>> gds.write_polygons("landcover.tif", "landcover.gpkg", min_area_m2=25).name
        'landcover.gpkg'
    """
    return write_map_polygons(
        _opened(raster),
        output,
        PolygonSettings(min_area_m2=min_area_m2, simplify_px=simplify_px),
        options=options,
        overwrite=overwrite,
        warns=True,
        progress=progress,
    )


def write_map_polygons(
    source: ClassRaster,
    output: PathLike,
    settings: PolygonSettings,
    *,
    options: PolygonOptions = _DEFAULTS,
    overwrite: bool = False,
    warns: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Write polygons as `write_polygons` does, of a raster whose georeferencing was checked.

    Args:
        source: the raster.
        output: as in `write_polygons`.
        settings: sizes; those given replace those of `options`.
        options: as in `write_polygons`.
        overwrite: as in `write_polygons`.
        warns: whether to warn of areas that are unknown or differ from those on the ground.
        progress: as in `write_polygons`.
    """
    options = replace(
        options,
        fill_holes_m2=settings.fill_holes_m2 or options.fill_holes_m2,
        simplify_m=settings.simplify_m or options.simplify_m,
    )
    target = check_vector_output(
        output,
        geobox=source.geobox,
        legend=source.legend,
        overwrite=overwrite,
        inputs=[source.path],
    )
    stream = PolygonStream.of(
        source,
        in_lonlat=is_lonlat(target),
        min_area_m2=settings.min_area_m2,
        simplify_px=settings.simplify_px,
        options=options,
    )
    log_step(_log, "tracing the polygons of %s into %s.", redact_path(source.path), target)
    if warns:
        warn_of_areas(source.path, source.geobox)
    layer = PolygonLayer(
        crs=GEOJSON_CRS if is_lonlat(target) else source.geobox.crs,
        legend=source.legend,
        schema=stream.table.schema,
        geometry_type="MultiPolygon" if options.dissolve else "Polygon",
    )
    with closing(prefetch(lambda: stream.batches(progress), ahead=1)) as batches:
        return write_batches(batches, target, layer=layer)


def _opened(raster: PathLike | ClassRaster) -> ClassRaster:
    source = raster if isinstance(raster, ClassRaster) else open_class_raster(raster)
    check_place(source.path, source.geobox)
    return with_usable_confidence(source)
