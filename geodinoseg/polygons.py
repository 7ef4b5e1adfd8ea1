"""Class rasters to polygons that tile the plane: as a GeoDataFrame, or streamed into a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from affine import Affine

from geodinoseg.background import in_background
from geodinoseg.class_bands import cut_bands, outside_of, read_rows, regroup_rows
from geodinoseg.class_raster import ClassRaster, open_class_raster
from geodinoseg.coverage import trace_band
from geodinoseg.coverage_join import CoverageJoin
from geodinoseg.errors import SceneError
from geodinoseg.ground_measures import area_weights
from geodinoseg.polygon_batches import GEOMETRY, PolygonTable
from geodinoseg.progress import Progress, no_progress
from geodinoseg.vector_files import (
    PolygonLayer,
    check_vector_output,
    crs_in_file,
    write_batches,
)

_LOG = logging.getLogger(__name__)

_CHUNK_PX = 4_000_000
"""Pixels traced at once: arrays of some tens of megabytes, and few cuts."""
_STRETCH_WARNED = 0.02
"""Share by which areas on the map may differ from those on the ground without a word."""

RasterSource = str | os.PathLike[str] | ClassRaster


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonOptions:
    """What is seldom asked for."""

    chunk_rows: int | None = None
    """Rows traced at once; None = about 4 million pixels. The result is the same for any."""


_DEFAULTS = PolygonOptions()


def polygonize(
    raster: RasterSource,
    *,
    options: PolygonOptions = _DEFAULTS,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Polygons of a class raster, all in memory.

    Args:
        raster: a class raster, ours or another's.
        options: what is seldom asked for.
        progress: told how far the work is.

    Returns:
        class_id, class_name, area_m2, perim_m, conf_mean where there is a confidence raster, and
        geometry; in order of the polygons' last rows, then their first pixels.

    Raises:
        SceneError: the raster cannot be read, or is no georeferenced class raster.
    """
    source = _opened(raster)
    crs = source.geobox.crs
    table = PolygonTable(raster=source, weights=area_weights(source.geobox), crs=crs)
    batches = in_background(lambda: _batches(source, table, options, progress), ahead=2)
    rows = pa.Table.from_batches(batches, schema=table.schema)
    geometry = shapely.from_wkb(np.asarray(rows[GEOMETRY].to_numpy(), dtype=object))
    frame = rows.drop_columns(GEOMETRY).to_pandas()
    return geopandas.GeoDataFrame(frame, geometry=geometry, crs=crs)


def write_polygons(
    raster: RasterSource,
    output: str | os.PathLike[str],
    *,
    options: PolygonOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Write the polygons of a class raster, without ever holding all of them.

    Args:
        raster: a class raster, ours or another's.
        output: file to write; its ending says the format.
        options: what is seldom asked for.
        overwrite: whether a file that is there may be replaced.
        progress: told how far the work is.

    Returns:
        The file.

    Raises:
        SceneError: the raster cannot be read, or is no georeferenced class raster.
        OutputError: the output cannot be written, or its format cannot hold the polygons.
    """
    source = _opened(raster)
    target = check_vector_output(
        output, legend=source.legend, overwrite=overwrite, inputs=[source.path]
    )
    crs = crs_in_file(target, source.geobox.crs)
    table = PolygonTable(raster=source, weights=area_weights(source.geobox), crs=crs)
    layer = PolygonLayer(
        crs=crs, legend=source.legend, schema=table.schema, geometry_type="Polygon"
    )
    batches = in_background(lambda: _batches(source, table, options, progress), ahead=2)
    return write_batches(batches, target, layer=layer)


def _opened(raster: RasterSource) -> ClassRaster:
    source = raster if isinstance(raster, ClassRaster) else open_class_raster(raster)
    geobox = source.geobox
    if geobox.transform == Affine.identity():
        raise SceneError(
            f"{source.path}: does not say where it lies; give it a georeference, for instance "
            f"with gdal_translate -a_srs -a_ullr."
        )
    stretch = geobox.areal_scale
    if abs(stretch - 1) > _STRETCH_WARNED:
        _LOG.warning(
            "%s: areas are in units of the map, %.2f times those on the ground; for true areas, "
            "warp the raster to an equal-area or local CRS first.",
            source.path,
            stretch,
        )
    return source


def _batches(
    raster: ClassRaster, table: PolygonTable, options: PolygonOptions, progress: Progress
) -> Iterator[pa.RecordBatch]:
    """The polygons in the order in which they become whole."""
    outside = outside_of(raster)
    chunk_rows = options.chunk_rows or max(1, _CHUNK_PX // raster.width)
    rows = read_rows(raster, chunk_rows=chunk_rows)
    chunks = regroup_rows(rows, chunk_rows=chunk_rows, height=raster.height)
    join = CoverageJoin(measures=1 if raster.confidence_path is None else 3)
    found = 0
    for band in cut_bands(raster, chunks, outside=outside, weights=table.weights):
        polygons = join.add(trace_band(band))
        found += len(polygons)
        progress((band.row_off + 1) / raster.height, f"{found:,} polygons")
        if len(polygons):
            yield table.batch(polygons)
    progress(1.0, f"{found:,} polygons")
