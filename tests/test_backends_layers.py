"""Convolutions, pools, batch norms and dropout of every backend against the reference in float64, and against PyTorch.

An op that is linear in each of its arguments owes γₙ times itself on the arguments' sizes (Higham, 3.1): n the length
of an output's sum. So no tolerance is set by hand.
"""

import itertools

import numpy as np
import pytest
from bounded_norms import Normal
from bounds import Rounded, gamma
from problems import DTYPES

from mlpkernels import kernels
from mlpkernels.kernels import reference
from mlpkernels.kernels.plan import IDENTITY, RELU

# batch, channels, (H, W), outputs, kernel, stride, padding: edges of tiles, odd sizes, every stride and padding.
SHAPES = [
    *((b, c, (5, 6), o, (3, 3), (1, 1), (0, 0)) for b in (0, 1, 2, 3, 9) for c in (1, 2, 5) for o in (1, 3, 8)),
    *((2, 3, (7, 9), o, (2, 3), (1, 1), (1, 2)) for o in (*range(1, 18), 31, 32, 33, 65)),
    *((2, c, (4, 5), 6, (2, 2), (1, 1), (0, 0)) for c in (*range(1, 18), 33, 64)),
    *((2, 2, (h, w), 5, (2, 2), (1, 1), (0, 0)) for h in (2, 3, 9, 16, 17, 18, 33) for w in (2, 4, 15, 16, 18)),
    *(
        (2, 3, (11, 10), 4, kernel, stride, padding)
        for kernel in ((1, 1), (2, 1), (1, 4), (3, 3), (5, 5), (4, 7))
        for stride in ((1, 1), (2, 2), (1, 3), (4, 2))
        for padding in ((0, 0), (1, 1), (2, 0), (0, 3), (4, 4))
        if padding[0] < kernel[0] and padding[1] < kernel[1]
    ),
    *((3, 2, (n, n), 3, (n, n), (1, 1), (0, 0)) for n in range(1, 8)),  # the kernel is the image
]  # fmt: skip
POOLS = [
    (b, c, (h, w), kernel, stride, padding)
    for b, c, h, w in ((0, 2, 4, 4), (1, 1, 4, 4), (2, 3, 7, 10), (3, 17, 5, 9), (2, 2, 24, 33))
    for kernel in ((1, 1), (2, 2), (3, 2), (2, 4), (4, 4))
    for stride in ((1, 1), (2, 2), (3, 1), kernel)
    for padding in ((0, 0), (1, 0), (1, 1), (0, 2))
    if 2 * padding[0] <= kernel[0] and 2 * padding[1] <= kernel[1]
]
NORMS = [
    *((b, c) for b in (1, 2, 3, 8, 17, 64) for c in (1, 2, 15, 16, 17, 33, 100)),
    *((b, c, h, w) for b in (1, 2, 7) for c in (1, 3, 16, 17) for h, w in ((1, 1), (1, 5), (4, 4), (7, 9))),
]


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
    return lambda *shape: random.normal(size=shape).astype(dtype)


def unwritten(*shape, dtype):
    return np.full(shape, np.nan, dtype)


def double(*arrays):
    return [a.astype(np.float64) for a in arrays]


def sizes(*arrays):
    return [np.abs(a).astype(np.float64) for a in arrays]


def steps(size, kernel, stride, padding):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


def linear(n, dtype, exact, size):
    """A sum of n products computed in dtype, given it and the sum of the products' sizes."""
    return Rounded(exact, dtype, gamma(n, dtype) * size + n * np.finfo(dtype).smallest_subnormal)


# ---- convolution


def check_conv_forward(backend, draw, dtype, batch, channels, size, outputs, kernel, stride, padding):
    x, w, b = draw(batch, channels, *size), draw(outputs, channels, *kernel), draw(outputs)
    out = unwritten(batch, outputs, *steps(size, kernel, stride, padding), dtype=dtype)
    exact, most = np.empty(out.shape), np.empty(out.shape)
    reference.conv2d_forward(*double(x, w, b), IDENTITY, stride, padding, exact)
    reference.conv2d_forward(*sizes(x, w, b), IDENTITY, stride, padding, most)
    bound = linear(channels * kernel[0] * kernel[1] + 1, dtype, exact, most)
    for activation in (IDENTITY, RELU):
        backend.conv2d_forward(x, w, b, activation, stride, padding, out)
        (bound.relu() if activation == RELU else bound).check(out, note=f"{activation}")


