"""The tracer against rasterio, in pixel space: same regions, shared vertices, any cut."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from coverages import (
    NODATA,
    as_pixel_sets,
    class_arrays,
    reference_polygons,
    trace,
)
from hypothesis import given, strategies as st

from geodinoseg.polygons.coverage.chains import connected_sets, follow

PINCHES = np.array(
    [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]],
    dtype=np.uint8,
)
NESTED = np.pad(np.pad(np.pad(np.zeros((1, 2)), 1, constant_values=1), 1), 1, constant_values=1)
ODD_ARRAYS = {
    "one pixel": np.zeros((1, 1), dtype=np.uint8),
    "one row": np.array([[0, 0, 1, 255, 1, 0]], dtype=np.uint8),
    "one column": np.array([[0], [1], [1], [255], [0]], dtype=np.uint8),
    "all one class": np.full((4, 7), 3, dtype=np.uint8),
    "no class at all": np.full((4, 7), NODATA, dtype=np.uint8),
    "checkerboard": (np.indices((7, 5)).sum(axis=0) % 2).astype(np.uint8),
    "diagonal pinches": PINCHES,
    "nested holes": NESTED.astype(np.uint8),
    "spiral": np.array(
        [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]],
        dtype=np.uint8,
    ),
}


def assert_same_as_rasterio(array, chunk_rows):
    features = trace(array, chunk_rows)
    polygons = [polygon for _, polygon, _ in features]
    mine = as_pixel_sets([feature[:2] for feature in features], array.shape, Affine.identity())
    theirs = as_pixel_sets(reference_polygons(array), array.shape, Affine.identity())
    assert mine == theirs
    assert len(features) == len(mine)
    assert all(polygon.is_valid for polygon in polygons)
    assert [polygon.area for polygon in polygons] == [count for *_, count in features]
    assert shapely.coverage_is_valid(polygons)


@pytest.mark.parametrize("name", ODD_ARRAYS)
@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_odd_rasters_give_the_polygons_that_rasterio_finds(name, chunk_rows):
    assert_same_as_rasterio(ODD_ARRAYS[name], chunk_rows)


@given(array=class_arrays(), chunk_rows=st.integers(1, 30))
def test_any_raster_in_any_chunks_gives_the_polygons_that_rasterio_finds(array, chunk_rows):
    assert_same_as_rasterio(array, chunk_rows)


@given(array=class_arrays(), chunk_rows=st.integers(1, 30))
def test_rasterizing_the_polygons_gives_the_raster_back(array, chunk_rows):
    pairs = [(polygon, class_id) for class_id, polygon, _ in trace(array, chunk_rows)]
    back = np.full_like(array, NODATA)
    if pairs:
        rasterio.features.rasterize(pairs, out=back)
    np.testing.assert_array_equal(back, array)


@given(array=class_arrays(), chunk_rows=st.integers(1, 30))
def test_chunks_change_neither_vertices_nor_order(array, chunk_rows):
    def text(features):
        return [(class_id, polygon.wkt, count) for class_id, polygon, count in features]

    assert text(trace(array, chunk_rows)) == text(trace(array, 100))


@given(array=class_arrays())
def test_polygons_come_by_last_row_then_first_pixel(array):
    keys = []
    for _, polygon, _ in trace(array, 3):
        _, top, _, bottom = polygon.bounds
        row = [x for x, y in polygon.exterior.coords if y == top]
        keys.append((bottom, top, min(row)))
    assert keys == sorted(keys)


@given(array=class_arrays(), left_out=st.integers(0, 3), chunk_rows=st.integers(1, 30))
def test_classes_left_out_change_nothing_of_the_others(array, left_out, chunk_rows):
    wanted = [feature for feature in trace(array, chunk_rows) if feature[0] != left_out]
    assert trace(array, chunk_rows, left_out=np.array([left_out])) == wanted


def test_a_vertex_stands_where_three_borders_meet_and_nowhere_else_on_a_straight_edge():
    array = np.array([[0, 0, 0, 0], [1, 1, 2, 2]], dtype=np.uint8)
    upper = next(polygon for class_id, polygon, _ in trace(array, 100) if class_id == 0)
    assert set(upper.exterior.coords) == {(0, 0), (0, 1), (2, 1), (4, 1), (4, 0)}


def test_a_ring_through_all_columns_twice_is_followed_to_its_end():
    comb = np.zeros((9, 301), dtype=np.uint8)
    comb[1:, ::2] = 1
    assert_same_as_rasterio(comb, 4)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60))
def test_followed_chains_visit_each_element_once_and_in_order(seed, count):
    rng = np.random.default_rng(seed)
    successor = rng.permutation(count).astype(np.int32)
    successor[rng.random(count) < 0.2] = -1
    chains = follow(successor)
    assert sorted(chains.order) == list(range(count))
    for start, end, closed in zip(
        chains.offsets[:-1], chains.offsets[1:], chains.closed, strict=True
    ):
        chain = chains.order[start:end]
        np.testing.assert_array_equal(successor[chain[:-1]], chain[1:])
        assert successor[chain[-1]] == (chain[0] if closed else -1)
        assert not closed or chain[0] == chain.min()


@given(pairs=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_connected_sets_are_those_that_joining_one_by_one_gives(pairs):
    sets = [{i} for i in range(20)]
    for first, second in pairs:
        joined = sets[first] | sets[second]
        for element in joined:
            sets[element] = joined
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert connected_sets(20, first, second).tolist() == [min(members) for members in sets]
