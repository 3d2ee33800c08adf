"""What the solvers compute: an epoch of mini-batch steps, and the objective that L-BFGS minimises."""

import math
import time
from functools import partial
from typing import Any

import numpy as np

from .. import kernels
from ..arrays import chunk_rows, thread_count
from ..kernels import plan as plans
from ..kernels.plan import OptimizerState, Source, Workspace
from ..pace import Pace
from . import flat as flats
from .flat import Flat
from .rows import Rows

# See Objective._beyond: scikit-learn's least probability, the loss that it has, and one from which its roundings count.
_EPSILON = float(np.finfo(np.float64).eps)
_MOST, _FAR = -math.log(_EPSILON), 10.0


class Epochs:
    """Runs epochs over some rows: mini-batch steps of the compiled loop, as scikit-learn's loop makes them."""

    def __init__(
        self, flat: Flat, rows: Rows, optimizer: OptimizerState, batch_size: int, threads: int | None
    ) -> None:  # fmt: skip
        self.flat, self.rows, self.optimizer, self.batch_size = flat, rows, optimizer, batch_size
        self.compiled = kernels.load(flats.BACKEND)
        self.pace = flat.step_pace(threads, batch_size)
        steps = -(-len(rows) // batch_size)
        self.losses, self.corrects = np.zeros(steps), np.zeros(steps, np.int64)
        self.counts = np.full(steps, float(batch_size))
        self.counts[-1] = len(rows) - batch_size * (steps - 1)
        self.rates = np.full(steps, math.nan)

    def run(self, order: np.ndarray, learning_rate: float) -> float:
        """One epoch over the rows in this order; returns its mean loss, penalty included, as scikit-learn has it.

        A loss that is not finite ends it: the parameters become NaN, which the next update would have made of them.
        """
        divisors = self._divisors(order)
        self.rates.fill(learning_rate)
        work = self.flat.workspaces.take(self.compiled, self.batch_size)
        try:
            reached = self._steps(order, self.rates, work)
        finally:
            self.flat.workspaces.give(self.compiled, work)
        if reached < len(self.losses):
            for view in (*self.flat.coefs, *self.flat.intercepts):
                view[...] = np.nan
            return float(self.losses[reached]) if reached == len(self.losses) - 1 else math.nan
        losses = self.losses / divisors * self.counts if self.rows.weighted else self.losses
        return float(losses.sum()) / len(self.rows)

    def _steps(self, order: np.ndarray, rates: np.ndarray, work: Workspace) -> int:
        """An epoch's steps, whose losses are then there; returns their number or the one whose loss is not finite."""
        for source, local, first, last in self.rows.chunks(order, self.batch_size):
            # The arrays from the chunk's first step on: within a chunk steps count from 0.
            losses, corrects = self.losses[first:], self.corrects[first:]
            step, end = 0, last - first
            while step < end:
                threads, seconds = self.pace.choose()
                stop, penalty = self._stop(step, end)
                began = time.perf_counter()
                reached = self.compiled.train_steps(
                    self.flat.model, self.optimizer, source, local, self.batch_size, step, stop, rates[first:], work,
                    losses, corrects, threads, seconds,
                )  # fmt: skip
                self.pace.record(threads, reached - step, time.perf_counter() - began)
                if reached < stop and not math.isfinite(losses[reached]):
                    return first + reached
                if penalty is not None:
                    losses[step] = (losses[step] - penalty) / self.flat.units[-1] + penalty
                step = reached
        return len(self.losses)

    def mean_loss(self, rows: Rows) -> float:
        """The mean loss of other rows, without the penalty, in inference mode."""
        loss, batch = 0.0, self.flat.workspaces.room(len(rows))
        work = self.flat.workspaces.take(self.compiled, batch)
        for source, order, _, _ in rows.chunks(np.arange(len(rows)), batch):
            loss += self.compiled.evaluate(self.flat.model, source, 0, len(order), work, self.pace.best)[0]
        self.flat.workspaces.give(self.compiled, work)
        outputs = self.flat.units[-1] if self.flat.output == "identity" else 1
        total = float(rows.weights.sum(dtype=np.float64)) * outputs
        return float(loss) / total if total else math.nan

    def _divisors(self, order: np.ndarray) -> np.ndarray:
        """What each step's loss is divided by (steps,): its Σ weights."""
        if not self.rows.weighted:
            return self.counts
        starts = np.arange(0, len(order), self.batch_size)
        divisors = np.add.reduceat(self.rows.weights[order].astype(np.float64), starts)
        if (divisors == 0).any():
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")  # as numpy.average says it
        return divisors

    def _stop(self, step: int, end: int) -> tuple[int, float | None]:
        """Where the next call is to end, and the penalty of its step where the loss needs it apart.

        scikit-learn reports the squared error's mean over the outputs and adds the whole penalty, while its gradient
        is that of their sum: with more than one output the kernel's loss is split, which takes a call for each step.
        """
        if self.flat.output != "identity" or self.flat.units[-1] == 1:
            return end, None
        return step + 1, float(self.optimizer.settings[plans.WEIGHT_DECAY]) / 2 * self.flat.squares()


class Objective:
    """The loss of all rows and its gradient, as a function of scikit-learn's packed parameters; loss: the last one."""

    def __init__(self, flat: Flat, rows: Rows, alpha: float, threads: int | None) -> None:
        self.flat, self.rows, self.alpha = flat, rows, alpha
        self.compiled = kernels.load(flats.BACKEND)
        self.threads, self.pace = threads, Pace(thread_count(threads), threads is not None)
        self.divisor = float(rows.weights.sum(dtype=np.float64))
        self.loss = math.nan
        if self.divisor == 0:
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")

    def __call__(self, packed: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) of packed weights and biases, all weights first; see MLPClassifier._loss_grad_lbfgs."""
        flat = self.flat
        unpack(packed, [*flat.coefs, *flat.intercepts])
        batch = flat.workspaces.room(len(self.rows))
        work = flat.workspaces.take(self.compiled, batch)
        total, grad = np.zeros_like(flat.model.params), np.empty_like(flat.model.params)
        loss = 0.0
        every = np.arange(len(self.rows))
        step = batch * max(1, chunk_rows(flat.units[0]) // batch)
        for source, local, _, _ in self.rows.chunks(every, step):
            for first in range(0, len(local), batch):
                rows = local[first : first + batch]
                part = partial(self.compiled.loss_and_gradient, flat.model, source, rows, self.divisor, work, grad)
                loss += self.pace.call(len(rows), part)
                loss -= self._beyond(source, rows, work) / self.divisor
                total += grad
        flat.workspaces.give(self.compiled, work)
        if flat.output == "identity":
            loss /= flat.units[-1]  # the mean over the outputs; the gradient is that of their sum
        weights, biases = flat.views(total)
        for gradient, coef in zip(weights, flat.coefs, strict=True):
            gradient += (self.alpha / self.divisor) * coef
        self.loss = loss + float(self.alpha) / 2 * flat.squares() / self.divisor
        return self.loss, pack([*weights, *biases])

    def _beyond(self, source: Source, rows: np.ndarray, work: Workspace) -> float:
        """What scikit-learn makes less, or more, of these rows' losses, which are in work.

        It clips probabilities to float64's epsilon before it takes logarithms, so that one output's loss is at most
        36, and rounds 1 - p. A line search that goes too far meets such losses, and would go another way with the true
        ones. The gradient is that of the true ones in both.
        """
        flat, weights = self.flat, source.weights[rows]
        if flat.output not in ("softmax", "logistic"):
            return 0.0
        losses = work.losses[: len(rows)]
        far = np.flatnonzero((losses > _FAR * weights) & (weights > 0))
        if flat.output == "softmax" or not far.size:
            return float(np.maximum(losses[far] - _MOST * weights[far], 0).sum())
        mine = losses[far].sum()
        outputs = flat.activate(flat.logits(source.rows[rows[far]], self.threads))
        right = np.where(source.targets[rows[far]] > 0.5, outputs, 1 - outputs)
        return float(mine + weights[far] @ np.log(np.maximum(right, _EPSILON)).sum(axis=1))


def pack(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays one after the other as one, (P,)."""
    return np.concatenate([array.ravel() for array in arrays])


def unpack(packed: np.ndarray, arrays: list[Any]) -> None:
    """The reverse of `pack`, into arrays that are there."""
    start = 0
    for array in arrays:
        array[...] = packed[start : start + array.size].reshape(array.shape)
        start += array.size
