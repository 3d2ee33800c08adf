"""Optimiser steps: PyTorch's numbers, the same bits however the parameters are cut, and what is not a number."""

import math

import numpy as np
import pytest
from problems import DTYPES
from support import from_python

from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import adam_step, optim, sgd_step

SGD = {"plain": (0.0, False), "momentum": (0.9, False), "nesterov": (0.9, True)}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def random():
    return np.random.default_rng(0)


# ---- against PyTorch


def torch_steps(torch, make, start, gradients):
    """The parameters after each step of a torch optimiser along given gradients."""
    params = torch.nn.Parameter(torch.tensor(start))
    chosen, after = make([params]), []
    for gradient in gradients:
        params.grad = torch.tensor(gradient)
        chosen.step()
        after.append(params.detach().numpy().copy())
    return after


@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
@pytest.mark.parametrize("kind", SGD)
@pytest.mark.parametrize("backend", [sgd_step, reference.sgd_step], ids=["cpu", "reference"])
def test_sgd_is_torchs(backend, random, kind, weight_decay):
    torch = pytest.importorskip("torch")
    momentum, nesterov = SGD[kind]
    params, gradients = random.normal(size=50), random.normal(size=(20, 50))
    wanted = torch_steps(
        torch,
        lambda p: torch.optim.SGD(p, lr=0.03, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay),
        params, gradients,
    )  # fmt: skip
    velocity = np.zeros(50 if momentum else 0)
    for gradient, after in zip(gradients, wanted, strict=True):
        backend(params, gradient, velocity, 0.03, momentum, nesterov, weight_decay)
        np.testing.assert_allclose(params, after, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
@pytest.mark.parametrize("decoupled", [False, True], ids=["adam", "adamw"])
@pytest.mark.parametrize("backend", [adam_step, reference.adam_step], ids=["cpu", "reference"])
def test_adam_and_adamw_are_torchs(backend, random, decoupled, weight_decay):
    torch = pytest.importorskip("torch")
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    params, gradients = random.normal(size=50), random.normal(size=(20, 50)) * np.geomspace(1e-9, 10, 50)
    gradients[:, 7] = 0
    wanted = torch_steps(
        torch, lambda p: kind(p, lr=0.01, betas=(0.8, 0.99), eps=1e-7, weight_decay=weight_decay), params, gradients
    )
    m, v = np.zeros(50), np.zeros(50)
    for step, (gradient, after) in enumerate(zip(gradients, wanted, strict=True), 1):
        backend(params, gradient, m, v, 0.01, 0.8, 0.99, 1e-7, weight_decay, decoupled, step)
        np.testing.assert_allclose(params, after, rtol=1e-12, atol=1e-14)


# ---- cuts and bits


def cuts(random, size):
    """Neighbouring slices of 0 … size, some of them empty."""
    edges = np.sort(random.integers(0, size + 1, 6)).tolist()
    return list(zip([0, *edges], [*edges, size], strict=True))


@pytest.mark.parametrize("kind", SGD)
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_sgd_gives_the_same_bits_however_it_is_cut(dtype, random, kind, weight_decay):
    for size in (1, 17, 100, 333):
        start, grad, memory = random.normal(size=(3, size)).astype(dtype)
        whole, velocity = start.copy(), memory.copy()
        sgd_step(whole, grad, velocity, 0.1, *SGD[kind], weight_decay)
        for _ in range(5):
            params, moved = start.copy(), memory.copy()
            for a, b in cuts(random, size):
                sgd_step(params[a:b], grad[a:b], moved[a:b], 0.1, *SGD[kind], weight_decay)
            assert params.tobytes() == whole.tobytes() and moved.tobytes() == velocity.tobytes()


@pytest.mark.parametrize("decoupled", [False, True], ids=["adam", "adamw"])
def test_adam_gives_the_same_bits_however_it_is_cut(dtype, random, decoupled):
    settings = 0.01, 0.9, 0.999, 1e-8, 0.02, decoupled, 3
    for size in (1, 17, 100, 333):
        start, grad, mean, square = random.normal(size=(4, size)).astype(dtype)
        square **= 2
        whole, m, v = start.copy(), mean.copy(), square.copy()
        adam_step(whole, grad, m, v, *settings)
        for _ in range(5):
            params, other_m, other_v = start.copy(), mean.copy(), square.copy()
            for a, b in cuts(random, size):
                adam_step(params[a:b], grad[a:b], other_m[a:b], other_v[a:b], *settings)
            assert (params.tobytes(), other_m.tobytes(), other_v.tobytes()) == (
                whole.tobytes(),
                m.tobytes(),
                v.tobytes(),
            )


# ---- what is not a number, and nothing


def test_a_gradient_that_is_not_a_number_spoils_its_own_parameter_only(dtype, random):
    for value in (np.nan, np.inf):
        for size in (1, 5, 16, 40):
            params, grad, m, v = random.normal(size=(4, size)).astype(dtype)
            grad[size // 2] = value
            others = np.arange(size) != size // 2
            for momentum, nesterov in SGD.values():
                moved, velocity = params.copy(), m.copy()
                sgd_step(moved, grad, velocity, 0.1, momentum, nesterov, 0.01)
                assert not np.isfinite(moved[~others]).any() and np.isfinite(moved[others]).all()
            adam_step(params, grad, m, v**2, 0.1, 0.9, 0.999, 1e-8, 0.01, False, 1)
            assert not np.isfinite(params[~others]).any() and np.isfinite(params[others]).all()


def test_zero_gradients_leave_zeros_alone(dtype):
    """What keeps the padding of the parameters at 0."""
    params, grad, m, v = np.zeros((4, 37), dtype)
    for momentum, nesterov in SGD.values():
        sgd_step(params, grad, m, 0.1, momentum, nesterov, 0.01)
    for decoupled in (False, True):
        adam_step(params, grad, m, v, 0.1, 0.9, 0.999, 1e-8, 0.01, decoupled, 1)
    assert not params.any() and not m.any() and not v.any()


def test_plain_sgd_does_not_touch_the_memory(dtype, random):
    params, grad, velocity = random.normal(size=(3, 20)).astype(dtype)
    before = velocity.copy()
    sgd_step(params, grad, velocity, 0.1, 0.0, False, 0.0)
    sgd_step(params, grad, np.zeros(0, dtype), 0.1, 0.0, False, 0.5)
    assert np.array_equal(velocity, before)


def test_means_that_are_subnormal_become_zero(dtype, random):
    """What would be slow ever after; the least normal numbers stay, at any place of a vector."""
    least = np.finfo(dtype).smallest_normal
    for size in (1, 16, 37):
        params, grad = random.normal(size=size).astype(dtype), np.zeros(size, dtype)
        for mean, square, kept in ((least, least, False), (-least, least, False), (4 * least, 4 * least, True)):
            m, v, before = np.full(size, mean, dtype), np.full(size, square, dtype), params.copy()
            adam_step(params, grad, m, v, 0.01, 0.9, 0.99, 1e-8, 0.0, False, 100)
            assert (m != 0).all() == (v != 0).all() == kept and m.any() == v.any() == kept
            assert np.array_equal(params, before)


def test_a_mean_is_never_divided_by_a_root_that_was_made_zero(dtype):
    """Small gradients whose squares are subnormal, beside a smaller epsilon: steps as large as for any others."""
    least = float(np.finfo(dtype).smallest_normal)
    params, gradient = np.ones((2, 37), dtype), np.full(37, 2 * least**0.5, dtype)
    (m, v), (wanted_m, wanted_v) = np.zeros((2, 2, 37), dtype)
    for step in range(1, 4):
        adam_step(params[0], gradient, m, v, 0.01, 0.9, 0.99, least, 0.0, False, step)
        reference.adam_step(params[1], gradient, wanted_m, wanted_v, 0.01, 0.9, 0.99, least, 0.0, False, step)
        assert 0 < v[0] < least and np.allclose(v, wanted_v, rtol=1e-4, atol=0)
        np.testing.assert_allclose(params[0], params[1], rtol=1e-5)


# ---- the gradient's norm


def test_the_sum_of_squares_is_taken_in_float64(dtype, random):
    for size in (0, 1, 2, 3, 4, 5, 16, 1000):
        grad = (random.normal(size=size) * 10.0 ** random.integers(-15, 15, size)).astype(dtype)
        exact = math.fsum(float(g) ** 2 for g in grad)
        assert optim.sum_of_squares(grad) == pytest.approx(exact, rel=(size + 3) * 2.0**-52)
    assert optim.sum_of_squares(np.full(3, 1e30, dtype)) == pytest.approx(3e60, rel=1e-6)


def test_a_gradient_is_scaled_in_place(dtype, random):
    grad = random.normal(size=35).astype(dtype)
    wanted = grad * grad.dtype.type(0.3)
    from_python(optim.scale)(grad, grad.dtype.type(0.3))
    assert np.array_equal(grad, wanted)
