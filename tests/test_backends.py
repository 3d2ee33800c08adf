"""Every op of every backend against the reference in float64, within the error bound of its sums' lengths."""

import inspect
import itertools

import bounds
import numpy as np
import pytest
from bounds import Rounded, activate, cross_entropy, log_softmax, softmax, through_slope
from problems import DTYPES, bounded_adam, bounded_sgd, targets

from mlpkernels import kernels
from mlpkernels.kernels import plan as p
from mlpkernels.kernels import reference
from mlpkernels.kernels.plan import IDENTITY, LOGISTIC, RELU, TANH

ACTIVATIONS = IDENTITY, RELU, TANH, LOGISTIC
FEW = (0, 1, 2, 5, 8, 15, 16, 17, 33)
SHAPES = sorted(
    {shape for n, a, b in itertools.product(range(34), FEW, FEW) for shape in ((n, a, b), (a, n, b), (a, b, n))}
)
TRAINING_SHAPES = [
    (batch, *widths)
    for batch in (8, 64, 128, 1024)
    for widths in ((784, 256), (784, 128), (784, 64), (256, 10), (128, 128), (64, 64), (64, 10), (10, 256), (10, 10))
]
ROWS = sorted(
    {shape for n, a in itertools.product(range(34), FEW) for shape in ((n, a), (a, n))} - {(a, 0) for a in range(1, 34)}
)
ROWS += [(8, 10), (1024, 10), (128, 100), (3, 1000)]


@pytest.fixture(params=kernels.BACKENDS)
def backend(request):
    return kernels.load(request.param)


@pytest.fixture(params=[name for name in kernels.BACKENDS if name != "reference"])
def compiled(request):
    return kernels.load(request.param)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def draw(dtype):
    """draw(*shape): normal numbers of the dtype, the same for every test."""
    random = np.random.default_rng(5)
    pool = random.normal(size=1 << 21).astype(dtype)

    def take(*shape):
        size = int(np.prod(shape, dtype=int))
        start = random.integers(0, len(pool) - size + 1)
        return pool[start : start + size].reshape(shape).copy()

    return take


def unwritten(*shape, dtype):
    return np.full(shape, np.nan, dtype)


# ---- the promise of one interface


def test_backends_have_the_same_functions_and_arguments():
    first, *others = map(kernels.load, kernels.BACKENDS)
    for other in others:
        assert set(other.__all__) == set(first.__all__)
        for name in first.__all__:
            ours, theirs = getattr(first, name), getattr(other, name)
            if not callable(ours):
                assert ours == theirs, name
                continue
            wanted, got = inspect.signature(theirs).parameters, inspect.signature(ours).parameters
            assert list(got) == list(wanted), name
            assert [p.default for p in got.values()] == [p.default for p in wanted.values()], name


def test_every_public_function_says_what_it_does(backend):
    for name in backend.__all__:
        if callable(getattr(backend, name)):
            assert inspect.getdoc(getattr(backend, name)), name


def test_an_unknown_backend_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'abacus'.*cpu, reference"):
        kernels.load("abacus")


# ---- dense


def check_forward(backend, draw, dtype, batch, inputs, outputs):
    x, w, b = draw(batch, inputs), draw(inputs, outputs), draw(outputs)
    exact = Rounded(x, dtype) @ Rounded(w, dtype) + Rounded(b, dtype)
    for activation in ACTIVATIONS:
        out, wanted = unwritten(batch, outputs, dtype=dtype), np.empty((batch, outputs))
        backend.dense_forward(x, w, b, activation, out)
        reference.dense_forward(*(a.astype(float) for a in (x, w, b)), activation, wanted)
        activate(exact, activation).check(out, wanted, f"{batch, inputs, outputs, activation}")


