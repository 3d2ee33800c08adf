"""Softmax cross-entropy: accuracy, huge and undefined logits, weights, ties."""

import itertools
import math

import numpy as np
import pytest
from bounds import Rounded, cross_entropy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from problems import DTYPES
from support import from_python

from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import log_softmax, softmax, softmax_cross_entropy
from mlpkernels.kernels.cpu.loss import row_losses


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


# ---- cross-entropy


def both(logits, labels, weights, divisor, dtype):
    """((loss, correct, gradient) compiled in dtype, the same of the reference in float64)."""
    results = []
    for backend, kind in ((softmax_cross_entropy, dtype), (reference.softmax_cross_entropy, "float64")):
        z, w = np.asarray(logits, dtype).astype(kind), np.asarray(weights, dtype).astype(kind)
        gradient = np.full_like(z, 7)
        results.append((*backend(z, np.asarray(labels, np.int32), w, divisor, gradient), gradient))
    return results


def agree(logits, labels, weights, divisor, dtype):
    """Compiled and reference agree: within bounds where the numbers are finite, in what is not a number elsewhere."""
    (loss_, correct, gradient), (wanted_loss, wanted_correct, wanted) = both(logits, labels, weights, divisor, dtype)
    assert correct == wanted_correct
    logits, labels, weights = np.asarray(logits, dtype), np.asarray(labels), np.asarray(weights, dtype)
    assert np.array_equal(np.isnan(gradient), np.isnan(wanted))
    fine = np.isfinite(logits.max(axis=1))  # -inf beside a finite logit is a probability of 0
    low = np.where(logits == -np.inf, logits.dtype.type(-(2.0**110)), logits)
    if fine.any():
        some = Rounded(low[fine], dtype), labels[fine], Rounded(weights[fine], dtype), Rounded(divisor, dtype)
        losses, gradients = cross_entropy(*some)
        gradients.check(gradient[fine], wanted[fine])
        if fine.all() and np.isfinite(wanted_loss):
            losses.sum().check(loss_, wanted_loss)
            return
    assert np.array_equal(loss_, wanted_loss, equal_nan=True), (loss_, wanted_loss)


@pytest.mark.parametrize("size", [1.0, 90.0, 800.0, 1e10, 1e30])
def test_logits_of_any_size(dtype, size):
    random = np.random.default_rng(0)
    logits = random.normal(0, size, (33, 10))
    logits[:3, :3] = size, -size, 0
    logits[3, :] = [size, *[-size] * 9]
    agree(logits, random.integers(0, 10, 33), random.uniform(0.1, 2, 33), 33.0, dtype)


def test_huge_logits_by_hand(dtype):
    for label, wanted_loss, row in ((0, 0.0, [0, 0, 0]), (1, 2e30, [1, -1, 0]), (2, 1e30, [1, 0, -1])):
        gradient = np.empty((1, 3), dtype)
        got, correct = softmax_cross_entropy(np.array([[1e30, -1e30, 0]], dtype), [label], [1.0], 1.0, gradient)
        assert got == pytest.approx(wanted_loss, rel=1e-6) and correct == (label == 0)
        assert np.array_equal(gradient, [row])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_undefined_or_infinite_logit_anywhere(dtype, value):
    for classes, at, label in itertools.product((1, 2, 10, 33), (0, 1, 9, 32), (0, 1, 9)):
        if at < classes and label < classes:
            logits = np.linspace(-1, 1, 3 * classes).reshape(3, classes)
            logits[1, at] = value
            agree(logits, [0, label, classes - 1], [1.0, 0.5, 2.0], 3.0, dtype)


def test_a_row_that_is_not_a_number_is_never_correct(dtype):
    for at in range(3):
        logits = np.array([[1.0, 2.0, 3.0]], dtype)
        logits[0, at] = np.nan
        for label in range(3):
            loss_, correct = softmax_cross_entropy(logits, [label], [1.0], 1.0, np.empty_like(logits))
            assert math.isnan(loss_) and correct == 0