def check_conv_backward_params(backend, draw, dtype, batch, channels, size, outputs, kernel, stride, padding):
    after = steps(size, kernel, stride, padding)
    x, delta = draw(batch, channels, *size), draw(batch, outputs, *after)
    dw, db = unwritten(outputs, channels, *kernel, dtype=dtype), unwritten(outputs, dtype=dtype)
    exact, most = [(np.empty(dw.shape), np.empty(db.shape)) for _ in range(2)]
    reference.conv2d_backward_params(*double(x, delta), stride, padding, *exact)
    reference.conv2d_backward_params(*sizes(x, delta), stride, padding, *most)
    backend.conv2d_backward_params(x, delta, stride, padding, dw, db)
    n = max(batch * after[0] * after[1], 1)
    linear(n, dtype, exact[0], most[0]).check(dw, note="weights")
    linear(n, dtype, exact[1], most[1]).check(db, note="biases")


def check_conv_backward_input(backend, draw, dtype, batch, channels, size, outputs, kernel, stride, padding):
    delta, w = draw(batch, outputs, *steps(size, kernel, stride, padding)), draw(outputs, channels, *kernel)
    x = np.maximum(draw(batch, channels, *size), 0)
    dx, exact, most = unwritten(*x.shape, dtype=dtype), np.empty(x.shape), np.empty(x.shape)
    reference.conv2d_backward_input(*double(delta, w, x), IDENTITY, stride, padding, exact)
    reference.conv2d_backward_input(*sizes(delta, w, x), IDENTITY, stride, padding, most)
    bound = linear(outputs * kernel[0] * kernel[1], dtype, exact, most)
    for activation in (IDENTITY, RELU):
        backend.conv2d_backward_input(delta, w, x, activation, stride, padding, dx)
        (bound.where_positive(Rounded(x, dtype)) if activation == RELU else bound).check(dx, note=f"{activation}")


CONVOLUTIONS = {
    "conv2d_forward": check_conv_forward,
    "conv2d_backward_params": check_conv_backward_params,
    "conv2d_backward_input": check_conv_backward_input,
}


def named(check, *shape):
    """Run a check; what fails says for which shape."""
    try:
        check(*shape)
    except Exception as error:
        error.add_note(f"shape {shape[3:]}")
        raise


@pytest.mark.parametrize("op", CONVOLUTIONS)
def test_convolutions_of_many_shapes(backend, draw, dtype, op):
    for shape in SHAPES:
        named(CONVOLUTIONS[op], backend, draw, dtype, *shape)


@pytest.mark.parametrize("op", CONVOLUTIONS)
def test_convolutions_of_the_training_shapes(compiled, draw, dtype, op):
    for batch in (1, 64):
        named(CONVOLUTIONS[op], compiled, draw, dtype, batch, 1, (28, 28), 10, (5, 5), (1, 1), (0, 0))
        named(CONVOLUTIONS[op], compiled, draw, dtype, batch, 10, (12, 12), 20, (5, 5), (1, 1), (0, 0))
        named(CONVOLUTIONS[op], compiled, draw, dtype, batch, 16, (14, 14), 32, (3, 3), (1, 1), (1, 1))
        named(CONVOLUTIONS[op], compiled, draw, dtype, batch, 32, (7, 7), 64, (3, 3), (2, 2), (1, 1))


def test_convolutions_of_shapes_drawn_at_random(compiled, draw, dtype):
    random = np.random.default_rng(6)
    for _ in range(100):
        batch, channels, outputs = (int(n) for n in np.exp(random.uniform(0, np.log((9, 40, 80)))))
        kernel = tuple(int(n) for n in random.integers(1, 7, 2))
        padding = tuple(int(random.integers(0, k)) for k in kernel)
        size = tuple(max(1, k - 2 * p) + int(random.integers(0, 25)) for k, p in zip(kernel, padding, strict=True))
        stride = tuple(int(n) for n in random.integers(1, 4, 2))
        for check in CONVOLUTIONS.values():
            named(check, compiled, draw, dtype, batch, channels, size, outputs, kernel, stride, padding)


