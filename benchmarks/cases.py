"""The training runs that are compared: network, optimiser, batch; the same start and order for every system."""

import math
from dataclasses import dataclass

import numpy as np
from data import KINDS, MNIST, NO_ZEROS, TABLE, Kind

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, everywhere
POOL = 2  # a pool's window and stride


@dataclass(frozen=True)
class Case:
    """A network on one of KINDS, trained by "sgd" (plain) or "adam" in mini-batches.

    convolutions: channels and kernel of each, square, without padding; behind each a maximum pool, then ReLU. hidden:
    the widths of the dense ReLU layers. parts: (system's family, n), where an n-th of an epoch has to do for a system
    that would take minutes; its seconds are scaled up.
    """

    name: str
    hidden: tuple[int, ...]
    optimizer: str
    batch: int
    data: str = MNIST
    convolutions: tuple[tuple[int, int], ...] = ()
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> Kind:
        """The data's rows, shape and classes."""
        return KINDS[self.data]

    @property
    def images(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of what each convolution takes, and of what the last pool gives; empty without convolutions."""
        if not self.convolutions:
            return []
        channels, height, width = self.kind.shape
        shapes = [(channels, height, width)]
        for channels, kernel in self.convolutions:
            height, width = (height - kernel + 1) // POOL, (width - kernel + 1) // POOL
            shapes.append((channels, height, width))
        return shapes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths from what the first dense layer takes to the classes."""
        taken = self.images[-1] if self.convolutions else self.kind.shape
        return (math.prod(taken), *self.hidden, self.kind.classes)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each dense layer."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def learning_rate(self) -> float:
        """0.1 for SGD, 0.001 for Adam."""
        return 0.1 if self.optimizer == "sgd" else 0.001

    @property
    def flops(self) -> int:
        """Floating-point operations of a sample's training step: the first layer's input has no gradient."""
        products = []
        for (channels, height, width), (outputs, kernel) in zip(self.images, self.convolutions, strict=False):
            pixels = (height - kernel + 1) * (width - kernel + 1)
            products.append(2 * channels * kernel**2 * outputs * pixels)
        products += [2 * inputs * outputs for inputs, outputs in self.pairs]
        return 3 * sum(products) - products[0]

    def rows(self, whole: int, family: str) -> int:
        """How many of an epoch's rows a system trains on, in whole mini-batches where not on all."""
        part = dict(self.parts).get(family, 1)
        return whole if part == 1 else max(1, whole // part // self.batch) * self.batch

    def __str__(self) -> str:
        layers = "-".join([*(f"conv {c}@{k}x{k}" for c, k in self.convolutions), *map(str, self.sizes)])
        rule = "SGD" if self.optimizer == "sgd" else "Adam"
        return f"{layers} {rule} {self.batch}" + ("" if self.data == MNIST else f", {self.data}")

    def initial(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each layer's first weights (O, C, k, k) or (I, O), He's, and biases (O,), zero: the same in every process."""
        random = np.random.default_rng(1)
        convolutions = zip(self.images, self.convolutions, strict=False)
        kernels = [(shape[0] * k**2, (outputs, shape[0], k, k)) for shape, (outputs, k) in convolutions]
        shapes = kernels + [(i, (i, o)) for i, o in self.pairs]
        outputs = [channels for channels, _ in self.convolutions] + [o for _, o in self.pairs]
        return [
            (random.normal(0, np.sqrt(2 / fan), shape).astype(np.float32), np.zeros(o, np.float32))
            for (fan, shape), o in zip(shapes, outputs, strict=True)
        ]


_SGD, _ADAM = (64, 64), (128, 128)
# JAX's convolutions take most of a minute an epoch, PyTorch's seconds: their turns are parts of one.
_PARTS = (("JAX jit + scan", 20), ("PyTorch", 4))
CASES = (
    Case("sgd-64", _SGD, "sgd", 64),
    Case("sgd-8", _SGD, "sgd", 8),
    Case("adam-128", _ADAM, "adam", 128),
    Case("adam-1024", _ADAM, "adam", 1024),
    Case("no-zeros-128", _ADAM, "adam", 128, NO_ZEROS),
    Case("no-zeros-1024", _ADAM, "adam", 1024, NO_ZEROS),
    Case("table", (128, 32), "adam", 70, TABLE),
    Case("cnn", (50,), "adam", 64, convolutions=((10, 5), (20, 5)), parts=_PARTS),
)
NAMES = {case.name: case for case in CASES}


def order(rows: int, epoch: int) -> np.ndarray:
    """The order (rows,) int64 in which an epoch takes the images, the same in every process."""
    return np.random.default_rng((2, epoch)).permutation(rows)


TRIAL_STEPS = 20  # from the same start, for the comparison of answers
# Largest relative difference of a step's loss, and largest distance between the parameters as a share of the way they
# have moved. Adam divides by the root of the mean square: where a gradient is as small as epsilon, rounding decides the
# step's size, and a hidden unit that rounding takes across zero moves all its weights: 5e-4 and 2e-2 were seen between
# float32 and float64 of one implementation. scikit-learn adds epsilon before it corrects the bias: in float64 that
# alone made 0.108 of the way on images without zeros at batch 1024, where 0.10772 was seen, against 3e-6 of rounding;
# at batch 128 it was 0.178.
_LOSS = {"sgd": 1e-4, "adam": 5e-3}
_PARAMETERS = {"sgd": 1e-3, "adam": 0.1}
_EPSILON_ELSEWHERE = {"scikit-learn": 0.25}  # instead of Adam's, by how a system's name begins

Answer = tuple[np.ndarray, list[np.ndarray]]


def trial(case: Case, rows: int) -> np.ndarray:
    """The order of a trial's rows: whole mini-batches, so that every system's mean of losses is the same."""
    return order(rows, 0)[: case.batch * min(TRIAL_STEPS, rows // case.batch)]


def agree(case: Case, name: str, ours: Answer, theirs: Answer) -> dict[str, float]:
    """How far two trials, (loss of each step or their mean, parameters), are apart: AssertionError if too far.

    Returned are the largest relative difference of the losses, "loss", and the parameters' distance as a share
    of the way moved, "parameters". A trial without parameters is of a network that is the same with others: then its
    one loss is the first step's.
    """
    (losses, ended), (other, arrived) = ours, theirs
    if not arrived:
        losses = losses[:1]
    elif len(other) == 1:
        losses = losses.mean(keepdims=True)
    apart = {"loss": float((abs(other - losses) / losses).max())}
    fine = apart["loss"] <= _LOSS[case.optimizer]
    if arrived:
        start = [array for layer in case.initial() for array in layer]
        apart["parameters"] = _distance(ended, arrived) / _distance(ended, start)
        limit = _PARAMETERS[case.optimizer]
        if case.optimizer == "adam":
            limit = next((far for system, far in _EPSILON_ELSEWHERE.items() if name.startswith(system)), limit)
        fine = fine and apart["parameters"] <= limit
    if not fine:
        raise AssertionError(f"{case}: {name} trains otherwise than we do from the same start: {apart}")
    return apart


def _distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    squares = (np.square(a.astype(np.float64) - b).sum() for a, b in zip(one, other, strict=True))
    return float(np.sqrt(sum(squares)))
