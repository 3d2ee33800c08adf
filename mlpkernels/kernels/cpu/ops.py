"""The public ops: called from Python they check, convert and choose threads; inside @njit code they are inlined.

From Python an input of another dtype, order or a read-only one is copied, an output must be as wanted, and errors
name what came. Inside @njit the same names compile to the serial kernels after a check of the shapes; types have to
agree there: C-contiguous arrays of one floating dtype. Nothing is allocated but 1 KB by softmax_cross_entropy.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from ..plan import IDENTITY, RELU
from . import loss as _loss
from . import optim as _optim
from . import steps, threads
from .gemm import multiply as _multiply
from .network import column_sums as _column_sums
from .simd import ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, STORE

Array = np.ndarray


# ---- checks


def _output(name: str, array: Any, dimensions: int) -> Array:
    """An array that a kernel writes: it must be what is wanted, since a converted copy would be lost."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.matrix | np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array to be written to, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {array.shape}")
    if not array.flags.c_contiguous or not array.flags.writeable or not array.dtype.isnative:
        raise ValueError(f"{name} must be C-contiguous and writeable: pass np.empty(shape, dtype)")
    return array


def _input(name: str, array: Any, dtype: Any, shape: tuple[int, ...]) -> Array:
    """An array that a kernel reads, copied where it is not C-contiguous, writeable and of that dtype."""
    converted = np.asarray(array)
    if converted.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {converted.dtype}")
    if converted.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {converted.shape}")
    return np.require(converted, dtype, ("C", "A", "W"))


def _matrix(name: str, array: Any) -> tuple[int, int]:
    shape = np.shape(array)
    if len(shape) != 2:
        raise ValueError(f"{name} must have 2 dimensions, got shape {shape}")
    return shape[0], shape[1]


def _apart(name: str, out: Array, **inputs: Array) -> None:
    """Raise ValueError where `out` would be written over an input still to be read."""
    for other, array in inputs.items():
        if np.may_share_memory(out, array):
            raise ValueError(f"{name} shares memory with {other}: pass another array")


def _same_or_apart(name: str, out: Array, logits: Array) -> None:
    """Raise ValueError where `out` lies across the logits without being the same array."""
    same = out.__array_interface__["data"] == logits.__array_interface__["data"]
    if not same:
        _apart(name, out, logits=logits)


def _activation(code: Any) -> int:
    if code not in (IDENTITY, RELU):
        raise ValueError(f"activation must be IDENTITY ({IDENTITY}) or RELU ({RELU}), got {code!r}")
    return int(code)


# ---- dense


def _product(
    a: Array, a_row: int, a_k: int, b: Array, b_k: int, b_j: int, c: Array, k: int, epilogue: int, aux: Array,
    aux_row: int,
) -> None:  # fmt: skip
    """c = epilogue(a @ b) on Numba's current number of threads, or on one where that is faster."""
    (m, n), dtype = c.shape, c.dtype
    a, b, aux, out = a.reshape(-1), b.reshape(-1), aux.reshape(-1), c.reshape(-1)
    slots = threads.slots(threads.current(), 2.0 * m * n * k)
    gemm = steps.get("gemm", dtype)
    if slots == 1:
        gemm(a, 0, a_row, a_k, b, 0, b_k, b_j, out, 0, n, m, n, k, False, epilogue, aux, 0, aux_row)
    else:
        parallel = steps.get("product_parallel", dtype)
        with threads.launch(slots):
            pointer = steps.pointer("gemm", dtype.name)
            parallel(pointer, slots, a, a_row, a_k, b, b_k, b_j, out, m, n, k, epilogue, aux, aux_row)


def dense_forward(x: Any, w: Any, b: Any, activation: int, out: Array) -> None:
    """out = activation(x @ w + b).

    x (B, I), w (I, O), b (O,) -> out (B, O), float32 or float64, overwritten. activation is IDENTITY or RELU.
    Raises TypeError or ValueError naming the argument. Runs on numba.get_num_threads() threads where that pays.
    """
    batch, outputs = _output("out", out, 2).shape
    inputs = _matrix("x", x)[1]
    x = _input("x", x, out.dtype, (batch, inputs))
    w = _input("w", w, out.dtype, (inputs, outputs))
    b = _input("b", b, out.dtype, (outputs,))
    _apart("out", out, x=x, w=w, b=b)
    epilogue = ADD_BIAS_RELU if _activation(activation) == RELU else ADD_BIAS
    _product(x, inputs, 1, w, outputs, 1, out, inputs, epilogue, b, 0)