def finite_or_not(dtype):
    width = 32 if dtype == "float32" else 64
    numbers = st.floats(-(2.0**100), 2.0**100, width=width) | st.floats(-20, 20, width=width)
    odd = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0])
    shape = st.tuples(st.integers(1, 5), st.integers(1, 20))
    mostly = st.sampled_from([numbers, numbers, numbers | odd])
    return shape.flatmap(lambda shape: mostly.flatmap(lambda kind: hnp.arrays(dtype, shape, elements=kind)))


@pytest.mark.parametrize("kind", DTYPES)
@given(data=st.data())
def test_any_logits(kind, data):
    logits = data.draw(finite_or_not(kind))
    labels = data.draw(hnp.arrays(np.int32, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    weights = data.draw(hnp.arrays(kind, len(logits), elements=st.floats(0.125, 8, width=32)))
    agree(logits, labels, weights, float(len(logits)), kind)


def test_the_first_of_equal_logits_counts(dtype):
    for classes in (1, 2, 5, 16, 33):
        for first in range(classes):
            logits = np.zeros((classes, classes), dtype)
            logits[:, first:] = 1
            labels = np.arange(classes)
            _, correct = softmax_cross_entropy(logits, labels, np.ones(classes), 1.0, np.empty_like(logits))
            assert correct == 1
            alone = softmax_cross_entropy(logits[:1], labels[first : first + 1], [1.0], 1.0, np.empty_like(logits[:1]))
            assert alone[1] == 1
    zeros = np.array([[0.0, -0.0]], dtype)
    assert softmax_cross_entropy(zeros, [0], [1.0], 1.0, np.empty_like(zeros))[1] == 1
    assert softmax_cross_entropy(zeros[:, ::-1], [0], [1.0], 1.0, np.empty_like(zeros))[1] == 1


def test_one_class_has_no_loss_and_no_gradient(dtype):
    logits = np.array([[3.0], [-1e30], [0.0]], dtype)
    gradient = np.full_like(logits, 7)
    assert softmax_cross_entropy(logits, [0, 0, 0], [1.0, 2.0, 3.0], 3.0, gradient) == (0.0, 3)
    assert (gradient == 0).all()


def test_a_weight_of_zero_takes_a_row_out_of_the_loss_but_not_out_of_the_count(dtype):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(9, 4)).astype(dtype), random.integers(0, 4, 9)
    weights = np.array([1, 0, 2, 0, 0.5, 1, 0, 1, 1], dtype)
    gradient = np.empty_like(logits)
    loss_, correct = softmax_cross_entropy(logits, labels, weights, 9.0, gradient)
    kept = weights > 0
    rest, some = np.empty_like(logits[kept]), logits[kept]
    assert loss_ == softmax_cross_entropy(some, labels[kept], weights[kept], 9.0, rest)[0]
    assert (gradient[~kept] == 0).all() and np.array_equal(gradient[kept], rest)
    assert correct == (logits.argmax(axis=1) == labels).sum()


def test_a_rows_gradient_does_not_depend_on_the_rows_around_it(dtype):
    """Not a bit: neither on the block of 64 rows nor on where in it, whatever the number of classes."""
    random = np.random.default_rng(0)
    for classes in (1, 3, 10, 16, 17, 128, 129, 260):
        logits, labels = random.normal(0, 5, (150, classes)).astype(dtype), random.integers(0, classes, 150)
        weights = random.uniform(0.5, 2, 150).astype(dtype)
        whole = np.empty_like(logits)
        total, correct = softmax_cross_entropy(logits, labels, weights, 150.0, whole)
        losses = []
        for i in range(150):
            row = np.empty((1, classes), dtype)
            losses.append(softmax_cross_entropy(logits[i : i + 1], labels[i : i + 1], weights[i : i + 1], 150.0, row))
            assert row.tobytes() == whole[i].tobytes()
        assert (total, correct) == (
            np.add.accumulate([0.0] + [one for one, _ in losses])[-1],
            sum(n for _, n in losses),
        )


@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 64, 127, 128, 129, 256, 1000])
def test_any_number_of_classes(dtype, classes):
    random = np.random.default_rng(classes)
    for rows in (1, 3, 16, 37):
        logits = random.normal(0, 5, (rows, classes))
        labels = np.concatenate([[0, classes - 1], random.integers(0, classes, rows)])[:rows]
        agree(logits, labels, random.uniform(0.1, 2, rows), 37.0, dtype)


