"""Class arrays for tests of polygons, and polygons by the slow but trusted way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from hypothesis import strategies as st
from rasters import ROTATED, write_raster
from shapely.geometry import shape

from geodinoseg.legend import Legend
from geodinoseg.polygons.coverage.join import CoverageJoin
from geodinoseg.polygons.coverage.simplify import Tolerance
from geodinoseg.polygons.coverage.tracer import Band, trace_band
from geodinoseg.rasters.class_raster import CONFIDENCE_TAG, LEGEND_TAG

NODATA = 255


@st.composite
def class_arrays(draw, longest=24, classes=4):
    """(height, width) uint8: noise, blobs or stairs, with nodata here and there."""
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.integers(1, classes))
    cell = draw(st.sampled_from([1, 2, 3, 5]))
    coarse = rng.integers(
        0, kinds, (height // cell + 1, (height + width) // cell + 1), dtype=np.uint8
    )
    rows, cols = np.mgrid[:height, :width]
    lean = draw(st.sampled_from([0, 1, 2]))
    array = coarse[rows // cell, (cols + rows * lean // 2) // cell]
    speck = rng.random(array.shape) < draw(st.sampled_from([0.0, 0.1, 0.4]))
    array[speck] = rng.integers(0, kinds, int(speck.sum()), dtype=np.uint8)
    if draw(st.booleans()):
        array[rng.random(array.shape) < 0.15] = NODATA
    if draw(st.booleans()):
        array[: height // 3, : width // 2] = NODATA
    return array


def blobs(height: int, width: int, *, classes: int = 5, seed: int = 0) -> np.ndarray:
    """A map-like class array: smooth borders, some specks, nodata in a corner."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width] / 9.0
    heights = [
        np.sin(rows * rng.uniform(0.3, 1) + rng.uniform(0, 6))
        + np.sin(cols * rng.uniform(0.3, 1) + rng.uniform(0, 6) + rows / 3)
        for _ in range(classes)
    ]
    array = np.argmax(heights, axis=0).astype(np.uint8)
    speck = rng.random(array.shape) < 0.02
    array[speck] = rng.integers(0, classes, int(speck.sum()))
    array[-height // 5 :, : width // 6] = NODATA
    return array


def reference_polygons(array: np.ndarray) -> list:
    """(class id, polygon) by rasterio.features.shapes, in pixel coordinates."""
    shapes = rasterio.features.shapes(array, mask=array != NODATA)
    return [(int(value), shape(geometry)) for geometry, value in shapes]


def as_pixel_sets(polygons: list, outline: tuple[int, int], transform: Affine) -> set:
    """Each polygon as its class and the pixels under it, in no order."""
    return {
        (class_id, np.packbits(pixels_of(polygon, outline, transform)).tobytes())
        for class_id, polygon in polygons
    }


def pixels_of(polygon: shapely.Polygon, outline: tuple[int, int], transform: Affine) -> np.ndarray:
    return rasterio.features.rasterize([polygon], out_shape=outline, transform=transform)


def write_class_raster(
    path: Path,
    array: np.ndarray,
    *,
    transform: Affine = ROTATED,
    crs: str | None = "EPSG:32633",
    nodata: int | None = NODATA,
    names: dict[int, str] | None = None,
    confidence: np.ndarray | None = None,
    **profile: object,
) -> Path:
    """A class raster as segmentation writes it, with the tags that polygons need."""
    legend = Legend.of_names(names or {i: f"class {i}" for i in range(8)})
    tags = {LEGEND_TAG: json.dumps(legend.to_json())}
    if confidence is not None:
        beside = path.with_name(f"{path.stem}_confidence.tif")
        write_raster(beside, confidence[None], transform=transform, crs=crs, nodata=255)
        tags[CONFIDENCE_TAG] = beside.name
    write_raster(path, array[None], transform=transform, crs=crs, nodata=nodata, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**tags)
    return path


def bands_of(array, chunk_rows, *, simplify_px=0.0, **options):
    if simplify_px:
        options["tolerance"] = Tolerance(distance=simplify_px)
    height, width = array.shape
    for row in range(0, height, chunk_rows):
        rows = array[row : row + chunk_rows]
        is_last = row + len(rows) == height
        cells = np.full((1 + len(rows) + is_last, width + 2), NODATA, dtype=array.dtype)
        cells[1 : len(rows) + 1, 1:-1] = rows
        if row:
            cells[0, 1:-1] = array[row - 1]
        weights = np.arange(len(rows) + 1, dtype=np.int64)
        yield Band(cells=cells, row_off=row, outside=NODATA, weights_above=weights, **options)


def trace(array, chunk_rows, **options):
    """(class id, polygon in pixel coordinates, pixel count), in the order they come."""
    join = CoverageJoin(measures=1)
    return [
        feature
        for band in bands_of(array, chunk_rows, **options)
        for feature in features_of(join.add(trace_band(band)))
    ]


def features_of(polygons):
    rings = polygons.rings
    points = np.stack([rings.cols, rings.rows], axis=1).astype(float)
    closed = [
        np.vstack([points[start:end], points[start : start + 1]])
        for start, end in zip(rings.offsets[:-1], rings.offsets[1:], strict=True)
    ]
    bounds = polygons.polygon_offsets
    for i in range(len(polygons)):
        shell, *holes = closed[bounds[i] : bounds[i + 1]]
        polygon = shapely.Polygon(shell, holes)
        yield int(polygons.class_ids[i]), polygon, int(polygons.measures[i, 0])
