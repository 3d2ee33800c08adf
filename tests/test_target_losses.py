"""The losses of float targets: within bounds, huge and undefined outputs, weights, ties, blocks of rows."""

import itertools
import math

import bounds
import numpy as np
import pytest
from bounds import Rounded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from problems import DTYPES, targets
from support import from_python

from mlpkernels.kernels import plan as p
from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import binary_cross_entropy, loss, poisson_loss, squared_error

KINDS = {binary_cross_entropy: p.BINARY, squared_error: p.SQUARED, poisson_loss: p.POISSON}
OPS = pytest.mark.parametrize("op", KINDS, ids=lambda op: op.__name__)
LARGEST = {"float32": 80.0, "float64": 700.0}  # whose exp is a number


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def sums(returned):
    """(loss, correct count) of what an op returns: of the regressions no row is correct."""
    return returned if isinstance(returned, tuple) else (returned, 0)


def both(op, outputs, wanted, weights, divisor, dtype):
    """((loss, correct, gradient) compiled in dtype, the same of the reference in float64)."""
    results = []
    for called, kind in ((op, dtype), (getattr(reference, op.__name__), "float64")):
        z, y, w = (np.asarray(a, dtype).astype(kind) for a in (outputs, wanted, weights))
        gradient = np.full_like(z, 7)
        results.append((*sums(called(z, y, w, divisor, gradient)), gradient))
    return results


def agree(op, outputs, wanted, weights, divisor, dtype):
    """Compiled and reference agree: within bounds where the numbers are finite, in what is no number elsewhere."""
    (loss_, correct, gradient), (exact, exact_correct, exact_gradient) = both(
        op, outputs, wanted, weights, divisor, dtype
    )
    assert correct == exact_correct
    z, y, w = (np.asarray(a, dtype) for a in (outputs, wanted, weights))
    fine = np.isfinite(z).all(axis=1)
    assert np.array_equal(np.isnan(gradient), np.isnan(exact_gradient))
    bound = getattr(bounds, op.__name__)
    losses, gradients = bound(*(Rounded(a[fine], dtype) for a in (z, y, w)), Rounded(divisor, dtype))
    gradients.check(gradient[fine], exact_gradient[fine], "gradient")
    if fine.all():
        losses.sum().check(loss_, exact, "loss")
    else:
        assert np.array_equal(loss_, exact, equal_nan=True), (loss_, exact)


def rows_of(random, op, rows, width, dtype, size=1.0):
    """(outputs, targets, weights)"""
    outputs = random.normal(0, size, (rows, width)).astype(dtype)
    return outputs, targets(rows, width, dtype, KINDS[op]), random.uniform(0.1, 2, rows).astype(dtype)


# ---- the numbers


@OPS
def test_every_small_shape_and_blocks_of_more_than_64_rows(op, dtype):
    random = np.random.default_rng(0)
    for rows, width in itertools.product((0, 1, 2, 7, 63, 64, 65, 128, 129, 300), (1, 2, 3, 15, 16, 17)):
        agree(op, *rows_of(random, op, rows, width, dtype), rows + 0.5, dtype)


@OPS
def test_no_outputs_have_no_loss(op, dtype):
    for shape in ((0, 3), (3, 0), (0, 0)):
        nothing = np.zeros(shape, dtype)
        loss_, correct = sums(op(nothing, nothing, np.ones(shape[0]), 1.0, nothing.copy()))
        assert type(loss_) is float and loss_ == 0.0
        assert correct == (shape[0] if op is binary_cross_entropy else 0)  # all of none are on their side


