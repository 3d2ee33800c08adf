"""Networks drawn at random, of all kinds of layers: the reference's numbers, and the same bits for any cut of calls."""

import numpy as np
import pytest
from problems import LOSSES, as_double, copied, optimizer, rate, targets, unpadded

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels import plan as p
from mlpkernels.kernels.cpu import shares, verbs
from mlpkernels.kernels.cpu.shares import make as make_shares
from mlpkernels.kernels.plan import Source

KINDS = Conv2d, MaxPool2d, BatchNorm, Dropout, Dense
ACTIVATIONS = None, "relu", "tanh", "logistic"
OUTPUTS, SEEDS = 3, 100
# Those that do not divide by what may be close to 0: rounding would grow.
RULES = "momentum-decay", "sgd", "nesterov", "sgd-decay", "sgd-weights", "momentum-penalty", "adam-sklearn"


@pytest.fixture
def slots(monkeypatch):
    """slots(n): every call is cut into n, whatever its size; 1 is the serial loop."""
    return lambda n: monkeypatch.setattr(verbs, "_slots", lambda *_: n)


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
    if random.random() < 0.4:
        size = None
        stack.append(Dense(int(random.choice([3, 16, 20])), random.choice(ACTIVATIONS)))
    for _ in range(int(random.integers(1, 6))):
        kind = random.choice(KINDS, p=[0.35, 0.25, 0.2, 0.12, 0.08] if size else [0, 0, 0.4, 0.25, 0.35])
        if kind is BatchNorm:
            stack.append(BatchNorm(random.choice(ACTIVATIONS if size is None else ACTIVATIONS[:2]), epsilon=0.01))
        elif kind is Dropout:
            stack.append(Dropout(float(random.choice([0.0, 0.1, 0.5]))))
        elif kind is Dense:
            stack.append(Dense(int(random.choice([1, 5, 17, 33])), random.choice(ACTIVATIONS)))
            size = None
        elif size is not None and (made := window(random, kind, size)):
            stack.append(made[0])
            size = made[1]
    loss = str(random.choice(list(LOSSES)))
    net = Network([*stack, Dense(OUTPUTS)], shape, loss=loss, dtype=dtype, seed=seed, init="pytorch")
    batch, width, T = int(random.choice([2, 7, 16, 17, 33, 70, 260])), int(np.prod(shape)), np.dtype(dtype).type
    rows = batch + int(random.integers(0, batch))
    pixels = (random.integers(0, 256, (rows, width)) * (random.random((rows, width)) < 0.4)).astype(np.uint8)
    labels, weights = random.integers(0, OUTPUTS, rows).astype(np.int32), random.uniform(0.25, 2, rows).astype(dtype)
    none, wanted = np.zeros((0, width), dtype), targets(rows, OUTPUTS, dtype, LOSSES[loss], seed)
    return net, Source(pixels, none, T(2 / 255), T(-1), labels, weights, bool(random.random() < 0.75), wanted), batch


def calls(backend, net, source, batch, rule, double=False):
    """Two gradients, evaluations, steps and predictions in one workspace, smaller batches behind larger ones."""
    model, state = copied(net.model), optimizer(rule, net.params, 0.5)
    if double:
        model, state, source = as_double(model), as_double(state), as_double(source)
    work = (cpu if backend is cpu else p).make_workspace(model.plan, batch, model.params.dtype)
    count = len(source.labels)
    order, results = np.random.default_rng(0).permutation(count), []
    for rows in (batch, max(2, batch // 3)):
        grad = np.empty_like(model.params)
        results += [backend.loss_and_gradient(model, source, order[:rows], float(rows), work, grad), grad]
        results += backend.evaluate(model, source, 0, count, work)
        steps = count // batch
        losses, corrects = np.zeros(steps), np.zeros(steps, np.int64)
        rates = np.full(steps, 0.3 * rate(rule))
        backend.train_steps(model, state, source, order, batch, 0, steps, rates, work, losses, corrects)
        out = np.empty((count, OUTPUTS), model.params.dtype)
        backend.predict(model, source, 0, count, work, out)
        results += [losses, corrects, model.params.copy(), model.buffers.copy(), out]
    return results


def uneven(slots, seed):
    """Shares of any sizes for so many slots, nothing for some: what threads of unequal speed may come to."""
    kept, random = make_shares(), np.random.default_rng(seed)
    kept[0] = slots
    for phase in range(2):
        first = 1 + phase * (shares.MOST + 1)
        kept[first + 1 : first + slots] = np.sort(random.integers(0, shares.WHOLE + 1, slots - 1))
        kept[first + slots] = shares.WHOLE
    return kept


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_drawn_at_random(dtype, slots, monkeypatch):
    for seed in range(SEEDS):
        net, source, batch = draw(seed, dtype)
        rule = RULES[seed % len(RULES)]
        found = []
        for n in (1, 2, 5):
            slots(n)
            found.append(calls(cpu, net, source, batch, rule))
        with monkeypatch.context() as patch:
            patch.setattr(shares, "make", lambda seed=seed: uneven(5, seed))
            found.append(calls(cpu, net, source, batch, rule))
        assert len({b"".join(np.asarray(a).tobytes() for a in one) for one in found}) == 1, f"seed {seed}: {net}"
        if dtype == "float64":
            for got, wanted in zip(found[0], calls(reference, net, source, batch, rule, True), strict=True):
                far, size = np.abs(got - wanted).max(initial=0), np.abs(wanted).max(initial=1e-3)
                assert far <= 1e-8 * size, f"seed {seed}: {net}"


def test_what_is_drawn_has_every_kind_of_neighbours():
    """Each curved activation of dense layers and batch norms, before each flat kind, and in a layer that skips."""
    seen = set()
    for seed in range(SEEDS):
        net, source, _ = draw(seed, "float32")
        seen.add(net.loss)
        if source.skip_zeros and isinstance(net.layers[0], Dense):
            seen.add(("first", net.layers[0].activation))
        for below, layer, above in zip([None, *net.layers], net.layers, net.layers[1:], strict=False):
            if isinstance(layer, Dense | BatchNorm) and layer.activation in ACTIVATIONS[2:]:
                seen |= {(type(below), type(layer)), (type(layer), layer.activation), (layer.activation, type(above))}
    assert set(LOSSES) <= seen
    for curved in ACTIVATIONS[2:]:
        assert ("first", curved) in seen
        assert {(Dense, curved), (BatchNorm, curved)} <= seen
        assert {(curved, above) for above in (Dense, BatchNorm, Dropout)} <= seen
    assert {(below, Dense) for below in (Conv2d, MaxPool2d, BatchNorm, Dropout)} <= seen


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
