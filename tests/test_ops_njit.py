"""The public ops inside the reader's own @njit function: the same bits, and errors by name."""

import numba
import numpy as np
import pytest
from numba import njit
from op_cases import OPS, B, I, O, arguments, read_only, written

from mlpkernels.kernels.cpu import (
    IDENTITY,
    LOGISTIC,
    RELU,
    TANH,
    adam_step,
    binary_cross_entropy,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    log_softmax,
    logistic,
    poisson_loss,
    sgd_step,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
from mlpkernels.kernels.cpu.gemm import gemm_once


def a_training_step(x, w, b, labels, weights, hidden, w2, b2, logits, dw, db, dw2, db2, dh, m, v):
    dense_forward(x, w, b, RELU, hidden)
    dense_forward(hidden, w2, b2, IDENTITY, logits)
    loss, correct = softmax_cross_entropy(logits, labels, weights, 7.0, logits)
    dense_backward_params(hidden, logits, dw2, db2)
    dense_backward_input(logits, w2, hidden, RELU, dh)
    dense_backward_params(x, dh, dw, db)
    sgd_step(b, db, db, 0.1, 0.0, False, 0.01)
    adam_step(b2, db2, m, v, 0.01, 0.9, 0.999, 1e-8, 0.01, True, 1)
    softmax(w2, w2)
    log_softmax(w, w)
    return loss, correct


def training_arguments(dtype):
    random = np.random.default_rng(0)
    shapes = dict(x=(B, I), w=(I, 4), b=(4,), labels=None, weights=(B,), hidden=(B, 4), w2=(4, O), b2=(O,),
                  logits=(B, O), dw=(I, 4), db=(4,), dw2=(4, O), db2=(O,), dh=(B, 4), m=(O,), v=(O,))  # fmt: skip
    made = {name: shape and np.abs(random.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
    made["labels"] = random.integers(0, O, B).astype(np.int32)
    return made


def test_the_ops_give_the_same_bits_inside_njit():
    compiled = njit(a_training_step)
    plain, inside = training_arguments("float32"), training_arguments("float32")
    plain["x"] = inside["x"] = read_only(plain["x"])  # an input may be read-only
    assert compiled(**inside) == a_training_step(**plain)
    for name in plain:
        assert inside[name].tobytes() == plain[name].tobytes(), name
    made = [signature for signature in gemm_once.signatures if signature[0].dtype == numba.float32]
    assert len(made) == 1, "a constant argument made a specialisation of its own: seconds of compiling each"


def a_step_towards_targets(x, w, b, targets, weights, hidden, w2, b2, outputs, dw, db, dw2, db2, dh):
    dense_forward(x, w, b, TANH, hidden)
    dense_forward(hidden, w2, b2, LOGISTIC, outputs)
    squared = squared_error(outputs, targets, weights, 7.0, dw2)
    poisson = poisson_loss(outputs, targets, weights, 7.0, outputs)
    loss, correct = binary_cross_entropy(outputs, targets, weights, 7.0, outputs)
    dense_backward_input(outputs, w2, hidden, TANH, dh)
    dense_backward_params(x, dh, dw, db)
    dense_backward_input(outputs, w2, hidden, LOGISTIC, dh)
    logistic(hidden, hidden)
    return loss, correct, squared, poisson


def target_arguments(dtype):
    random = np.random.default_rng(0)
    shapes = dict(x=(B, I), w=(I, 40), b=(40,), targets=(B, O), weights=(B,), hidden=(B, 40), w2=(40, O), b2=(O,),
                  outputs=(B, O), dw=(I, 40), db=(40,), dw2=(B, O), db2=(O,), dh=(B, 40))  # fmt: skip
    made = {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    made["targets"] = random.random((B, O)).astype(dtype)
    return made


def test_losses_of_targets_and_curved_activations_give_the_same_bits_inside_njit():
    plain, inside = target_arguments("float64"), target_arguments("float64")
    assert njit(a_step_towards_targets)(**inside) == a_step_towards_targets(**plain)
    for name in plain:
        assert inside[name].tobytes() == plain[name].tobytes(), name
        assert np.isfinite(plain[name]).all(), name


@njit
def forward(x, w, b, activation, out):
    dense_forward(x, w, b, activation, out)


@njit
def backward(delta, w, x, activation, dx):
    dense_backward_input(delta, w, x, activation, dx)


@njit
def probabilities(logits, out):
    softmax(logits, out)


@njit
def cross_entropy(logits, labels, weights, divisor, dlogits):
    return softmax_cross_entropy(logits, labels, weights, divisor, dlogits)


@njit
def binary(logits, targets, weights, divisor, dlogits):
    return binary_cross_entropy(logits, targets, weights, divisor, dlogits)


@njit
def squared(outputs, targets, weights, divisor, doutputs):
    return squared_error(outputs, targets, weights, divisor, doutputs)


@njit
def poisson(outputs, targets, weights, divisor, doutputs):
    return poisson_loss(outputs, targets, weights, divisor, doutputs)


@njit
def sigmoid(z, out):
    logistic(z, out)


@njit
def descend(params, grad, velocity):
    sgd_step(params, grad, velocity, 0.1, 0.9, False, 0.0)


def test_shapes_are_checked_inside_njit():
    x, w, b, out = (np.ones(shape, np.float32) for shape in ((B, I), (I, O), (O,), (B, O)))
    forward(x, w, b, RELU, out)
    assert (out == I + 1).all()
    for wrong, message in (
        ((x[:, :4].copy(), w, b, RELU, out), "disagree on I"),
        ((x, w, b[:2].copy(), RELU, out), "disagree on O"),
        ((x[:3], w, b, RELU, out), "disagree on B"),
        ((x, w, b, 4, out), "activation"),
        ((x, w, b, -1, out), "activation"),
    ):
        with pytest.raises(ValueError, match=f"dense_forward: .*{message}"):
            forward(*wrong)
    for wrong in (4, -1):
        with pytest.raises(ValueError, match="dense_backward_input: activation must be"):
            backward(out, w, x, wrong, x.copy())
    with pytest.raises(ValueError, match="softmax: logits"):
        probabilities(out, out[:2].copy())
    labels = np.zeros(B, np.int32)
    with pytest.raises(ValueError, match="a label is outside"):
        cross_entropy(out, labels + 3, np.ones(B, np.float32), 1.0, out)
    with pytest.raises(ValueError, match="a label is outside"):
        cross_entropy(out, labels - 1, np.ones(B, np.float32), 1.0, out)
    with pytest.raises(ValueError, match="divisor"):
        cross_entropy(out, labels, np.ones(B, np.float32), 0.0, out)
    with pytest.raises(ValueError, match="disagree on P"):
        descend(b, b.copy(), np.zeros(2, np.float32))


LOSSES = pytest.mark.parametrize(
    ("call", "op"), [(binary, binary_cross_entropy), (squared, squared_error), (poisson, poisson_loss)],
    ids=["binary", "squared", "poisson"],
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_and_places_of_labels_are_checked_inside_njit(dtype):
    """A NaN among floats that stand for labels would be no place at all."""
    z, weights = np.ones((B, O), dtype), np.ones(B, dtype)
    for labels in (np.zeros(B), np.full(B, np.nan), np.zeros(B, bool), np.zeros((B, 1), int), 0):
        with pytest.raises(numba.TypingError, match="labels must be an array of integers of 1 dimension"):
            cross_entropy(z, labels, weights, 1.0, z)
    for kind in (np.int8, np.uint8, np.int64, np.uint64):
        for label in (O, np.iinfo(kind).max, np.iinfo(kind).min or O):
            with pytest.raises(ValueError, match=r"a label is outside 0 … K - 1"):
                cross_entropy(z, np.array([0] * (B - 1) + [label], kind), weights, 1.0, z)
    with pytest.raises(numba.TypingError, match="weights must be float32 or float64 like the other arrays"):
        other = weights.astype("float32" if dtype == "float64" else "float64")
        cross_entropy(z, np.zeros(B, int), other, 1.0, z)
    assert (z == 1).all()


@LOSSES
def test_shapes_of_targets_are_checked_inside_njit(call, op):
    z, weights = np.ones((B, O), np.float32), np.ones(B, np.float32)
    for wrong, message in (
        ((z, z[:, :2].copy(), weights, 1.0, z), "targets and .* disagree"),
        ((z[:3], z, weights, 1.0, z), "targets and .* disagree"),
        ((z, z, weights, 1.0, z[:3].copy()), "targets and .* disagree"),
        ((z, z, weights[:3], 1.0, z), "disagree on B"),
        ((z, z, weights, 0.0, z), "divisor must be positive"),
        ((z, z, weights, np.nan, z), "divisor must be positive"),
    ):
        with pytest.raises(ValueError, match=f"^{op.__name__}: .*{message}"):
            call(*wrong)
    with pytest.raises(numba.TypingError, match="targets must be float32 or float64 like the other arrays"):
        call(z, z.astype(float), weights, 1.0, z)
    with pytest.raises(numba.TypingError, match="targets must be a C-contiguous array of 2 dimensions"):
        call(z, weights, weights, 1.0, z)
    with pytest.raises(numba.TypingError, match="weights must be a C-contiguous array of 1 dimensions"):
        call(z, z, 1.0, 1.0, z)
    with pytest.raises(numba.TypingError, match="weights must be float32 or float64 like the other arrays"):
        call(z, z, weights.astype(float), 1.0, z)
    least, told = {binary_cross_entropy: (0, "outside 0 … 1"), poisson_loss: (0, "below 0")}.get(op, (-np.inf, ""))
    for number in (-1.0, np.nan) if least == 0 else ():
        targets = np.ones_like(z)
        targets[-1, -1] = number
        with pytest.raises(ValueError, match=f"^{op.__name__}: a target is {told}"):
            call(z, targets, weights, 1.0, z)
    assert (z == 1).all()


def test_an_activation_is_an_integer_inside_njit():
    """1.5 would pass as one between RELU and TANH."""
    x, w, b, out = (np.ones(shape, np.float32) for shape in ((B, I), (I, O), (O,), (B, O)))
    for wrong in (1.5, "tanh", None):
        with pytest.raises(numba.TypingError, match="activation must be an integer"):
            forward(x, w, b, wrong, out)
        with pytest.raises(numba.TypingError, match="activation must be an integer"):
            backward(out, w, x, wrong, x.copy())


def test_the_logistic_function_inside_njit_is_of_one_shape_and_type():
    z = np.linspace(-9, 9, 24).reshape(2, 3, 4)
    for shape in ((24,), (4, 6), (2, 3, 4)):
        out, wanted = np.empty(shape), np.empty(shape)
        sigmoid(z.reshape(shape), out)
        logistic(z.reshape(shape), wanted)
        assert out.tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match=r"^logistic: z and out disagree"):
        sigmoid(z, np.empty((2, 3, 5)))
    for wrong, message in (
        (np.empty((2, 3)), "out must be a C-contiguous array of 3 dimensions"),
        (np.empty((2, 3, 4), np.float32), "out must be float32 or float64 like the other arrays"),
        (read_only(z), "out must be writeable"),
    ):
        with pytest.raises(numba.TypingError, match=message):
            sigmoid(z, wrong)
    with pytest.raises(numba.TypingError, match="z must be a C-contiguous array"):
        sigmoid(1.0, np.empty(3))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: (np.ones((4, 3)), np.ones((4, 3), np.float32)), "out"),
        (lambda: (np.ones((4, 3), np.int64), np.ones((4, 3))), "logits"),
        (lambda: (np.ones(3), np.ones((4, 3))), "logits"),
        (lambda: (np.ones((4, 6))[:, ::2], np.ones((4, 3))), "logits"),
        (lambda: (np.ones((4, 3)), np.asfortranarray(np.ones((4, 3)))), "out"),
        (lambda: (np.ones((4, 3)), read_only(np.ones((4, 3)))), "out"),
    ],
    ids=["two dtypes", "integers", "one dimension", "strided", "Fortran-ordered output", "read-only output"],
)
def test_types_are_checked_inside_njit(make, name):
    logits, out = make()
    before = out.copy()
    with pytest.raises(numba.TypingError, match=f"{name} must be"):
        probabilities(logits, out)
    assert np.array_equal(out, before)


@pytest.mark.parametrize("op", OPS, ids=[op.__name__ for op in OPS])
def test_a_read_only_output_is_refused_inside_njit(op):
    """Compiled code would write to it all the same."""

    @njit
    def call(*arguments):
        op(*arguments)

    for name in written(op):
        given = arguments(op, "float32")
        given[name] = read_only(given[name])
        with pytest.raises(numba.TypingError, match=f"{name} must be"):
            call(*given.values())
