"""Gradients of whole networks with every kind of layer against central differences, in float64."""

import numpy as np
import pytest
import stacks
from stacks import NORMLESS, STACKS

from mlpkernels import BatchNorm, Conv2d, Dense, Network, kernels
from mlpkernels.kernels import plan as p


@pytest.fixture(params=kernels.BACKENDS)
def backend(request):
    return kernels.load(request.param)


class Loss:
    """The training-mode loss of a network on some rows, and its gradient."""

    def __init__(self, backend, net, count):
        self.backend, self.net, self.count = backend, net, count
        x, y = stacks.rows(net, count + 2)
        weights = np.random.default_rng(1).uniform(0.25, 2, count + 2)
        self.source = net.source(x, y, weights)
        self.order = np.random.default_rng(2).permutation(count + 2)[:count]
        self.work = backend.make_workspace(net.plan, count, net.dtype)

    def __call__(self):
        grad = np.full_like(self.net.params, np.nan)
        value = self.backend.loss_and_gradient(
            self.net.model, self.source, self.order, float(self.count), self.work, grad
        )
        return value, grad


def central_differences(loss, flat, step=1e-6):
    slopes = np.zeros_like(flat)
    for i in range(flat.size):
        kept = flat[i]
        flat[i] = kept + step
        above, _ = loss()
        flat[i] = kept - step
        below, _ = loss()
        flat[i] = kept
        slopes[i] = (above - below) / (2 * step)
    return slopes


def check(backend, net, count):
    loss = Loss(backend, net, count)
    before, buffers = net.params.copy(), net.buffers.copy()
    _, grad = loss()
    assert np.array_equal(net.params, before) and np.array_equal(net.buffers, buffers)
    used = np.zeros(len(grad), bool)
    for view in net.views(used).values():
        view[...] = True
    assert not grad[~used].any(), "the padding's gradient is 0"
    slopes = central_differences(loss, net.params)
    for key, view in net.views(slopes).items():
        np.testing.assert_allclose(net.views(grad)[key], view, rtol=1e-7, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_central_differences(backend, name):
    check(backend, stacks.network(name), 5)


@pytest.mark.parametrize("name", NORMLESS)
def test_gradients_of_one_row(backend, name):
    check(backend, stacks.network(name), 1)


def test_one_image_has_a_variance(backend):
    """A batch norm over channels can be trained on one image: its pixels differ."""
    stack = [Conv2d(3, 2), BatchNorm("relu"), Dense(stacks.CLASSES)]
    check(backend, Network(stack, (1, 4, 5), dtype="float64"), 1)


def test_every_kind_has_a_gradient_to_check():
    kinds = {int(kind) for name in STACKS for kind in stacks.network(name).plan[:, p.KIND]}
    assert kinds == {p.DENSE, p.CONV, p.POOL, p.DROPOUT, p.BATCH_NORM}
