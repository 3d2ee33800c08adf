"""The reference backend: every verb in plain NumPy over the ops of reference_ops.py, for any floating dtype.

The compiled backends are tested against it.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import plan as p
from .plan import IDENTITY, LOGISTIC, RELU, TANH, Model, OptimizerState, Source, Workspace, make_workspace
from .reference_ops import (
    Array,
    Pair,
    Rows,
    adam_step,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    binary_cross_entropy,
    binary_row_losses,
    conv2d_backward_input,
    conv2d_backward_params,
    conv2d_forward,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    dropout,
    dropout_backward,
    log_softmax,
    logistic,
    maxpool2d_backward,
    maxpool2d_forward,
    poisson_loss,
    poisson_row_losses,
    row_losses,
    sgd_step,
    softmax,
    softmax_cross_entropy,
    sparse_dense_forward,
    squared_error,
    squared_row_losses,
)

__all__ = [
    "IDENTITY", "LOGISTIC", "RELU", "TANH", "adam_step", "batchnorm_backward", "batchnorm_forward",
    "batchnorm_inference", "binary_cross_entropy", "conv2d_backward_input", "conv2d_backward_params",
    "conv2d_forward", "dense_backward_input", "dense_backward_params", "dense_forward", "dropout",
    "dropout_backward", "evaluate", "log_softmax", "logistic", "loss_and_gradient", "make_workspace",
    "maxpool2d_backward", "maxpool2d_forward", "poisson_loss", "predict", "sgd_step", "softmax",
    "softmax_cross_entropy", "sparse_dense_forward", "squared_error", "train_steps",
]  # fmt: skip


class Masks(NamedTuple):
    """What dropout's masks come from, beside the layer and the element."""

    seed: int
    step: int


def _gather(source: Source, rows: Any, dtype: Any) -> Array:
    """Rows of a source as the network's inputs (B, D)."""
    if len(source.bytes):
        return source.bytes[rows].astype(dtype) * source.factor + source.offset
    return source.rows[rows]


def _geometry(row: Array) -> tuple[Pair, Pair, Pair]:
    """A row's kernel, stride and padding."""
    sizes = [int(n) for n in row[p.KERNEL_H : p.PADDING_W + 1]]
    return (sizes[0], sizes[1]), (sizes[2], sizes[3]), (sizes[4], sizes[5])


def _shaped(values: Array, row: Array, first: int) -> Array:
    """values (B, …) as the images (B, C, H, W) that a layer takes or, from OUT_CHANNELS on, gives; flat: H = W = 1."""
    return values.reshape(len(values), *row[first : first + 3])


def _layer_forward(model: Model, layer: int, x: Array, masks: Masks | None) -> tuple[Array, Any]:
    """What a layer gives (B, GIVES) for x (B, TAKES), and what its backward pass needs beside x.

    That is a pool's places, and a batch norm's mean and variance. masks None: inference.
    """
    row, activation = model.plan[layer], int(model.plan[layer, p.ACTIVATION])
    w, b = p.tensor_view(model.plan, layer, model.params), p.bias_view(model.plan, layer, model.params)
    kernel, stride, padding = _geometry(row)
    out = np.empty((len(x), row[p.GIVES]), model.params.dtype)
    kept: Any = None
    images, given = _shaped(x, row, p.CHANNELS), _shaped(out, row, p.OUT_CHANNELS)
    if row[p.KIND] == p.DENSE:
        dense_forward(x, w, b, activation, out)
    elif row[p.KIND] == p.CONV:
        conv2d_forward(images, w, b, activation, stride, padding, given)
    elif row[p.KIND] == p.POOL:
        kept = np.empty(given.shape, np.int32)
        maxpool2d_forward(images, kernel, stride, padding, given, kept)
    elif row[p.KIND] == p.BATCH_NORM and masks is None:
        mean, variance, _ = p.buffer_views(model.plan, layer, model.buffers)
        batchnorm_inference(images, w, b, mean, variance, model.rates[layer, p.BN_EPSILON], activation, given)
    elif row[p.KIND] == p.BATCH_NORM:
        kept = mean, variance = np.empty((2, int(row[p.CHANNELS])))
        batchnorm_forward(images, w, b, model.rates[layer, p.BN_EPSILON], activation, mean, variance, given)
    elif masks is None:
        out = x
    else:
        dropout(x, model.rates[layer, p.DROP], masks.seed, masks.step, layer, out)
    return out, kept


