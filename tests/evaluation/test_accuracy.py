"""Accuracy measures agree with scikit-learn, and hold at the ends of their range."""

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics

from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.legend import Legend

CLASSES = 5


@st.composite
def maps(draw):
    """A reference and a prediction of one odd shape, with ignored pixels in both."""
    shape = (draw(st.integers(1, 13)), draw(st.integers(1, 29)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few classes drawn: some then occur in one of the two only, or in neither.
    most = draw(st.integers(0, CLASSES - 1))
    return rng.integers(-1, most + 1, (2, *shape)).astype(
        draw(st.sampled_from([np.int16, np.int32]))
    )


@settings(deadline=None, max_examples=50)
@given(pair=maps())
def test_the_matrix_and_every_measure_agree_with_scikit_learn(pair):
    reference, predicted = pair
    counted = (reference >= 0) & (predicted >= 0)
    accuracy = Accuracy(confusion_matrix(reference, predicted, CLASSES))
    truth, guess = reference[counted], predicted[counted]
    assert accuracy.pixels == len(truth)
    if not len(truth):
        assert np.isnan(accuracy.overall)
        assert np.isnan(accuracy.mean_iou)
        return
    labels = range(CLASSES)
    assert_array_equal(accuracy.matrix, metrics.confusion_matrix(truth, guess, labels=labels))
    assert accuracy.overall == pytest.approx(metrics.accuracy_score(truth, guess))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, guess, labels=labels, zero_division=np.nan
    )
    assert_allclose(accuracy.precision, precision)
    assert_allclose(accuracy.recall, recall)
    occurring = np.union1d(truth, guess)
    assert_allclose(accuracy.f1[occurring], f1[occurring])
    iou = metrics.jaccard_score(truth, guess, labels=occurring, average=None, zero_division=0)
    assert_allclose(accuracy.iou[occurring], iou)
    # As scikit-learn does where it is given the labels of the truth.
    mean = metrics.jaccard_score(truth, guess, labels=np.unique(truth), average="macro")
    assert accuracy.mean_iou == pytest.approx(mean)
    assert_array_equal(np.flatnonzero(accuracy.in_reference), np.unique(truth))
    assert np.isnan(np.delete(accuracy.iou, occurring)).all()


@given(pair=maps(), cut=st.integers(0, 13))
def test_matrices_of_parts_add_up_to_that_of_the_whole(pair, cut):
    reference, predicted = pair
    parts = confusion_matrix(reference[:cut], predicted[:cut], CLASSES) + confusion_matrix(
        reference[cut:], predicted[cut:], CLASSES
    )
    assert_array_equal(parts, confusion_matrix(reference, predicted, CLASSES))


@given(pair=maps())
def test_swapping_map_and_reference_swaps_precision_and_recall(pair):
    one = Accuracy(confusion_matrix(*pair, CLASSES))
    other = Accuracy(confusion_matrix(*pair[::-1], CLASSES))
    assert_array_equal(one.precision, other.recall)
    assert_array_equal(one.iou, other.iou)


def test_many_classes_do_not_overflow_the_type_of_the_labels():
    channels = np.arange(300, dtype=np.int16)
    matrix = confusion_matrix(channels, channels[::-1], 300)
    assert_array_equal(matrix, np.eye(300, dtype=np.int64)[::-1])
    assert matrix.dtype == np.int64


def test_rows_are_the_reference():
    matrix = confusion_matrix(np.array([0, 0, 0, -1]), np.array([1, 1, 0, 1]), 2)
    assert_array_equal(matrix, [[1, 2], [0, 0]])


def test_other_shapes_and_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="reference is"):
        confusion_matrix(np.zeros((2, 3), np.int16), np.zeros((3, 2), np.int16), 2)
    with pytest.raises(ValueError, match="not below 2"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)


def test_the_json_holds_no_nan_and_the_table_has_a_line_a_class():
    legend = Legend.of_names({0: "background", 1: "concrete", 7: "Straße & Gleis <1>"})
    accuracy = Accuracy(np.array([[1200, 34, 0], [5, 678, 0], [0, 0, 0]], np.int64))
    values = json.loads(json.dumps(accuracy.to_json(), allow_nan=False))
    assert values["iou"][2] is None
    assert values["iou"][1] == pytest.approx(678 / (678 + 34 + 5))
    assert values["confusion_matrix"][0] == [1200, 34, 0]
    lines = accuracy.table(legend).splitlines()
    assert [line.split()[0] for line in lines] == [
        "class",
        "background",
        "concrete",
        "overall",
        "not",
    ]
    assert len({len(line) for line in lines[:-2]}) == 1
    assert lines[2].split() == ["concrete", "0.952", "0.993", "0.972", "0.946", "683"]
    assert lines[-2] == "overall accuracy 0.980, mean IoU 0.957 of these 2 classes"
    assert lines[-1] == "not in the labels: Straße & Gleis <1> (0 px in the map)"
    whole = Accuracy(np.array([[1200, 34], [5, 678]], np.int64)).table(
        Legend.of_names({0: "a", 1: "b"})
    )
    assert whole.splitlines()[-1] == "overall accuracy 0.980, mean IoU 0.957"


def test_stray_pixels_of_a_class_that_the_labels_lack_move_no_mean():
    clean = Accuracy(np.array([[1000, 90, 0], [80, 900, 0], [0, 0, 0]], np.int64))
    stray = Accuracy(np.array([[997, 90, 3], [80, 898, 2], [0, 0, 0]], np.int64))
    assert stray.mean_iou == pytest.approx(clean.mean_iou, abs=0.003)
    assert stray.iou[2] == 0
    legend = Legend.of_names({1: "a", 2: "b", 3: "rock"})
    assert stray.not_in_reference(legend) == {"rock": 5}
    assert "rock (5 px in the map)" in stray.table(legend)
