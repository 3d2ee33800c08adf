"""The training runs that are compared: network, optimiser, batch; the same start and order for every system."""

from dataclasses import dataclass

import numpy as np
from data import CLASSES, WIDTH

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, everywhere


@dataclass(frozen=True)
class Case:
    """An MLP of two equal hidden ReLU layers on MNIST, "sgd" (plain) or "adam", with its mini-batch size."""

    hidden: int
    optimizer: str
    batch: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths from the inputs to the classes."""
        return (WIDTH, self.hidden, self.hidden, CLASSES)

    @property
    def learning_rate(self) -> float:
        """0.1 for SGD, 0.001 for Adam."""
        return 0.1 if self.optimizer == "sgd" else 0.001

    @property
    def flops(self) -> int:
        """Floating-point operations of a sample's training step: the first layer's input has no gradient."""
        products = [2 * inputs * outputs for inputs, outputs in self.pairs]
        return 3 * sum(products) - products[0]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    def __str__(self) -> str:
        layers = "-".join(map(str, self.sizes))
        return f"{layers} {'SGD' if self.optimizer == 'sgd' else 'Adam'} {self.batch}"

    def initial(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each layer's first weights (I, O), He's, and biases (O,), zero: float32, the same in every process."""
        random = np.random.default_rng(1)
        return [
            (random.normal(0, np.sqrt(2 / i), (i, o)).astype(np.float32), np.zeros(o, np.float32))
            for i, o in self.pairs
        ]


CASES = (Case(64, "sgd", 64), Case(64, "sgd", 8), Case(128, "adam", 128), Case(128, "adam", 1024))


def order(rows: int, epoch: int) -> np.ndarray:
    """The order (rows,) int64 in which an epoch takes the images, the same in every process."""
    return np.random.default_rng((2, epoch)).permutation(rows)


TRIAL_STEPS = 20  # from the same start, for the comparison of answers
# Largest relative difference of a step's loss, and largest distance between the parameters as a share of the way they
# have moved. Adam divides by the root of the mean square: where a gradient is as small as epsilon, rounding decides the
# step's size, and a hidden unit that rounding takes across zero moves all its weights: 5e-4 and 2e-2 were seen between
# float32 and float64 of one implementation, 6e-2 for scikit-learn, which adds epsilon in another place.
_LOSS = {"sgd": 1e-4, "adam": 5e-3}
_PARAMETERS = {"sgd": 1e-3, "adam": 0.1}

Answer = tuple[np.ndarray, list[np.ndarray]]


def trial(case: Case, rows: int) -> np.ndarray:
    """The order of a trial's rows: whole mini-batches, so that every system's mean of losses is the same."""
    return order(rows, 0)[: case.batch * min(TRIAL_STEPS, rows // case.batch)]


def agree(case: Case, name: str, ours: Answer, theirs: Answer) -> dict[str, float]:
    """How far two trials, (loss of each step or their mean, parameters), are apart: AssertionError if too far.

    Returned are the largest relative difference of the losses, "loss", and the parameters' distance as a share
    of the way moved, "parameters".
    """
    (losses, ended), (other, arrived) = ours, theirs
    if len(other) == 1:
        losses = losses.mean(keepdims=True)
    start = [array for layer in case.initial() for array in layer]
    apart = {
        "loss": float((abs(other - losses) / losses).max()),
        "parameters": _distance(ended, arrived) / _distance(ended, start),
    }
    if not (apart["loss"] <= _LOSS[case.optimizer] and apart["parameters"] <= _PARAMETERS[case.optimizer]):
        raise AssertionError(f"{case}: {name} trains otherwise than we do from the same start: {apart}")
    return apart


def _distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    squares = (np.square(a.astype(np.float64) - b).sum() for a, b in zip(one, other, strict=True))
    return float(np.sqrt(sum(squares)))
