"""What a layer is: its size, its activation and the initial values of its parameters."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import plan

INITS = ("he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "pytorch")
ACTIVATIONS = {None: plan.IDENTITY, "relu": plan.RELU}


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, activation(x @ w + b): x (B, I), w (I, outputs), b (outputs,).

    activation is "relu" or None; init is one of `INITS`, or None for the network's. TypeError or ValueError,
    naming the argument, for anything else.
    """

    outputs: int
    activation: str | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        try:
            outputs = operator.index(self.outputs)
        except TypeError:
            raise TypeError(f"Dense: outputs={self.outputs!r}: an integer from 1 was wanted") from None
        if isinstance(self.outputs, bool) or outputs < 1:
            raise ValueError(f"Dense: outputs={self.outputs!r}: an integer from 1 was wanted")
        object.__setattr__(self, "outputs", outputs)  # a NumPy integer would not pass through JSON
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"Dense: activation={self.activation!r}: 'relu' or None was wanted")
        if self.init is not None:
            check_init(self.init)

    def __repr__(self) -> str:
        rest = "".join(
            f", {name}={value!r}"
            for name, value in (("activation", self.activation), ("init", self.init))
            if value is not None
        )
        return f"Dense({self.outputs}{rest})"

    @property
    def modules(self) -> int:
        """How many modules of the equal torch.nn.Sequential this is: the linear map and its activation."""
        return 1 if self.activation is None else 2

    @property
    def code(self) -> int:
        """The activation's code in a plan."""
        return ACTIVATIONS[self.activation]

    def to_json(self) -> dict[str, Any]:
        """This layer as a dictionary of plain values, for a model file."""
        return {
            "kind": "dense",
            "outputs": self.outputs,
            "activation": self.activation,
            "init": self.init,
        }


def from_json(layer: Mapping[str, Any]) -> Dense:
    """The layer that `Dense.to_json` described. ValueError, KeyError or TypeError where it describes none."""
    if layer["kind"] != "dense":
        raise ValueError(f"a layer of kind {layer['kind']!r}, which this version does not have")
    return Dense(layer["outputs"], layer.get("activation"), layer.get("init"))


def check_init(init: str) -> str:
    """`init`, if it is one of `INITS`; else ValueError."""
    if init not in INITS:
        raise ValueError(f"init={init!r}: one of {', '.join(INITS)} was wanted")
    return init


def initial_values(
    init: str, inputs: int, outputs: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (inputs, outputs) and biases (outputs,) to start from, float64.

    He et al. 2015 (variance 2 / inputs), Glorot & Bengio 2010 (variance 2 / (inputs + outputs)), both with
    zero biases; "pytorch" is torch.nn.Linear's default, uniform within ±1 / √inputs for weights and biases.
    """
    shape = (inputs, outputs)
    zeros = np.zeros(outputs)
    if init == "pytorch":
        bound = 1 / math.sqrt(inputs)
        return generator.uniform(-bound, bound, shape), generator.uniform(-bound, bound, outputs)
    family, distribution = check_init(init).split("-")
    variance = 2 / inputs if family == "he" else 2 / (inputs + outputs)
    if distribution == "normal":
        return generator.normal(0, math.sqrt(variance), shape), zeros
    bound = math.sqrt(3 * variance)  # a uniform distribution's variance is bound² / 3
    return generator.uniform(-bound, bound, shape), zeros


def check_stack(stack: Sequence[Dense]) -> None:
    """Refuse, by ValueError or TypeError, what is no sequence of layers ending in logits."""
    if not stack:
        raise ValueError("layers: at least one layer was wanted")
    for layer in stack:
        if not isinstance(layer, Dense):
            raise TypeError(f"layers: {layer!r} is no layer; Dense(128, activation='relu') is one")
    if stack[-1].activation is not None:
        raise ValueError(
            f"layers: the last has activation {stack[-1].activation!r}; "
            "None was wanted, since its outputs are the logits"
        )


def tensor_shapes(stack: Sequence[Dense], inputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the equal torch.nn.Sequential, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    module = 0
    for layer in stack:
        shapes[f"{module}.weight"], shapes[f"{module}.bias"] = (layer.outputs, inputs), (layer.outputs,)
        module, inputs = module + layer.modules, layer.outputs
    return shapes
