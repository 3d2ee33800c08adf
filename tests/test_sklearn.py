"""mlpkernels.sklearn against scikit-learn: with one random_state, the same coefficients to 1e-10 in float64."""

import numpy as np
import pytest
from estimator_cases import PROBLEMS, assert_predicts_same, assert_same, digits, fitted, ours, pair, quietly, theirs

from mlpkernels.sklearn import flat

ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]


@pytest.fixture(params=["cpu", "reference"])
def backend(request, monkeypatch):
    monkeypatch.setattr(flat, "BACKEND", request.param)
    return request.param


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_loss_and_solver(name, solver, backend):
    one, other, x, _ = fitted(name, solver=solver)
    assert_same(one, other)
    assert_predicts_same(one, other, x)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["classes", "numbers"])
def test_every_activation(name, activation, solver):
    one, other, x, _ = fitted(name, solver=solver, activation=activation)
    assert_same(one, other)
    assert_predicts_same(one, other, x)


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": False},
        {"alpha": 0},
        {"alpha": 10.0},
        {"batch_size": "auto"},
        {"batch_size": 1, "max_iter": 2},
        {"batch_size": 230},
        {"hidden_layer_sizes": 5},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (16, 32, 1, 3)},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"beta_1": 0.0, "beta_2": 0.0},
        {"solver": "sgd", "nesterovs_momentum": False},
        {"solver": "sgd", "momentum": 0},
        {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1, "nesterovs_momentum": False},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1, "max_iter": 12},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 9.0, "n_iter_no_change": 1, "max_iter": 80},
        {"tol": 0.1, "n_iter_no_change": 2, "max_iter": 100},
        {"early_stopping": True, "max_iter": 30, "n_iter_no_change": 3},
        {"early_stopping": True, "validation_fraction": 0.3, "solver": "sgd", "learning_rate": "adaptive"},
        {"solver": "lbfgs", "max_fun": 7},
        {"solver": "lbfgs", "alpha": 0, "tol": 1e-2, "max_iter": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["classes", "number", "numbers"])
def test_every_setting(name, settings):
    one, other, x, _ = fitted(name, **settings)
    assert_same(one, other)
    assert_predicts_same(one, other, x)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_sample_weight(name, solver, backend):
    weights = np.random.default_rng(0).uniform(0, 3, 230)
    weights[::5] = 0
    one, other, _, _ = fitted(name, weights, solver=solver, early_stopping=solver == "adam")
    assert_same(one, other)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit(name, solver):
    one, other, x, y = pair(name, solver=solver, learning_rate="invscaling")
    classes = {"classes": np.arange(y.shape[1]) if name == "labels" else np.unique(y)} if one.loss == "log_loss" else {}
    for first in range(0, 200, 40):  # the batch is clipped, with a warning
        for estimator in (one, other):
            with pytest.warns(UserWarning, match="Got `batch_size` less than 1 or larger than sample size"):
                estimator.partial_fit(x[first : first + 40], y[first : first + 40], **classes)
    assert_same(one, other)
    assert_same_optimizer(one, other)