@OPS
def test_by_hand(op, dtype):
    """Two rows of two outputs, of weights 1 and 2."""
    log = math.log
    outputs, wanted, weights = [[0.0, log(3)], [-log(3), 0.0]], [[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0]
    expected = {
        binary_cross_entropy: (log(2) + log(4) + 2 * (log(4 / 3) + log(2)), [[-0.5, 0.75], [0.5, -1.0]]),
        squared_error: ((1 + log(3) ** 2) / 2 + log(3) ** 2 + 1, [[-1, log(3)], [-2 * log(3), -2]]),
        poisson_loss: ((1 - 0 - 1) + 3 + 2 * (1 / 3 + (1 - 0 - 1)), [[0, 3], [2 / 3, 0]]),
    }[op]
    gradient = np.empty((2, 2), dtype)
    loss_, _ = sums(op(outputs, wanted, weights, 4.0, gradient))
    assert loss_ == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(gradient, np.array(expected[1]) / 4, rtol=1e-6, atol=1e-7)


# ---- huge, infinite and undefined outputs


@pytest.mark.parametrize("size", [90.0, 800.0, 1e10, 1e30])
def test_logits_of_any_size_have_a_binary_loss(dtype, size):
    random = np.random.default_rng(0)
    logits, wanted, weights = rows_of(random, binary_cross_entropy, 40, 3, dtype, size)
    logits[:3] = [[size] * 3, [-size] * 3, [size, 0, -size]]
    agree(binary_cross_entropy, logits, wanted, weights, 40.0, dtype)
    assert math.isfinite(both(binary_cross_entropy, logits, wanted, weights, 40.0, dtype)[0][0])


def test_huge_logits_by_hand(dtype):
    """A loss of 0 on the right side, of |z| on the wrong one."""
    for logit, target, wanted, slope in (
        (1e30, 1.0, 0.0, 0), (1e30, 0.0, 1e30, 1), (-1e30, 0.0, 0.0, 0), (-1e30, 1.0, 1e30, -1), (1e30, 0.5, 5e29, 0.5),
    ):  # fmt: skip
        gradient = np.empty((1, 1), dtype)
        got, correct = binary_cross_entropy([[logit]], [[target]], [1.0], 1.0, gradient)
        assert got == pytest.approx(wanted, rel=1e-6) and correct == (wanted == 0)
        assert gradient[0, 0] == slope


def test_what_a_confident_logit_loses_is_not_lost(dtype):
    """log1p keeps a loss far below the rounding of 1."""
    for logit in (20.0, 40.0, 80.0):
        gradient = np.empty((1, 1), dtype)
        got, _ = binary_cross_entropy([[logit]], [[1.0]], [1.0], 1.0, gradient)
        assert got == pytest.approx(math.exp(-logit), rel=1e-6, abs=0)
        got, _ = binary_cross_entropy([[-logit]], [[0.0]], [1.0], 1.0, gradient)
        assert got == pytest.approx(math.exp(-logit), rel=1e-6, abs=0)
        assert gradient[0, 0] == pytest.approx(math.exp(-logit), rel=1e-6, abs=0)


@pytest.mark.parametrize("op", [squared_error, poisson_loss], ids=lambda op: op.__name__)
def test_a_loss_beyond_the_largest_number_is_infinite(op, dtype):
    huge = np.array([[1e25 if dtype == "float32" else 1e200], [1.0]], dtype)
    gradient = np.zeros_like(huge)
    assert op(huge, [[2.0], [0.0]], [1.0, 1.0], 1.0, gradient) == math.inf
    assert np.isfinite(gradient[1, 0])


def test_poisson_losses_up_to_the_largest_exponent(dtype):
    top = LARGEST[dtype]
    outputs = np.linspace(-top, top, 120).reshape(40, 3)
    agree(poisson_loss, outputs, targets(40, 3, dtype, p.POISSON), np.ones(40), 40.0, dtype)


def test_a_target_of_zero_costs_a_poisson_loss_its_rate_alone(dtype):
    for z in (-80.0, -1.0, 0.0, 3.0):
        gradient = np.empty((1, 1), dtype)
        got = poisson_loss([[z]], [[0.0]], [1.0], 1.0, gradient)
        assert got == pytest.approx(math.exp(z), rel=1e-6, abs=0)
        assert gradient[0, 0] == np.dtype(dtype).type(got)


@OPS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_undefined_or_infinite_output_anywhere(op, dtype, value):
    for width, at in itertools.product((1, 2, 17), (0, 1, 16)):
        if at < width:
            outputs, wanted, weights = rows_of(np.random.default_rng(0), op, 70, width, dtype)
            outputs[66, at] = value
            for target in (0.0, 0.5, 1.0):
                wanted[66, at] = target
                agree(op, outputs, wanted, weights, 3.0, dtype)


def test_a_row_that_is_not_a_number_is_never_correct(dtype):
    for at, target in itertools.product(range(3), (0.0, 1.0)):
        logits = np.array([[5.0, 5.0, 5.0]], dtype)
        wanted = np.ones((1, 3))
        logits[0, at], wanted[0, at] = np.nan, target
        loss_, correct = binary_cross_entropy(logits, wanted, [1.0], 1.0, np.empty_like(logits))
        assert math.isnan(loss_) and correct == 0


@pytest.mark.parametrize("kind", DTYPES)
@OPS
@given(data=st.data())
def test_any_outputs(op, kind, data):
    size = 60 if op is poisson_loss else 2.0**30
    width = 32 if kind == "float32" else 64
    numbers = st.floats(-size, size, width=width) | st.floats(-20, 20, width=width)
    odd = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0])
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 20)))
    outputs = data.draw(hnp.arrays(kind, shape, elements=data.draw(st.sampled_from([numbers, numbers | odd]))))
    most = {p.BINARY: 1, p.SQUARED: 1024, p.POISSON: 1024}[KINDS[op]]
    wanted = data.draw(hnp.arrays(kind, shape, elements=st.floats(0, most, width=32) | st.sampled_from([0.0, 1.0])))
    weights = data.draw(hnp.arrays(kind, shape[0], elements=st.floats(0.125, 8, width=32)))
    agree(op, outputs, wanted, weights, float(shape[0]), kind)


