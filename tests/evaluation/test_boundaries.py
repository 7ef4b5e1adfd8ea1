"""Boundary agreement, against a plain search over all pairs of pixels and the distance transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasters import ROTATED
from scipy.ndimage import distance_transform_edt

from geodinoseg.errors import LabelError
from geodinoseg.evaluation.boundaries import (
    BoundaryAgreement,
    Tolerance,
    boundary_pixels,
    pixel_step_m,
    reach_of,
)
from geodinoseg.geobox import GeoBox


def geobox(height=40, width=60, transform=ROTATED, crs="EPSG:32633"):
    return GeoBox(
        crs=CRS.from_user_input(crs) if crs else None,
        transform=transform,
        width=width,
        height=height,
    )


def pixels(distance):
    return reach_of(Tolerance(distance=distance, unit="px"), geobox())


def is_boundary_by_hand(channels):
    edge = np.zeros(channels.shape, dtype=bool)
    height, width = channels.shape
    for row in range(height):
        for col in range(width):
            for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if 0 <= r < height and 0 <= c < width and channels[row, col] >= 0:
                    edge[row, col] |= channels[r, c] >= 0 and channels[r, c] != channels[row, col]
    return edge


@st.composite
def sides(draw):
    """Two maps of one odd shape, in patches, with unknown pixels in common."""
    shape = (draw(st.integers(1, 23)), draw(st.integers(1, 31)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    patch = draw(st.integers(1, 6))
    coarse = rng.integers(0, 3, (2, -(-shape[0] // patch), -(-shape[1] // patch)))
    both = coarse.repeat(patch, axis=1).repeat(patch, axis=2)[:, : shape[0], : shape[1]]
    both[:, rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = -1
    return both.astype(np.int16)


@given(both=sides(), distance=st.sampled_from([0, 1, 1.5, 2, 3, 4.3, 7]))
def test_pixels_are_met_where_the_distance_transform_says_so(both, distance):
    reference, mapped = both
    whole = (slice(0, reference.shape[0]), slice(0, reference.shape[1]))
    found = boundary_pixels(reference, mapped, whole, pixels(distance))
    edges = [is_boundary_by_hand(side) for side in both]
    expected = np.argwhere(edges[0])
    assert_array_equal(np.column_stack([found.rows, found.cols]), expected)
    for row, col, channel, met in zip(
        found.rows, found.cols, found.class_indices, found.is_matched, strict=True
    ):
        assert channel == reference[row, col]
        other = edges[1] & (mapped == channel)
        nearest = distance_transform_edt(~other)[row, col] if other.any() else math.inf
        assert met == (nearest <= distance + 1e-9)


@given(both=sides(), cut=st.integers(0, 31), distance=st.sampled_from([0, 1, 2.5, 4]))
def test_a_window_with_its_halo_knows_all_that_the_whole_knows(both, cut, distance):
    reach = pixels(distance)
    height, width = both.shape[1:]
    cut = min(cut, width)
    whole = boundary_pixels(*both, (slice(0, height), slice(0, width)), reach)
    found = []
    for start, end in ((0, cut), (cut, width)):
        if start == end:
            continue
        left, right = max(0, start - reach.halo_px), min(width, end + reach.halo_px)
        core = (slice(0, height), slice(start - left, end - left))
        part = boundary_pixels(*both[:, :, left:right], core, reach)
        found += zip(part.rows, part.cols + start, part.class_indices, part.is_matched, strict=True)
    assert sorted(found) == sorted(
        zip(whole.rows, whole.cols, whole.class_indices, whole.is_matched, strict=True)
    )


def test_unknown_land_makes_no_boundary():
    channels = np.array([[0, 0, -1, 1, 1]])
    found = boundary_pixels(channels, channels, (slice(0, 1), slice(0, 5)), pixels(3))
    assert not len(found.rows)


def test_a_map_that_is_shifted_is_met_from_that_distance_on():
    reference = np.zeros((30, 40), dtype=np.int16)
    reference[:, 20:] = 1
    mapped = np.roll(reference, 3, axis=1)
    mapped[:, :3] = 0
    core = (slice(0, 30), slice(0, 40))
    for distance, met in ((2.9, False), (3, True), (8, True)):
        found = boundary_pixels(reference, mapped, core, pixels(distance))
        assert len(found.is_matched) == 60
        assert (found.is_matched == met).all()


def test_metres_reach_further_along_the_shorter_side_of_a_pixel():
    """Pixels of 0.7 x 0.5 m, rotated: the reach is an ellipse in pixels, a circle on the ground."""
    place = geobox()
    step = pixel_step_m(place)
    assert np.linalg.norm(step, axis=0) == pytest.approx([0.7, 0.5], rel=1e-3)
    offsets = reach_of(Tolerance(distance=2.05, unit="m"), place).offsets
    expected = [
        (row, col)
        for row in range(-9, 10)
        for col in range(-9, 10)
        if math.hypot(*(step @ (col, row))) <= 2.05
    ]
    assert sorted(map(tuple, offsets.tolist())) == sorted(expected)
    assert max(row for row, _ in expected) == 4
    assert max(col for _, col in expected) == 2


def test_metres_on_the_ground_follow_the_latitude_and_the_projection():
    degrees = geobox(transform=Affine(1e-5, 0, 10, 0, -1e-5, 60), crs="EPSG:4326")
    east, north = np.linalg.norm(pixel_step_m(degrees), axis=0)
    # The same pixels in grads, 0.9 degrees each.
    grads = geobox(transform=Affine(1e-5 / 0.9, 0, 9, 0, -1e-5 / 0.9, 60 / 0.9), crs="EPSG:4807")
    assert np.linalg.norm(pixel_step_m(grads), axis=0) == pytest.approx([east, north], rel=1e-3)
    assert north == pytest.approx(1.1141, rel=1e-3)
    assert east == pytest.approx(0.558, rel=1e-3)
    mercator = geobox(transform=Affine(1, 0, 0, 0, -1, 8_399_737), crs="EPSG:3857")
    assert np.linalg.norm(pixel_step_m(mercator), axis=0) == pytest.approx([0.5, 0.5], rel=0.01)


@pytest.mark.parametrize(
    ("distance", "unit", "said"),
    [
        (101, "px", "more than 100"),
        (500, "m", "more than 100"),
        (-1, "px", "not a distance"),
        (math.nan, "px", "not a distance"),
        (math.inf, "m", "not a distance"),
    ],
)
def test_a_tolerance_that_cannot_be_is_said_in_a_line(distance, unit, said):
    with pytest.raises(LabelError, match=said):
        reach_of(Tolerance(distance=distance, unit=unit), geobox())


def test_a_tolerance_in_metres_is_refused_where_the_map_has_no_metres():
    nowhere = geobox(crs=None)
    with pytest.raises(LabelError, match=r"tolerance of 3 m .* the map has no CRS; give it in pix"):
        reach_of(Tolerance(distance=3, unit="m"), nowhere)
    assert len(reach_of(Tolerance(distance=1, unit="px"), nowhere).offsets) == 5


def test_scores_are_those_of_the_paper_and_nan_where_the_reference_has_no_border():
    agreement = BoundaryAgreement(
        reference=np.array([10, 0, 4, 0]),
        reference_matched=np.array([5, 0, 0, 0]),
        mapped=np.array([20, 7, 0, 0]),
        mapped_matched=np.array([15, 0, 0, 0]),
    )
    assert agreement.f_score[0] == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert np.isnan(agreement.f_score[1])
    assert agreement.precision[1] == 0
    assert agreement.f_score[2] == 0
    assert np.isnan(agreement.f_score[3])
    assert agreement.mean_f_score == pytest.approx((0.6 + 0) / 2)