def check_backward_params(backend, draw, dtype, batch, inputs, outputs):
    x, delta = draw(batch, inputs), draw(batch, outputs)
    dw, db = unwritten(inputs, outputs, dtype=dtype), unwritten(outputs, dtype=dtype)
    backend.dense_backward_params(x, delta, dw, db)
    wanted = np.empty((inputs, outputs)), np.empty(outputs)
    reference.dense_backward_params(x.astype(float), delta.astype(float), *wanted)
    (Rounded(x.T, dtype) @ Rounded(delta, dtype)).check(dw, wanted[0], f"{batch, inputs, outputs} weights")
    Rounded(delta, dtype).sum(axis=0).check(db, wanted[1], f"{batch, inputs, outputs} biases")


def check_backward_input(backend, draw, dtype, batch, inputs, outputs):
    delta, w, x = draw(batch, outputs), draw(inputs, outputs), np.clip(draw(batch, inputs), 0, 1)
    exact = Rounded(delta, dtype) @ Rounded(w.T, dtype)
    for activation in ACTIVATIONS:
        dx, wanted = unwritten(batch, inputs, dtype=dtype), np.empty((batch, inputs))
        backend.dense_backward_input(delta, w, x, activation, dx)
        reference.dense_backward_input(*(a.astype(float) for a in (delta, w, x)), activation, wanted)
        through_slope(exact, Rounded(x, dtype), activation).check(dx, wanted, f"{batch, inputs, outputs, activation}")


CHECKS = {
    "dense_forward": check_forward,
    "dense_backward_params": check_backward_params,
    "dense_backward_input": check_backward_input,
}


@pytest.mark.parametrize("op", CHECKS)
def test_dense_ops_of_every_small_shape(backend, draw, dtype, op):
    for shape in SHAPES:
        CHECKS[op](backend, draw, dtype, *shape)


@pytest.mark.parametrize("op", CHECKS)
def test_dense_ops_of_the_training_shapes(compiled, draw, dtype, op):
    for shape in TRAINING_SHAPES:
        CHECKS[op](compiled, draw, dtype, *shape)


def test_dense_ops_of_shapes_drawn_at_random(compiled, draw, dtype):
    random = np.random.default_rng(6)
    for _ in range(150):
        shape = [int(n) for n in np.exp(random.uniform(0, np.log(300), 3))]
        for check in CHECKS.values():
            check(compiled, draw, dtype, *shape)


