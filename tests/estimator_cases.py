"""What the tests of mlpkernels.sklearn share: small data sets, both libraries' estimators, and their comparison."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.7", reason="scikit-learn 1.7 or newer is not installed")

import sklearn.neural_network as theirs
from sklearn.datasets import load_diabetes, load_digits, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

import mlpkernels.sklearn as ours

_BLAS = ThreadpoolController()
ROWS = 230  # not a multiple of any batch size used: the last mini-batch is smaller


def one_thread():
    """A context in which BLAS takes one thread: two wait for each other where other programs run."""
    return _BLAS.limit(limits=1, user_api="blas")


def digits(rows=ROWS):
    """Images of digits scaled to [0, 1], ten classes."""
    x, y = load_digits(return_X_y=True)
    return x[:rows] / 16, y[:rows]


def problem(name):
    """x, y, the class's name and the settings of a kind of problem."""
    x, y = digits()
    diabetes, progression = load_diabetes(return_X_y=True)
    diabetes, progression = diabetes[:ROWS] * 20, progression[:ROWS] / 100
    if name == "classes":
        return x, y, "MLPClassifier", {}
    if name == "two classes":
        return x, np.where(y % 2 == 0, -1, 7), "MLPClassifier", {}
    if name == "labels":
        return *make_multilabel_classification(ROWS, random_state=0), "MLPClassifier", {}
    if name == "number":
        return diabetes, progression, "MLPRegressor", {}
    if name == "numbers":
        return diabetes, np.column_stack([progression, -2 * progression, progression**2]), "MLPRegressor", {}
    return diabetes, np.floor(2 * progression), "MLPRegressor", {"loss": "poisson"}


PROBLEMS = ["classes", "two classes", "labels", "number", "numbers", "counts"]


def pair(name, **settings):
    """scikit-learn's estimator and ours, not fitted, with x and y."""
    x, y, kind, more = problem(name)
    settings = {"hidden_layer_sizes": (19, 7), "random_state": 3, "max_iter": 5, "batch_size": 50, **more, **settings}
    return getattr(theirs, kind)(**settings), getattr(ours, kind)(**settings), x, y


def quietly(function, *arguments, **options):
    """Its result, without the warning that max_iter was reached; scikit-learn's products on one thread."""
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*arguments, **options)


def fitted(name, sample_weight=None, **settings):
    """Both estimators, fitted, with x and y."""
    theirs_, ours_, x, y = pair(name, **settings)
    for estimator in (theirs_, ours_):
        quietly(estimator.fit, x, y, sample_weight)
    return theirs_, ours_, x, y


def assert_same(one, other, tolerance=1e-10):
    """The coefficients to 1e-10, and all that is told of the fit."""
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.loss_ == pytest.approx(other.loss_, rel=1e-9)
    if one.solver == "lbfgs":
        return
    np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=1e-9)
    for name in ("best_loss_", "best_validation_score_"):
        a, b = getattr(one, name), getattr(other, name)
        assert a is b if b is None else a == pytest.approx(b, rel=1e-9), name
    scores = one.validation_scores_
    assert (scores is None) == (other.validation_scores_ is None)
    if scores is not None:
        np.testing.assert_allclose(scores, other.validation_scores_, rtol=1e-9)


def assert_predicts_same(one, other, x, tolerance=1e-9):
    """Predictions, probabilities and scores' inputs."""
    a, b = one.predict(x), other.predict(x)
    assert a.shape == b.shape and a.dtype == b.dtype
    if a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=tolerance)
    else:
        np.testing.assert_array_equal(a, b)
    if hasattr(one, "predict_proba"):
        np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=tolerance)
        np.testing.assert_allclose(one.predict_log_proba(x), other.predict_log_proba(x), rtol=1e-6, atol=tolerance)
