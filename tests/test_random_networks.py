"""Networks drawn at random, of all kinds of layers: the reference's numbers, and the same bits for any cut of calls."""

import numpy as np
import pytest
from problems import as_double, copied, optimizer, rate, unpadded

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels import plan as p
from mlpkernels.kernels.cpu import verbs
from mlpkernels.kernels.plan import Source


@pytest.fixture
def slots(monkeypatch):
    """slots(n): every call is cut into n, whatever its size; 1 is the serial loop."""
    return lambda n: monkeypatch.setattr(verbs, "_slots", lambda threads, work: n)


def window(random, kind, size):
    """A convolution or pool that fits an image (C, H, W), and the image behind it; None where none was found."""
    for _ in range(10):
        kernel = tuple(int(n) for n in random.integers(1, 6, 2))
        most = [k if kind is Conv2d else k // 2 + 1 for k in kernel]
        padding = tuple(int(random.integers(0, n)) for n in most)
        stride = kernel if random.random() < 0.4 else tuple(int(n) for n in random.integers(1, 6, 2))
        room = [n + 2 * q - k for n, q, k in zip(size[1:], padding, kernel, strict=True)]
        if min(room) >= 0:
            after = [n // s + 1 for n, s in zip(room, stride, strict=True)]
            if kind is MaxPool2d:
                return MaxPool2d(kernel, stride, padding), (size[0], *after)
            channels = int(random.choice([1, 2, 3, 5, 7, 8, 17]))
            return Conv2d(channels, kernel, stride, padding, random.choice([None, "relu"])), (channels, *after)
    return None


def draw(seed, dtype):
    """(network, source, batch) of a seed."""
    random = np.random.default_rng(seed)
    size = shape = tuple(int(n) for n in random.integers((1, 1, 1), (4, 14, 14)))
    stack = []
    for _ in range(int(random.integers(1, 6))):
        kind = random.choice([Conv2d, MaxPool2d, BatchNorm, Dropout, Dense], p=[0.35, 0.25, 0.2, 0.12, 0.08])
        if kind is BatchNorm:
            stack.append(BatchNorm(random.choice([None, "relu"]), epsilon=0.01))
        elif kind is Dropout:
            stack.append(Dropout(float(random.choice([0.0, 0.1, 0.5]))))
        elif kind is Dense:
            stack.append(Dense(int(random.choice([1, 5, 17, 33])), "relu"))
            size = None
        elif size is not None and (made := window(random, kind, size)):
            stack.append(made[0])
            size = made[1]
    net = Network([*stack, Dense(3)], shape, dtype=dtype, seed=seed, init="pytorch")
    batch, width, T = int(random.choice([2, 7, 16, 17, 33, 70, 260])), int(np.prod(shape)), np.dtype(dtype).type
    rows = batch + int(random.integers(0, batch))
    pixels = (random.integers(0, 256, (rows, width)) * (random.random((rows, width)) < 0.4)).astype(np.uint8)
    labels, weights = random.integers(0, 3, rows).astype(np.int32), random.uniform(0.25, 2, rows).astype(dtype)
    none = np.zeros((0, width), dtype)
    return net, Source(pixels, none, T(2 / 255), T(-1), labels, weights, bool(seed % 2)), batch


def calls(backend, net, source, batch, rule, double=False):
    """Two gradients, steps and predictions in one workspace, smaller batches behind larger ones."""
    model, state = copied(net.model), optimizer(rule, net.params, 0.5)
    if double:
        model, state, source = as_double(model), as_double(state), as_double(source)
    work = (cpu if backend is cpu else p).make_workspace(model.plan, batch, model.params.dtype)
    count = len(source.labels)
    order, results = np.random.default_rng(0).permutation(count), []
    for rows in (batch, max(2, batch // 3)):
        grad = np.empty_like(model.params)
        results += [backend.loss_and_gradient(model, source, order[:rows], float(rows), work, grad), grad]
        steps = count // batch
        losses, corrects = np.zeros(steps), np.zeros(steps, np.int64)
        rates = np.full(steps, 0.3 * rate(rule))
        backend.train_steps(model, state, source, order, batch, 0, steps, rates, work, losses, corrects)
        out = np.empty((count, 3), model.params.dtype)
        backend.predict(model, source, 0, count, work, out)
        results += [losses, model.params.copy(), model.buffers.copy(), out]
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_drawn_at_random(dtype, slots):
    for seed in range(40):
        net, source, batch = draw(seed, dtype)
        rule = ["momentum-decay", "sgd", "nesterov", "sgd-decay"][seed % 4]
        found = []
        for n in (1, 2, 5):
            slots(n)
            found.append(calls(cpu, net, source, batch, rule))
        assert len({b"".join(np.asarray(a).tobytes() for a in one) for one in found}) == 1, f"seed {seed}: {net}"
        if dtype == "float64":
            for got, wanted in zip(found[0], calls(reference, net, source, batch, rule, True), strict=True):
                far, size = np.abs(got - wanted).max(initial=0), np.abs(wanted).max(initial=1e-3)
                assert far <= 1e-8 * size, f"seed {seed}: {net}"


def test_lanes_without_a_row_reach_no_gradient():
    """A zero behind a batch norm's mean of 1e36 is no number any more: it must not meet a gradient."""
    net = Network([BatchNorm(epsilon=1e-12), Conv2d(2, 2), Dense(2)], (1, 4, 4), dtype="float32", seed=1)
    rows = np.full((3, 16), 1e36, np.float32)
    one = np.float32(1)
    source = Source(np.zeros((0, 16), np.uint8), rows, one, 0 * one, np.zeros(3, np.int32), np.ones(3, np.float32))
    work, grad = cpu.make_workspace(net.plan, 3, "float32"), np.empty_like(net.params)
    assert np.isfinite(cpu.loss_and_gradient(net.model, source, np.arange(3), 3.0, work, grad))
    assert np.isfinite(unpadded(net, grad)).all()


def test_no_rows_have_no_gradient_behind_a_batch_norm_of_images():
    net = Network([BatchNorm(), Conv2d(2, 2), Dense(2)], (1, 3, 3), dtype="float64")
    source = Source(np.zeros((0, 9), np.uint8), np.ones((4, 9)), 1.0, 0.0, np.zeros(4, np.int32), np.ones(4))
    work, grad = cpu.make_workspace(net.plan, 4, "float64"), np.full_like(net.params, np.nan)
    assert cpu.loss_and_gradient(net.model, source, np.zeros(0, np.int64), 1.0, work, grad) == 0.0
    assert not grad.any()


def test_a_workspace_of_another_backend_is_refused():
    """Compiled code would read a layout that is not there."""
    net = Network([Conv2d(2, 2), BatchNorm(), Dense(2)], (1, 3, 3), dtype="float64")
    source = Source(np.zeros((0, 9), np.uint8), np.ones((4, 9)), 1.0, 0.0, np.zeros(4, np.int32), np.ones(4))
    with pytest.raises(ValueError, match="make_workspace"):
        cpu.predict(net.model, source, 0, 4, reference.make_workspace(net.plan, 4, "float64"), np.zeros((4, 2)))
