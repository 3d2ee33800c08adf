"""Initial values: what weights and biases are before training."""

import math

import numpy as np

INITS = ("he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "pytorch")


def check_init(init: str) -> str:
    """`init`, if it is one of `INITS`; else ValueError."""
    if init not in INITS:
        raise ValueError(f"init={init!r}: one of {', '.join(INITS)} was wanted")
    return init


def initial_values(
    init: str, inputs: int, outputs: int, generator: np.random.Generator, fan_out: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (inputs, outputs) and biases (outputs,) to start from, float64.

    He et al. 2015 (variance 2 / inputs), Glorot & Bengio 2010 (variance 2 / (inputs + fan_out), fan_out being outputs
    but in a convolution), both with zero biases; "pytorch" is the default of torch.nn.Linear and Conv2d, uniform
    within ±1 / √inputs for weights and biases.
    """
    shape = (inputs, outputs)
    zeros = np.zeros(outputs)
    if init == "pytorch":
        bound = 1 / math.sqrt(inputs)
        return generator.uniform(-bound, bound, shape), generator.uniform(-bound, bound, outputs)
    family, distribution = check_init(init).split("-")
    variance = 2 / inputs if family == "he" else 2 / (inputs + (fan_out or outputs))
    if distribution == "normal":
        return generator.normal(0, math.sqrt(variance), shape), zeros
    bound = math.sqrt(3 * variance)  # a uniform distribution's variance is bound² / 3
    return generator.uniform(-bound, bound, shape), zeros
