"""Every op and verb in plain NumPy, for any floating dtype: the definition of correct.

The compiled backends are tested against this file. B batch, I inputs, O outputs, K classes.
"""

import time
from typing import Any

import numpy as np

from . import plan as p
from .plan import (
    IDENTITY,
    RELU,
    Model,
    OptimizerState,
    Source,
    Workspace,
    bias_view,
    make_workspace,
    weight_view,
)

__all__ = [
    "IDENTITY", "RELU", "adam_step", "dense_backward_input", "dense_backward_params", "dense_forward", "evaluate",
    "log_softmax", "loss_and_gradient", "make_workspace", "predict", "sgd_step", "softmax", "softmax_cross_entropy",
    "train_steps",
]  # fmt: skip

Array = np.ndarray


# ---- ops


def dense_forward(x: Array, w: Array, b: Array, activation: int, out: Array) -> None:
    """out = activation(x @ w + b).

    x (B, I), w (I, O), b (O,) -> out (B, O), overwritten. activation is IDENTITY or RELU.
    """
    out[...] = x @ w + b
    if activation == RELU:
        np.maximum(out, 0, out=out)


def dense_backward_params(x: Array, delta: Array, dw: Array, db: Array) -> None:
    """dw = x.T @ delta, db = delta summed over the batch.

    x (B, I), delta (B, O): the loss's gradient by x @ w + b -> dw (I, O), db (O,), overwritten.
    """
    dw[...] = x.T @ delta
    db[...] = delta.sum(axis=0)


def dense_backward_input(delta: Array, w: Array, x: Array, activation: int, dx: Array) -> None:
    """dx = (delta @ w.T) * slope, the slope of the activation that made x, read off x itself.

    delta (B, O), w (I, O), x (B, I) -> dx (B, I), overwritten: the gradient by the layer before's x @ w + b.
    """
    dx[...] = delta @ w.T
    if activation == RELU:
        dx[...] = np.where(x > 0, dx, 0)


def softmax_cross_entropy(
    logits: Array, labels: Array, weights: Array, divisor: float, dlogits: Array
) -> tuple[float, int]:
    """Loss, gradient and correct count of softmax cross-entropy in one pass.

    logits (B, K), labels (B,) int32, weights (B,) -> dlogits (B, K) = weight · (softmax - onehot) / divisor,
    overwritten; returns (Σ weight · loss as float64, rows whose first largest logit is the label's).
    """
    losses, corrects = _row_losses(logits, labels, weights, divisor, dlogits)
    return float(losses.sum()), int(corrects.sum())


