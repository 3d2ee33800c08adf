"""from_sklearn and to_sklearn: networks of estimators and estimators of networks, with equal predictions."""

import copy

import numpy as np
import pytest
from estimator_cases import PROBLEMS, assert_predicts_same, assert_same, fitted, ours, problem, quietly, theirs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, StandardScaler

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, Network, Scaling
from mlpkernels.sklearn import from_sklearn, to_sklearn

SEVERAL = StandardScaler(with_mean=False), MinMaxScaler((-1, 3)), "passthrough", MaxAbsScaler()
SCALERS = [(), (StandardScaler(),), SEVERAL]


def assert_network_predicts(estimator, network, x):
    """A network's predictions are an estimator's."""
    wanted, given = estimator.predict(x), network.predict(x)
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(given.reshape(wanted.shape), wanted, rtol=1e-9)
    else:
        np.testing.assert_array_equal(given, wanted)
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(network.predict_proba(x), estimator.predict_proba(x), atol=1e-12)


@pytest.mark.parametrize("scalers", SCALERS, ids=len)
@pytest.mark.parametrize("library", [theirs, ours])
@pytest.mark.parametrize("name", PROBLEMS)
def test_there_and_back(name, library, scalers):
    x, y, kind, more = problem(name)
    mlp = getattr(library, kind)(hidden_layer_sizes=(9, 5), activation="tanh", max_iter=3, random_state=0, **more)
    pipeline = quietly(make_pipeline(*map(copy.deepcopy, scalers), mlp).fit, x, y)
    network = from_sklearn(pipeline)
    assert network.dtype == np.float64 and (network.scaling is None) == (not scalers)
    assert_network_predicts(pipeline, network, x)
    back = to_sklearn(network)
    assert type(back) is getattr(theirs, kind) and back.hidden_layer_sizes == (9, 5)
    assert_network_predicts(back, network, x)
    quietly(back.partial_fit, x, y)  # and it can go on


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation(activation):
    one, _, x, _ = fitted("classes", activation=activation)
    network = from_sklearn(one)
    assert network.layers[0].activation == (None if activation == "identity" else activation)
    assert_network_predicts(one, network, x)
    assert to_sklearn(network).activation == activation


def test_float32_stays():
    x, y, _, _ = problem("classes")
    one = quietly(theirs.MLPClassifier(5, max_iter=2, random_state=0).fit, x.astype(np.float32), y)
    network = from_sklearn(one)
    assert network.dtype == np.float32
    assert to_sklearn(network).coefs_[0].dtype == np.float32


def test_classes_come_along():
    x, y, _, _ = problem("classes")
    names = np.array([f"digit {label}" for label in y])
    one = quietly(theirs.MLPClassifier(5, max_iter=2, random_state=0).fit, x, names)
    assert from_sklearn(one).classes == tuple(f"digit {label}" for label in range(10))
    np.testing.assert_array_equal(to_sklearn(from_sklearn(one)).predict(x), one.predict(x))
    one = quietly(theirs.MLPClassifier(5, max_iter=2, random_state=0).fit, x, y.astype(float))
    assert from_sklearn(one).classes == tuple(range(10))


@pytest.mark.parametrize("classes", [("b", "c", "a"), ("yes", "no")])
@pytest.mark.parametrize("loss", ["cross-entropy", "binary"])
def test_networks_of_ours_with_classes_in_any_order(classes, loss):
    if loss == "binary" and len(classes) > 2:
        pytest.skip("classes of yes or no are two")
    outputs = 1 if loss == "binary" else len(classes)
    layers = [Dense(6, "relu"), Dropout(0.5), Dense(4, "relu"), Dense(outputs)]
    scaling = Scaling("standard", np.linspace(1, 2, 5), np.linspace(-1, 1, 5))
    network = Network(layers, 5, loss=loss, classes=classes, dtype="float64", scaling=scaling, init="pytorch")
    x = np.random.default_rng(0).normal(size=(40, 5))
    back = to_sklearn(network)
    assert list(back.classes_) == sorted(classes)
    np.testing.assert_array_equal(back.predict(x), network.predict(x))
    order = np.argsort(classes)
    np.testing.assert_allclose(back.predict_proba(x), network.predict_proba(x)[:, order], atol=1e-12)


def test_one_scale_for_all_columns():
    layers, scaling = [Dense(4, "relu"), Dense(1)], Scaling("unit", 0.5, 0.1)
    network = Network(layers, 5, loss="squared-error", dtype="float64", scaling=scaling)
    x = np.random.default_rng(0).normal(size=(40, 5))
    np.testing.assert_allclose(to_sklearn(network).predict(x), network.predict(x).ravel(), rtol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_plain_estimator_of_ours(name, solver):
    _, other, x, _ = fitted(name, solver=solver, early_stopping=True, hidden_layer_sizes=(16, 4))
    plain = other.to_sklearn()
    assert type(plain) is type(other).__mro__[2]
    assert set(vars(plain)) == set(vars(fitted(name, solver=solver, early_stopping=True)[0]))
    assert_predicts_same(plain, other, x)
    plain.coefs_[0][...] = 0
    assert np.abs(other.coefs_[0]).min() >= 0 and np.any(other.coefs_[0])


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_plain_estimator_goes_on_where_ours_stood(solver):
    _, other, x, y = fitted("numbers", solver=solver)
    plain = other.to_sklearn()
    for estimator in (plain, other):  # with the optimiser's memory
        estimator.partial_fit(x, y)
    assert_same(plain, other)


def test_one_that_is_not_fitted_is_plain_too():
    plain = ours.MLPRegressor(hidden_layer_sizes=(3,), loss="poisson", dropout=0.5, threads=2).to_sklearn()
    assert type(plain) is theirs.MLPRegressor and plain.loss == "poisson" and not hasattr(plain, "coefs_")


def test_what_cannot_be_converted_is_named():
    x, y, _, _ = problem("classes")
    with pytest.raises(TypeError, match="an MLPClassifier or MLPRegressor was wanted, not LogisticRegression"):
        from_sklearn(LogisticRegression())
    with pytest.raises(NotFittedError, match="this MLPClassifier is not fitted: call fit first"):
        from_sklearn(theirs.MLPClassifier())
    mlp = theirs.MLPClassifier(3, max_iter=1)
    for step in (PolynomialFeatures(), MinMaxScaler(clip=True)):
        pipeline = quietly(make_pipeline(step, mlp).fit, x[:, :3], y)
        with pytest.raises(ValueError, match=f"the step {type(step).__name__}.* has no like in a network"):
            from_sklearn(pipeline)
    with pytest.raises(ValueError, match="the classifier knows 1 class, at least two were wanted"):
        from_sklearn(quietly(mlp.fit, x, np.zeros(len(x))))
    with pytest.raises(TypeError, match="a Network was wanted, not MLPClassifier"):
        to_sklearn(mlp)
    with pytest.raises(ValueError, match=r"hidden layers of one activation were wanted, not of 'relu', 'tanh'"):
        to_sklearn(Network([Dense(3, "relu"), Dense(3, "tanh"), Dense(2)], 4))
    with pytest.raises(ValueError, match="has no like in scikit-learn: Dense and Dropout do"):
        to_sklearn(Network([Dense(3), BatchNorm("relu"), Dense(2)], 4))
    with pytest.raises(ValueError, match=r"Conv2d.* has no like in scikit-learn"):
        to_sklearn(Network([Conv2d(2, 3), Dense(2)], (1, 5, 5)))
