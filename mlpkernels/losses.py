"""What a network is trained to: the loss, what its outputs then mean, and the labels or numbers that it learns from."""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .arrays import check_classes, class_indices, refuse_masked
from .errors import DataError
from .kernels import plan

# As a user calls them. The outputs are the logits of a softmax; of logistic functions, each a yes or no of its own; the
# predicted numbers; the logarithms of predicted rates.
LOSSES = {"cross-entropy": plan.SOFTMAX, "binary": plan.BINARY, "squared-error": plan.SQUARED, "poisson": plan.POISSON}
_OF_NUMBERS = ("squared-error", "poisson")


class Answers(NamedTuple):
    """What rows should give: class indices (N,) int32 and, for losses of targets, those (N, K), else (0, 0)."""

    labels: np.ndarray
    targets: np.ndarray = np.zeros((0, 0))


class Loss(NamedTuple):
    """A network's loss by name, its number of outputs and its classes.

    classes: of "cross-entropy" one an output. Of "binary" two for one output, which is the second's, and for more
    outputs one each, of which a row may have any number. () where numbers are predicted.
    """

    name: str
    outputs: int
    classes: tuple[int | str, ...]

    @property
    def code(self) -> int:
        """Its number in a plan."""
        return LOSSES[self.name]

    @property
    def multilabel(self) -> bool:
        """Whether a row may have any number of the classes."""
        return self.name == "binary" and self.outputs > 1

    @property
    def has_classes(self) -> bool:
        """Whether classes are predicted and not numbers."""
        return self.name not in _OF_NUMBERS

    @property
    def scale(self) -> float:
        """What the kernels' loss, a sum over the outputs, is weighted by.

        The squared error is the mean over outputs without the half, as torch.nn.MSELoss has it, the Poisson deviance
        the mean over outputs; that of yes or no is summed.
        """
        return {"squared-error": 2.0 / self.outputs, "poisson": 1.0 / self.outputs}.get(self.name, 1.0)

    def answers(self, y: Any, rows: int, dtype: np.dtype, name: str = "y") -> Answers:
        """y checked and converted for the kernels: `rows` classes (N,), sets of them (N, K) of 0 and 1, or numbers
        (N, K), of one output (N,) too. DataError or TypeError names what does not fit.
        """
        if self.name == "cross-entropy":
            return Answers(class_indices(y, self.classes, rows, name))
        if self.name == "binary" and not self.multilabel:
            labels = class_indices(y, self.classes, rows, name)
            return Answers(labels, labels[:, None].astype(dtype))
        return Answers(np.zeros(rows, np.int32), self._targets(y, rows, dtype, name))

    def _targets(self, y: Any, rows: int, dtype: np.dtype, name: str) -> np.ndarray:
        refuse_masked(y, name)
        given = np.asarray(y)
        if given.dtype.kind not in "fiub":
            raise TypeError(f"{name}: numbers were wanted, not dtype {given.dtype}")
        if given.shape == (rows,) and self.outputs == 1:
            given = given[:, None]
        if given.shape != (rows, self.outputs):
            wanted = f"({rows}, {self.outputs})" + (f" or ({rows},)" if self.outputs == 1 else "")
            raise DataError(f"{name}: an array of shape {wanted} was wanted, not {np.shape(y)}")
        with np.errstate(over="ignore"):
            targets = np.array(given, dtype, order="C")  # a copy: what is written to y later is not checked
        finite = np.isfinite(targets)
        wanted, wrong = "a finite number", ~finite
        if self.name == "poisson":
            wanted, wrong = "a finite number from 0", ~(finite & (targets >= 0))
        elif self.multilabel:
            wanted, wrong = "0 or 1", (targets != 0) & (targets != 1)
        if wrong.any():
            row, column = divmod(int(np.argmax(wrong)), self.outputs)
            raise DataError(
                f"{name}: row {row + 1}, column {column + 1} is {given[row, column]:g}; {wanted} was wanted"
            )
        return targets

    def probabilities(self, logits: np.ndarray, compiled: ModuleType, logarithm: bool = False) -> np.ndarray:
        """Of logits (N, outputs) each class's probability (N, K), or its logarithm; logits may be overwritten."""
        if self.name == "cross-entropy":
            (compiled.log_softmax if logarithm else compiled.softmax)(logits, logits)
            return logits
        # of two classes both are computed, so that neither loses digits as 1 - the other
        signed = logits if self.multilabel else np.concatenate([-logits, logits], axis=1)
        if logarithm:
            return (np.minimum(signed, 0) - np.log1p(np.exp(-np.abs(signed)))).astype(logits.dtype, copy=False)
        compiled.logistic(signed, signed)
        return signed

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Of logits (N, outputs) the classes (N,), sets of them (N, K) of 0 and 1 int64, or numbers (N, K)."""
        if self.name == "cross-entropy":
            return np.array(self.classes)[logits.argmax(axis=1)]
        if self.multilabel:
            return (logits > 0).astype(np.int64)
        if self.name == "binary":
            return np.array(self.classes)[(logits[:, 0] > 0).astype(np.int64)]
        with np.errstate(over="ignore"):
            return np.exp(logits) if self.name == "poisson" else logits

    def accuracy(self, correct: int, rows: int) -> float:
        """The share of rows that are right; nan where numbers are predicted."""
        return correct / rows if self.has_classes else math.nan


def make(name: str, outputs: int, classes: Sequence[int | str] | None) -> Loss:
    """The loss called `name` of a network with so many outputs. ValueError or TypeError where they do not fit."""
    if name not in LOSSES:
        raise ValueError(f"loss={name!r}: one of {', '.join(map(repr, LOSSES))} was wanted")
    if name in _OF_NUMBERS:
        if classes is not None and len(classes):
            raise ValueError(f"classes: none were wanted, since loss={name!r} predicts numbers, not {len(classes)}")
        return Loss(name, outputs, ())
    return Loss(name, outputs, check_classes(classes, 2 if name == "binary" and outputs == 1 else outputs))


def check_has_classes(loss: Loss) -> None:
    """Refuse, by ValueError, probabilities of a network that predicts numbers."""
    if not loss.has_classes:
        raise ValueError(f"a network of loss {loss.name!r} predicts numbers, which have no probability: use predict")
