"""Gradients of whole networks with every kind of layer against central differences and against the reference."""

import numpy as np
import pytest
import stacks
from problems import LOSSES, targets
from stacks import NORMLESS, STACKS

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network, kernels
from mlpkernels.kernels import plan as p


@pytest.fixture(params=kernels.BACKENDS)
def backend(request):
    return kernels.load(request.param)


def targeted(net, x, weights):
    """A source of a loss of targets, which may be broken numbers in a binary one, too."""
    source = net.source(x)
    return source._replace(weights=weights, targets=targets(len(x), net.outputs, "float64", LOSSES[net.loss]))


class Loss:
    """The training-mode loss of a network on some rows, and its gradient."""

    def __init__(self, backend, net, count):
        self.backend, self.net, self.count = backend, net, count
        x, y = stacks.rows(net, count + 2)
        weights = np.random.default_rng(1).uniform(0.25, 2, count + 2)
        self.source = net.source(x, y, weights) if net.loss == "cross-entropy" else targeted(net, x, weights)
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


@pytest.mark.parametrize("name", stacks.CURVED)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_curved_layers_are_central_differences_for_every_loss(backend, name, loss):
    check(backend, stacks.network(name, loss=loss), 5)


def test_one_image_has_a_variance(backend):
    """A batch norm over channels can be trained on one image: its pixels differ."""
    stack = [Conv2d(3, 2), BatchNorm("relu"), Dense(stacks.CLASSES)]
    check(backend, Network(stack, (1, 4, 5), dtype="float64"), 1)


def test_every_kind_has_a_gradient_to_check():
    kinds = {int(kind) for name in STACKS for kind in stacks.network(name).plan[:, p.KIND]}
    assert kinds == {p.DENSE, p.CONV, p.POOL, p.DROPOUT, p.BATCH_NORM}


# ---- in float32, and of networks too large for central differences: against the reference in float64

LARGE = {
    "cnn": (
        [Conv2d(10, 5), MaxPool2d(2), Conv2d(20, 5, activation="relu"), MaxPool2d(2), Dense(50, "relu"), Dense(10)],
        (1, 28, 28), 37,
    ),
    "wide": (
        [Conv2d(33, 3, padding=1, activation="relu"), BatchNorm("relu"), Conv2d(65, 3, 2), Dropout(0.3),
         MaxPool2d(3, 2, 1), Conv2d(16, 1, activation="relu"), Dense(130, "relu"), Dense(100)],
        (3, 17, 19), 9,
    ),
    "flat": (
        [Dropout(0.2), Dense(128), BatchNorm("relu"), Dropout(0.5), Dense(128), BatchNorm("relu"), Dense(10)], 784, 129,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("name", [*LARGE, *STACKS])
def test_gradients_are_those_of_the_reference(backend, name, dtype, close):
    """Within `close` of the largest: sums of some thousand terms, through several layers."""
    stack, inputs, count = LARGE[name] if name in LARGE else (*STACKS[name], 12)
    nets = [Network(stack, inputs, dtype=kind, seed=1) for kind in (dtype, "float64")]
    nets[1].load_state_dict(nets[0].state_dict())
    x = np.random.default_rng(0).normal(size=(count, nets[0].inputs)).astype(np.float32)
    y, order = np.arange(count) % nets[0].plan[-1, p.OUTPUTS], np.random.default_rng(1).permutation(count)
    found = []
    for net, module in zip(nets, (backend, kernels.load("reference")), strict=True):
        grad, work = np.zeros_like(net.params), module.make_workspace(net.plan, count, net.dtype)
        loss = module.loss_and_gradient(net.model, net.source(x, y), order, float(count), work, grad)
        found.append((loss, net.views(grad)))
    assert found[0][0] == pytest.approx(found[1][0], rel=close)
    for key, view in found[1][1].items():
        np.testing.assert_allclose(found[0][1][key], view, rtol=0, atol=close * max(1e-3, abs(view).max()), err_msg=key)
