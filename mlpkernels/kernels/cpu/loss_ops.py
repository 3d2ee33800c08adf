"""The public ops of losses, of softmax and of the logistic function; see ops.py for how they check and compile.

Inside @njit nothing is allocated but 2 KB by each loss.
"""

from typing import Any

import numpy as np
from numba.extending import overload

from ..plan import BINARY, LOGISTIC, POISSON, SQUARED
from . import curves as _curves
from . import loss as _loss
from . import steps
from .arguments import (
    Array,
    apart,
    input_,
    output,
    require,
    require_labels,
    require_matrices,
    same_or_apart,
)  # fmt: skip
from .jit import inner


def softmax_cross_entropy(logits: Any, labels: Any, weights: Any, divisor: float, dlogits: Array) -> tuple[float, int]:
    """Loss, gradient and correct count of softmax cross-entropy in one pass.

    logits (B, K), labels (B,) int32 class indices, weights (B,) -> dlogits (B, K), overwritten, = weight ·
    (softmax - onehot) / divisor, float32 or float64; may be logits itself. Returns (Σ weight · loss as float64,
    rows whose first largest logit is the label's). Raises TypeError or ValueError naming the argument.
    """
    batch, classes = output("dlogits", dlogits, 2).shape
    logits = input_("logits", logits, dlogits.dtype, (batch, classes))
    labels = _labels(labels, batch, classes)
    weights = input_("weights", weights, dlogits.dtype, (batch,))
    apart("dlogits", dlogits, weights=weights, labels=labels)
    same_or_apart("dlogits", dlogits, logits=logits)
    if not divisor > 0:
        raise ValueError(f"divisor must be positive, got {divisor}")
    entry = steps.get("cross_entropy", dlogits.dtype)
    loss, correct = entry(logits, labels, weights, dlogits.dtype.type(divisor), dlogits)
    return float(loss), int(correct)


def _labels(labels: Any, batch: int, classes: int) -> Array:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != (batch,):
        raise ValueError(f"labels must have shape {(batch,)}, got {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels must be 0 … {classes - 1}, got {labels.min()} … {labels.max()}")
    return np.require(labels, np.int32, ("C", "A", "W"))


@overload(softmax_cross_entropy)
def _compile_softmax_cross_entropy(logits, labels, weights, divisor, dlogits):
    require("dlogits", {"logits": 2, "dlogits": 2, "weights": 1}, logits=logits, dlogits=dlogits, weights=weights)
    require_labels("labels", labels)
    cross_entropy = _loss.cross_entropy

    def softmax_cross_entropy(logits, labels, weights, divisor, dlogits):
        if logits.shape != dlogits.shape:
            raise ValueError("softmax_cross_entropy: logits (B, K) and dlogits (B, K) disagree")
        if labels.shape[0] != logits.shape[0] or weights.shape[0] != logits.shape[0]:
            raise ValueError("softmax_cross_entropy: logits (B, K), labels (B,) and weights (B,) disagree on B")
        for i in range(labels.shape[0]):
            if labels[i] < 0 or labels[i] >= logits.shape[1]:
                raise ValueError("softmax_cross_entropy: a label is outside 0 … K - 1")
        if not divisor > 0:
            raise ValueError("softmax_cross_entropy: divisor must be positive")
        return cross_entropy(logits, labels, weights, logits.dtype.type(divisor), dlogits)

    return softmax_cross_entropy


def _softmax(logits: Any, out: Array, logarithm: bool) -> None:
    output("out", out, 2)
    logits = input_("logits", logits, out.dtype, out.shape)
    same_or_apart("out", out, logits=logits)
    steps.get("softmax_rows", out.dtype)(logits, out, logarithm)


def softmax(logits: Any, out: Array) -> None:
    """out = softmax of each row. logits (B, K) -> out (B, K), float32 or float64; may be the same array."""
    _softmax(logits, out, False)


