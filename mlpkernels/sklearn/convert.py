"""Fitted scikit-learn estimators as networks and networks as estimators: the predictions stay."""

import copy
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer, MaxAbsScaler, MinMaxScaler, StandardScaler

from ..kernels import plan as plans
from ..layers import Dense, Dropout, Layer
from ..network import Network
from ..scaling import Scaling

_LOSSES = {"softmax": "cross-entropy", "logistic": "binary", "identity": "squared-error", "exp": "poisson"}
_PRECISE = (np.dtype(np.float32), np.dtype(np.float64))


def from_sklearn(fitted: Any) -> Network:
    """The network of a fitted MLPClassifier or MLPRegressor, scikit-learn's or ours, or of a pipeline that ends in one.

    A pipeline's steps before it may be StandardScaler, MinMaxScaler and MaxAbsScaler; they become the network's
    scaling. Predictions and probabilities are equal but for rounding; those of a regressor with one output are (N, 1).
    NotFittedError, TypeError or ValueError names what cannot be taken over.
    """
    steps = [step for _, step in fitted.steps] if isinstance(fitted, Pipeline) else [fitted]
    *scalers, mlp = steps
    if not isinstance(mlp, (neural_network.MLPClassifier, neural_network.MLPRegressor)):
        raise TypeError(f"from_sklearn: an MLPClassifier or MLPRegressor was wanted, not {type(mlp).__name__}")
    if not hasattr(mlp, "coefs_"):
        raise NotFittedError(f"from_sklearn: this {type(mlp).__name__} is not fitted: call fit first")
    coefs, intercepts = mlp.coefs_, mlp.intercepts_
    activation = None if mlp.activation == "identity" else mlp.activation
    layers: list[Layer] = [Dense(len(bias), activation) for bias in intercepts[:-1]]
    layers.append(Dense(len(intercepts[-1])))
    dtype = np.result_type(*coefs, *intercepts)
    network = Network(
        layers,
        len(coefs[0]),
        loss=_LOSSES[mlp.out_activation_],
        classes=_classes(mlp),
        dtype=dtype if dtype in _PRECISE else np.float64,
        scaling=_scaling(scalers, len(coefs[0])),
    )
    for number, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        plans.weight_view(network.plan, number, network.params)[...] = coef
        plans.bias_view(network.plan, number, network.params)[...] = intercept
    return network


def _classes(mlp: Any) -> list[int | str] | None:
    """A classifier's classes as a network has them: integers or strings."""
    if not hasattr(mlp, "classes_"):
        return None
    classes = mlp.classes_
    if mlp.out_activation_ == "logistic" and mlp.n_outputs_ == 1 and len(classes) != 2:
        raise ValueError(f"from_sklearn: the classifier knows {len(classes)} class, at least two were wanted")
    if classes.dtype.kind in "bf" and (classes == np.floor(classes)).all():
        classes = classes.astype(np.int64)
    return classes.tolist()


def _scaling(scalers: list[Any], width: int) -> Scaling | None:
    """One scaling, x * factor + offset, that does what some fitted scalers do one after the other."""
    scalers = [scaler for scaler in scalers if scaler is not None and not isinstance(scaler, str)]  # "passthrough"
    if not scalers:
        return None
    factor, offset = np.ones(width), np.zeros(width)
    for scaler in scalers:
        if isinstance(scaler, StandardScaler):
            by = 1 / scaler.scale_ if scaler.with_std else np.ones(width)
            plus = -scaler.mean_ * by if scaler.with_mean else np.zeros(width)
        elif isinstance(scaler, MinMaxScaler) and not scaler.clip:
            by, plus = scaler.scale_, scaler.min_
        elif isinstance(scaler, MaxAbsScaler) and not getattr(scaler, "clip", False):
            by, plus = 1 / scaler.scale_, np.zeros(width)
        else:
            raise ValueError(
                f"from_sklearn: the step {scaler!r} has no like in a network: StandardScaler, MinMaxScaler and "
                "MaxAbsScaler, without clip, do; give the fitted MLP alone and transform its inputs first"
            )
        factor, offset = factor * by, offset * by + plus
    return Scaling("standard", factor, offset)


