"""What mlpkernels.sklearn has beyond scikit-learn: class weights, dropout, threads, a callback, a validation loss."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from estimator_cases import PROBLEMS, assert_same, digits, fitted, ours, pair, quietly
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import compute_sample_weight

from mlpkernels.sklearn import flat

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("name", ["classes", "two classes", "labels"])
@pytest.mark.parametrize("given", ["balanced", "each"])
def test_class_weight_is_a_sample_weight(name, given, solver):
    _, one, x, y = pair(name, solver=solver)
    weight = "balanced"
    if given == "each":
        weight = {label: 1 + 2 * number for number, label in enumerate(np.unique(y))}
        weight = [weight] * y.shape[1] if name == "labels" else weight
    sample = np.random.default_rng(0).uniform(0.5, 2, len(y))
    other = type(one)(**{**one.get_params(), "class_weight": weight})
    one.fit(x, y, sample * compute_sample_weight(weight, y))
    other.fit(x, y, sample)
    assert_same(one, other, 1e-12)


def test_class_weight_moves_predictions():
    x, y = digits()
    y = (y == 3).astype(int)
    probabilities = [
        ours.MLPClassifier(9, random_state=0, class_weight=weight).fit(x, y).predict_proba(x)[:, 1].mean()
        for weight in ({0: 20}, None, {1: 20})
    ]
    assert probabilities == sorted(probabilities) and probabilities[2] > 1.05 * probabilities[0]


def test_class_weight_in_partial_fit():
    x, y = digits()
    with pytest.raises(ValueError, match="class_weight 'balanced' is not supported for partial_fit"):
        ours.MLPClassifier(class_weight="balanced").partial_fit(x, y, classes=np.arange(10))
    ours.MLPClassifier(class_weight={3: 2.0}).partial_fit(x, y, classes=np.arange(10))
    with pytest.raises(ValueError, match="The 'class_weight' parameter of MLPClassifier must be"):
        ours.MLPClassifier(class_weight="even").fit(x, y)


def test_labels_that_are_strings_stop_early():
    """scikit-learn fails on them before 1.9."""
    x, y = digits()
    names = np.array(["even", "odd"])[y % 2]
    one, other = (
        ours.MLPClassifier(9, random_state=0, early_stopping=True).fit(x, labels) for labels in (y % 2, names)
    )
    assert_same(one, other, 0)
    np.testing.assert_array_equal(other.predict(x), np.array(["even", "odd"])[one.predict(x)])


@pytest.mark.parametrize("dropout", [0.3, (0.5, 0.1)])
def test_dropout(dropout, monkeypatch):
    results = {}
    for backend in ("cpu", "reference"):
        monkeypatch.setattr(flat, "BACKEND", backend)
        results[backend] = fitted_with(dropout=dropout)
    assert_same(results["cpu"], results["reference"])  # the masks are the same
    assert_same(results["reference"], fitted_with(dropout=dropout), 0)  # and of random_state
    without, other_seed = fitted_with(dropout=0), fitted_with(dropout=dropout, random_state=4)
    assert abs(without.loss_ - results["cpu"].loss_) > 1e-3
    assert abs(other_seed.loss_ - results["cpu"].loss_) > 1e-6
    x, _ = digits()
    np.testing.assert_array_equal(results["cpu"].predict_proba(x), results["cpu"].predict_proba(x))


def fitted_with(**settings):
    x, y = digits()
    return ours.MLPClassifier(**{"hidden_layer_sizes": (19, 7), "max_iter": 4, "random_state": 3, **settings}).fit(x, y)


def test_dropout_zero_draws_nothing():
    assert_same(fitted("classes")[0], fitted_with(batch_size=50, max_iter=5, dropout=(0, 0.0)))


def test_dropout_goes_on_in_partial_fit():
    """Masks of the second call are not those of the first."""
    x, y = digits(50)
    twice = ours.MLPClassifier(9, solver="sgd", momentum=0, learning_rate_init=1e-9, dropout=0.5, random_state=0)
    losses = [twice.partial_fit(x, y, classes=np.arange(10)).loss_ for _ in range(3)]
    assert len({round(loss, 5) for loss in losses}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier must be a float in the range"),
        ({"dropout": (0.1,)}, r"dropout=\(0.1,\): 2 probabilities from 0 to below 1 were wanted"),
        ({"dropout": (0.1, 1.5)}, r"dropout=\(0.1, 1.5\): 2 probabilities"),
        ({"dropout": 0.1, "solver": "lbfgs"}, "dropout needs solver='adam' or 'sgd'"),
        ({"threads": 0}, "The 'threads' parameter of MLPClassifier must be an int in the range"),
        ({"threads": 1.5}, "The 'threads' parameter"),
        ({"callback": 3}, "The 'callback' parameter of MLPClassifier must be a callable or None"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        fitted_with(**settings)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_threads_change_no_bit(solver):
    one, *others = (fitted_with(threads=threads, solver=solver) for threads in (None, 1, 2, 5))
    for other in others:
        assert_same(one, other, 0)
        np.testing.assert_array_equal(one.predict_proba(digits()[0]), other.predict_proba(digits()[0]))


def test_the_callback_sees_each_epoch_and_may_end_the_fit():
    seen = []

    def callback(estimator):
        seen.append((estimator.n_iter_, estimator.loss_curve_[-1], estimator.predict(digits()[0])))
        return len(seen) == 3

    other = fitted_with(callback=callback, max_iter=50)
    assert [n for n, _, _ in seen] == [1, 2, 3] and other.n_iter_ == 3
    assert [loss for _, loss, _ in seen] == other.loss_curve_
    np.testing.assert_array_equal(seen[-1][2], other.predict(digits()[0]))
    assert_same(fitted_with(max_iter=3), other, 0)


@pytest.mark.parametrize("name", ["classes", "number"])
def test_the_callback_sees_each_iteration_of_lbfgs(name):
    """With the same results as without it, and as scikit-learn's after as many iterations."""
    seen = []

    def callback(estimator):
        seen.append((estimator.n_iter_, estimator.loss_, [coef.copy() for coef in estimator.coefs_]))

    one, other, x, y = pair(name, solver="lbfgs", max_iter=5)
    quietly(one.fit, x, y)
    other.set_params(callback=callback)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge after 5 iteration"):
        other.fit(x, y)
    assert_same(one, other)
    assert [n for n, _, _ in seen] == [1, 2, 3, 4, 5] and seen[-1][1] == other.loss_
    for iterations in (1, 3):
        quietly(one.set_params(max_iter=iterations).fit, x, y)
        assert seen[iterations - 1][1] == pytest.approx(one.loss_, rel=1e-9)
        for a, b in zip(one.coefs_, seen[iterations - 1][2], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_the_callback_may_end_lbfgs():
    x, _ = digits()
    seen = []

    def callback(estimator):
        seen.append(estimator.predict(x[:40]))
        return estimator.n_iter_ == 2

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        other = fitted_with(solver="lbfgs", callback=callback, max_iter=50)
    assert len(seen) == other.n_iter_ == 2
    assert_same(quietly(fitted_with, solver="lbfgs", max_iter=2), other, 0)
    np.testing.assert_array_equal(seen[-1], other.predict(x[:40]))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_callback_of_large_rows_that_are_hardly_filled(solver, monkeypatch):
    x, y = digits()
    monkeypatch.setattr(flat, "SMALL", 10)
    monkeypatch.setattr(flat, "_HARDLY", 1.1)
    seen = []
    fit = ours.MLPClassifier(9, solver=solver, max_iter=3, callback=lambda model: seen.append(model.loss_)).fit
    fit(scipy.sparse.csr_array(x), y)
    assert len(seen) == 3


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_that_ends_the_fit_warns_of_nothing(solver):
    x, y = digits()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        ours.MLPClassifier(9, solver=solver, max_iter=3, callback=lambda model: model.n_iter_ == 3).fit(x, y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_error_of_the_callback_comes_through(solver):
    def callback(estimator):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fitted_with(solver=solver, callback=callback)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_validation_loss_is_that_of_the_rows_held_out(name, weighted, monkeypatch):
    held_out = []

    def split(*arrays, **options):
        parts = train_test_split(*arrays, **options)
        held_out.extend(parts[1::2])
        return parts

    monkeypatch.setattr("mlpkernels.sklearn.compiled.train_test_split", split)
    _, other, x, y = pair(name, early_stopping=True, max_iter=1)
    other.fit(x, y, np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None)
    x, y, *weights = held_out
    p, y = other._forward_pass_fast(x), y.reshape(len(y), -1)
    if other.out_activation_ == "softmax":
        losses = -np.log(p[y])
    elif other.out_activation_ == "logistic":
        losses = -np.log(np.where(y, p, 1 - p)).sum(axis=1)
    elif other.out_activation_ == "exp":
        losses = (p - y + np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / p), 0)).sum(axis=1)
    else:
        losses = ((p - y) ** 2).mean(axis=1) / 2
    wanted = np.average(losses, weights=weights[0] if weighted else None)
    assert other.validation_loss_curve_ == [pytest.approx(wanted, rel=1e-9)]


def test_the_validation_loss_curve_is_none_without_early_stopping():
    assert fitted_with().validation_loss_curve_ is None
    other = fitted_with(early_stopping=True, warm_start=True)
    assert len(other.validation_loss_curve_) == 4
    assert len(quietly(other.fit, *digits()).validation_loss_curve_) == 8


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", ["classes", "two classes", "number"])
def test_float32_is_kept(name, solver):
    one, other, x, y = pair(name, solver=solver, max_iter=3)
    for estimator in (one, other):
        estimator.fit(x.astype(np.float32), y.astype(np.float32) if name == "number" else y)
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    given = other.predict(x.astype(np.float32)) if name == "number" else other.predict_proba(x.astype(np.float32))
    assert given.dtype == np.float32