@overload(dense_forward)
def _compile_dense_forward(x, w, b, activation, out):
    _require_matrices("out", x=x, w=w, out=out)
    _require_vectors("", b=b)

    def dense_forward(x, w, b, activation, out):
        if x.shape[1] != w.shape[0]:
            raise ValueError("dense_forward: x (B, I) and w (I, O) disagree on I")
        if w.shape[1] != b.shape[0] or w.shape[1] != out.shape[1]:
            raise ValueError("dense_forward: w (I, O), b (O,) and out (B, O) disagree on O")
        if x.shape[0] != out.shape[0]:
            raise ValueError("dense_forward: x (B, I) and out (B, O) disagree on B")
        if activation != IDENTITY and activation != RELU:
            raise ValueError("dense_forward: activation must be IDENTITY or RELU")
        inputs, outputs = w.shape
        epilogue = ADD_BIAS_RELU if activation == RELU else ADD_BIAS
        _multiply(x, inputs, 1, w, outputs, 1, out, inputs, epilogue, b, 0)

    return dense_forward


def dense_backward_params(x: Any, delta: Any, dw: Array, db: Array) -> None:
    """dw = x.T @ delta, db = delta summed over the batch.

    x (B, I), delta (B, O): the loss's gradient by x @ w + b -> dw (I, O), db (O,), float32 or float64, overwritten.
    Raises TypeError or ValueError naming the argument. Runs on numba.get_num_threads() threads where that pays.
    """
    inputs, outputs = _output("dw", dw, 2).shape
    if _output("db", db, 1).shape != (outputs,) or db.dtype != dw.dtype:
        raise ValueError(f"db must be ({outputs},) {dw.dtype} beside dw {dw.shape}, got {db.shape} {db.dtype}")
    batch = _matrix("x", x)[0]
    x = _input("x", x, dw.dtype, (batch, inputs))
    delta = _input("delta", delta, dw.dtype, (batch, outputs))
    _apart("dw", dw, x=x, delta=delta, db=db)
    _apart("db", db, x=x, delta=delta)
    _product(x, 1, inputs, delta, outputs, 1, dw, batch, STORE, dw, 0)
    steps.get("column_sum", dw.dtype)(delta.reshape(-1), db)


@overload(dense_backward_params)
def _compile_dense_backward_params(x, delta, dw, db):
    _require_matrices("dw", x=x, delta=delta, dw=dw)
    _require_vectors("db", db=db)

    def dense_backward_params(x, delta, dw, db):
        if x.shape[0] != delta.shape[0]:
            raise ValueError("dense_backward_params: x (B, I) and delta (B, O) disagree on B")
        if x.shape[1] != dw.shape[0]:
            raise ValueError("dense_backward_params: x (B, I) and dw (I, O) disagree on I")
        if delta.shape[1] != dw.shape[1] or delta.shape[1] != db.shape[0]:
            raise ValueError("dense_backward_params: delta (B, O), dw (I, O) and db (O,) disagree on O")
        inputs, outputs = dw.shape
        _multiply(x, 1, inputs, delta, outputs, 1, dw, x.shape[0], STORE, dw, 0)
        _column_sums(delta.reshape(delta.size), 0, outputs, x.shape[0], db)

    return dense_backward_params