def _layer_backward(
    model: Model, layer: int, delta: Array, x: Array, kept: Any, masks: Masks, grad: Array, dx: Array
) -> None:  # fmt: skip
    """A layer's gradients: by its parameters into grad (P,), by what the layer below computed into dx (B, TAKES).

    delta (B, GIVES) is the loss's gradient by what it computed before its activation; x, kept: see _layer_forward.
    The first layer's dx means nothing.
    """
    row, below = model.plan[layer], max(layer - 1, 0)
    activation = int(model.plan[below, p.ACTIVATION])
    w, dw = p.tensor_view(model.plan, layer, model.params), p.tensor_view(model.plan, layer, grad)
    db = p.bias_view(model.plan, layer, grad)
    _, stride, padding = _geometry(row)
    given = _shaped(delta, row, p.OUT_CHANNELS)
    images, dimages = _shaped(x, row, p.CHANNELS), _shaped(dx, row, p.CHANNELS)
    if row[p.KIND] == p.DENSE:
        dense_backward_params(x, delta, dw, db)
        if layer > 0:
            dense_backward_input(delta, w, x, activation, dx)
    elif row[p.KIND] == p.CONV:
        conv2d_backward_params(images, given, stride, padding, dw, db)
        if layer > 0:
            conv2d_backward_input(given, w, images, activation, stride, padding, dimages)
    elif row[p.KIND] == p.POOL:
        maxpool2d_backward(given, kept, images, activation, dimages)
    elif row[p.KIND] == p.BATCH_NORM:
        (mean, variance), epsilon = kept, model.rates[layer, p.BN_EPSILON]
        batchnorm_backward(given, images, w, mean, variance, epsilon, activation, dimages, dw, db)
    else:
        dropout_backward(delta, model.rates[layer, p.DROP], masks.seed, masks.step, layer, x, activation, dx)


def _logits(model: Model, x: Array) -> Array:
    """The logits of rows, in inference mode."""
    for layer in range(len(model.plan)):
        x, _ = _layer_forward(model, layer, x, None)
    return x


def _losses(model: Model, source: Source, rows: Any, divisor: float, logits: Array, delta: Array) -> Rows:
    """The network's loss and whether it is right, of each of some rows, and its gradient into delta (B, K)."""
    loss, weights = model.plan[-1, p.LOSS], source.weights[rows]
    if loss == p.SOFTMAX:
        return row_losses(logits, source.labels[rows], weights, divisor, delta)
    of_targets = {p.BINARY: binary_row_losses, p.SQUARED: squared_row_losses, p.POISSON: poisson_row_losses}
    return of_targets[loss](logits, source.targets[rows], weights, divisor, delta)


def _gradient(
    model: Model, source: Source, rows: Any, divisor: float, masks: Masks, grad: Array
) -> tuple[Array, Array, list[Any]]:  # fmt: skip
    """The loss's gradient by the flat parameters; each row's weight · loss and if it is right, what layers kept."""
    values, kept = [_gather(source, rows, model.params.dtype)], []
    for layer in range(len(model.plan)):
        value, more = _layer_forward(model, layer, values[-1], masks)
        values.append(value)
        kept.append(more)
    delta = np.empty_like(values[-1])
    losses, corrects = _losses(model, source, rows, divisor, values[-1], delta)
    for layer in range(len(model.plan) - 1, -1, -1):
        dx = np.empty_like(values[layer])
        _layer_backward(model, layer, delta, values[layer], kept[layer], masks, grad, dx)
        delta = dx
    return losses, corrects, kept


def _track(model: Model, rows: int, kept: list[Any]) -> None:
    """Move every batch norm's running statistics towards those of a batch of `rows` rows.

    As torch.nn.BatchNorm: running = (1 - momentum) · running + momentum · new, with the unbiased variance.
    """
    for layer, row in enumerate(model.plan):
        if row[p.KIND] == p.BATCH_NORM:
            mean, variance = kept[layer]
            count = rows * int(row[p.HEIGHT] * row[p.WIDTH])
            momentum = model.rates[layer, p.BN_MOMENTUM]
            *running, batches = p.buffer_views(model.plan, layer, model.buffers)
            for old, new in zip(running, (mean, variance * (count / max(count - 1, 1))), strict=True):
                with np.errstate(over="ignore"):  # found at the epoch's end
                    old[...] = ((1 - momentum) * old + momentum * new).astype(model.params.dtype)
            batches += 1


def _blocks(model: Model, settings: Array) -> Iterator[tuple[slice, float]]:
    """Where each layer's weights and biases lie, with the weight decay that they have."""
    for row in model.plan:
        yield slice(row[p.WEIGHT], row[p.BIAS]), settings[p.WEIGHT_DECAY]
        bias = slice(row[p.BIAS], row[p.BIAS] + row[p.WEIGHT_STRIDE])
        yield bias, settings[p.WEIGHT_DECAY] if settings[p.DECAY_BIAS] else 0.0


def _penalty(model: Model, settings: Array) -> float:
    """decay · Σ w² / 2, where weight decay is a penalty on the sum of a mini-batch's losses."""
    if not settings[p.PENALTY]:
        return 0.0
    squares = (decay * (model.params[block].astype(np.float64) ** 2).sum() for block, decay in _blocks(model, settings))
    return float(sum(squares)) / 2