def _row_losses(logits: Array, labels: Array, weights: Array, divisor: float, dlogits: Array) -> tuple[Array, Array]:
    rows = np.arange(len(logits))
    if len(logits) == 0:
        return np.zeros(0), np.zeros(0, np.int64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        total = exps.sum(axis=1, keepdims=True)
        losses = weights * (np.log(total[:, 0]) - shifted[rows, labels])
        probability = exps / total
        probability[rows, labels] -= 1
        dlogits[...] = probability * (weights / logits.dtype.type(divisor))[:, None]
    correct = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return losses.astype(np.float64), correct.astype(np.int64)


def softmax(logits: Array, out: Array) -> None:
    """out = softmax of each row. logits (B, K) -> out (B, K), overwritten; may be the same array."""
    if logits.size:
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[...] = exps / exps.sum(axis=1, keepdims=True)


def log_softmax(logits: Array, out: Array) -> None:
    """out = logarithm of the softmax of each row. logits (B, K) -> out (B, K), overwritten."""
    if logits.size:
        shifted = logits - logits.max(axis=1, keepdims=True)
        out[...] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def sgd_step(
    params: Array, grad: Array, velocity: Array, learning_rate: float, momentum: float, nesterov: bool,
    weight_decay: float,
) -> None:  # fmt: skip
    """One step of stochastic gradient descent, as torch.optim.SGD.

    params, grad (P,), velocity (P,) or (0,) without momentum. g = grad + weight_decay · params;
    v = momentum · v + g; params -= learning_rate · v, with Nesterov learning_rate · (g + momentum · v).
    Sutskever et al. 2013. params and velocity change in place.
    """
    T = params.dtype.type
    g = grad + T(weight_decay) * params if weight_decay else grad
    if momentum:
        velocity[...] = T(momentum) * velocity + g
        g = g + T(momentum) * velocity if nesterov else velocity
    params -= T(learning_rate) * g


def adam_step(
    params: Array, grad: Array, m: Array, v: Array, learning_rate: float, beta1: float, beta2: float,
    epsilon: float, weight_decay: float, decoupled: bool, step: int,
) -> None:  # fmt: skip
    """One step of Adam (Kingma & Ba 2015) or, decoupled, AdamW (Loshchilov & Hutter 2019), as torch.optim.

    params, grad, m, v (P,); step counts from 1. params, m and v change in place.
    """
    T = params.dtype.type
    if decoupled:
        params *= T(1 - learning_rate * weight_decay)
        g = grad
    else:
        g = grad + T(weight_decay) * params if weight_decay else grad
    m[...] = T(beta1) * m + T(1 - beta1) * g
    v[...] = T(beta2) * v + T(1 - beta2) * (g * g)
    rate = T(learning_rate / (1 - beta1**step))
    params -= rate * m / (np.sqrt(v) * T(1 / np.sqrt(1 - beta2**step)) + T(epsilon))


# ---- verbs


def _gather(source: Source, rows: Any, dtype: Any) -> Array:
    """Rows of a source as the network's inputs (B, D)."""
    if len(source.bytes):
        return source.bytes[rows].astype(dtype) * source.factor + source.offset
    return source.rows[rows]


def _forward(model: Model, x: Array) -> list[Array]:
    """Every layer's input, and last the logits."""
    values = [x]
    for layer, row in enumerate(model.plan):
        out = np.empty((len(x), row[p.OUTPUTS]), model.params.dtype)
        w, b = weight_view(model.plan, layer, model.params), bias_view(model.plan, layer, model.params)
        dense_forward(values[-1], w, b, int(row[p.ACTIVATION]), out)
        values.append(out)
    return values


def _gradient(model: Model, source: Source, rows: Any, divisor: float, grad: Array) -> tuple[float, int]:
    """The loss's gradient by the flat parameters; (Σ weight · loss, correct count)."""
    plan = model.plan
    values = _forward(model, _gather(source, rows, model.params.dtype))
    delta = np.empty_like(values[-1])
    loss, correct = softmax_cross_entropy(values[-1], source.labels[rows], source.weights[rows], divisor, delta)
    for layer in range(len(plan) - 1, -1, -1):
        x = values[layer]
        dense_backward_params(x, delta, weight_view(plan, layer, grad), bias_view(plan, layer, grad))
        if layer > 0:
            dx = np.empty_like(x)
            w = weight_view(plan, layer, model.params)
            dense_backward_input(delta, w, x, int(plan[layer - 1, p.ACTIVATION]), dx)
            delta = dx
    return loss, correct


def _update(model: Model, optimizer: OptimizerState, grad: Array, learning_rate: float) -> None:
    """One optimiser step over every weight and bias block, after clipping by the global norm."""
    settings = optimizer.settings
    step = int(optimizer.step[0]) + 1
    if settings[p.CLIP_NORM] > 0:
        norm = np.sqrt(np.sum(grad.astype(np.float64) ** 2))
        grad *= grad.dtype.type(min(1.0, settings[p.CLIP_NORM] / (norm + 1e-6)))
    for row in model.plan:
        end = row[p.BIAS] + row[p.WEIGHT_STRIDE]
        for block, decays in (
            (slice(row[p.WEIGHT], row[p.BIAS]), True),
            (slice(row[p.BIAS], end), bool(settings[p.DECAY_BIAS])),
        ):
            decay = settings[p.WEIGHT_DECAY] if decays else 0.0
            if settings[p.RULE] == p.SGD:
                sgd_step(
                    model.params[block], grad[block], optimizer.first[block], learning_rate,
                    settings[p.MOMENTUM], bool(settings[p.NESTEROV]), decay,
                )  # fmt: skip
            else:
                adam_step(
                    model.params[block], grad[block], optimizer.first[block], optimizer.second[block],
                    learning_rate, settings[p.BETA1], settings[p.BETA2], settings[p.EPSILON], decay,
                    settings[p.RULE] == p.ADAMW, step,
                )  # fmt: skip
    optimizer.step[0] = step


def train_steps(
    model: Model, optimizer: OptimizerState, source: Source, order: Array, batch_size: int, first: int, last: int,
    learning_rates: Array, work: Workspace, losses: Array, corrects: Array, threads: int = 1,
    seconds: float = float("inf"),
) -> int:  # fmt: skip
    """Mini-batch steps first … last - 1: forward, backward and update; parameters change in place.

    Step s takes the rows order[s · batch_size : (s + 1) · batch_size], the last one fewer; its gradient is
    divided by their number. learning_rates[s] is its rate; losses[s] (float64) = Σ weight · loss and corrects[s]
    are written. optimizer.step[0] grows by one with each update. Returns the step reached: last; or, after
    `seconds` and at least one step, an earlier one; or the one whose loss is not finite, which was not applied and
    whose losses[s] says so. threads and seconds never change a bit of the result.
    """
    began = time.perf_counter()
    for s in range(first, last):
        if s > first and time.perf_counter() - began > seconds:
            return s
        rows = order[s * batch_size : (s + 1) * batch_size]
        losses[s], corrects[s] = _gradient(model, source, rows, len(rows), work.grad)
        if not np.isfinite(losses[s]):
            return s
        _update(model, optimizer, work.grad, learning_rates[s])
    return last


def loss_and_gradient(
    model: Model, source: Source, order: Array, divisor: float, work: Workspace, grad: Array, threads: int = 1
) -> float:
    """Σ weight · loss / divisor over the rows of `order` (at most the workspace's), its gradient in grad (P,)."""
    grad[...] = 0
    return _gradient(model, source, order, divisor, grad)[0] / divisor


def evaluate(
    model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int = 1
) -> tuple[float, int]:
    """(Σ weight · loss, correct count) over the source's rows start … stop - 1."""
    batch = len(work.losses)
    loss, correct = 0.0, 0
    for first in range(start, stop, batch):
        rows = slice(first, min(first + batch, stop))
        logits = _forward(model, _gather(source, rows, model.params.dtype))[-1]
        labels, weights = source.labels[rows], source.weights[rows]
        row_losses, row_corrects = _row_losses(logits, labels, weights, 1.0, np.empty_like(logits))
        loss += float(row_losses.sum())
        correct += int(row_corrects.sum())
    return loss, correct


def predict(model: Model, source: Source, start: int, stop: int, work: Workspace, out: Array, threads: int = 1) -> None:
    """Logits of the source's rows start … stop - 1 -> out (stop - start, K), overwritten."""
    batch = len(work.losses)
    for first in range(start, stop, batch):
        rows = slice(first, min(first + batch, stop))
        out[first - start : rows.stop - start] = _forward(model, _gather(source, rows, model.params.dtype))[-1]