def dense_backward_input(delta: Any, w: Any, x: Any, activation: int, dx: Array) -> None:
    """dx = (delta @ w.T) * slope, the slope of the activation that made x, read off x itself.

    delta (B, O), w (I, O), x (B, I) -> dx (B, I), float32 or float64, overwritten: the gradient by the layer before's
    x @ w + b. Raises TypeError or ValueError naming the argument; numba.get_num_threads() threads where that pays.
    """
    batch, inputs = _output("dx", dx, 2).shape
    outputs = _matrix("delta", delta)[1]
    delta = _input("delta", delta, dx.dtype, (batch, outputs))
    w = _input("w", w, dx.dtype, (inputs, outputs))
    x = _input("x", x, dx.dtype, (batch, inputs))
    _apart("dx", dx, delta=delta, w=w, x=x)
    epilogue = RELU_SLOPE if _activation(activation) == RELU else STORE
    _product(delta, outputs, 1, w, 1, outputs, dx, outputs, epilogue, x, inputs)


@overload(dense_backward_input)
def _compile_dense_backward_input(delta, w, x, activation, dx):
    _require_matrices("dx", delta=delta, w=w, x=x, dx=dx)

    def dense_backward_input(delta, w, x, activation, dx):
        if delta.shape[0] != dx.shape[0] or x.shape[0] != dx.shape[0]:
            raise ValueError("dense_backward_input: delta (B, O), x (B, I) and dx (B, I) disagree on B")
        if delta.shape[1] != w.shape[1]:
            raise ValueError("dense_backward_input: delta (B, O) and w (I, O) disagree on O")
        if w.shape[0] != dx.shape[1] or x.shape[1] != dx.shape[1]:
            raise ValueError("dense_backward_input: w (I, O), x (B, I) and dx (B, I) disagree on I")
        if activation != IDENTITY and activation != RELU:
            raise ValueError("dense_backward_input: activation must be IDENTITY or RELU")
        inputs, outputs = w.shape
        epilogue = RELU_SLOPE if activation == RELU else STORE
        _multiply(delta, outputs, 1, w, 1, outputs, dx, outputs, epilogue, x, inputs)

    return dense_backward_input


# ---- loss


def softmax_cross_entropy(logits: Any, labels: Any, weights: Any, divisor: float, dlogits: Array) -> tuple[float, int]:
    """Loss, gradient and correct count of softmax cross-entropy in one pass.

    logits (B, K), labels (B,) int32 class indices, weights (B,) -> dlogits (B, K), overwritten, = weight ·
    (softmax - onehot) / divisor, float32 or float64; may be logits itself. Returns (Σ weight · loss as float64,
    rows whose first largest logit is the label's). Raises TypeError or ValueError naming the argument.
    """
    batch, classes = _output("dlogits", dlogits, 2).shape
    logits = _input("logits", logits, dlogits.dtype, (batch, classes))
    labels = _labels(labels, batch, classes)
    weights = _input("weights", weights, dlogits.dtype, (batch,))
    _apart("dlogits", dlogits, weights=weights, labels=labels)
    _same_or_apart("dlogits", dlogits, logits)
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
    _require_matrices("dlogits", logits=logits, dlogits=dlogits)
    _require_vectors("", weights=weights)
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
    _output("out", out, 2)
    logits = _input("logits", logits, out.dtype, out.shape)
    _same_or_apart("out", out, logits)
    steps.get("softmax_rows", out.dtype)(logits, out, logarithm)


def softmax(logits: Any, out: Array) -> None:
    """out = softmax of each row. logits (B, K) -> out (B, K), float32 or float64; may be the same array."""
    _softmax(logits, out, False)


def log_softmax(logits: Any, out: Array) -> None:
    """out = logarithm of the softmax of each row. logits (B, K) -> out (B, K), overwritten; may be the same array."""
    _softmax(logits, out, True)


@overload(softmax)
def _compile_softmax(logits, out):
    _require_matrices("out", logits=logits, out=out)
    rows = _loss.softmax_rows

    def softmax(logits, out):
        if logits.shape != out.shape:
            raise ValueError("softmax: logits (B, K) and out (B, K) disagree")
        rows(logits, out, False)

    return softmax


@overload(log_softmax)
def _compile_log_softmax(logits, out):
    _require_matrices("out", logits=logits, out=out)
    rows = _loss.softmax_rows

    def log_softmax(logits, out):
        if logits.shape != out.shape:
            raise ValueError("log_softmax: logits (B, K) and out (B, K) disagree")
        rows(logits, out, True)

    return log_softmax


# ---- optimisers


