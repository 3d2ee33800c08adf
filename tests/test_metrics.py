"""Metrics against hand-worked numbers and, where it is installed, scikit-learn."""

import math

import numpy as np
import pytest

from mlpkernels import metrics

TRUTH = np.array([0, 0, 0, 1, 1, 2])
GUESS = np.array([0, 0, 1, 1, 2, 1])  # class 2 is never found, class 0 never wrongly said


def test_accuracy_of_indices_and_of_names():
    assert metrics.accuracy(TRUTH, GUESS) == 0.5
    assert metrics.accuracy(["cat", "dog"], ["cat", "cat"]) == 0.5
    assert metrics.accuracy([7], np.array([7], np.uint8)) == 1.0


def test_names_may_be_objects():
    names = np.array(["a", "b", "b"])
    for kind in (object, np.dtypes.StringDType()):
        assert metrics.accuracy(names.astype(kind), np.array(["a", "b", "a"])) == pytest.approx(2 / 3)
        assert metrics.accuracy(names, names.astype(kind)) == 1
    assert metrics.accuracy(np.array([1, 2], object), np.array([1, 3])) == 0.5


def test_log_loss_by_hand():
    proba = [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]
    assert metrics.log_loss([0, 1, 0], proba) == pytest.approx((math.log(2) + math.log(4 / 3)) / 3, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_of_a_certain_mistake_is_finite(dtype):
    loss = metrics.log_loss([1], np.array([[1, 0]], dtype))
    assert loss == pytest.approx(-math.log(np.finfo(dtype).eps))
    assert str(metrics.log_loss([1], np.array([[0, 1]]))) == "0.0"  # not -0.0


def test_confusion_matrix_by_hand():
    confusion = metrics.confusion_matrix(TRUTH, GUESS, 4)
    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(confusion, [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_confusion_matrix_of_small_integer_labels_does_not_overflow():
    labels = np.arange(256).astype(np.uint8)
    np.testing.assert_array_equal(metrics.confusion_matrix(labels, labels, 256), np.eye(256, dtype=int))


def test_class_report_by_hand():
    report = metrics.class_report(metrics.confusion_matrix(TRUTH, GUESS, 4))
    np.testing.assert_allclose(report.precision, [1, 1 / 3, 0, 0])
    np.testing.assert_allclose(report.recall, [2 / 3, 1 / 2, 0, 0])
    np.testing.assert_allclose(report.f1, [0.8, 0.4, 0, 0])
    np.testing.assert_array_equal(report.support, [3, 2, 1, 0])


@pytest.mark.parametrize("classes", [2, 7, 150])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_scikit_learn(classes, dtype):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    truth = rng.integers(classes, size=400)
    proba = rng.dirichlet(np.full(classes, 0.3), size=400).astype(dtype)
    guess = proba.argmax(axis=1)
    labels = np.arange(classes)
    assert metrics.accuracy(truth, guess) == sklearn.accuracy_score(truth, guess)
    confusion = metrics.confusion_matrix(truth, guess, classes)
    np.testing.assert_array_equal(confusion, sklearn.confusion_matrix(truth, guess, labels=labels))
    expected = sklearn.precision_recall_fscore_support(truth, guess, labels=labels, zero_division=0)
    for ours, theirs in zip(metrics.class_report(confusion), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    expected_loss = sklearn.log_loss(truth, proba, labels=labels)
    assert metrics.log_loss(truth, proba) == pytest.approx(expected_loss, rel=1e-6)


def test_inputs_are_not_modified():
    proba = np.array([[0.0, 1.0]])
    for array in (proba, TRUTH, GUESS):
        array.flags.writeable = False
    try:
        metrics.log_loss([0], proba)
        metrics.class_report(metrics.confusion_matrix(TRUTH, GUESS, 3))
    finally:
        TRUTH.flags.writeable = GUESS.flags.writeable = True


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: metrics.accuracy([], []), ValueError, "y: no rows"),
        (lambda: metrics.accuracy([1, 2], [1]), ValueError, "y has 2 rows and predicted has 1"),
        (lambda: metrics.accuracy([[1]], [1]), ValueError, r"y: shape \(1, 1\)"),
        (lambda: metrics.accuracy(["1"], [1]), TypeError, "class names with class names"),
        (lambda: metrics.accuracy([b"a"], ["a"]), TypeError, "y holds .S1 and predicted holds <U1"),
        (lambda: metrics.log_loss([0], [0.5, 0.5]), ValueError, r"proba: shape \(2,\)"),
        (lambda: metrics.log_loss([], np.zeros((0, 2))), ValueError, "y: no rows"),
        (lambda: metrics.log_loss([0, 1], [[1.0, 0.0]]), ValueError, "y has 2 rows and proba has 1"),
        (lambda: metrics.log_loss([2], [[1.0, 0.0]]), ValueError, r"2 in row 1 .* 0 \.\.\. 1 for 2 classes"),
        (lambda: metrics.log_loss([-1], [[1.0, 0.0]]), ValueError, "-1 in row 1"),
        (lambda: metrics.log_loss([0.0], [[1.0, 0.0]]), TypeError, "y: dtype float64"),
        (lambda: metrics.log_loss([0, 0], [[1.0, 0.0], [2.0, 1.0]]), ValueError, "row 2 .* summing to 3"),
        (lambda: metrics.log_loss([0], [[1.5, -0.5]]), ValueError, "row 1 is .1.5, -0.5."),
        (lambda: metrics.log_loss([0], [[np.nan] * 5]), ValueError, "row 1 is .nan, nan, nan, nan, ..."),
        (lambda: metrics.log_loss([0], [[np.inf, -np.inf]]), ValueError, "row 1 is .inf, -inf."),
        (lambda: metrics.log_loss([0], [["a"]]), TypeError, "proba: dtype <U1"),
        (lambda: metrics.confusion_matrix([0], [3], 3), ValueError, "predicted: 3 in row 1"),
        (lambda: metrics.confusion_matrix([0, 1], [0], 3), ValueError, "y has 2 rows"),
        (lambda: metrics.confusion_matrix([0], [0], 0), ValueError, "classes_count: 0"),
        (lambda: metrics.confusion_matrix(["a"], ["a"], 2), TypeError, "y: dtype <U1"),
        (lambda: metrics.class_report(np.zeros((2, 3), int)), ValueError, r"shape \(2, 3\)"),
        (lambda: metrics.class_report(np.zeros((0, 0), int)), ValueError, r"shape \(0, 0\)"),
        (lambda: metrics.class_report([[-1]]), ValueError, "holds -1"),
        (lambda: metrics.class_report([[0.5]]), TypeError, "dtype float64"),
    ],
)
def test_wrong_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
