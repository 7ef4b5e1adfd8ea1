"""The minimum mapping unit against its rule written out pixel by pixel, in any chunks."""

from __future__ import annotations

from collections import Counter

import numpy as np
from coverages import NODATA, blobs, class_arrays
from hypothesis import given, strategies as st

from geodinoseg.polygons.coverage.minimum_area import MinimumArea, SizeRule


def label_regions(array):
    """(height, width) number of the 4-connected region of each pixel, by flooding."""
    height, width = array.shape
    labels = np.full(array.shape, -1)
    count = 0
    for seed in np.ndindex(array.shape):
        if labels[seed] >= 0:
            continue
        labels[seed] = count
        stack = [seed]
        while stack:
            row, col = stack.pop()
            for other in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
                inside = 0 <= other[0] < height and 0 <= other[1] < width
                if inside and labels[other] < 0 and array[other] == array[seed]:
                    labels[other] = count
                    stack.append(other)
        count += 1
    return labels


def border_lengths(labels):
    borders = [Counter() for _ in range(labels.max() + 1)]
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        for first, second in zip(one.ravel(), other.ravel(), strict=True):
            if first != second:
                borders[first][second] += 1
                borders[second][first] += 1
    return borders


def by_the_rule(array, least_px, least_gap_px=0, kept=()):
    """The rule of the docs: waves from large regions, longest border, smaller class id."""
    labels = label_regions(array)
    count = labels.max() + 1
    values = np.zeros(count, dtype=int)
    values[labels.ravel()] = array.ravel()
    sizes = np.bincount(labels.ravel())
    at_edge = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]}
    borders = border_lengths(labels)
    wave_of = {}
    for region in range(count):
        if values[region] == NODATA:
            is_small = sizes[region] < least_gap_px and region not in at_edge
        else:
            is_small = sizes[region] < least_px and values[region] not in kept
        if not is_small:
            wave_of[region] = 0
    wave, taken = 0, {None: None}
    while taken:
        wave += 1
        taken = {}
        for region in set(range(count)) - set(wave_of):
            totals = Counter()
            for neighbour, length in borders[region].items():
                if wave_of.get(neighbour) == wave - 1 and values[neighbour] != NODATA:
                    totals[values[neighbour]] += length
            if totals:
                taken[region] = min(totals, key=lambda value: (-totals[value], value))
        for region, value in taken.items():
            wave_of[region], values[region] = wave, value
    return values[labels].astype(array.dtype)


def filtered(array, chunk_rows, least_px, least_gap_px=0, kept=()):
    rule = SizeRule(
        least_weight=least_px,
        least_gap_weight=least_gap_px,
        kept_classes=np.array(kept, dtype=np.int64),
        outside=NODATA,
    )
    stage = MinimumArea(rule, height=len(array), weights_above=np.arange(len(array) + 1))
    chunks = (array[row : row + chunk_rows] for row in range(0, len(array), chunk_rows))
    return np.vstack(list(stage.run(chunks)))


@given(
    array=class_arrays(longest=20),
    chunk_rows=st.integers(1, 25),
    least_px=st.sampled_from([0, 2, 5, 12, 60]),
    least_gap_px=st.sampled_from([0, 3, 10]),
    kept=st.sampled_from([(), (0,), (1, 2)]),
)
def test_any_raster_in_any_chunks_follows_the_rule(array, chunk_rows, least_px, least_gap_px, kept):
    np.testing.assert_array_equal(
        filtered(array, chunk_rows, least_px, least_gap_px, kept),
        by_the_rule(array, least_px, least_gap_px, kept),
    )


def test_no_small_region_is_left_next_to_large_ones():
    array = blobs(90, 131)
    labels = label_regions(filtered(array, 16, least_px=12))
    assert np.bincount(labels.ravel()).min() >= 12


def test_a_small_region_goes_to_the_longest_border():
    array = np.array(
        [[1, 1, 1, 1, 2], [1, 0, 2, 2, 2], [1, 0, 0, 2, 2], [2, 2, 2, 2, 2]], dtype=np.uint8
    )
    assert filtered(array, 2, least_px=4)[1, 1] == 2


def test_nodata_is_never_given_a_region_nor_taken_at_the_raster_s_edge():
    array = np.full((5, 6), NODATA, dtype=np.uint8)
    array[2, 3] = 1
    np.testing.assert_array_equal(filtered(array, 2, least_px=9, least_gap_px=99), array)


def test_rows_come_out_before_the_raster_ends():
    array = blobs(200, 37)
    rule = SizeRule(
        least_weight=6, least_gap_weight=0, kept_classes=np.empty(0, dtype=np.int64), outside=NODATA
    )
    stage = MinimumArea(rule, height=200, weights_above=np.arange(201))
    read = 0

    def chunks():
        nonlocal read
        for row in range(0, 200, 10):
            read += 10
            yield array[row : row + 10]

    out = 0
    for rows in stage.run(chunks()):
        out += len(rows)
        assert read - out <= 40
    assert out == 200