@pytest.mark.parametrize("classes", [3, 16, 140])
def test_rows_apart_of_samples_in_any_order(dtype, classes):
    """As the executor has it: zeros up to the stride, nothing else written, whatever lies between the rows."""
    random, stride, rows, first, at = np.random.default_rng(0), classes + 13, 21, 5, 7
    logits = np.full(at + rows * stride + 2, np.nan, dtype)
    block = logits[at : at + rows * stride].reshape(rows, stride)
    block[:, :classes] = random.normal(0, 3, (rows, classes))
    labels, weights = random.integers(0, classes, 100).astype(np.int32), random.uniform(0.5, 2, 100).astype(dtype)
    order, divisor = random.permutation(100)[: first + rows], np.dtype(dtype).type(21)
    deltas, losses, corrects = np.full_like(logits, 7), np.full(first + rows + 1, 7.0), np.full(first + rows + 1, 7)
    from_python(row_losses)(
        logits, deltas, at, stride, rows, classes, labels, weights, order, first, divisor, losses, corrects
    )  # fmt: skip
    samples, gradient = order[first:], np.empty((rows, classes), dtype)
    total = softmax_cross_entropy(block[:, :classes].copy(), labels[samples], weights[samples], divisor, gradient)
    made = deltas[at : at + rows * stride].reshape(rows, stride)
    assert made[:, :classes].tobytes() == gradient.tobytes() and (made[:, classes:] == 0).all()
    assert (np.add.accumulate(losses[first:-1])[-1], corrects[first:-1].sum()) == total
    for array, written in (
        (deltas, slice(at, at + rows * stride)),
        *((a, slice(first, -1)) for a in (losses, corrects)),
    ):
        array[written] = 7
        assert (array == 7).all()


def test_the_gradient_may_replace_the_logits(dtype):
    random = np.random.default_rng(0)
    logits, labels, weights = random.normal(size=(70, 10)).astype(dtype), random.integers(0, 10, 70), np.ones(70)
    gradient = np.empty_like(logits)
    apart = softmax_cross_entropy(logits, labels, weights, 70.0, gradient)
    assert softmax_cross_entropy(logits, labels, weights, 70.0, logits) == apart
    assert np.array_equal(logits, gradient)


# ---- softmax and its logarithm


def test_softmax_of_huge_logits(dtype):
    logits = np.array([[1e30, -1e30, 0], [1e30, 1e30, -1e30], [-1e30, -1e30, -1e30]], dtype)
    out = np.empty_like(logits)
    softmax(logits, out)
    np.testing.assert_allclose(out, [[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    log_softmax(logits, out)
    wanted = [[0, -2e30, -1e30], [-math.log(2), -math.log(2), -2e30], [-math.log(3)] * 3]
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_the_logarithm_of_softmax_keeps_what_softmax_loses(dtype):
    """A probability below the smallest number still has its logarithm."""
    logits = np.array([[0.0, -200.0, -1000.0]], dtype)
    out = np.empty_like(logits)
    log_softmax(logits, out)
    assert np.array_equal(out, [[0, -200, -1000]])


def test_softmax_of_undefined_logits_is_undefined(dtype):
    for op, value in itertools.product((softmax, log_softmax), (np.nan, np.inf)):
        logits = np.zeros((3, 5), dtype)
        logits[1, 2] = value
        out = np.zeros_like(logits)
        op(logits, out)
        assert np.isnan(out[1]).any() and np.isfinite(out[[0, 2]]).all()
        assert np.isnan(out[1]).all() or op is log_softmax


def test_softmax_may_write_over_its_input(dtype):
    logits = np.random.default_rng(0).normal(size=(20, 7)).astype(dtype)
    for op in (softmax, log_softmax):
        apart, same = np.empty_like(logits), logits.copy()
        op(logits, apart)
        op(same, same)
        assert apart.tobytes() == same.tobytes()