def to_sklearn(network: Network) -> neural_network.MLPClassifier | neural_network.MLPRegressor:
    """A fitted scikit-learn MLPClassifier or MLPRegressor that predicts what the network does, but for rounding.

    The network is of Dense layers, whose activations are the same but for the last one's, and Dropout, which is left
    out. Its scaling becomes part of the first layer's weights; two classes of "cross-entropy" become scikit-learn's
    one output. ValueError names a layer that scikit-learn has nothing for.
    """
    if not isinstance(network, Network):
        raise TypeError(f"to_sklearn: a Network was wanted, not {type(network).__name__}")
    activation = _activation(network)
    numbers = np.flatnonzero(network.plan[:, plans.KIND] == plans.DENSE).tolist()
    coefs = [plans.weight_view(network.plan, number, network.params).copy() for number in numbers]
    intercepts = [plans.bias_view(network.plan, number, network.params).copy() for number in numbers]
    if network.scaling is not None:  # in float64: a mean far from zero takes digits away
        coefs, intercepts = ([array.astype(np.float64) for array in arrays] for arrays in (coefs, intercepts))
        factor, offset = (np.broadcast_to(n, network.inputs) for n in (network.scaling.factor, network.scaling.offset))
        intercepts[0] += offset @ coefs[0]
        coefs[0] *= factor[:, None]
    order = np.argsort(network.classes) if network.classes else np.arange(network.outputs)  # scikit-learn sorts classes
    if network.loss == "cross-entropy":
        coefs[-1], intercepts[-1] = coefs[-1][:, order], intercepts[-1][order]
    elif network.loss == "binary" and network.outputs == 1 and order[0] == 1:
        coefs[-1], intercepts[-1] = -coefs[-1], -intercepts[-1]
    if network.loss == "cross-entropy" and network.outputs == 2:  # softmax of two is the logistic of their difference
        coefs[-1], intercepts[-1] = np.diff(coefs[-1]), np.diff(intercepts[-1])
    hidden = tuple(len(intercept) for intercept in intercepts[:-1])
    if network.classes:
        result = neural_network.MLPClassifier(hidden, activation)
        result._label_binarizer = _binarizer(network)
        result.classes_ = result._label_binarizer.classes_
        many = network.loss == "cross-entropy" and network.outputs > 2
        result.out_activation_ = "softmax" if many else "logistic"
    else:
        loss = "poisson" if network.loss == "poisson" else "squared_error"
        result = neural_network.MLPRegressor(loss, hidden, activation)
        result.out_activation_ = "exp" if network.loss == "poisson" else "identity"
    result.coefs_, result.intercepts_ = coefs, intercepts
    result.n_features_in_, result.n_outputs_ = network.inputs, len(intercepts[-1])
    result.n_layers_, result.n_iter_, result.t_ = len(coefs) + 1, 0, 0
    result.loss_curve_, result.best_loss_, result._no_improvement_count = [], np.inf, 0  # for partial_fit
    result.validation_scores_ = result.best_validation_score_ = None
    return result


def _activation(network: Network) -> str:
    """The hidden layers' one activation, as scikit-learn calls it."""
    strange = [layer for layer in network.layers if not isinstance(layer, (Dense, Dropout))]
    if strange:
        raise ValueError(f"to_sklearn: {strange[0]!r} has no like in scikit-learn: Dense and Dropout do")
    names = {layer.activation for layer in network.layers[:-1] if isinstance(layer, Dense)}
    if len(names) > 1:
        shown = ", ".join(sorted(map(repr, names)))
        raise ValueError(f"to_sklearn: hidden layers of one activation were wanted, not of {shown}")
    return (names.pop() if names else "relu") or "identity"


def _binarizer(network: Network) -> LabelBinarizer:
    """What scikit-learn makes labels of a classifier's outputs with."""
    if network.loss == "binary" and network.outputs > 1:
        return LabelBinarizer().fit(np.eye(network.outputs, dtype=np.int64))
    return LabelBinarizer().fit(np.array(network.classes))


def plain(estimator: Any, kind: type) -> Any:
    """An estimator of scikit-learn's class `kind` with the parameters that it has, and what is fitted copied."""
    ours = estimator.get_params(deep=False)
    theirs = kind().get_params()
    result = clone(kind(**{name: value for name, value in ours.items() if name in theirs}))
    own = {*ours, "validation_loss_curve_", "_masks_seed", "_sklearn_version"}
    state = {name: value for name, value in estimator.__getstate__().items() if name not in own}
    result.__dict__.update(copy.deepcopy(state))
    return result
