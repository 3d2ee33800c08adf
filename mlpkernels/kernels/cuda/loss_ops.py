"""The public ops of losses, of softmax and of the logistic function, on the host's arrays or the GPU's: see ops.py."""

from typing import Any

import numpy as np

from ..plan import BINARY, LOGISTIC, POISSON, SQUARED
from . import driver
from .arguments import apart, class_indices, input_, output, same_or_apart
from .arrays import View, fetch, finish, nothing, room
from .driver import stream_of
from .op_kernels import blocks_of, kernels
from .sums import GROUPS, THREADS


def softmax_cross_entropy(
    logits: Any, labels: Any, weights: Any, divisor: float, dlogits: Any, stream: Any = None
) -> tuple[float, int]:  # fmt: skip
    """Loss, gradient and correct count of softmax cross-entropy in one pass; waits for its sums.

    logits (B, K), labels (B,) integers 0 … K - 1, weights (B,) -> dlogits (B, K) = weight · (softmax - onehot) /
    divisor, float32 or float64; may be logits itself. Returns (Σ weight · loss as float64, rows whose first largest
    logit is the label's). Raises TypeError or ValueError naming the argument.
    """
    dlogits = output("dlogits", dlogits, 2)
    batch, classes = dlogits.shape
    logits = input_("logits", logits, dlogits.dtype, (batch, classes))
    labels = class_indices(labels, batch, classes)
    weights = input_("weights", weights, dlogits.dtype, (batch,))
    apart("dlogits", dlogits, weights=weights, labels=labels)
    same_or_apart("dlogits", dlogits, logits=logits)
    if not divisor > 0:
        raise ValueError(f"divisor must be positive, got {divisor}")
    stream = stream_of(stream)
    losses, corrects = room(max(1, batch), np.float64, stream), room(max(1, batch), np.int64, stream)
    if batch:
        driver.launch(
            kernels(dlogits.dtype.name).cross_entropy, -(-batch // GROUPS), THREADS, stream, logits.flat(stream), batch,
            classes, labels.flat(stream), weights.flat(stream), dlogits.dtype.type(divisor),
            dlogits.flat(stream, read=False), losses, corrects,
        )  # fmt: skip
    return _summed(dlogits, losses, corrects, stream)


def _summed(gradient: View, losses: Any, corrects: Any, stream: Any) -> tuple[float, int]:
    """(Σ losses, Σ corrects) of a batch's rows, its gradient brought back."""
    batch = gradient.shape[0]
    if not batch:
        return 0.0, 0
    loss, correct = room(1, np.float64, stream), room(1, np.int64, stream)
    driver.launch(
        kernels(gradient.dtype.name).totals, 1, THREADS, stream, losses, corrects, batch, loss, correct
    )  # fmt: skip
    finish(stream, gradient)
    return float(fetch(loss, stream)[0]), int(fetch(correct, stream)[0])


def _target_loss(
    kind: int, name: str, outputs: Any, targets: Any, weights: Any, divisor: float, gradient: Any, into: str,
    stream: Any,
) -> tuple[float, int]:  # fmt: skip
    gradient = output(into, gradient, 2)
    batch, width = gradient.shape
    outputs = input_(name, outputs, gradient.dtype, (batch, width))
    targets = input_("targets", targets, gradient.dtype, (batch, width))
    weights = input_("weights", weights, gradient.dtype, (batch,))
    apart(into, gradient, weights=weights, targets=targets)
    same_or_apart(into, gradient, **{name: outputs})
    if not divisor > 0:
        raise ValueError(f"divisor must be positive, got {divisor}")
    stream = stream_of(stream)
    _check_range(kind, targets, stream)
    losses, corrects = room(max(1, batch), np.float64, stream), room(max(1, batch), np.int64, stream)
    if batch:
        driver.launch(
            kernels(gradient.dtype.name).target_loss, -(-batch // GROUPS), THREADS, stream, kind, outputs.flat(stream),
            batch, width, targets.flat(stream), weights.flat(stream), gradient.dtype.type(divisor),
            gradient.flat(stream, read=False), losses, corrects, nothing("int64"),
        )  # fmt: skip
    return _summed(gradient, losses, corrects, stream)


def _check_range(kind: int, targets: View, stream: Any) -> None:
    """Raise ValueError for targets that the loss has no meaning for; those on the GPU are copied to be looked at."""
    if kind == SQUARED or not targets.size:
        return
    values = fetch(targets.value, stream) if targets.device else targets.value
    lowest, highest = values.min(), values.max()
    if kind == BINARY and not (lowest >= 0 and highest <= 1):
        raise ValueError(f"targets must be 0 … 1, got {lowest:g} … {highest:g}")
    if kind == POISSON and not lowest >= 0:
        raise ValueError(f"targets must be at least 0, got {lowest:g}")


def binary_cross_entropy(
    logits: Any, targets: Any, weights: Any, divisor: float, dlogits: Any, stream: Any = None
) -> tuple[float, int]:  # fmt: skip
    """Loss, gradient and correct count of K outputs that each say yes or no: the logistic function's cross-entropy.

    logits (B, K), targets (B, K) from 0 to 1, weights (B,) -> dlogits (B, K), overwritten, = weight · (logistic(z) -
    target) / divisor, float32 or float64; may be logits itself. Returns (Σ weight · loss, the loss summed over a row's
    outputs, as float64; rows whose outputs are all on their target's side: z > 0 where the target is above 1/2).
    Raises TypeError or ValueError naming the argument.
    """
    return _target_loss(BINARY, "logits", logits, targets, weights, divisor, dlogits, "dlogits", stream)


def squared_error(
    outputs: Any, targets: Any, weights: Any, divisor: float, doutputs: Any, stream: Any = None
) -> float:  # fmt: skip
    """Half the squared error, summed over a row's outputs, and its gradient.

    outputs, targets (B, K), weights (B,) -> doutputs (B, K), overwritten, = weight · (output - target) / divisor,
    float32 or float64; may be outputs itself. Returns Σ weight · loss as float64. Raises TypeError or ValueError naming
    the argument.
    """
    return _target_loss(SQUARED, "outputs", outputs, targets, weights, divisor, doutputs, "doutputs", stream)[0]


def poisson_loss(
    outputs: Any, targets: Any, weights: Any, divisor: float, doutputs: Any, stream: Any = None
) -> float:  # fmt: skip
    """Half the Poisson deviance of exp(output), summed over a row's outputs, and its gradient.

    outputs (B, K), the logarithms of what is predicted, targets (B, K) from 0, weights (B,) -> doutputs (B, K),
    overwritten, = weight · (exp(output) - target) / divisor, float32 or float64; may be outputs itself. Returns
    Σ weight · loss, the loss being exp(z) - y · z + y · log(y) - y, as float64. Raises TypeError or ValueError naming
    the argument.
    """
    return _target_loss(POISSON, "outputs", outputs, targets, weights, divisor, doutputs, "doutputs", stream)[0]


def logistic(z: Any, out: Any, stream: Any = None) -> None:
    """out = 1 / (1 + exp(-z)) of each element. z of any shape -> out, float32 or float64, overwritten; may be z itself.

    Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, None)
    z = input_("z", z, out.dtype, out.shape)
    same_or_apart("out", out, z=z)
    stream = stream_of(stream)
    if out.size:
        driver.launch(
            kernels(out.dtype.name).activated, blocks_of(out.size), THREADS, stream, z.flat(stream), LOGISTIC,
            out.flat(stream, read=False), out.size,
        )  # fmt: skip
    finish(stream, out)


def _softmax(logits: Any, out: Any, logarithm: int, stream: Any) -> None:
    out = output("out", out, 2)
    logits = input_("logits", logits, out.dtype, out.shape)
    same_or_apart("out", out, logits=logits)
    stream, (batch, classes) = stream_of(stream), out.shape
    if out.size:
        driver.launch(
            kernels(out.dtype.name).softmax, -(-batch // GROUPS), THREADS, stream, logits.flat(stream), batch, classes,
            logarithm, out.flat(stream, read=False),
        )  # fmt: skip
    finish(stream, out)


def softmax(logits: Any, out: Any, stream: Any = None) -> None:
    """out = softmax of each row. logits (B, K) -> out (B, K), float32 or float64; may be the same array."""
    _softmax(logits, out, 0, stream)


def log_softmax(logits: Any, out: Any, stream: Any = None) -> None:
    """out = logarithm of the softmax of each row. logits (B, K) -> out (B, K), overwritten; may be the same array."""
    _softmax(logits, out, 1, stream)