# ---- sides and weights


def test_a_row_is_correct_where_all_its_outputs_are_on_their_targets_side(dtype):
    for logits, wanted, correct in (
        ([1.0, -1.0], [1.0, 0.0], 1), ([1.0, 1.0], [1.0, 0.0], 0), ([1e-30, -1e-30], [0.6, 0.4], 1),
        ([0.0, 0.0], [0.0, 0.0], 1), ([0.0, -1.0], [1.0, 0.0], 0), ([-0.0, 5.0], [0.0, 1.0], 1),
        ([-1.0, 1.0], [0.5, 0.75], 1), ([1.0, 1.0], [0.5, 0.75], 0),
    ):  # fmt: skip
        got = binary_cross_entropy([logits], [wanted], [0.0], 1.0, np.empty((1, 2), dtype))
        assert got == (0.0, correct), (logits, wanted)


@OPS
def test_a_weight_of_zero_takes_a_row_out_of_the_loss_but_not_out_of_the_count(op, dtype):
    outputs, wanted, _ = rows_of(np.random.default_rng(0), op, 9, 4, dtype)
    weights = np.array([1, 0, 2, 0, 0.5, 1, 0, 1, 1], dtype)
    gradient, kept = np.empty_like(outputs), weights > 0
    loss_, correct = sums(op(outputs, wanted, weights, 9.0, gradient))
    rest = np.empty_like(outputs[kept])
    assert loss_ == sums(op(outputs[kept], wanted[kept], weights[kept], 9.0, rest))[0]
    assert (gradient[~kept] == 0).all() and np.array_equal(gradient[kept], rest)
    sides = ((outputs > 0) == (wanted > 0.5)).all(axis=1).sum()
    assert correct == (sides if op is binary_cross_entropy else 0)


@OPS
def test_a_rows_gradient_does_not_depend_on_the_rows_around_it(op, dtype):
    """Not a bit: neither on the block of 64 rows nor on where in it, whatever the number of outputs."""
    random = np.random.default_rng(0)
    for width in (1, 3, 16, 17):
        outputs, wanted, weights = rows_of(random, op, 150, width, dtype)
        whole, found = np.empty_like(outputs), []
        total = sums(op(outputs, wanted, weights, 150.0, whole))
        for i in range(150):
            one, row = slice(i, i + 1), np.empty((1, width), dtype)
            found.append(sums(op(outputs[one], wanted[one], weights[one], 150.0, row)))
            assert row.tobytes() == whole[i].tobytes()
        assert total == (np.add.accumulate([0.0, *(one for one, _ in found)])[-1], sum(n for _, n in found))


# ---- as the executor calls them


@OPS
def test_rows_at_a_stride_leave_zeros_between_them_and_the_rest_alone(op, dtype):
    """What lies behind a row's outputs becomes 0 in the gradient; what lies around the block stays."""
    T, (rows, width, stride, at, first) = np.dtype(dtype).type, (9, 5, 16, 32, 2)
    outputs, wanted, weights = rows_of(np.random.default_rng(0), op, 20, width, dtype)
    order = np.random.default_rng(1).permutation(20)
    chosen = order[first : first + rows]
    z, dz = np.full(at + rows * stride + 16, np.nan, dtype), np.full(at + rows * stride + 16, 77, dtype)
    inside = slice(at, at + rows * stride)
    z[inside].reshape(rows, stride)[:, :width] = outputs[chosen]
    losses, corrects = np.full(20, -1.0), np.full(20, -1)
    from_python(loss.target_losses)(
        KINDS[op], z, dz, at, stride, rows, width, wanted, weights, order, first, T(20), losses, corrects
    )
    block = dz[inside].reshape(rows, stride)
    alone = np.empty((rows, width), dtype)
    total, correct = sums(op(outputs[chosen], wanted[chosen], weights[chosen], 20.0, alone))
    assert block[:, :width].tobytes() == alone.tobytes() and (block[:, width:] == 0).all()
    assert (dz[:at] == 77).all() and (dz[inside.stop :] == 77).all()
    mine = np.isin(np.arange(20), np.arange(first, first + rows))
    assert np.add.accumulate([0.0, *losses[mine]])[-1] == total and corrects[mine].sum() == correct
    assert (losses[~mine] == -1).all() and (corrects[~mine] == -1).all()
