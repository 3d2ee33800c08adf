"""`loss_and_gradient`, inside the reader's own @njit functions and from Python."""

import re
from functools import cache as once
from typing import Any

import numpy as np
from numba import TypingError, njit, types
from numba.extending import overload

from ..plan import BINARY, POISSON, SOFTMAX
from . import single
from .addresses import at, call_at
from .arguments import FLOATS, Array, require_array, require_real
from .gradient import FUNCTION, LABELS, LOSS, PARAMETERS, PLAN, ROWS, SCALE, TARGETS, WEIGHTS
from .inside_types import NetworkType, WorkspaceType, block_of
from .jit import OPTIONS, inner
from .simd import advance, load, pointer_to, store
from .value import CompiledNetwork, GradientWorkspace


def loss_and_gradient(
    net: CompiledNetwork, x: Any, y: Any, work: GradientWorkspace, grad: Array, weights: Any = None
) -> float:
    """The mean loss over some rows, returned, and its gradient, into grad; nothing is allocated. For @njit functions.

    net: what `Network.compiled()` gives. x (B, D), B from 1: raw inputs of any real dtype, as for `predict_rows`; or
    (B, …) C-contiguous. y: what the network's loss wants: for "cross-entropy" indices of classes (B,), integers; for
    the others numbers (B, K), of one output (B,), too: 0 or 1 of "binary". work: `net.workspace(rows)`, one a thread.
    grad (P,), of the network's dtype, overwritten: `net.gradient()`; laid out as `Network.params`, so that
    `params -= rate * grad` is a step of plain descent, and `Network.views(grad)` names its parts. weights (B,), None
    for 1: the loss is Σ weight · loss / B.

    It is what a step of training sees: dropout draws anew at each call, as the workspace's seed and its count of calls
    say, and a batch norm takes the batch's statistics and moves the running ones, which are the network's: with batch
    norms one thread at a time. What is not finite gives a loss that is not.

    Wrong types are a numba.TypingError where an @njit function is compiled and a TypeError in Python, wrong lengths and
    labels a ValueError. From Python it is compiled at the first call, for the types that come.
    """
    if not isinstance(net, CompiledNetwork) or not isinstance(work, GradientWorkspace):
        raise TypeError(
            f"net must be what Network.compiled() gives and work what its workspace() gives, got "
            f"{type(net).__name__} and {type(work).__name__}"
        )
    x, y, weights = (array if array is None else _known(np.asarray(array)) for array in (x, y, weights))
    try:
        return float(_compiled()(net, x, y, work, grad, weights))
    except TypingError as error:
        named = re.search(r"\b(x|y|weights|grad) must .*", str(error))  # of the page that Numba writes
        raise TypeError(named[0] if named else str(error)) from None


def _known(array: np.ndarray) -> np.ndarray:
    """The array, floats of a type that Numba does not compute with, or of foreign byte order, as float64."""
    return array.astype(np.float64) if array.dtype.kind == "f" and array.dtype not in FLOATS else array


@once
def _compiled() -> Any:
    def call(net, x, y, work, grad, weights):
        return loss_and_gradient(net, x, y, work, grad, weights)

    return njit(call)


_NO_WEIGHTS = types.NoneType | types.Omitted


def _require(net: Any, x: Any, y: Any, work: Any, grad: Any, weights: Any) -> None:
    """Raise a typing error that names what does not fit."""
    if not isinstance(net, NetworkType):
        raise TypingError(f"net must be what Network.compiled() gives, got {net}")
    if not isinstance(work, WorkspaceType) or work.dtype != net.dtype:
        raise TypingError(f"work must be what the network's workspace() gives, got {work}")
    given = {"x": x, "y": y} | ({} if weights is None or isinstance(weights, _NO_WEIGHTS) else {"weights": weights})
    for name, array in given.items():
        require_real(name, array)
    if x.ndim < 2 or (x.ndim > 2 and x.layout != "C"):
        raise TypingError(f"x must have 2 dimensions, or be C-contiguous of more, got {x}")
    if y.ndim not in (1, 2):
        raise TypingError(f"y must have 1 or 2 dimensions, got {y}")
    if "weights" in given and weights.ndim != 1:
        raise TypingError(f"weights must have 1 dimension, got {weights}")
    require_array("grad", grad, 1, True, net.dtype)