def sgd_step(
    params: Array, grad: Any, velocity: Array, learning_rate: float, momentum: float, nesterov: bool,
    weight_decay: float,
) -> None:  # fmt: skip
    """One step of stochastic gradient descent, as torch.optim.SGD: see reference.sgd_step for the formula.

    params, grad (P,), velocity (P,), or (0,) without momentum; params and velocity change in place.
    Raises TypeError or ValueError naming the argument.
    """
    grad = _state("grad", grad, params)
    if momentum:
        _memory("velocity", velocity, params)
        _apart("velocity", velocity, params=params, grad=grad)
    else:
        velocity = np.empty(0, params.dtype)
    _apart("params", params, grad=grad)
    steps.get("sgd_step", params.dtype)(
        params, grad, velocity, float(learning_rate), float(momentum), bool(nesterov), float(weight_decay)
    )


def adam_step(
    params: Array, grad: Any, m: Array, v: Array, learning_rate: float, beta1: float, beta2: float,
    epsilon: float, weight_decay: float, decoupled: bool, step: int,
) -> None:  # fmt: skip
    """One step of Adam or, decoupled, AdamW, as torch.optim: see reference.adam_step for the formula.

    params, grad, m, v (P,); step counts from 1. params, m and v change in place.
    Raises TypeError or ValueError naming the argument.
    """
    grad = _state("grad", grad, params)
    _memory("m", m, params)
    _memory("v", v, params)
    _apart("params", params, grad=grad, m=m, v=v)
    _apart("m", m, grad=grad, v=v)
    _apart("v", v, grad=grad)
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    steps.get("adam_step", params.dtype)(
        params, grad, m, v, float(learning_rate), float(beta1), float(beta2), float(epsilon), float(weight_decay),
        bool(decoupled), int(step),
    )  # fmt: skip


def _state(name: str, grad: Any, params: Any) -> Array:
    _output("params", params, 1)
    return _input(name, grad, params.dtype, params.shape)


def _memory(name: str, array: Any, params: Array) -> None:
    if _output(name, array, 1).shape != params.shape or array.dtype != params.dtype:
        raise ValueError(f"{name} must be {params.shape} {params.dtype} like params, got {array.shape} {array.dtype}")


@overload(sgd_step)
def _compile_sgd_step(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    _require_vectors("params velocity", params=params, grad=grad, velocity=velocity)
    update = _optim.sgd_update

    def sgd_step(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
        if params.shape != grad.shape or (momentum != 0 and velocity.shape != params.shape):
            raise ValueError("sgd_step: params (P,), grad (P,) and velocity (P,) disagree on P")
        update(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay)

    return sgd_step


@overload(adam_step)
def _compile_adam_step(
    params, grad, m, v, learning_rate, beta1, beta2, epsilon,
    weight_decay, decoupled, step,
):  # fmt: skip
    _require_vectors("params m v", params=params, grad=grad, m=m, v=v)
    update = _optim.adam_update

    def adam_step(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
        if params.shape != grad.shape or params.shape != m.shape or params.shape != v.shape:
            raise ValueError("adam_step: params (P,), grad (P,), m (P,) and v (P,) disagree on P")
        if step < 1:
            raise ValueError("adam_step: step counts from 1")
        update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step)

    return adam_step


# ---- types inside @njit


def _require(dimensions: int, written: str, arrays: dict[str, Any]) -> None:
    """Raise a typing error that names the array: what compiled code would misread, or write though it must not."""
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        if not isinstance(array, types.Array) or array.ndim != dimensions or array.layout != "C":
            raise numba.TypingError(f"{name} must be a C-contiguous array of {dimensions} dimensions, got {array}")
        if name in written.split() and not array.mutable:
            raise numba.TypingError(f"{name} must be writeable, got {array}")
        if array.dtype not in (types.float32, types.float64) or array.dtype != first.dtype:
            raise numba.TypingError(f"{name} must be float32 or float64 like the other arrays, got {array}")


def _require_matrices(written: str, **arrays: Any) -> None:
    _require(2, written, arrays)


def _require_vectors(written: str, **arrays: Any) -> None:
    _require(1, written, arrays)
