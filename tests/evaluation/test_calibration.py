"""Temperature and reliability, against scipy, scikit-learn and models whose confidence is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from geodinoseg.evaluation.calibration import reliability
from geodinoseg.training.validation_report import fit_temperature


def sampled(classes, pixels, seed, *, spread=2.0):
    """Logits whose softmax is the truth: labels are drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (pixels, classes))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    labels = (rng.random((pixels, 1)) > chances).sum(axis=1).clip(max=classes - 1)
    return logits, labels


@given(classes=st.integers(2, 6), seed=st.integers(0, 999), factor=st.floats(0.2, 6))
def test_logits_that_are_too_sure_by_a_factor_get_that_temperature(classes, seed, factor):
    logits, labels = sampled(classes, 6000, seed)
    assert_allclose(fit_temperature(factor * logits, labels), factor, rtol=0.15)


@given(classes=st.integers(2, 5), pixels=st.integers(1, 60), seed=st.integers(0, 999))
@settings(max_examples=8)
def test_no_other_temperature_is_likelier(classes, pixels, seed):
    logits, labels = sampled(classes, pixels, seed)
    found = fit_temperature(logits.astype(np.float32), labels)
    assert 0.05 <= found <= 20

    def loss(temperature):
        return log_loss(labels, softmax(logits / temperature, axis=1), labels=range(classes))

    least = min(loss(temperature) for temperature in np.geomspace(0.05, 20, 100))
    assert loss(found) <= least + 1e-5


def test_the_temperature_is_that_of_scipy():
    logits, labels = sampled(4, 500, 3)
    oracle = minimize_scalar(
        lambda t: log_loss(labels, softmax(2.5 * logits / t, axis=1)),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert_allclose(fit_temperature(2.5 * logits, labels), oracle.x, rtol=1e-5)


def test_pixels_without_a_label_do_not_count():
    logits, labels = sampled(3, 400, 1)
    padded = np.concatenate([logits, np.full((50, 3), 1e6)])
    ignored = np.concatenate([labels, np.full(50, -1)])
    assert fit_temperature(padded, ignored) == fit_temperature(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.ones((4, 3)), np.full(4, -1)),
        (np.full((5, 3), 7.0), np.arange(5) % 3),
        (np.ones((4, 1)), np.zeros(4, int)),
    ],
    ids=["no pixel", "no label", "no opinion", "one class"],
)
def test_nothing_to_fit_leaves_the_logits_as_they_are(logits, labels):
    assert fit_temperature(logits, labels) == 1.0


def test_a_model_that_is_always_right_or_always_wrong_ends_at_a_bound():
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    assert fit_temperature(logits, np.array([0, 1, 2, 0])) == 0.05
    assert fit_temperature(logits, np.array([1, 2, 0, 2])) == 20.0


@given(pixels=st.integers(1, 300), bins=st.integers(1, 15), seed=st.integers(0, 999))
def test_bins_are_those_of_scikit_learn(pixels, bins, seed):
    rng = np.random.default_rng(seed)
    sure = np.append(rng.random(pixels), [0.0, 1.0])
    right = rng.random(pixels + 2) < sure
    found = reliability(sure, right, bins=bins)
    full = found.count > 0
    if 0 < right.sum() < right.size:
        accuracy, confidence = calibration_curve(right, sure, n_bins=bins)
        assert_allclose(found.accuracy[full], accuracy)
        assert_allclose(found.confidence[full], confidence)
    assert found.count.sum() == pixels + 2
    assert np.isnan(found.accuracy[~full]).all()


def test_the_error_is_the_mean_gap_weighed_by_predictions():
    sure = np.array([[0.95, 0.95, 0.95, 0.95], [0.55, 0.55, 0.55, 0.55]])
    right = np.array([[True, True, True, True], [True, False, False, False]])
    found = reliability(sure, right)
    assert_allclose(found.ece, (4 * 0.05 + 4 * 0.3) / 8)
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["count"] == [0, 0, 0, 0, 0, 4, 0, 0, 0, 4]
    assert plain["accuracy"][5] == 0.25
    assert plain["accuracy"][0] is None
    assert_allclose(plain["expected_calibration_error"], found.ece)


def test_the_right_temperature_makes_confidence_honest():
    logits, labels = sampled(4, 20_000, 8)
    logits *= 4
    errors = []
    for temperature in (1.0, fit_temperature(logits, labels)):
        chances = softmax(logits / temperature, axis=1)
        errors.append(reliability(chances.max(axis=1), chances.argmax(axis=1) == labels).ece)
    assert errors[0] > 0.1
    assert errors[1] < 0.02


def test_without_a_prediction_there_is_no_error_to_tell():
    found = reliability(np.zeros(0), np.zeros(0, bool))
    assert math.isnan(found.ece)
    assert found.to_json()["expected_calibration_error"] is None


def test_outcomes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="outcomes"):
        reliability(np.zeros(3), np.zeros(2, bool))