def test_a_nan_reaches_just_the_windows_that_hold_it(backend, dtype):
    """Full tiles and edges compute no product of it elsewhere."""
    for channels, outputs, (height, width) in ((1, 1, (3, 3)), (2, 5, (6, 7)), (10, 20, (12, 12)), (3, 33, (9, 40))):
        for stride, padding in (((1, 1), (0, 0)), ((2, 1), (1, 2))):
            kernel, x = (3, 3), np.ones((2, channels, height, width), dtype)
            x[1, -1, height // 2, width // 2] = np.nan
            w, b = np.ones((outputs, channels, *kernel), dtype), np.zeros(outputs, dtype)
            after = steps((height, width), kernel, stride, padding)
            for module in (reference, backend):
                out, dw, db = np.zeros((2, outputs, *after), dtype), np.zeros_like(w), np.zeros_like(b)
                module.conv2d_forward(x, w, b, RELU, stride, padding, out)
                module.conv2d_backward_params(x, np.ones_like(out), stride, padding, dw, db)
                delta, dx = np.ones_like(out), np.zeros_like(x)
                delta[0, outputs // 2, -1, 0] = np.nan
                module.conv2d_backward_input(delta, w, np.ones_like(x), RELU, stride, padding, dx)
                found = [np.isnan(a) for a in (out, dw, db, dx)]
                if module is reference:
                    wanted = found
                    assert (
                        wanted[0][1].any() and not wanted[0][0].any() and wanted[3][0].any() and not wanted[3][1].any()
                    )
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)), (channels, outputs, stride)


def test_a_closed_slope_stops_what_is_not_finite(backend, dtype):
    for value in (np.inf, np.nan):
        delta, x = np.full((2, 3, 4, 4), value, dtype), np.zeros((2, 5, 6, 6), dtype)
        dx = np.ones_like(x)
        backend.conv2d_backward_input(delta, np.ones((3, 5, 3, 3), dtype), x, RELU, (1, 1), (0, 0), dx)
        assert (dx == 0).all()


def test_relu_of_a_convolution_gives_no_negative_zero(backend, dtype):
    for outputs in (1, 3, 16, 17):
        out = np.empty((2, outputs, 4, 5), dtype)
        w = np.full((outputs, 2, 2, 2), -1, dtype)
        backend.conv2d_forward(np.ones((2, 2, 5, 6), dtype), w, np.zeros(outputs, dtype), RELU, (1, 1), (0, 0), out)
        assert not out.any() and not np.signbit(out).any()


# ---- maximum pooling


def pooled(backend, x, kernel, stride, padding):
    after = steps(x.shape[2:], kernel, stride, padding)
    out, places = unwritten(*x.shape[:2], *after, dtype=x.dtype), np.full((*x.shape[:2], *after), -1, np.int32)
    backend.maxpool2d_forward(x, kernel, stride, padding, out, places)
    return out, places


def test_pools_choose_what_the_reference_chooses(backend, draw, dtype):
    for batch, channels, size, kernel, stride, padding in POOLS:
        normal = draw(batch, channels, *size)
        special = np.random.default_rng(0).choice([-np.inf, -1, -0.0, 0.0, 1, np.inf], normal.shape).astype(dtype)
        for x in (normal, np.round(normal), special, -np.abs(normal), np.full_like(normal, -np.inf)):
            wanted, got = pooled(reference, x, kernel, stride, padding), pooled(backend, x, kernel, stride, padding)
            note = (batch, channels, size, kernel, stride, padding)
            assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1]), note


def test_a_nan_is_every_maximum_that_it_takes_part_in(backend, dtype):
    x = np.zeros((1, 2, 6, 20), dtype)
    x[0, 1, 3, 7] = np.nan
    out, places = pooled(backend, x, (2, 3), (1, 2), (1, 1))
    wanted = pooled(reference, x, (2, 3), (1, 2), (1, 1))
    assert np.isnan(out).sum() == 2 * 2 and np.array_equal(np.isnan(out), np.isnan(wanted[0]))
    assert (places[np.isnan(out)] == 3 * 20 + 7).all() and np.array_equal(places, wanted[1])


