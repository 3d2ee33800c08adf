"""The public ops inside the reader's own @njit function: the same bits, and errors by name."""

import numba
import numpy as np
import pytest
from numba import njit
from op_cases import OPS, B, I, O, arguments, read_only, written

from mlpkernels.kernels.cpu import (
    IDENTITY,
    RELU,
    adam_step,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    log_softmax,
    sgd_step,
    softmax,
    softmax_cross_entropy,
)
from mlpkernels.kernels.cpu.gemm import gemm


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
    made = [signature for signature in gemm.signatures if signature[0].dtype == numba.float32]
    assert len(made) == 1, "a constant argument made a specialisation of its own: seconds of compiling each"


@njit
def forward(x, w, b, activation, out):
    dense_forward(x, w, b, activation, out)


@njit
def probabilities(logits, out):
    softmax(logits, out)


@njit
def cross_entropy(logits, labels, weights, divisor, dlogits):
    return softmax_cross_entropy(logits, labels, weights, divisor, dlogits)


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
        ((x, w, b, 5, out), "activation"),
    ):
        with pytest.raises(ValueError, match=f"dense_forward: .*{message}"):
            forward(*wrong)
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
