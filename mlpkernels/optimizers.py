"""The optimisers SGD, Adam and AdamW: their settings, checked, and the memory each needs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import plan
from .kernels.plan import OptimizerState


def _check(owner: object, name: str, wanted: str, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a setting that is no finite number in [low, high), or in (low, high) with open_low."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: {wanted} was wanted"
    if isinstance(value, (bool, str)):
        raise TypeError(text)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(text) from None
    if not math.isfinite(number) or number < low or number >= high or (open_low and number == low):
        raise ValueError(text)
    object.__setattr__(owner, name, number)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as torch.optim.SGD, with momentum, Nesterov's form and weight decay.

    Weight decay is added to the gradient, to all parameters or, with decay_bias=False, to weights only.
    ValueError or TypeError names a setting out of its range.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_bias: bool = True

    def __post_init__(self) -> None:
        _check(self, "learning_rate", "a finite number above 0", 0, math.inf, open_low=True)
        _check(self, "momentum", "a number from 0 to below 1", 0, 1)
        _check(self, "weight_decay", "a finite number from 0", 0, math.inf)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov=True without momentum: set momentum, 0.9 for instance")

    def settings(self, clip_norm: float | None = None) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64; clip_norm None or 0 clips nothing."""
        values = np.zeros(plan.SETTINGS)
        values[plan.RULE] = plan.SGD
        values[plan.MOMENTUM] = self.momentum
        values[plan.NESTEROV] = self.nesterov
        values[plan.WEIGHT_DECAY] = self.weight_decay
        values[plan.CLIP_NORM] = clip_norm or 0
        values[plan.DECAY_BIAS] = self.decay_bias
        return values

    def state(self, params: np.ndarray, clip_norm: float | None = None) -> OptimizerState:
        """Memory for params (P,), all zero: the velocity where there is momentum."""
        velocity = plan.zeros(params.size if self.momentum else 0, params.dtype)
        return OptimizerState(self.settings(clip_norm), np.zeros(1, np.int64), velocity, plan.zeros(0, params.dtype))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) as torch.optim.Adam: weight decay is added to the gradient.

    decay_bias=False keeps it off the biases. ValueError or TypeError names a setting out of its range.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decay_bias: bool = True

    def __post_init__(self) -> None:
        _check(self, "learning_rate", "a finite number above 0", 0, math.inf, open_low=True)
        _check(self, "beta1", "a number from 0 to below 1", 0, 1)
        _check(self, "beta2", "a number from 0 to below 1", 0, 1)
        _check(self, "epsilon", "a finite number above 0", 0, math.inf, open_low=True)
        _check(self, "weight_decay", "a finite number from 0", 0, math.inf)

    def settings(self, clip_norm: float | None = None) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64; clip_norm None or 0 clips nothing."""
        values = np.zeros(plan.SETTINGS)
        values[plan.RULE] = plan.ADAM
        values[plan.WEIGHT_DECAY] = self.weight_decay
        values[plan.BETA1] = self.beta1
        values[plan.BETA2] = self.beta2
        values[plan.EPSILON] = self.epsilon
        values[plan.CLIP_NORM] = clip_norm or 0
        values[plan.DECAY_BIAS] = self.decay_bias
        return values

    def state(self, params: np.ndarray, clip_norm: float | None = None) -> OptimizerState:
        """Memory for params (P,), all zero: the means of gradients and of their squares."""
        first, second = plan.zeros(params.size, params.dtype), plan.zeros(params.size, params.dtype)
        return OptimizerState(self.settings(clip_norm), np.zeros(1, np.int64), first, second)


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW: weight decay shrinks the parameters directly."""

    weight_decay: float = 0.01

    def settings(self, clip_norm: float | None = None) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64; clip_norm None or 0 clips nothing."""
        values = super().settings(clip_norm)
        values[plan.RULE] = plan.ADAMW
        return values


Optimizer = SGD | Adam | AdamW
OPTIMIZERS: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def optimizer(name: str, **options: Any) -> Optimizer:
    """The optimiser called "sgd", "adam" or "adamw" with its options; ValueError for another name."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r}: one of {', '.join(OPTIMIZERS)} was wanted")
    return OPTIMIZERS[name](**options)