def test_pools_give_their_gradient_back(backend, draw, dtype):
    for batch, channels, size, kernel, stride, padding in POOLS:
        x = np.maximum(draw(batch, channels, *size), 0)
        out, places = pooled(reference, x, kernel, stride, padding)
        delta, dx = draw(*out.shape), unwritten(*x.shape, dtype=dtype)
        exact, most = np.empty(x.shape), np.empty(x.shape)
        reference.maxpool2d_backward(*double(delta), places, x, IDENTITY, exact)
        reference.maxpool2d_backward(*sizes(delta), places, x, IDENTITY, most)
        bound = linear(kernel[0] * kernel[1], dtype, exact, most)
        for activation in (IDENTITY, RELU):
            backend.maxpool2d_backward(delta, places, x, activation, dx)
            wanted = bound.where_positive(Rounded(x, dtype)) if activation == RELU else bound
            wanted.check(dx, note=f"{size, kernel, stride, padding, activation}")


# ---- batch normalisation


def normed(backend, x, gamma_, beta, epsilon, activation):
    mean, variance, out = np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan), unwritten(*x.shape, dtype=x.dtype)
    backend.batchnorm_forward(x, gamma_, beta, epsilon, activation, mean, variance, out)
    return mean, variance, out


def test_batch_norms_of_many_shapes(backend, draw, dtype):
    for shape, epsilon in itertools.product(NORMS, (1e-5, 0.1)):
        gamma_, beta, centre = draw(shape[1]), draw(shape[1]), draw(1, shape[1], *(1,) * (len(shape) - 2))
        x = 2 * draw(*shape) + centre
        bound = Normal(x, gamma_, beta, epsilon, dtype)
        for activation in (IDENTITY, RELU):
            mean, variance, out = normed(backend, x, gamma_, beta, epsilon, activation)
            bound.mean.check(mean, note=f"{shape} mean")
            bound.variance.check(variance, note=f"{shape} variance")
            wanted = bound.out(dtype)
            (wanted.relu() if activation == RELU else wanted).check(out, note=f"{shape, activation}")


def test_batch_norms_of_running_statistics(backend, draw, dtype):
    for shape in NORMS:
        x, gamma_, beta, out = draw(*shape), draw(shape[1]), draw(shape[1]), unwritten(*shape, dtype=dtype)
        mean, variance = draw(shape[1]).astype(float), (draw(shape[1]) ** 2).astype(float)
        wanted = Normal(x, gamma_, beta, 1e-3, dtype, (mean, variance)).out(dtype)
        for activation in (IDENTITY, RELU):
            backend.batchnorm_inference(x, gamma_, beta, mean, variance, 1e-3, activation, out)
            (wanted.relu() if activation == RELU else wanted).check(out, note=f"{shape, activation}")


def test_batch_norms_give_their_gradient_back(backend, draw, dtype):
    for shape in NORMS:
        x, gamma_, delta = np.maximum(draw(*shape), 0), draw(shape[1]), draw(*shape)
        bound = Normal(x, gamma_, gamma_, 1e-2, dtype)
        wanted = bound.backward(delta, dtype)
        for activation in (IDENTITY, RELU):
            dx, dgamma, dbeta = unwritten(*shape, dtype=dtype), *(unwritten(shape[1], dtype=dtype) for _ in range(2))
            mean, variance = bound.mean.value.copy(), bound.variance.value.copy()
            backend.batchnorm_backward(delta, x, gamma_, mean, variance, 1e-2, activation, dx, dgamma, dbeta)
            inner = wanted[0].where_positive(Rounded(x, dtype)) if activation == RELU else wanted[0]
            inner.check(dx, note=f"{shape, activation} inputs")
            wanted[1].check(dgamma, note=f"{shape} gamma")
            wanted[2].check(dbeta, note=f"{shape} beta")


def test_statistics_far_from_zero(backend, dtype):
    """A mean of 1000 with a deviation of 1e-2: squares less the mean's square in float32 would have no digit left."""
    x = (1000 + 0.01 * np.random.default_rng(0).normal(size=(500, 3))).astype(dtype)
    mean, variance, _ = normed(backend, x, np.ones(3, dtype), np.zeros(3, dtype), 1e-5, IDENTITY)
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(variance, x.astype(float).var(axis=0), rtol=1e-4)


