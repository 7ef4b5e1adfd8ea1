"""Metres are metres: tolerances, areas and perimeters where pixels or units are unusual."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pyproj
import pytest
import rasterio.crs
import shapely
from affine import Affine
from coverages import NODATA, bands_of, blobs, class_arrays, features_of, write_class_raster
from hypothesis import given, settings, strategies as st

from geodinoseg.errors import GeodinosegError, SceneError
from geodinoseg.polygons.coverage.join import CoverageJoin
from geodinoseg.polygons.coverage.simplify import Tolerance
from geodinoseg.polygons.coverage.tracer import trace_band
from geodinoseg.polygons.polygonize import polygonize, write_polygons
from geodinoseg.polygons.stream import PolygonOptions
from geodinoseg.rasters.class_raster import open_class_raster

FOOT_M, SURVEY_FOOT_M = 0.3048, 1200 / 3937
SITE_GRID = (
    'ENGCRS["site grid",EDATUM["unknown"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["{unit}",{factor}]]'
)
LOCAL_FEET = SITE_GRID.format(unit="US survey foot", factor=SURVEY_FOOT_M)
KILOMETRES = "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +datum=WGS84 +units=km"
UNITS = {
    "EPSG:32633": 1.0,
    "EPSG:2263": SURVEY_FOOT_M,
    "EPSG:2222": FOOT_M,
    LOCAL_FEET: SURVEY_FOOT_M,
    SITE_GRID.format(unit="foot", factor=FOOT_M): FOOT_M,
    KILOMETRES: 1000.0,
}
DEGREE_M = 111_320.0


def frayed(height=60, width=400, seed=1):
    """Two classes with a border that jumps by a few pixels from column to column."""
    edge = height // 2 + np.random.default_rng(seed).integers(-2, 3, width)
    return (np.arange(height)[:, None] >= edge).astype(np.uint8)


def farthest_moved(plain, simplified, scale):
    """Largest distance of a vertex of the plain outlines to the simplified ones, after scaling."""
    far = 0.0
    for class_id in plain.class_id.unique():
        before, after = (
            shapely.transform(
                shapely.union_all(frame[frame.class_id == class_id].boundary.to_numpy()),
                lambda points: points * scale,
            )
            for frame in (plain, simplified)
        )
        corners = shapely.points(shapely.get_coordinates(before))
        far = max(far, shapely.distance(corners, after).max())
    return far


def count_vertices(frame):
    return shapely.get_num_coordinates(frame.geometry.to_numpy()).sum()


@pytest.mark.parametrize(
    ("transform", "crs", "metres", "tolerance_m"),
    [
        (Affine(1, 0, 0, 0, -10, 0), "EPSG:32633", (1, 1), 6.3),
        (Affine(10, 0, 0, 0, -1, 0), "EPSG:32633", (1, 1), 6.3),
        (Affine(1, 0, 0, 0, -4, 0), "EPSG:32633", (1, 1), 4.0),
        (Affine.rotation(30) @ Affine.scale(1, -9), "EPSG:32633", (1, 1), 9.0),
        (Affine(2, 1.5, 0, 0.3, -0.5, 0), "EPSG:32633", (1, 1), 2.0),
        (Affine(1, 0, 0, 0, -10, 0), "EPSG:2263", (SURVEY_FOOT_M,) * 2, 2.0),
        (Affine(1, 0, 0, 0, -10, 0), LOCAL_FEET, (SURVEY_FOOT_M,) * 2, 2.0),
        (Affine(1e-3, 0, 0, 0, -1e-2, 0), KILOMETRES, (1000, 1000), 6.3),
        (
            Affine(10 / DEGREE_M, 0, 25, 0, -10 / DEGREE_M, 65),
            "EPSG:4326",
            # Of a degree at 65 N (Snyder 1987, eq. 4-18 and 4-21).
            (47_176.9, 111_493.5),
            8.0,
        ),
        (
            Affine(1e-4, 0, 2, 0, -1e-4, 52),
            "EPSG:4807",
            (68_533.0, 100_012.0),
            8.0,
        ),
    ],
)
def test_no_outline_moves_farther_than_asked_whatever_the_shape_of_pixels(
    tmp_path, transform, crs, metres, tolerance_m
):
    path = write_class_raster(
        tmp_path / "map.tif",
        frayed(),
        transform=transform,
        crs=rasterio.crs.CRS.from_user_input(crs),
    )
    plain = polygonize(path)
    simplified = polygonize(path, options=PolygonOptions(simplify_m=tolerance_m))
    moved = farthest_moved(plain, simplified, np.array(metres))
    assert 0 < moved <= tolerance_m * 1.001
    assert count_vertices(simplified) < 0.7 * count_vertices(plain)


def trace(array, band_rows, tolerance=None):
    """(class id, polygon in pixel coordinates, pixel count), simplified by a tolerance."""
    join = CoverageJoin(measures=1, tolerance=tolerance)
    bands = bands_of(array, band_rows, tolerance=tolerance)
    return [f for band in bands for f in features_of(join.add(trace_band(band)))]


STEPS = st.sampled_from(
    [((1, 0), (0, 8)), ((6, 0), (0, 1)), ((1, 2), (-9, 3)), ((2, 1), (1.5, -2))]
)


@settings(max_examples=60)
@given(
    array=class_arrays(longest=40),
    steps=STEPS,
    distance=st.sampled_from([0.7, 2.0, 5.0, 20.0, 1e6]),
    band_rows=st.sampled_from([7, 100]),
)
def test_outlines_on_pixels_that_are_not_square_are_a_coverage_within_the_tolerance(
    array, steps, distance, band_rows
):
    tolerance = Tolerance(distance=distance, col_step=steps[0], row_step=steps[1])
    plain, simplified = trace(array, 100), trace(array, band_rows, tolerance)
    polygons = [polygon for _, polygon, _ in simplified]
    assert all(polygon.is_valid for polygon in polygons)
    assert shapely.coverage_is_valid(polygons)
    assert sorted(f[::2] for f in simplified) == sorted(f[::2] for f in plain)
    if not plain:
        return
    before, after = (
        shapely.transform(
            shapely.union_all([polygon.boundary for _, polygon, _ in features]),
            lambda points: points @ np.array(steps),
        )
        for features in (plain, simplified)
    )
    corners = shapely.points(shapely.get_coordinates(before))
    # Where a border crosses from band to band it may move by half a pixel more.
    across_bands = tolerance.shorter_side / 2 if band_rows < len(array) else 0.0
    assert shapely.distance(corners, after).max() <= distance + across_bands + 1e-9


@given(array=class_arrays(longest=40), angle=st.integers(0, 359), side=st.sampled_from([0.1, 3.0]))
def test_square_pixels_of_any_size_and_orientation_give_the_outlines_of_pixels(array, angle, side):
    cos, sin = side * math.cos(math.radians(angle)), side * math.sin(math.radians(angle))
    tolerance = Tolerance.of(2 * side, col_step=(cos, sin), row_step=(-sin, cos))
    for found, expected in zip(
        trace(array, 15, tolerance), trace(array, 15, Tolerance(distance=2.0)), strict=True
    ):
        assert found[1].equals(expected[1])


@pytest.mark.parametrize(("crs", "unit_m"), UNITS.items())
def test_areas_and_perimeters_are_in_metres_whatever_the_unit_of_the_crs(tmp_path, crs, unit_m):
    array = np.zeros((3, 5), dtype=np.uint8)
    path = write_class_raster(
        tmp_path / "map.tif",
        array,
        transform=Affine(2, 0, 0, 0, -3, 0),
        crs=rasterio.crs.CRS.from_user_input(crs),
    )
    (row,) = polygonize(path).itertuples()
    assert row.area_m2 == pytest.approx(90 * unit_m**2, rel=1e-9)
    assert row.perim_m == pytest.approx(38 * unit_m, rel=1e-9)


@pytest.mark.parametrize(("crs", "unit_m"), UNITS.items())
def test_the_minimum_area_is_in_square_metres_whatever_the_unit_of_the_crs(tmp_path, crs, unit_m):
    array = np.zeros((9, 15), dtype=np.uint8)
    array[3:5, 4:7] = 1
    path = write_class_raster(
        tmp_path / "map.tif",
        array,
        transform=Affine(2, 0, 0, 0, -3, 0),
        crs=rasterio.crs.CRS.from_user_input(crs),
    )
    area_m2 = 36 * unit_m**2
    assert len(polygonize(path, min_area_m2=area_m2)) == 2
    assert len(polygonize(path, min_area_m2=1.001 * area_m2)) == 1
    holes = write_class_raster(
        tmp_path / "holes.tif",
        np.where(array == 1, NODATA, array).astype(np.uint8),
        transform=Affine(2, 0, 0, 0, -3, 0),
        crs=rasterio.crs.CRS.from_user_input(crs),
    )
    for size, interiors in ((area_m2, 1), (1.001 * area_m2, 0)):
        (polygon,) = polygonize(holes, options=PolygonOptions(fill_holes_m2=size)).geometry
        assert len(polygon.interiors) == interiors


def test_grads_are_no_degrees(tmp_path):
    transform = Affine(1e-3, 0, 2, 0, -1e-3, 52)
    array = blobs(40, 57)
    frame = polygonize(
        write_class_raster(tmp_path / "map.tif", array, transform=transform, crs="EPSG:4807")
    )
    geod = pyproj.CRS("EPSG:4807").get_geod()
    degrees = shapely.transform(
        shapely.segmentize(frame.geometry.to_numpy(), 2e-4), lambda points: 0.9 * points
    )
    areas = [geod.geometry_area_perimeter(geometry)[0] for geometry in degrees]
    perimeters = [geod.geometry_length(geometry.boundary) for geometry in degrees]
    np.testing.assert_allclose(frame.area_m2, areas, rtol=1e-4)
    np.testing.assert_allclose(frame.perim_m, perimeters, rtol=1e-5)


@pytest.mark.parametrize(
    ("crs", "told"),
    [
        (None, "has no CRS"),
        ("EPSG:4978", "coordinates are not lengths on the ground"),
        (SITE_GRID.format(unit="unknown", factor=1), "coordinates are not lengths on the ground"),
    ],
)
def test_without_metres_the_attributes_in_metres_are_left_out_in_a_line(
    tmp_path, caplog, crs, told
):
    crs = crs and rasterio.crs.CRS.from_user_input(crs)
    path = write_class_raster(
        tmp_path / "map.tif", blobs(30, 41), transform=Affine(1, 0, 5, 0, -1, 9)
    )
    raster = open_class_raster(path)
    lost = replace(raster, geobox=replace(raster.geobox, crs=crs))
    with caplog.at_level(logging.WARNING):
        frame = polygonize(lost, simplify_px=1.5)
    assert list(frame.columns) == ["class_id", "class_name", "geometry"]
    (record,) = caplog.records
    assert told in record.getMessage()
    assert "map.tif: " in record.getMessage()
    assert "no area_m2 and perim_m" in record.getMessage()


@pytest.mark.parametrize(
    ("sizes", "options", "option"),
    [
        ({"min_area_m2": 3.0}, {}, "--min-area"),
        ({}, {"fill_holes_m2": 3.0}, "--fill-holes"),
        ({}, {"simplify_m": 3.0}, "--simplify"),
    ],
)
def test_without_a_crs_options_in_metres_are_refused_in_a_line(tmp_path, sizes, options, option):
    path = write_class_raster(tmp_path / "map.tif", blobs(30, 41), crs=None)
    with pytest.raises(SceneError, match=rf"map.tif: has no CRS, so {option} cannot be applied"):
        polygonize(path, options=PolygonOptions(**options), **sizes)
    with pytest.raises(GeodinosegError, match=option):
        write_polygons(path, tmp_path / "map.gpkg", options=PolygonOptions(**options), **sizes)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]
