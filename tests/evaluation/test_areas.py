"""Estimators from a stratified sample: the published example, other formulas, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from olofsson import COUNTS, PIXELS

from geodinoseg.evaluation.sampling.areas import estimate_areas

PIXEL_M2 = 30.0 * 30.0
HA = 1e-4


def published():
    return estimate_areas(COUNTS, PIXELS * PIXEL_M2)


def printed(values, decimals):
    return [round(float(value), decimals) for value in values]


def test_the_published_error_matrix_in_shares_of_the_area_comes_out():
    expected = [  # Table 9, to the four decimals printed
        [0.0176, 0.0, 0.0013, 0.0011],
        [0.0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0.0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    assert_array_equal(published().proportions.round(4), expected)
    assert_allclose(published().weights, [0.020, 0.015, 0.320, 0.645], rtol=1e-15)


def test_the_published_accuracies_come_out_to_the_printed_digit():
    estimates = published()
    assert printed([estimates.overall.value, estimates.overall.margin], 2) == [0.95, 0.02]
    assert printed(estimates.users.value, 2) == [0.88, 0.73, 0.93, 0.96]
    assert printed(estimates.users.margin, 2) == [0.07, 0.10, 0.04, 0.02]
    assert printed(estimates.producers.value, 2) == [0.75, 0.85, 0.93, 0.96]
    margins = printed(estimates.producers.margin, 2)
    assert (margins[0], margins[2]) == (0.21, 0.03)


def test_two_margins_of_producers_accuracy_follow_the_papers_equation_not_its_print():
    """The paper prints 0.23 and 0.01 for them; its eq. 7, written out here, gives 0.25 and 0.02."""
    n, weights = COUNTS.astype(float), PIXELS / PIXELS.sum()
    rows = n.sum(axis=1)
    for column, expected in ((1, 0.25), (3, 0.02)):
        total = sum(weights[i] * n[i, column] / rows[i] for i in range(4))
        users = n[column, column] / rows[column]
        producers = weights[column] * users / total
        own = weights[column] ** 2 * (1 - producers) ** 2 * users * (1 - users)
        others = sum(
            weights[i] ** 2 * n[i, column] / rows[i] * (1 - n[i, column] / rows[i]) / (rows[i] - 1)
            for i in range(4)
            if i != column
        )
        variance = (own / (rows[column] - 1) + producers**2 * others) / total**2
        margin = 1.96 * np.sqrt(variance)
        assert round(margin, 2) == expected
        assert published().producers.margin[column] == pytest.approx(margin, rel=1e-12)


def test_the_published_areas_come_out_to_the_printed_hectare():
    areas = published().areas_m2.times(HA)
    assert printed(areas.value, 0) == [21_158, 11_686, 285_770, 581_386]
    assert printed(areas.margin, 0) == [6_158, 3_756, 15_510, 16_282]
    assert areas.value.sum() == pytest.approx(900_000)


@st.composite
def samples(draw):
    strata = draw(st.integers(1, 5))
    further = draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.integers(0, 9, (strata, strata + further))
    counts[:, 0] += 2
    return counts, rng.uniform(1, 1e6, strata)


@given(sample=samples())
def test_estimates_are_those_of_the_general_ratio_estimator(sample):
    """Cochran (1977), section 6.11: ratios of stratified means, with each pair as an indicator."""
    counts, areas = sample
    estimates = estimate_areas(counts, areas)
    strata, classes = counts.shape
    weights = areas / areas.sum()
    for j in range(classes):
        total_y = total_x = variance = 0.0
        for pass_number in range(2):
            ratio = total_y / total_x if total_x else 0.0
            for h in range(strata):
                is_class = np.repeat(np.arange(classes) == j, counts[h]).astype(float)
                is_right = is_class * (h == j)
                if pass_number == 0:
                    total_x += weights[h] * is_class.mean()
                    total_y += weights[h] * is_right.mean()
                else:
                    residual = is_right - ratio * is_class
                    variance += weights[h] ** 2 * residual.var(ddof=1) / len(residual)
        if total_x == 0:
            assert np.isnan(estimates.producers.value[j])
            continue
        assert estimates.producers.value[j] == pytest.approx(ratio)
        expected = np.sqrt(variance) / total_x
        assert estimates.producers.standard_error[j] == pytest.approx(expected, abs=1e-9)
        assert estimates.areas_m2.value[j] == pytest.approx(total_x * areas.sum())


@given(sample=samples(), factor=st.floats(0.01, 100))
def test_areas_add_up_to_the_map_and_accuracy_does_not_know_the_unit(sample, factor):
    counts, areas = sample
    one, other = estimate_areas(counts, areas), estimate_areas(counts, areas * factor)
    assert one.areas_m2.value.sum() == pytest.approx(areas.sum())
    assert_allclose(other.areas_m2.margin, factor * one.areas_m2.margin, rtol=1e-9)
    assert_allclose(other.producers.standard_error, one.producers.standard_error, rtol=1e-9)
    assert float(other.overall.value) == pytest.approx(float(one.overall.value))


def test_a_class_that_the_map_lacks_has_an_area_and_no_users_accuracy():
    estimates = estimate_areas([[8, 1, 1], [0, 9, 1]], [100.0, 300.0])
    assert np.isnan(estimates.users.value[2])
    assert np.isnan(estimates.users.standard_error[2])
    assert estimates.producers.value[2] == 0
    assert estimates.producers.standard_error[2] == 0
    assert estimates.areas_m2.value[2] == pytest.approx(10 + 30)
    assert estimates.areas_m2.standard_error[2] > 0


def test_intervals_hold_the_true_area_in_95_of_100_samples():
    """A map of a million pixels, three classes, 15% wrong, sampled 4,000 times."""
    rng = np.random.default_rng(1)
    truth = np.array([[90_000, 6_000, 4_000], [20_000, 230_000, 50_000], [10_000, 60_000, 530_000]])
    points = np.array([120, 160, 320])
    pixels = truth.sum(axis=1)
    held = np.zeros(3)
    overall_held = 0
    runs = 4_000
    for _ in range(runs):
        counts = np.array(
            [rng.multivariate_hypergeometric(t, n) for t, n in zip(truth, points, strict=True)]
        )
        estimates = estimate_areas(counts, pixels)
        off = np.abs(estimates.areas_m2.value - truth.sum(axis=0))
        held += off <= estimates.areas_m2.margin
        overall = abs(float(estimates.overall.value) - np.trace(truth) / truth.sum())
        overall_held += overall <= float(estimates.overall.margin)
    # Three standard errors of a share of 0.95 in 4,000 runs are 0.01.
    assert_allclose(held / runs, 0.95, atol=0.012)
    assert overall_held / runs == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("counts", "areas", "said"),
    [
        ([[1, 2], [3, 4]], [1.0], "as many"),
        ([[1], [3]], [1.0, 2.0], "as many"),
        ([[1, 2], [0, 0]], [1.0, 2.0], "has no point"),
        ([[1, 2], [3, 4]], [1.0, 0.0], "above 0"),
        ([[1, 2], [3, -4]], [1.0, 1.0], "above 0"),
        ([[1, 2], [3, 4]], [1.0, np.nan], "above 0"),
    ],
)
def test_what_is_no_sample_is_refused(counts, areas, said):
    with pytest.raises(ValueError, match=said):
        estimate_areas(counts, areas)