def log_softmax(logits: Any, out: Array) -> None:
    """out = logarithm of the softmax of each row. logits (B, K) -> out (B, K), overwritten; may be the same array."""
    _softmax(logits, out, True)


@overload(softmax)
def _compile_softmax(logits, out):
    require_matrices("out", logits=logits, out=out)
    rows = _loss.softmax_rows

    def softmax(logits, out):
        if logits.shape != out.shape:
            raise ValueError("softmax: logits (B, K) and out (B, K) disagree")
        rows(logits, out, False)

    return softmax


@overload(log_softmax)
def _compile_log_softmax(logits, out):
    require_matrices("out", logits=logits, out=out)
    rows = _loss.softmax_rows

    def log_softmax(logits, out):
        if logits.shape != out.shape:
            raise ValueError("log_softmax: logits (B, K) and out (B, K) disagree")
        rows(logits, out, True)

    return log_softmax


# ---- losses of targets


def _target_loss(
    kind: int, name: str, outputs: Any, targets: Any, weights: Any, divisor: float, gradient: Array, into: str
) -> tuple[float, int]:  # fmt: skip
    batch, width = output(into, gradient, 2).shape
    outputs = input_(name, outputs, gradient.dtype, (batch, width))
    targets = input_("targets", targets, gradient.dtype, (batch, width))
    weights = input_("weights", weights, gradient.dtype, (batch,))
    apart(into, gradient, weights=weights, targets=targets)
    same_or_apart(into, gradient, **{name: outputs})
    if not divisor > 0:
        raise ValueError(f"divisor must be positive, got {divisor}")
    lowest, highest = (targets.min(), targets.max()) if targets.size else (0, 0)
    if kind == BINARY and not (lowest >= 0 and highest <= 1):
        raise ValueError(f"targets must be 0 … 1, got {lowest:g} … {highest:g}")
    if kind == POISSON and not lowest >= 0:
        raise ValueError(f"targets must be at least 0, got {lowest:g}")
    entry = steps.get("target_loss", gradient.dtype)
    loss, correct = entry(kind, outputs, targets, weights, gradient.dtype.type(divisor), gradient)
    return float(loss), int(correct)


def binary_cross_entropy(
    logits: Any, targets: Any, weights: Any, divisor: float, dlogits: Array
) -> tuple[float, int]:  # fmt: skip
    """Loss, gradient and correct count of K outputs that each say yes or no: the logistic function's cross-entropy.

    logits (B, K), targets (B, K) from 0 to 1, weights (B,) -> dlogits (B, K), overwritten, = weight · (logistic(z) -
    target) / divisor, float32 or float64; may be logits itself. Returns (Σ weight · loss, the loss summed over a row's
    outputs, as float64; rows whose outputs are all on their target's side: z > 0 where the target is above 1/2).
    Raises TypeError or ValueError naming the argument.
    """
    return _target_loss(BINARY, "logits", logits, targets, weights, divisor, dlogits, "dlogits")


def squared_error(outputs: Any, targets: Any, weights: Any, divisor: float, doutputs: Array) -> float:
    """Half the squared error, summed over a row's outputs, and its gradient.

    outputs, targets (B, K), weights (B,) -> doutputs (B, K), overwritten, = weight · (output - target) / divisor,
    float32 or float64; may be outputs itself. Returns Σ weight · loss as float64. Raises TypeError or ValueError naming
    the argument.
    """
    return _target_loss(SQUARED, "outputs", outputs, targets, weights, divisor, doutputs, "doutputs")[0]


def poisson_loss(outputs: Any, targets: Any, weights: Any, divisor: float, doutputs: Array) -> float:
    """Half the Poisson deviance of exp(output), summed over a row's outputs, and its gradient.

    outputs (B, K), the logarithms of what is predicted, targets (B, K) from 0, weights (B,) -> doutputs (B, K),
    overwritten, = weight · (exp(output) - target) / divisor, float32 or float64; may be outputs itself. Returns
    Σ weight · loss, the loss being exp(z) - y · z + y · log(y) - y, as float64. Raises TypeError or ValueError naming
    the argument.
    """
    return _target_loss(POISSON, "outputs", outputs, targets, weights, divisor, doutputs, "doutputs")[0]


