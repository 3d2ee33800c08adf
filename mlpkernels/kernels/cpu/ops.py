"""The public ops: called from Python they check, convert and choose threads; inside @njit code they are inlined.

From Python an input of another dtype, order or a read-only one is copied, an output must be as wanted, and errors
name what came. Inside @njit the same names compile to the serial kernels after a check of the shapes; types have to
agree there: C-contiguous arrays of one floating dtype. Nothing is allocated.
"""

from typing import Any

import numpy as np
from numba.extending import overload

from ..plan import IDENTITY, LOGISTIC, RELU
from . import optim as _optim
from . import steps, threads
from .arguments import (
    ACTIVATIONS,
    Array,
    activation_code,
    apart,
    input_,
    output,
    output_like,
    require_integers,
    require_matrices,
    require_vectors,
    shape_of,
)
from .curves import activate as _activate
from .curves import slope as _slope
from .gemm import multiply as _multiply
from .simd import ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, STORE
from .sums import column_sums as _column_sums

# ---- dense


def _product(
    a: Array, a_row: int, a_k: int, b: Array, b_k: int, b_j: int, c: Array, k: int, epilogue: int, aux: Array,
    aux_row: int,
) -> None:  # fmt: skip
    """c = epilogue(a @ b) on Numba's current number of threads, or on one where that is faster."""
    (m, n), dtype = c.shape, c.dtype
    a, b, aux, out = a.reshape(-1), b.reshape(-1), aux.reshape(-1), c.reshape(-1)
    slots = threads.slots(threads.current(), 2.0 * m * n * k)
    gemm = steps.pointer("gemm", dtype.name).__wrapper_address__()
    if slots == 1:
        one = steps.get("product", dtype)
        one(gemm, a, 0, a_row, a_k, b, 0, b_k, b_j, out, 0, n, m, n, k, False, epilogue, aux, 0, aux_row)
    else:
        parallel = steps.get("product_parallel", dtype)
        with threads.launch(slots):
            parallel(gemm, slots, a, a_row, a_k, b, b_k, b_j, out, m, n, k, epilogue, aux, aux_row)


def dense_forward(x: Any, w: Any, b: Any, activation: int, out: Array) -> None:
    """out = activation(x @ w + b).

    x (B, I), w (I, O), b (O,) -> out (B, O), float32 or float64, overwritten. activation is IDENTITY, RELU, TANH or
    LOGISTIC. Raises TypeError or ValueError naming the argument. Runs on numba.get_num_threads() threads where that
    pays.
    """
    batch, outputs = output("out", out, 2).shape
    inputs = shape_of("x", x, 2)[1]
    x = input_("x", x, out.dtype, (batch, inputs))
    w = input_("w", w, out.dtype, (inputs, outputs))
    b = input_("b", b, out.dtype, (outputs,))
    apart("out", out, x=x, w=w, b=b)
    epilogue = ADD_BIAS_RELU if activation_code(activation, ACTIVATIONS) == RELU else ADD_BIAS
    _product(x, inputs, 1, w, outputs, 1, out, inputs, epilogue, b, 0)
    if activation > RELU:
        steps.get("activate", out.dtype)(out.reshape(-1), int(activation))


@overload(dense_forward)
def _compile_dense_forward(x, w, b, activation, out):
    require_matrices("out", x=x, w=w, out=out)
    require_vectors("", b=b)
    require_integers(activation=activation)

    def dense_forward(x, w, b, activation, out):
        if x.shape[1] != w.shape[0]:
            raise ValueError("dense_forward: x (B, I) and w (I, O) disagree on I")
        if w.shape[1] != b.shape[0] or w.shape[1] != out.shape[1]:
            raise ValueError("dense_forward: w (I, O), b (O,) and out (B, O) disagree on O")
        if x.shape[0] != out.shape[0]:
            raise ValueError("dense_forward: x (B, I) and out (B, O) disagree on B")
        if activation < IDENTITY or activation > LOGISTIC:
            raise ValueError("dense_forward: activation must be IDENTITY, RELU, TANH or LOGISTIC")
        inputs, outputs = w.shape
        epilogue = ADD_BIAS_RELU if activation == RELU else ADD_BIAS
        _multiply(x, inputs, 1, w, outputs, 1, out, inputs, epilogue, b, 0)
        if activation > RELU:
            _activate(out.reshape(out.size), activation)

    return dense_forward