# ---- against PyTorch


@pytest.mark.parametrize("shape", [SHAPES[4], SHAPES[20], *SHAPES[-60:-7:5], SHAPES[-1]], ids=str)
def test_convolutions_are_those_of_torch(backend, shape):
    torch = pytest.importorskip("torch")
    batch, channels, size, outputs, kernel, stride, padding = shape
    random = np.random.default_rng(0)
    x, w, b = (random.normal(size=s) for s in ((batch, channels, *size), (outputs, channels, *kernel), (outputs,)))
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    out = torch.nn.functional.conv2d(torch.relu(tx), tw, tb, stride, padding)
    delta = random.normal(size=tuple(out.shape))
    out.backward(torch.from_numpy(delta))
    x, got = np.maximum(x, 0), np.empty(tuple(out.shape))
    backend.conv2d_forward(x, w, b, IDENTITY, stride, padding, got)
    dw, db, dx = np.empty_like(w), np.empty_like(b), np.empty_like(x)
    backend.conv2d_backward_params(x, delta, stride, padding, dw, db)
    backend.conv2d_backward_input(delta, w, x, RELU, stride, padding, dx)
    for ours, theirs in ((got, out), (dw, tw.grad), (db, tb.grad), (dx, tx.grad)):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-11)


def test_pools_are_those_of_torch(backend, dtype):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    for batch, channels, size, kernel, stride, padding in POOLS:
        if batch:
            x = random.integers(-3, 4, (batch, channels, *size)).astype(dtype)
            tx = torch.tensor(x, requires_grad=True)
            wanted, index = torch.nn.functional.max_pool2d(tx, kernel, stride, padding, return_indices=True)
            out, places = pooled(backend, x, kernel, stride, padding)
            assert np.array_equal(out, wanted.detach().numpy()) and np.array_equal(places, index.numpy())
            delta, dx = random.integers(-9, 10, out.shape).astype(dtype), np.empty_like(x)
            wanted.backward(torch.from_numpy(delta))
            backend.maxpool2d_backward(delta, places, x, IDENTITY, dx)
            assert np.array_equal(dx, tx.grad.numpy())
            x[random.random(x.shape) < 0.1] = np.nan
            wanted, index = torch.nn.functional.max_pool2d(
                torch.tensor(x), kernel, stride, padding, return_indices=True
            )
            out, places = pooled(backend, x, kernel, stride, padding)
            assert np.array_equal(out, wanted.numpy(), equal_nan=True) and np.array_equal(places, index.numpy())


@pytest.mark.parametrize("shape", [(2, 1), (9, 5), (5, 3, 2, 3)], ids=str)
def test_batch_norms_are_those_of_torch(backend, shape):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x, delta = random.normal(1, 2, shape), random.normal(size=shape)
    gamma_, beta = random.normal(size=shape[1]), random.normal(size=shape[1])
    tx, tg, tb = (torch.tensor(a, requires_grad=True) for a in (x, gamma_, beta))
    wanted = torch.nn.functional.batch_norm(tx, None, None, tg, tb, training=True, eps=1e-3)
    wanted.backward(torch.from_numpy(delta))
    mean, variance, out = normed(backend, x, gamma_, beta, 1e-3, IDENTITY)
    dx, dgamma, dbeta = np.empty(shape), np.empty(shape[1]), np.empty(shape[1])
    backend.batchnorm_backward(delta, x, gamma_, mean, variance, 1e-3, IDENTITY, dx, dgamma, dbeta)
    for ours, theirs in ((out, wanted), (dx, tx.grad), (dgamma, tg.grad), (dbeta, tb.grad)):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-11)
    still = torch.nn.functional.batch_norm(
        tx, torch.from_numpy(mean), torch.from_numpy(variance), tg, tb, training=False, eps=1e-3
    )
    backend.batchnorm_inference(x, gamma_, beta, mean, variance, 1e-3, IDENTITY, out)
    np.testing.assert_allclose(out, still.detach().numpy(), rtol=1e-10, atol=1e-11)