def _update(model: Model, optimizer: OptimizerState, grad: Array, learning_rate: float, divisor: float) -> None:
    """One optimiser step over every weight and bias block, after clipping by the global norm."""
    settings = optimizer.settings
    step = int(optimizer.step[0]) + 1
    epsilon = settings[p.EPSILON]
    if settings[p.EPSILON_HAT]:
        epsilon = epsilon / np.sqrt(1 - settings[p.BETA2] ** step)
    if settings[p.CLIP_NORM] > 0:
        norm = np.sqrt(np.sum(grad.astype(np.float64) ** 2))
        grad *= grad.dtype.type(min(1.0, settings[p.CLIP_NORM] / (norm + 1e-6)))
    for block, decay in _blocks(model, settings):
        if settings[p.PENALTY]:
            decay = decay / divisor
        if settings[p.RULE] == p.SGD:
            sgd_step(
                model.params[block], grad[block], optimizer.first[block], learning_rate, settings[p.MOMENTUM],
                bool(settings[p.NESTEROV]), decay,
            )  # fmt: skip
        else:
            adam_step(
                model.params[block], grad[block], optimizer.first[block], optimizer.second[block], learning_rate,
                settings[p.BETA1], settings[p.BETA2], epsilon, decay, settings[p.RULE] == p.ADAMW, step,
            )  # fmt: skip
    optimizer.step[0] = step


def train_steps(
    model: Model, optimizer: OptimizerState, source: Source, order: Array, batch_size: int, first: int, last: int,
    learning_rates: Array, work: Workspace, losses: Array, corrects: Array, threads: int = 1,
    seconds: float = float("inf"),
) -> int:  # fmt: skip
    """Mini-batch steps first … last - 1: forward, backward and update; parameters and buffers change in place.

    Training mode: batch norms take the batch's statistics and their running ones move; dropout's masks come from
    settings[SEED], optimizer.step[0] before the update, and the layer's index in the plan.
    Step s takes the rows order[s · batch_size : (s + 1) · batch_size], the last one fewer; its gradient is
    divided by their number, or as settings[WEIGHT_SUM] says. learning_rates[s] is its rate; losses[s] (float64) =
    Σ weight · loss, with the penalty of settings[PENALTY], and corrects[s] are written. optimizer.step[0] grows by one
    with each update. Returns the step reached: last; or, after `seconds` and at least one step, an earlier one; or the
    one whose loss is not finite, which was not applied and whose losses[s] says so. threads and seconds never change a
    bit of the result.
    """
    began = time.perf_counter()
    for s in range(first, last):
        if s > first and time.perf_counter() - began > seconds:
            return s
        rows = order[s * batch_size : (s + 1) * batch_size]
        masks = Masks(int(optimizer.settings[p.SEED]), int(optimizer.step[0]))
        divisor = float(source.weights[rows].sum() if optimizer.settings[p.WEIGHT_SUM] else 0) or len(rows)
        each, right, kept = _gradient(model, source, rows, divisor, masks, work.grad)
        losses[s], corrects[s] = each.sum() + _penalty(model, optimizer.settings), right.sum()
        if not np.isfinite(losses[s]):
            return s
        _track(model, len(rows), kept)
        _update(model, optimizer, work.grad, learning_rates[s], divisor)
    return last


def loss_and_gradient(
    model: Model, source: Source, order: Array, divisor: float, work: Workspace | None, grad: Array, threads: int = 1
) -> float:
    """Σ weight · loss / divisor over the rows of `order` (at most the workspace's), its gradient in grad (P,).

    Training mode with the masks of seed 0, step 0; running statistics stay. work.losses keeps each row's weight · loss;
    nothing else needs the work here, so that it may be None.
    """
    grad[...] = 0
    losses = _gradient(model, source, order, divisor, Masks(0, 0), grad)[0]
    if work is not None:
        work.losses[: len(order)] = losses
    return float(losses.sum()) / divisor


def evaluate(
    model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int = 1
) -> tuple[float, int]:
    """(Σ weight · loss, correct count) over the source's rows start … stop - 1, in inference mode."""
    batch = len(work.losses)
    loss, correct = 0.0, 0
    for first in range(start, stop, batch):
        rows = slice(first, min(first + batch, stop))
        logits = _logits(model, _gather(source, rows, model.params.dtype))
        losses, corrects = _losses(model, source, rows, 1.0, logits, np.empty_like(logits))
        loss += float(losses.sum())
        correct += int(corrects.sum())
    return loss, correct


def predict(model: Model, source: Source, start: int, stop: int, work: Workspace, out: Array, threads: int = 1) -> None:
    """Logits of the source's rows start … stop - 1 -> out (stop - start, K), overwritten, in inference mode."""
    batch = len(work.losses)
    for first in range(start, stop, batch):
        rows = slice(first, min(first + batch, stop))
        out[first - start : rows.stop - start] = _logits(model, _gather(source, rows, model.params.dtype))
