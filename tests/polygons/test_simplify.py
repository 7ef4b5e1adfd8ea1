"""Simplified boundaries: still a coverage, within the tolerance, without a trace of the cuts."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from coverages import NODATA, blobs, class_arrays, trace
from hypothesis import given, settings, strategies as st

TOLERANCES = st.sampled_from([0.5, 0.8, 1.0, 1.5, 3.0, 8.0])


def boundary(features):
    return shapely.union_all([polygon.boundary for _, polygon, _ in features])


@settings(max_examples=80)
@given(array=class_arrays(longest=40), tolerance=TOLERANCES, band_rows=st.integers(1, 40))
def test_a_simplified_coverage_is_valid_and_keeps_every_polygon(array, tolerance, band_rows):
    plain = trace(array, band_rows)
    simplified = trace(array, band_rows, simplify_px=tolerance)
    polygons = [polygon for _, polygon, _ in simplified]
    assert all(polygon.is_valid for polygon in polygons)
    assert shapely.coverage_is_valid(polygons)
    assert sorted(f[::2] for f in simplified) == sorted(f[::2] for f in plain)


@given(array=class_arrays(longest=40), tolerance=TOLERANCES, band_rows=st.integers(5, 40))
def test_a_simplified_coverage_has_no_gap_and_no_overlap(array, tolerance, band_rows):
    solid = np.where(array == NODATA, 0, array)
    polygons = [polygon for _, polygon, _ in trace(solid, band_rows, simplify_px=tolerance)]
    total = sum(polygon.area for polygon in polygons)
    union = shapely.union_all(polygons)
    assert union.area == pytest.approx(total, rel=1e-12)
    assert not getattr(union, "interiors", [])


@given(
    array=class_arrays(longest=40),
    tolerance=st.sampled_from([0.5, 1.5, 8.0, 1e9]),
    band_rows=st.integers(5, 40),
)
def test_a_raster_without_nodata_stays_a_rectangle(array, tolerance, band_rows):
    solid = np.where(array == NODATA, 0, array)
    union = shapely.union_all([p for _, p, _ in trace(solid, band_rows, simplify_px=tolerance)])
    height, width = array.shape
    assert union.normalize().simplify(0).equals(shapely.box(0, 0, width, height))


@given(array=class_arrays(longest=40), tolerance=TOLERANCES)
def test_no_vertex_ends_farther_from_the_boundary_than_the_tolerance(array, tolerance):
    plain, simplified = trace(array, 100), trace(array, 100, simplify_px=tolerance)
    if not plain:
        return
    corners = shapely.points(shapely.get_coordinates(boundary(plain)))
    assert shapely.distance(corners, boundary(simplified)).max() <= tolerance + 1e-9


def test_a_straight_edge_across_cuts_has_no_vertex_on_it():
    array = np.zeros((40, 11), dtype=np.uint8)
    array[:, 6:] = 1
    for _, polygon, _ in trace(array, 8, simplify_px=1.0):
        assert shapely.get_num_coordinates(polygon) == 5


def test_a_slanted_edge_is_followed_across_cuts_within_half_a_pixel_of_the_tolerance():
    rows, cols = np.mgrid[:200, :90]
    array = (cols > 10 + rows / 3).astype(np.uint8)
    plain, simplified = trace(array, 50), trace(array, 50, simplify_px=1.0)
    corners = shapely.points(shapely.get_coordinates(boundary(plain)))
    assert shapely.distance(corners, boundary(simplified)).max() <= 1.5
    assert sum(shapely.get_num_coordinates(polygon) for _, polygon, _ in simplified) < 40


def test_a_map_with_specks_loses_a_third_of_its_vertices():
    array = blobs(150, 201)
    plain, simplified = trace(array, 60), trace(array, 60, simplify_px=1.0)
    count = [
        sum(shapely.get_num_coordinates(polygon) for _, polygon, _ in features)
        for features in (plain, simplified)
    ]
    assert count[1] < 0.7 * count[0]
