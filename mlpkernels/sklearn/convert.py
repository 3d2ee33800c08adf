"""Fitted scikit-learn estimators as networks and back: the predictions stay."""

import copy
from typing import Any

from sklearn.base import clone


def plain(estimator: Any, kind: type) -> Any:
    """An estimator of scikit-learn's class `kind` with the parameters that it has, and what is fitted copied."""
    names = kind().get_params()
    parameters = {name: value for name, value in estimator.get_params(deep=False).items() if name in names}
    result = clone(kind(**parameters))
    own = {*estimator.get_params(deep=False), "validation_loss_curve_", "_masks_seed", "_sklearn_version"}
    state = {name: value for name, value in estimator.__getstate__().items() if name not in own}
    result.__dict__.update(copy.deepcopy(state))
    return result


def from_sklearn(fitted: Any) -> Any:
    raise NotImplementedError


def to_sklearn(network: Any) -> Any:
    raise NotImplementedError
