"""Predictions of mlpkernels.sklearn: what needs no validation and what does, coefficients that users change."""

import copy

import numpy as np
import pytest
from estimator_cases import PROBLEMS, assert_predicts_same, fitted, ours, pair, quietly, theirs
from sklearn import config_context

from mlpkernels.sklearn import flat


@pytest.fixture(scope="module", params=PROBLEMS)
def both(request):
    """scikit-learn's estimator and ours, fitted alike, with x."""
    one, other, x, _ = fitted(request.param)
    return one, other, x


@pytest.mark.parametrize("rows", [1, 2, 32, 33, 230])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "float16", "bool"])
def test_any_rows_of_any_type(both, rows, dtype):
    one, other, x = both
    assert_predicts_same(one, other, (x * 3).astype(dtype)[:rows], 1e-9 if dtype != "float16" else 1e-3)


def test_any_container(both):
    one, other, x = both
    for rows in (x[:7].tolist(), np.asfortranarray(x), x[::2], x[:, ::-1], np.ma.array(x[:3]), memoryview(x[:3])):
        assert_predicts_same(one, other, rows)


def test_few_and_many_rows_give_the_same_bits(both):
    _, other, x = both
    whole = other._outputs(x, False)[1]
    alone = [other._at_once(row[None]) for row in x]
    assert all(found is not None for found in alone)
    np.testing.assert_array_equal(np.concatenate([logits for _, logits in alone]), whole)
    np.testing.assert_array_equal(other._at_once(x)[1], whole)


def test_what_needs_no_validation_is_not_validated(both, monkeypatch):
    _, other, x = both
    wanted = other.predict(x.tolist())

    def refuse(*arguments, **options):
        raise AssertionError("validated")

    monkeypatch.setattr("mlpkernels.sklearn.compiled.validate_data", refuse)
    np.testing.assert_array_equal(other.predict(x), wanted)
    for rows in (x[:1].tolist(), np.asfortranarray(x), x.astype(np.float32), x[:, :-1], x[0], x[:0], x[:1] + np.inf):
        with pytest.raises(AssertionError, match="validated"):
            other.predict(rows)


@pytest.mark.parametrize("name", ["two classes", "number"])
def test_large_finite_values_are_not_refused(name):
    """The sum of their squares is infinite: only the validator can tell that they are fine."""
    one, other, x, _ = fitted(name)
    for rows in (1, 50):
        a, b = (estimator._predict(x[:rows] * 1e200) for estimator in (one, other))
        np.testing.assert_array_equal(a, b) if name == "two classes" else np.testing.assert_allclose(a, b, rtol=1e-9)
        np.testing.assert_array_equal(other.predict(x[:rows] * 1e200), b)


def test_values_that_are_not_finite_are_refused_unless_finite_is_assumed(both):
    _, other, x = both
    rows = x[:3].copy()
    rows[1, 2] = np.nan
    for many in (1, 40):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            other.predict(np.tile(rows, (many, 1)))
    with config_context(assume_finite=True):
        assert len(other.predict(rows)) == 3


@pytest.mark.parametrize("how", ["in place", "one array", "the list", "activation", "pickled state"])
def test_predictions_follow_the_coefficients(how):
    one, other, x, _ = fitted("classes")
    one, other = copy.deepcopy(one), copy.deepcopy(other)
    before = other.predict_proba(x)
    for estimator in (one, other):
        if how == "in place":
            estimator.coefs_[0][:, 3] *= -5
        elif how == "one array":
            estimator.coefs_[1] = estimator.coefs_[1][::-1].copy()
        elif how == "the list":
            estimator.coefs_ = [np.abs(coef) for coef in estimator.coefs_]
        elif how == "activation":
            estimator.set_params(activation="tanh")
        else:
            state = estimator.__getstate__()
            state["intercepts_"] = [intercept + 1 for intercept in state["intercepts_"]]
            estimator.__setstate__(state)
    assert_predicts_same(one, other, x)
    assert_predicts_same(one, other, x[:1].copy())
    if how != "pickled state":
        assert np.abs(before - other.predict_proba(x)).max() > 1e-3
    for estimator in (one, other):
        estimator.partial_fit(*pair("classes")[2:])
    assert_predicts_same(one, other, x)


def test_coefficients_of_another_shape_are_used():
    one, other, x, _ = fitted("number")
    for estimator in (one, other):
        estimator.coefs_ = [np.ones((10, 3)), np.arange(3.0).reshape(3, 1)]
        estimator.intercepts_ = [np.zeros(3), np.ones(1)]
        estimator.n_layers_ = 3
    assert_predicts_same(one, other, x)


def test_predicting_changes_nothing(both):
    _, other, x = both
    names = list(vars(other))
    arrays = [array.copy() for array in other.coefs_ + other.intercepts_]
    other.predict(x[:1].copy())
    other.predict(x)
    assert list(vars(other)) == names
    for before, after in zip(arrays, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_prediction_is_the_callers(both):
    _, other, x = both
    first = other._forward_pass_fast(x[:1])
    kept = first.copy()
    other._forward_pass_fast(x[1:2])
    np.testing.assert_array_equal(first, kept)


def test_one_class_alone():
    x = np.random.default_rng(0).normal(size=(20, 3))
    for y in (np.zeros(20, int), np.full(20, "only")):
        one, other = (quietly(kind(4, max_iter=2, random_state=0).fit, x, y) for kind in kinds())
        np.testing.assert_array_equal(one.predict(x), other.predict(x))
        np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=1e-12)


def kinds():
    return theirs.MLPClassifier, ours.MLPClassifier


@pytest.mark.parametrize("labels", [np.array([-1, 1]), np.array([2.0, -1.0, 7.0]), np.array([False, True])])
def test_labels_of_any_type_come_back(labels):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)), labels[random.integers(len(labels), size=60)]
    one, other = (quietly(kind(4, max_iter=2, random_state=0).fit, x, y) for kind in kinds())
    assert one.predict(x).dtype == other.predict(x).dtype
    np.testing.assert_array_equal(one.predict(x), other.predict(x))


def test_the_reference_backend_predicts_too(both, monkeypatch):
    one, other, x = both
    monkeypatch.setattr(flat, "BACKEND", "reference")
    assert_predicts_same(one, other, x)
