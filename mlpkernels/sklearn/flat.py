"""The flat parameters that kernels take, and an estimator's coefs_ and intercepts_ as views of them."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neural_network._base import ACTIVATIONS as FORMULAS

from .. import kernels
from ..arrays import chunk_rows, for_kernels
from ..kernels import plan as plans
from ..kernels.plan import Model, Row, Source
from ..pace import Pace, pace_for
from ..workspaces import FEW, Workspaces

if TYPE_CHECKING:
    from ..compiled import CompiledNetwork

BACKEND = "cpu"  # tests take "reference" too

ACTIVATIONS = {"identity": plans.IDENTITY, "relu": plans.RELU, "tanh": plans.TANH, "logistic": plans.LOGISTIC}
LOSSES = {"softmax": plans.SOFTMAX, "logistic": plans.BINARY, "identity": plans.SQUARED, "exp": plans.POISSON}

SMALL = 2**22  # values: a sparse matrix of more is never made dense as a whole
_HARDLY = 0.03  # of 2,000 x 3,000 values 1 % were fitted by scikit-learn in 0.09 s, by dense mini-batches in 0.22
_READ = 2**24  # bytes of parameters read for a few rows one by one, above which a batch is faster


class Flat:
    """The parameters of a multi-layer perceptron in one array, with what kernels need to run it.

    units: D, hidden sizes, K. activation: of the hidden layers, output: of the last, as scikit-learn names them.
    dropout: a probability for each hidden layer. All weights start as 0.

    Attributes: model, dtype, units, activation, output, dropout, workspaces; coefs, intercepts: views of the
    parameters, weights (I, O) and biases (O,): what is written there counts.
    """

    def __init__(
        self, units: Sequence[int], activation: str, output: str, dtype: Any, dropout: Sequence[float] = ()
    ) -> None:  # fmt: skip
        self.units, self.activation, self.output = tuple(units), activation, output
        self.dtype, self.dropout = np.dtype(dtype), tuple(dropout) or (0.0,) * (len(units) - 2)
        rows = []
        for (inputs, outputs), drop in zip(pairwise(units), (*self.dropout, None), strict=True):
            rows.append(plans.dense(inputs, outputs, plans.IDENTITY if drop is None else ACTIVATIONS[activation]))
            if drop:
                rows.append(Row(plans.DROPOUT, (outputs, 1, 1), (outputs, 1, 1), rates=(drop, 0.0, 0.0)))
        plan, size = plans.build(rows, LOSSES[output])
        rates = np.array([row.rates for row in rows], np.float64)
        self.model = Model(plan, plans.zeros(size, self.dtype), np.zeros(0), rates)
        self.coefs, self.intercepts = self.views(self.model.params)
        self.workspaces = Workspaces(plan, self.dtype)
        self._paces: dict[int, Pace] = {}
        self._step_paces: dict[int, dict[int, Pace]] = {}
        self._value: CompiledNetwork | None = None
        self._scratches: list[np.ndarray] = []

    @classmethod
    def of(
        cls, coefs: Sequence[Any], intercepts: Sequence[Any], activation: str, output: str, dtype: Any,
        dropout: Sequence[float] = (),
    ) -> "Flat":  # fmt: skip
        """A copy of weights (I, O) and biases (O,) of each layer."""
        coefs = [np.asarray(coef) for coef in coefs]
        flat = cls([len(coefs[0]), *(coef.shape[1] for coef in coefs)], activation, output, dtype, dropout)
        flat.write(coefs, intercepts)
        return flat

    def views(self, values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Weights (I, O) and biases (O,) of each layer as views of an array (P,) laid out as the parameters."""
        plan = self.model.plan
        layers = np.flatnonzero(plan[:, plans.KIND] == plans.DENSE)
        weights = [plans.weight_view(plan, int(layer), values) for layer in layers]
        return weights, [plans.bias_view(plan, int(layer), values) for layer in layers]

    def write(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> None:
        """Take over weights and biases."""
        for view, values in zip([*self.coefs, *self.intercepts], [*coefs, *intercepts], strict=True):
            view[...] = values

    def squares(self) -> float:
        """Σ w² over the weights, not the biases; the padding between them is zeros."""
        blocks = (self.model.params[row[plans.WEIGHT] : row[plans.BIAS]] for row in self.model.plan)
        return sum(float(np.dot(block, block)) for block in blocks)

    def holds(self, coefs: Sequence[Any], intercepts: Sequence[Any], activation: str, output: str) -> bool:
        """Whether these lists are of its own views, so that its parameters are what they say."""
        return (
            len(coefs) == len(self.coefs) == len(intercepts)
            and all(map(_same, coefs, self.coefs))
            and all(map(_same, intercepts, self.intercepts))
            and activation == self.activation
            and output == self.output
        )

    # ---- predictions

    def step_pace(self, threads: int | None, batch: int) -> Pace:
        """The pace of steps of `batch` rows, known from one partial_fit to the next."""
        return pace_for(threads, self._step_paces.setdefault(batch, {}))

    def logits(self, x: Any, threads: int | None) -> np.ndarray:
        """The last layer's outputs (N, K) of its dtype, before their activation, for rows x (N, D), dense or sparse."""
        if hardly_filled(x):
            return self._sparse_logits(x)
        compiled = kernels.load(BACKEND)
        pace = pace_for(threads, self._paces)
        count = x.shape[0]
        if not isinstance(x, np.ndarray):
            x = x.tocsr()  # chunks of rows are taken from it
        out = np.empty((count, self.units[-1]), self.dtype)
        step = chunk_rows(self.units[0])
        work = self.workspaces.take(compiled, self.workspaces.room(count))
        for first in range(0, count, step):
            chunk = out[first : first + step]
            source = self.source(dense(x if count <= step else x[first : first + step], self.dtype))
            pace.call(len(chunk), partial(compiled.predict, self.model, source, 0, len(chunk), work, chunk))
        self.workspaces.give(compiled, work)
        return out

    def _sparse_logits(self, x: Any) -> np.ndarray:
        """`logits` of a matrix that is hardly filled: SciPy multiplies what is there."""
        out = np.asarray(x @ self.coefs[0] + self.intercepts[0], self.dtype)
        for coef, intercept in zip(self.coefs[1:], self.intercepts[1:], strict=True):
            FORMULAS[self.activation](out)
            out = out @ coef + intercept
        return out

    def logits_of_few(self, x: np.ndarray) -> np.ndarray | None:
        """`logits` of few rows, without workspace and threads; None of many, or where a value is not finite.

        x (N, D) of its dtype, C-contiguous and writeable.
        """
        rows = len(x)
        if BACKEND != "cpu" or rows > FEW or self.model.params.nbytes * rows > _READ:
            return None
        value = self._value
        if value is None:
            from ..compiled import CompiledNetwork

            value = self._value = CompiledNetwork(self.model)
        try:
            scratch = self._scratches.pop()  # atomic, so threads need no lock
        except IndexError:
            scratch = value.scratch()
        out = np.empty((rows, self.units[-1]), self.dtype)
        done = value.rows(x, scratch, out, True)
        self._scratches.append(scratch)
        return out if done == rows else None

    def activate(self, out: np.ndarray) -> np.ndarray:
        """The last layer's activation of its outputs (N, K), in place."""
        compiled = kernels.load(BACKEND)
        if self.output == "softmax":
            compiled.softmax(out, out)
        elif self.output == "logistic":
            compiled.logistic(out, out)
        elif self.output == "exp":
            np.exp(out, out=out)
        return out

    def source(
        self,
        rows: np.ndarray,
        labels: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> Source:
        """Rows (N, D) of its dtype with labels (N,) int32 or targets (N, K), and weights (N,), as kernels take them."""
        one, none = self.dtype.type(1), np.empty(0, self.dtype)
        return Source(
            np.empty((0, self.units[0]), np.uint8), rows, one, one - one,
            np.empty(0, np.int32) if labels is None else labels, none if weights is None else weights,
            False, none.reshape(0, 0) if targets is None else targets,
        )  # fmt: skip


def dense(x: Any, dtype: np.dtype) -> np.ndarray:
    """An array or a sparse matrix (N, D) as an array for kernels, of `dtype`; copied only where it must be."""
    return for_kernels(np.ascontiguousarray(x if isinstance(x, np.ndarray) else x.toarray(), dtype))


def hardly_filled(x: Any) -> bool:
    """Whether a matrix is large, and so sparse that products of what is there are faster than dense ones."""
    if isinstance(x, np.ndarray):
        return False
    values = x.shape[0] * x.shape[1]
    return values > SMALL and x.nnz < _HARDLY * values


def _same(one: Any, other: Any) -> bool:
    return one is other
