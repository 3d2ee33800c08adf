"""scikit-learn's optimiser objects, which an estimator keeps between calls, as the kernels' state and back."""

from typing import Any

import numpy as np
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from ..kernels import plan as plans
from ..kernels.plan import OptimizerState
from .flat import Flat

_LEAST = 1e-25  # of learning_rate_init: a smaller rate moves nothing, and cannot divide a velocity


def make(estimator: Any) -> Any:
    """A new optimiser object as scikit-learn would make it."""
    params = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "sgd":
        return SGDOptimizer(
            params, estimator.learning_rate_init, estimator.learning_rate, estimator.momentum,
            estimator.nesterovs_momentum, estimator.power_t,
        )  # fmt: skip
    return AdamOptimizer(
        params, estimator.learning_rate_init, estimator.beta_1, estimator.beta_2, estimator.epsilon
    )  # fmt: skip


class Memory:
    """An optimiser object's settings and memory as kernels take them, for the length of one fit.

    scikit-learn's velocity v holds the learning rate r, the kernels' u does not: v = -r · u. So u is scaled anew
    whenever r changes.
    """

    def __init__(self, flat: Flat, optimizer: Any, alpha: float, weighted: bool, seed: int) -> None:
        self.flat, self.optimizer = flat, optimizer
        self.adam = isinstance(optimizer, AdamOptimizer)
        settings = np.zeros(plans.SETTINGS)
        settings[plans.WEIGHT_DECAY] = alpha
        settings[plans.PENALTY] = 1
        settings[plans.WEIGHT_SUM] = weighted
        settings[plans.SEED] = seed
        first, second = (plans.zeros(flat.model.params.size, flat.dtype) for _ in range(2))
        if self.adam:
            settings[plans.RULE] = plans.ADAM
            settings[plans.BETA1], settings[plans.BETA2] = optimizer.beta_1, optimizer.beta_2
            settings[plans.EPSILON], settings[plans.EPSILON_HAT] = optimizer.epsilon, 1
            self._read(optimizer.ms, first)
            self._read(optimizer.vs, second)
            steps = optimizer.t
        else:
            settings[plans.RULE] = plans.SGD
            settings[plans.MOMENTUM] = optimizer.momentum
            settings[plans.NESTEROV] = optimizer.nesterov and optimizer.momentum > 0
            self._read(optimizer.velocities, first)
            first /= -self.rate
            steps = getattr(optimizer, "t", 0)  # dropout's masks count on
        self.state = OptimizerState(settings, np.array([steps], np.int64), first, second)

    @property
    def rate(self) -> float:
        """The learning rate of the next steps, before Adam's bias corrections."""
        if self.adam:
            return float(self.optimizer.learning_rate_init)
        return max(float(self.optimizer.learning_rate), _LEAST * float(self.optimizer.learning_rate_init))

    def rate_changed(self, before: float) -> None:
        """Keep scikit-learn's velocity where the rate has become another than `before`."""
        if self.rate != before:
            self.state.first[...] *= before / self.rate

    def write(self) -> None:
        """Bring the optimiser object up to date, so that partial_fit, or scikit-learn, can go on with it."""
        optimizer, state = self.optimizer, self.state
        optimizer.t = int(state.step[0])
        if not self.adam:
            optimizer.velocities = [view * -self.rate for view in self._lists(state.first)]
            return
        optimizer.ms = [view.copy() for view in self._lists(state.first)]
        optimizer.vs = [view.copy() for view in self._lists(state.second)]
        if optimizer.t:
            optimizer.learning_rate = (
                optimizer.learning_rate_init
                * np.sqrt(1 - optimizer.beta_2**optimizer.t)
                / (1 - optimizer.beta_1**optimizer.t)
            )

    def _lists(self, values: np.ndarray) -> list[np.ndarray]:
        weights, biases = self.flat.views(values)
        return [*weights, *biases]

    def _read(self, arrays: list[np.ndarray], values: np.ndarray) -> None:
        for view, array in zip(self._lists(values), arrays, strict=True):
            view[...] = array