def assert_same_optimizer(one, other):
    for name in ("velocities", "ms", "vs"):
        for a, b in zip(getattr(one._optimizer, name, []), getattr(other._optimizer, name, []), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    assert one._optimizer.learning_rate == pytest.approx(other._optimizer.learning_rate)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_start(solver, early_stopping):
    one, other, x, y = fitted("classes", solver=solver, warm_start=True, early_stopping=early_stopping)
    for _ in range(2):
        for estimator in (one, other):
            quietly(estimator.fit, x, y)
        assert_same(one, other)


def test_a_random_state_goes_on_between_fits():
    states = [np.random.RandomState(5) for _ in range(2)]
    x, y = digits()
    for _ in range(2):
        estimators = [
            quietly(kind(9, random_state=state, max_iter=3).fit, x, y)
            for kind, state in zip((theirs.MLPClassifier, ours.MLPClassifier), states, strict=True)
        ]
        assert_same(*estimators)
    assert states[0].randint(10**9) == states[1].randint(10**9)


@pytest.mark.parametrize("container", ["csr_matrix", "csc_matrix", "csr_array", "csc_array"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_rows(container, solver, backend, monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr("mlpkernels.sklearn.flat.SMALL", 0)
    monkeypatch.setattr("mlpkernels.sklearn.rows.chunk_rows", lambda width: 128)  # some steps at a time
    monkeypatch.setattr("mlpkernels.sklearn.flat.chunk_rows", lambda width: 128)
    one, other, x, y = pair("classes", solver=solver, early_stopping=True)
    rows = getattr(sparse, container)(np.where(x < 0.3, 0, x))
    for estimator in (one, other):
        quietly(estimator.fit, rows, y)
    assert_same(one, other)
    assert_predicts_same(one, other, rows)
    assert_predicts_same(one, other, rows.toarray())


def test_few_sparse_rows_are_made_dense():
    sparse = pytest.importorskip("scipy.sparse")
    one, other, x, y = pair("number")
    for estimator in (one, other):
        quietly(estimator.fit, sparse.csr_array(x), y)
    assert_same(one, other)


@pytest.mark.parametrize(
    "settings", [{"solver": "adam"}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"early_stopping": True}]
)
@pytest.mark.parametrize("name", ["classes", "two classes", "numbers", "counts"])
def test_matrices_that_are_hardly_filled(name, settings, monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr("mlpkernels.sklearn.flat.SMALL", 0)
    monkeypatch.setattr("mlpkernels.sklearn.flat._HARDLY", 1.0)
    one, other, x, y = pair(name, **settings)
    rows = sparse.csr_array(np.where(x < 0.3, 0, x))
    for estimator in (one, other):
        quietly(estimator.fit, rows, y)
    assert_same(one, other)
    assert_predicts_same(one, other, rows)
    assert_predicts_same(one, other, rows.toarray())
    if settings.get("solver") in ("adam", "sgd"):
        for estimator in (one, other):  # with dense rows, and sparse ones again
            estimator.partial_fit(rows.toarray(), y)
            estimator.partial_fit(rows, y)
        assert_same(one, other)
        assert_same_optimizer(one, other)


@pytest.mark.parametrize("density", [0.002, 0.1])
@pytest.mark.parametrize("settings", [{}, {"dropout": 0.1}, {"solver": "lbfgs"}], ids=str)
def test_large_sparse_matrices_are_never_made_dense_at_once(density, settings):
    sparse = pytest.importorskip("scipy.sparse")
    rows = sparse.random_array((4000, 3000), density=density, format="csr", rng=0)
    seen = [0]
    to_array = type(rows).toarray

    class Watched(type(rows)):
        def toarray(self, *arguments, **options):
            seen.append(self.shape[0])
            return to_array(self, *arguments, **options)

    estimator = ours.MLPClassifier(3, max_iter=1, random_state=0, **settings)
    quietly(estimator.fit, Watched(rows), np.arange(4000) % 2).predict(Watched(rows))
    assert max(seen) <= 1024  # a workspace's, one mini-batch, or some of few values
    assert (len(seen) > 4) == (density > 0.03 or "dropout" in settings)


@pytest.mark.parametrize("order", ["C", "F", "strided", "read-only"])
def test_layouts_of_memory(order):
    one, other, x, y = pair("classes")
    if order == "F":
        x = np.asfortranarray(x)
    elif order == "strided":
        x = np.repeat(x, 2, axis=1)[:, ::2]
    elif order == "read-only":
        x.setflags(write=False)
    for estimator in (one, other):
        quietly(estimator.fit, x, y)
    assert_same(one, other)
    assert_predicts_same(one, other, x)


def test_narrow_rows_are_gathered_in_parts(monkeypatch):
    monkeypatch.setattr("mlpkernels.sklearn.rows._CACHED", 0)
    monkeypatch.setattr("mlpkernels.sklearn.rows._GATHERED", 10 * 120)
    for solver in ("adam", "lbfgs"):
        one, other, _, _ = fitted("counts", solver=solver, early_stopping=True)
        assert_same(one, other)


@pytest.mark.parametrize("name", ["classes", "two classes", "labels"])
def test_lbfgs_clips_losses_as_scikit_learn_does(name, backend):
    """With a logit of 300 the wrong way the loss is 36, not 300: else a line search would go another way."""
    one, other, x, y = fitted(name, solver="lbfgs", max_iter=2)
    answers = one._label_binarizer.transform(y).astype(bool)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x))
    packed = np.concatenate([part.ravel() for part in one.coefs_ + one.intercepts_]) * 12
    lists = [x, None, None, None], [None] * 3, [None] * 3, [None] * 3
    (loss, gradient), (wanted, theirs_) = (
        estimator._loss_grad_lbfgs(packed, x, answers, weights, *map(list, lists)) for estimator in (other, one)
    )
    assert wanted > 10  # many are clipped
    assert loss == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(gradient, theirs_, rtol=1e-9, atol=1e-12)
