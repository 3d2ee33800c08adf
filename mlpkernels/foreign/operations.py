"""What a file of another program computes: one operation behind the other, in this library's order of values.

Each names the node or module it comes from, for errors. Values of images are in the order channel, row, column.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Operation:
    """Something done to one sample; where: the node or module in the file."""

    where: str


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """x · factor + offset, each float64 of the sample's own shape, (C, H, W) or (D,)."""

    factor: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class Product(Operation):
    """x (I,) @ weights (I, O) + bias (O,), float64."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """weights (O, C, kh, kw) moved over an image, + bias (O,), float64."""

    weights: np.ndarray
    bias: np.ndarray
    stride: Pair
    padding: Pair


@dataclass(frozen=True, eq=False)
class Normalisation(Operation):
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta, each float64 (C,), of a channel or a flat value."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """The maximum of each window of an image."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, eq=False)
class Activation(Operation):
    """relu, tanh or logistic of every value; exp at the end of a Poisson regression."""

    name: str


def refuse(path: str, where: str, reason: str) -> ModelFileError:
    """The error that names a file, a place in it and what is wrong there."""
    return ModelFileError(f"{path}: {where}: {reason}")
