"""Whole training runs: four networks on 784 pixels, from one start in one order for every system."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import kernels
from ..errors import MlpkError
from ..layers import Conv2d, Dense, Layer, MaxPool2d
from ..losses import Answers
from ..network import Network
from ..optimizers import SGD, Adam, AdamW, Optimizer
from ..scaling import Scaling
from .images import CLASSES, ROWS, WIDTH, Images
from .kernels import OURS, layer_flops
from .timing import Timed

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
_TRIAL_STEPS = 4


@dataclass(frozen=True)
class Case:
    """A network of hidden ReLU layers, or the small CNN for hidden == (), trained by plain "SGD", "Adam" or "AdamW"."""

    hidden: tuple[int, ...]
    rule: str
    batch: int

    def __str__(self) -> str:
        sizes = "-".join(map(str, (WIDTH, *self.hidden, CLASSES))) if self.hidden else "CNN"
        return f"{sizes} {self.rule} {self.batch}"

    @property
    def rate(self) -> float:
        """The learning rate."""
        return 0.1 if self.rule == "SGD" else 0.001

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's."""
        return BETA1, BETA2

    @property
    def weight_decay(self) -> float:
        """AdamW's."""
        return 0.0

    @property
    def optimizer(self) -> Optimizer:
        """Ours."""
        if self.rule == "SGD":
            return SGD(self.rate)
        settings = self.rate, *self.betas, EPSILON
        return AdamW(*settings, self.weight_decay) if self.rule == "AdamW" else Adam(*settings)

    def network(self) -> Network:
        """Ours, with the initial values that all systems start from."""
        unit = Scaling("unit", 1 / 255, 0.0)
        if self.hidden:
            return Network([*(Dense(width, "relu") for width in self.hidden), Dense(CLASSES)], WIDTH, scaling=unit)
        layers: list[Layer] = []
        for channels in (10, 20):
            layers += [Conv2d(channels, 5, activation="relu"), MaxPool2d(2)]
        return Network([*layers, Dense(50, "relu"), Dense(CLASSES)], (1, 28, 28), scaling=unit)

    @property
    def flops(self) -> float:
        """Operations of a sample's training step: the first layer's input has no gradient."""
        each = layer_flops(self.network())
        return float(3 * each.sum() - each[0])


CASES = (Case((64, 64), "SGD", 64), Case((128, 128), "Adam", 128), Case((128, 128), "Adam", 1024), Case((), "Adam", 64))


class Trainer(Protocol):
    """A system ready to train a case: all data in memory, in a state that goes on from call to call.

    may_stop: whether run ends early when its time is up, and returns fewer losses; compiles: whether it does so for
    every number of rows.
    """

    may_stop: bool
    compiles: bool

    def place(self, order: np.ndarray) -> Any:
        """What comes before an epoch over these rows and is not timed."""

    def run(self, placed: Any) -> np.ndarray:
        """Train over the rows; the loss of each step, or their mean alone, when all is computed."""

    def reset(self) -> None:
        """Back to the start."""


class Ours:
    """The compiled kernels, or the plain ones that define what is right."""

    may_stop = True
    compiles = False

    def __init__(
        self, case: Case, images: Images, threads: int, limit: float = math.inf, backend: str = "cpu"
    ) -> None:  # fmt: skip
        self.limit = limit  # seconds of a call: beside other programs, threads that meet wait for long
        self.case, self.threads, self.backend = case, threads, kernels.load(backend)
        self.network = case.network()
        self.start = self.network.params.copy()
        self.source = self.network.rows_source(images.x, Answers(images.y), None)
        self.work = self.backend.make_workspace(self.network.plan, case.batch, np.float32)
        self.reset()

    def reset(self) -> None:
        self.network.params[...] = self.start
        self.optimizer = self.case.optimizer.state(self.network.params)

    def place(self, order: np.ndarray) -> Any:
        steps = -(-len(order) // self.case.batch)
        return order, np.full(steps, self.case.rate), np.zeros(steps), np.zeros(steps, np.int64)

    def run(self, placed: Any) -> np.ndarray:
        order, rates, losses, corrects = placed
        batch, steps = self.case.batch, len(losses)
        reached = self.backend.train_steps(
            self.network.model, self.optimizer, self.source, order, batch, 0, steps, rates, self.work, losses, corrects,
            self.threads, self.limit,
        )  # fmt: skip
        if not np.isfinite(losses).all():
            raise MlpkError(f"{self.case}: the loss of step {reached + 1} is not finite")
        rows = np.minimum(batch, len(order) - batch * np.arange(steps))
        return (losses / rows)[:reached]


def order_of(rows: int, turn: int) -> np.ndarray:
    """The order (rows,) int64 of a turn, the same for every system."""
    return np.random.default_rng((2, turn)).permutation(rows)


def trial(case: Case, rows: int) -> np.ndarray:
    """The rows of a trial: whole mini-batches, so that every system's mean of losses is the same."""
    return order_of(rows, 0)[: case.batch * min(_TRIAL_STEPS, rows // case.batch)]


def reference_losses(case: Case, images: Images) -> np.ndarray:
    """A trial's losses by the plain NumPy backend."""
    plain = Ours(case, images, 1, backend="reference")
    return plain.run(plain.place(trial(case, len(images.y))))


def check(case: Case, system: str, trainer: Trainer, rows: int, expected: np.ndarray) -> None:
    """Train a few steps and go back to the start. MlpkError where the losses are not those expected.

    Adam divides by the root of a mean square: where a gradient is as small as its epsilon, rounding decides the step.
    """
    trainer.reset()
    losses = trainer.run(trainer.place(trial(case, rows)))
    trainer.reset()
    wanted = expected if len(losses) == len(expected) else expected.mean(keepdims=True)
    apart = float((abs(losses - wanted) / wanted).max())
    if not apart <= (1e-4 if case.rule == "SGD" else 5e-3):
        raise MlpkError(
            f"{system}: {case} trains otherwise than the plain kernels, losses {apart:.0e} apart, so nothing is timed"
        )


def entries(images: Images, counts: list[int], rows: dict[Case, int], limit: float) -> Iterator[Timed]:
    """Ours on each number of threads, answers checked; a turn ends after `limit` seconds, its time is extrapolated."""
    for case, count_of_rows in rows.items():
        part = images.part(count_of_rows)
        expected = reference_losses(case, part)
        for count in counts:
            ours = Ours(case, part, count, limit)
            check(case, OURS, ours, len(part.y), expected)
            yield timed(case, OURS, ours, part, count)


def timed(case: Case, system: str, trainer: Trainer, images: Images, threads: int) -> Timed:
    """A system's epoch over these images: each turn in an order of its own."""
    rows, turn, placed = len(images.y), 0, None
    steps = -(-rows // case.batch)

    def prepare() -> None:
        nonlocal turn, placed
        turn += 1
        placed = trainer.place(order_of(rows, turn))

    def call(times: int) -> float:
        losses = trainer.run(placed)
        return len(losses) / steps if trainer.may_stop else 1.0

    return Timed(
        "epochs", "epoch", str(case), system, threads, call, case.flops * rows, 0.0, rows,
        prepare=prepare, nominal=bool(case.hidden), warm=False,
    )  # fmt: skip


def rows_of(cases: tuple[Case, ...], quick: bool) -> dict[Case, int]:
    """Images of an epoch: all of MNIST's, of the CNN a fifth; quick: a fifth, of the CNN a twentieth."""
    shares = {True: (5, 20), False: (1, 5)}[quick]
    return {case: ROWS // shares[0 if case.hidden else 1] for case in cases}