def _table(x):
    """x as rows (B, D)."""


@overload(_table, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_table(x):
    return (lambda x: x) if x.ndim == 2 else (lambda x: x.reshape(x.shape[0], x.size // max(1, x.shape[0])))


def _element(y, i, j):
    """y[i, j] of a matrix, y[i] of a vector."""


@overload(_element, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_element(y, i, j):
    return (lambda y, i, j: y[i, j]) if y.ndim == 2 else (lambda y, i, j: y[i])


@inner
def _take_numbers(y, outputs, work, targets):
    if load(work, LOSS) == SOFTMAX:
        raise ValueError("loss_and_gradient: y must be labels, integers (B,), as the network's loss is of classes")
    if y.size != y.shape[0] * outputs:
        raise ValueError("loss_and_gradient: y must be (B, K), or (B,) for a network of one output")
    loss = load(work, LOSS)
    for i in range(y.shape[0]):
        for j in range(outputs):
            number = _element(y, i, j)
            if loss == BINARY and not (number >= 0 and number <= 1):
                raise ValueError("loss_and_gradient: a number of y is outside 0 … 1, as yes or no is")
            if loss == POISSON and not number >= 0:
                raise ValueError("loss_and_gradient: a number of y is below 0, as no count is")
            store(targets, i * outputs + j, number)


@inner
def _take_labels(y, outputs, labels):
    for i in range(y.shape[0]):
        if y[i] < 0 or y[i] >= outputs:
            raise ValueError("loss_and_gradient: a label of y is outside 0 … K - 1")
        store(labels, i, y[i])


def _take_answers(y, outputs, work, targets):
    """y checked, and as labels or targets to the workspace."""


@overload(_take_answers, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_take_answers(y, outputs, work, targets):
    def labels_or_numbers(y, outputs, work, targets):
        if load(work, LOSS) == SOFTMAX:
            _take_labels(y, outputs, at(load(work, LABELS), np.int32))
        else:
            _take_numbers(y, outputs, work, targets)

    return labels_or_numbers if y.ndim == 1 and not isinstance(y.dtype, types.Float) else _take_numbers.py_func


def _take_weights(weights, rows, work, target):
    """The rows' weights, 1 for None, times the loss's scale, to the workspace."""


@overload(_take_weights, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_take_weights(weights, rows, work, target):
    def none(weights, rows, work, target):
        scale = load(at(load(work, SCALE), np.float64), 0)
        for i in range(rows):
            store(target, i, scale)

    def some(weights, rows, work, target):
        if weights.shape[0] != rows:
            raise ValueError("loss_and_gradient: weights must be (B,), one a row of x")
        scale = load(at(load(work, SCALE), np.float64), 0)
        for i in range(rows):
            store(target, i, weights[i] * scale)

    return some if isinstance(weights, types.Array) else none


@overload(loss_and_gradient, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_loss_and_gradient(net, x, y, work, grad, weights=None):
    _require(net, x, y, work, grad, weights)
    gather = single.gather

    def loss_and_gradient(net, x, y, work, grad, weights=None):
        block, room, to = block_of(net), block_of(work), pointer_to(grad, 0)
        rows, inputs = x.shape[0], net.inputs
        if load(room, PLAN) != load(block, single.PLAN):
            raise ValueError("loss_and_gradient: work is another network's, see CompiledNetwork.workspace")
        if rows < 1 or rows > work.rows:
            raise ValueError("loss_and_gradient: x has no rows, or more than work has room for")
        if x.size != rows * inputs:
            raise ValueError("loss_and_gradient: rows of x have not as many elements as the network has inputs")
        if y.shape[0] != rows:
            raise ValueError("loss_and_gradient: x and y have not as many rows as one another")
        if grad.size != load(room, PARAMETERS):
            raise ValueError("loss_and_gradient: grad has not as many elements as params, see CompiledNetwork.gradient")
        _take_answers(y, net.outputs, room, at(load(room, TARGETS), to))
        _take_weights(weights, rows, room, at(load(room, WEIGHTS), to))
        table, batch = _table(x), at(load(room, ROWS), to)
        for i in range(rows):
            gather(block, table[i], advance(batch, i * inputs))
        return call_at(load(room, FUNCTION), 0.0, (block, room, rows, to))

    return loss_and_gradient