def test_a_nan_goes_through_products_and_relu(backend, dtype):
    """Into exactly those elements whose sum has it, in full tiles and at their edges."""
    for batch, inputs, outputs in ((1, 1, 1), (7, 5, 3), (6, 40, 64), (13, 600, 37), (9, 3, 130)):
        x, w, b = np.ones((batch, inputs), dtype), np.full((inputs, outputs), -1, dtype), np.zeros(outputs, dtype)
        x[batch // 2, inputs // 2] = np.nan
        out = np.zeros((batch, outputs), dtype)
        backend.dense_forward(x, w, b, RELU, out)
        assert (np.isnan(out) == np.isnan(x).any(axis=1, keepdims=True)).all()

        b[outputs // 2] = np.nan
        backend.dense_forward(np.ones_like(x), w, b, RELU, out)
        assert (np.isnan(out) == np.isnan(b)).all()

        dw, db = np.zeros_like(w), np.zeros_like(b)
        backend.dense_backward_params(x, np.ones_like(out), dw, db)
        assert (np.isnan(dw) == np.isnan(x).any(axis=0)[:, None]).all() and not np.isnan(db).any()

        dx = np.zeros_like(x)
        delta = np.ones_like(out)
        delta[0, 0] = np.nan
        backend.dense_backward_input(delta, w, np.ones_like(x), RELU, dx)
        assert np.isnan(dx[0]).all() and not np.isnan(dx[1:]).any()


@np.errstate(invalid="ignore")  # OpenBLAS raises the flag for infinities beside its own padding
def test_infinities_go_through_products_and_relu_as_numpy_sends_them(backend, dtype):
    """ReLU of -inf is 0 and a closed slope stops an infinite or undefined gradient, at every width."""
    for batch, inputs, outputs in ((1, 1, 1), (7, 5, 3), (6, 16, 16), (6, 40, 64), (9, 3, 130)):
        x, b = np.ones((batch, inputs), dtype), np.zeros(outputs, dtype)
        for value in (-np.inf, np.inf):
            w, out = np.full((inputs, outputs), value, dtype), np.zeros((batch, outputs), dtype)
            backend.dense_forward(x, w, b, RELU, out)
            assert (out == max(value, 0)).all(), (batch, inputs, outputs, value)
            backend.dense_forward(x, w, b, IDENTITY, out)
            assert (out == value).all(), (batch, inputs, outputs, value)
        for value in (np.inf, np.nan):
            delta, dx = np.full((batch, outputs), value, dtype), np.ones((batch, inputs), dtype)
            backend.dense_backward_input(delta, np.ones((inputs, outputs), dtype), 0 * x, RELU, dx)
            assert (dx == 0).all(), (batch, inputs, outputs, value)


def test_relu_gives_no_negative_zero(backend, dtype):
    """So that the bits of an output do not depend on where in a tile its column lies."""
    for outputs in (1, 3, 16, 17, 40, 64):
        out = np.empty((7, outputs), dtype)
        backend.dense_forward(np.ones((7, 2)), np.full((2, outputs), -1.0), np.zeros(outputs), RELU, out)
        assert not np.signbit(out).any(), outputs


# ---- loss


def rows_of(draw, batch, classes, dtype):
    logits = 3 * draw(batch, classes)
    labels = np.random.default_rng(batch).integers(0, max(classes, 1), batch).astype(np.int32)
    return logits, labels, np.abs(draw(batch)) + np.dtype(dtype).type(0.1)


def test_softmax_cross_entropy_of_every_small_shape(backend, draw, dtype):
    for batch, classes in ROWS:
        logits, labels, weights = rows_of(draw, batch, classes, dtype)
        gradient, wanted = unwritten(batch, classes, dtype=dtype), np.empty((batch, classes))
        loss, correct = backend.softmax_cross_entropy(logits, labels, weights, float(batch + 1), gradient)
        exact = reference.softmax_cross_entropy(
            logits.astype(float), labels, weights.astype(float), float(batch + 1), wanted
        )
        assert type(loss) is float and type(correct) is int and correct == exact[1], (batch, classes)
        if logits.size:
            divisor = Rounded(batch + 1, dtype)
            losses, bound = cross_entropy(Rounded(logits, dtype), labels, Rounded(weights, dtype), divisor)
            losses.sum().check(loss, exact[0], f"{batch, classes} loss")
            bound.check(gradient, wanted, f"{batch, classes} gradient")


@pytest.mark.parametrize(
    ("op", "kind"),
    [("binary_cross_entropy", p.BINARY), ("squared_error", p.SQUARED), ("poisson_loss", p.POISSON)],
)
def test_losses_of_targets_of_every_small_shape(backend, draw, dtype, op, kind):
    for batch, outputs in ROWS:
        z, weights = draw(batch, outputs), np.abs(draw(batch)) + np.dtype(dtype).type(0.1)
        given = z, targets(batch, outputs, dtype, kind), weights
        gradient, wanted = unwritten(batch, outputs, dtype=dtype), np.empty((batch, outputs))
        made = getattr(backend, op)(*given, float(batch + 1), gradient)
        exact = getattr(reference, op)(*(a.astype(float) for a in given), float(batch + 1), wanted)
        if kind == p.BINARY:
            assert type(made[1]) is int and made[1] == exact[1], (batch, outputs)
            made, exact = made[0], exact[0]
        assert type(made) is float
        losses, bound = getattr(bounds, op)(*(Rounded(a, dtype) for a in given), Rounded(batch + 1, dtype))
        losses.sum().check(made, exact, f"{batch, outputs} loss")
        bound.check(gradient, wanted, f"{batch, outputs} gradient")


def test_the_logistic_function_of_every_small_shape(backend, draw, dtype):
    for shape in (*ROWS, (3,), (2, 3, 4, 5)):
        z = 9 * draw(*shape)
        out, wanted = unwritten(*shape, dtype=dtype), np.empty(shape)
        backend.logistic(z, out)
        reference.logistic(z.astype(float), wanted)
        Rounded(z, dtype).logistic().check(out, wanted, f"{shape}")


@pytest.mark.parametrize("activation", [TANH, LOGISTIC])
def test_a_nan_goes_through_curves_and_infinities_end_at_their_limits(backend, dtype, activation):
    """Into exactly those elements whose sum has it, in full tiles and at their edges."""
    low, high = (-1, 1) if activation == TANH else (0, 1)
    for batch, inputs, outputs in ((1, 1, 1), (7, 5, 3), (6, 40, 64), (9, 3, 130)):
        x, w, b = np.ones((batch, inputs), dtype), np.ones((inputs, outputs), dtype), np.zeros(outputs, dtype)
        x[batch // 2, inputs // 2], out = np.nan, np.zeros((batch, outputs), dtype)
        backend.dense_forward(x, w, b, activation, out)
        assert (np.isnan(out) == np.isnan(x).any(axis=1, keepdims=True)).all()
        for value, limit in ((-np.inf, low), (np.inf, high)):
            b[outputs // 2] = value
            backend.dense_forward(np.ones_like(x), w, b, activation, out)
            assert (out[:, outputs // 2] == limit).all()
        dx, delta = np.zeros_like(x), np.ones_like(out)
        delta[0, 0] = np.nan
        backend.dense_backward_input(delta, w, np.full_like(x, 0.5), activation, dx)
        assert np.isnan(dx[0]).all() and not np.isnan(dx[1:]).any()


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_and_its_logarithm_of_every_small_shape(backend, draw, dtype, op):
    for batch, classes in ROWS:
        logits, _, _ = rows_of(draw, batch, classes, dtype)
        out, wanted = unwritten(batch, classes, dtype=dtype), np.empty((batch, classes))
        getattr(backend, op)(logits, out)
        getattr(reference, op)(logits.astype(float), wanted)
        if logits.size:
            bound = softmax if op == "softmax" else log_softmax
            bound(Rounded(logits, dtype)).check(out, wanted, f"{batch, classes}")


# ---- optimisers

SIZES = [*range(34), 100, 1000, 12345]


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
def test_sgd_step_of_every_small_size(backend, draw, dtype, momentum, nesterov, weight_decay):
    for size in SIZES:
        params, grad, velocity = draw(size), draw(size), draw(size if momentum else 0)
        settings = 0.1, momentum, nesterov, weight_decay
        bound = bounded_sgd(*(Rounded(a, dtype) for a in (params, grad, velocity)), *settings)
        wanted = [a.astype(float) for a in (params, grad, velocity)]
        reference.sgd_step(*wanted, *settings)
        before = grad.copy()
        backend.sgd_step(params, grad, velocity, *settings)
        bound[0].check(params, wanted[0], f"{size} parameters")
        bound[1].check(velocity, wanted[2], f"{size} velocity")
        assert np.array_equal(grad, before)


@pytest.mark.parametrize(("weight_decay", "decoupled"), [(0.0, False), (0.03, False), (0.0, True), (0.03, True)])
def test_adam_step_of_every_small_size(backend, draw, dtype, weight_decay, decoupled):
    for size, step in itertools.product(SIZES, (1, 2, 1000, 10**7)):
        params, grad, m, v = draw(size), draw(size), draw(size), draw(size) ** 2
        settings = 0.002, 0.9, 0.999, 1e-8, weight_decay, decoupled, step
        bound = bounded_adam(*(Rounded(a, dtype) for a in (params, grad, m, v)), *settings)
        wanted = [a.astype(float) for a in (params, grad, m, v)]
        reference.adam_step(*wanted, *settings)
        backend.adam_step(params, grad, m, v, *settings)
        for name, part, got, exact in zip("pmv", bound, (params, m, v), (wanted[0], *wanted[2:]), strict=True):
            part.check(got, exact, f"{size, step} {name}")
