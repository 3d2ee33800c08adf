"""The optimisers SGD, Adam and AdamW: their settings, checked, and the memory each needs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import check_number
from .kernels import plan
from .kernels.plan import OptimizerState


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
        check_number(self, "learning_rate", "a finite number above 0", 0, math.inf, open_low=True)
        check_number(self, "momentum", "a number from 0 to below 1", 0, 1)
        check_number(self, "weight_decay", "a finite number from 0", 0, math.inf)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov=True without momentum: set momentum, 0.9 for instance")

    def settings(self, clip_norm: float | None = None, seed: int = 0) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64.

        clip_norm None or 0 clips nothing; seed, below 2^53, is where dropout's masks come from.
        """
        values = np.zeros(plan.SETTINGS)
        values[plan.SEED] = seed
        values[plan.RULE] = plan.SGD
        values[plan.MOMENTUM] = self.momentum
        values[plan.NESTEROV] = self.nesterov
        values[plan.WEIGHT_DECAY] = self.weight_decay
        values[plan.CLIP_NORM] = clip_norm or 0
        values[plan.DECAY_BIAS] = self.decay_bias
        return values

    def state(self, params: np.ndarray, clip_norm: float | None = None, seed: int = 0) -> OptimizerState:
        """Memory for params (P,), all zero: the velocity where there is momentum."""
        velocity = plan.zeros(params.size if self.momentum else 0, params.dtype)
        return OptimizerState(
            self.settings(clip_norm, seed), np.zeros(1, np.int64), velocity, plan.zeros(0, params.dtype)
        )


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
        check_number(self, "learning_rate", "a finite number above 0", 0, math.inf, open_low=True)
        check_number(self, "beta1", "a number from 0 to below 1", 0, 1)
        check_number(self, "beta2", "a number from 0 to below 1", 0, 1)
        check_number(self, "epsilon", "a finite number above 0", 0, math.inf, open_low=True)
        check_number(self, "weight_decay", "a finite number from 0", 0, math.inf)

    def settings(self, clip_norm: float | None = None, seed: int = 0) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64.

        clip_norm None or 0 clips nothing; seed, below 2^53, is where dropout's masks come from.
        """
        values = np.zeros(plan.SETTINGS)
        values[plan.SEED] = seed
        values[plan.RULE] = plan.ADAM
        values[plan.WEIGHT_DECAY] = self.weight_decay
        values[plan.BETA1] = self.beta1
        values[plan.BETA2] = self.beta2
        values[plan.EPSILON] = self.epsilon
        values[plan.CLIP_NORM] = clip_norm or 0
        values[plan.DECAY_BIAS] = self.decay_bias
        return values

    def state(self, params: np.ndarray, clip_norm: float | None = None, seed: int = 0) -> OptimizerState:
        """Memory for params (P,), all zero: the means of gradients and of their squares."""
        first, second = plan.zeros(params.size, params.dtype), plan.zeros(params.size, params.dtype)
        return OptimizerState(self.settings(clip_norm, seed), np.zeros(1, np.int64), first, second)


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW: weight decay shrinks the parameters directly."""

    weight_decay: float = 0.01

    def settings(self, clip_norm: float | None = None, seed: int = 0) -> np.ndarray:
        """The settings as kernels take them (SETTINGS,) float64; see `Adam.settings`."""
        values = super().settings(clip_norm, seed)
        values[plan.RULE] = plan.ADAMW
        return values


Optimizer = SGD | Adam | AdamW
OPTIMIZERS: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def optimizer(name: str, **options: Any) -> Optimizer:
    """The optimiser called "sgd", "adam" or "adamw" with its options; ValueError for another name."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r}: one of {', '.join(OPTIMIZERS)} was wanted")
    return OPTIMIZERS[name](**options)