_TARGET_LOSS = {"targets": 2, "weights": 1}


@inner
def _between(targets, low, high):
    """Whether all of targets (B, K) are from low to high, as NaN is not."""
    for i in range(targets.shape[0]):
        for j in range(targets.shape[1]):
            if not (targets[i, j] >= low and targets[i, j] <= high):
                return False
    return True


@overload(binary_cross_entropy)
def _compile_binary_cross_entropy(logits, targets, weights, divisor, dlogits):
    dimensions = {"logits": 2, "dlogits": 2, **_TARGET_LOSS}
    require("dlogits", dimensions, logits=logits, dlogits=dlogits, targets=targets, weights=weights)
    target_loss = _loss.target_loss

    def binary_cross_entropy(logits, targets, weights, divisor, dlogits):
        if logits.shape != dlogits.shape or logits.shape != targets.shape:
            raise ValueError("binary_cross_entropy: logits, targets and dlogits (B, K) disagree")
        if weights.shape[0] != logits.shape[0]:
            raise ValueError("binary_cross_entropy: logits (B, K) and weights (B,) disagree on B")
        if not divisor > 0:
            raise ValueError("binary_cross_entropy: divisor must be positive")
        if not _between(targets, 0, 1):
            raise ValueError("binary_cross_entropy: a target is outside 0 … 1")
        return target_loss(BINARY, logits, targets, weights, logits.dtype.type(divisor), dlogits)

    return binary_cross_entropy


def _compile_regression(kind: int, op: str) -> Any:
    target_loss, shapes = _loss.target_loss, f"{op}: outputs, targets and doutputs (B, K) disagree"
    count, positive = f"{op}: outputs (B, K) and weights (B,) disagree on B", f"{op}: divisor must be positive"
    below = f"{op}: a target is below 0"

    def regression(outputs, targets, weights, divisor, doutputs):
        dimensions = {"outputs": 2, "doutputs": 2, **_TARGET_LOSS}
        require("doutputs", dimensions, outputs=outputs, doutputs=doutputs, targets=targets, weights=weights)

        def loss(outputs, targets, weights, divisor, doutputs):
            if outputs.shape != doutputs.shape or outputs.shape != targets.shape:
                raise ValueError(shapes)
            if weights.shape[0] != outputs.shape[0]:
                raise ValueError(count)
            if not divisor > 0:
                raise ValueError(positive)
            if kind == POISSON and not _between(targets, 0, np.inf):
                raise ValueError(below)
            return target_loss(kind, outputs, targets, weights, outputs.dtype.type(divisor), doutputs)[0]

        return loss

    return regression


overload(squared_error)(_compile_regression(SQUARED, "squared_error"))
overload(poisson_loss)(_compile_regression(POISSON, "poisson_loss"))


# ---- the logistic function


def logistic(z: Any, out: Array) -> None:
    """out = 1 / (1 + exp(-z)) of each element. z of any shape -> out, float32 or float64, overwritten; may be z itself.

    Raises TypeError or ValueError naming the argument.
    """
    output("out", out, None)
    z = input_("z", z, out.dtype, out.shape)
    same_or_apart("out", out, z=z)
    np.copyto(out, z)
    steps.get("activate", out.dtype)(out.reshape(-1), LOGISTIC)


@overload(logistic)
def _compile_logistic(z, out):
    require_flat = {"z": getattr(z, "ndim", 0), "out": getattr(z, "ndim", 0)}
    require("out", require_flat, z=z, out=out)
    activate = _curves.activate

    def logistic(z, out):
        if z.shape != out.shape:
            raise ValueError("logistic: z and out disagree")
        source, target = z.reshape(z.size), out.reshape(out.size)
        for i in range(source.shape[0]):
            target[i] = source[i]
        activate(target, LOGISTIC)

    return logistic