def dense_backward_params(x: Any, delta: Any, dw: Array, db: Array) -> None:
    """dw = x.T @ delta, db = delta summed over the batch.

    x (B, I), delta (B, O): the loss's gradient by x @ w + b -> dw (I, O), db (O,), float32 or float64, overwritten.
    Raises TypeError or ValueError naming the argument. Runs on numba.get_num_threads() threads where that pays.
    """
    inputs, outputs = output("dw", dw, 2).shape
    output_like("db", db, (outputs,), dw.dtype, f"dw {dw.shape}")
    batch = shape_of("x", x, 2)[0]
    x = input_("x", x, dw.dtype, (batch, inputs))
    delta = input_("delta", delta, dw.dtype, (batch, outputs))
    apart("dw", dw, x=x, delta=delta, db=db)
    apart("db", db, x=x, delta=delta)
    _product(x, 1, inputs, delta, outputs, 1, dw, batch, STORE, dw, 0)
    steps.get("column_sum", dw.dtype)(delta.reshape(-1), db)


@overload(dense_backward_params)
def _compile_dense_backward_params(x, delta, dw, db):
    require_matrices("dw", x=x, delta=delta, dw=dw)
    require_vectors("db", db=db)

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
    batch, inputs = output("dx", dx, 2).shape
    outputs = shape_of("delta", delta, 2)[1]
    delta = input_("delta", delta, dx.dtype, (batch, outputs))
    w = input_("w", w, dx.dtype, (inputs, outputs))
    x = input_("x", x, dx.dtype, (batch, inputs))
    apart("dx", dx, delta=delta, w=w, x=x)
    epilogue = RELU_SLOPE if activation_code(activation, ACTIVATIONS) == RELU else STORE
    _product(delta, outputs, 1, w, 1, outputs, dx, outputs, epilogue, x, inputs)
    if activation > RELU:
        steps.get("slope", dx.dtype)(dx.reshape(-1), x.reshape(-1), int(activation))


@overload(dense_backward_input)
def _compile_dense_backward_input(delta, w, x, activation, dx):
    require_matrices("dx", delta=delta, w=w, x=x, dx=dx)
    require_integers(activation=activation)

    def dense_backward_input(delta, w, x, activation, dx):
        if delta.shape[0] != dx.shape[0] or x.shape[0] != dx.shape[0]:
            raise ValueError("dense_backward_input: delta (B, O), x (B, I) and dx (B, I) disagree on B")
        if delta.shape[1] != w.shape[1]:
            raise ValueError("dense_backward_input: delta (B, O) and w (I, O) disagree on O")
        if w.shape[0] != dx.shape[1] or x.shape[1] != dx.shape[1]:
            raise ValueError("dense_backward_input: w (I, O), x (B, I) and dx (B, I) disagree on I")
        if activation < IDENTITY or activation > LOGISTIC:
            raise ValueError("dense_backward_input: activation must be IDENTITY, RELU, TANH or LOGISTIC")
        inputs, outputs = w.shape
        epilogue = RELU_SLOPE if activation == RELU else STORE
        _multiply(delta, outputs, 1, w, 1, outputs, dx, outputs, epilogue, x, inputs)
        if activation > RELU:
            _slope(dx.reshape(dx.size), x.reshape(x.size), activation)

    return dense_backward_input


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
        apart("velocity", velocity, params=params, grad=grad)
    else:
        velocity = np.empty(0, params.dtype)
    apart("params", params, grad=grad)
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
    apart("params", params, grad=grad, m=m, v=v)
    apart("m", m, grad=grad, v=v)
    apart("v", v, grad=grad)
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    steps.get("adam_step", params.dtype)(
        params, grad, m, v, float(learning_rate), float(beta1), float(beta2), float(epsilon), float(weight_decay),
        bool(decoupled), int(step),
    )  # fmt: skip


def _state(name: str, grad: Any, params: Any) -> Array:
    output("params", params, 1)
    return input_(name, grad, params.dtype, params.shape)


def _memory(name: str, array: Any, params: Array) -> None:
    if output(name, array, 1).shape != params.shape or array.dtype != params.dtype:
        raise ValueError(f"{name} must be {params.shape} {params.dtype} like params, got {array.shape} {array.dtype}")


@overload(sgd_step)
def _compile_sgd_step(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    require_vectors("params velocity", params=params, grad=grad, velocity=velocity)
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
    require_vectors("params m v", params=params, grad=grad, m=m, v=v)
    update = _optim.adam_update

    def adam_step(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
        if params.shape != grad.shape or params.shape != m.shape or params.shape != v.shape:
            raise ValueError("adam_step: params (P,), grad (P,), m (P,) and v (P,) disagree on P")
        if step < 1:
            raise ValueError("adam_step: step counts from 1")
        update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step)

    return adam_step
