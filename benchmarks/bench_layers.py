"""Kernels of convolutions, pools, batch norm, dropout and of a first layer that skips zeros, each beside its peers.

`pytest benchmarks/bench_layers.py`. Layers are called as people call them, ours and PyTorch's, where that is installed,
on one thread; zero-skipping against our own dense layer and NumPy.
"""

import importlib.util

import data
import numpy as np
import pytest
from bench_kernels import on_threads, record

from mlpkernels import Dense, Network, Scaling, kernels
from mlpkernels.kernels import reference
from mlpkernels.losses import Answers

cpu = kernels.load("cpu")
PEERS = ["mlpkernels", *(["PyTorch"] if importlib.util.find_spec("torch") else [])]
BATCH = 64
# (C, H, W), channels, kernel, padding: the two of the CNN that is compared, one of a small ResNet's.
CONVOLUTIONS = [((1, 28, 28), 10, 5, 0), ((10, 12, 12), 20, 5, 0), ((16, 16, 16), 16, 3, 1)]
NORMS = [(BATCH, 128), (BATCH, 20, 8, 8)]
EPSILON, P = 1e-5, 0.25

pytestmark = [
    pytest.mark.benchmark(min_time=1e-3, max_time=0.1, min_rounds=10, warmup=True, warmup_iterations=10),
    pytest.mark.usefixtures("settled"),
]


def normal(*shapes):
    """Standard normal float32 arrays, the same every time."""
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, np.float32) for shape in shapes]


def check(found, wanted):
    """Sums of up to 40,000 products in float32, in another order: their rounding is far below this."""
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1.0, abs(other).max()))


def torch():
    import torch

    torch.set_num_threads(1)
    return torch


@pytest.mark.parametrize("system", PEERS)
@pytest.mark.parametrize("what", ["forward", "backward params", "backward input"])
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda c: f"{c[0][0]}x{c[0][1]}x{c[0][2]} to {c[1]}@{c[2]}x{c[2]}")
def test_convolution(benchmark, machine, layer, what, system):
    (channels, height, width), outputs, kernel, padding = layer
    size = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
    x, w, b, delta = normal(
        (BATCH, channels, height, width), (outputs, channels, kernel, kernel), outputs, (BATCH, outputs, *size)
    )
    stride, pads = (1, 1), (padding, padding)

    def ours(backend):
        if what == "forward":
            out = np.empty_like(delta)
            return lambda: backend.conv2d_forward(x, w, b, backend.RELU, stride, pads, out), (out,)
        if what == "backward params":
            dw, db = np.empty_like(w), np.empty_like(b)
            return lambda: backend.conv2d_backward_params(x, delta, stride, pads, dw, db), (dw, db)
        dx = np.empty_like(x)
        return lambda: backend.conv2d_backward_input(delta, w, x, backend.IDENTITY, stride, pads, dx), (dx,)

    def theirs():
        aten = torch().ops.aten
        tx, tw, tb, td = map(torch().from_numpy, (x, w, b, delta))
        if what == "forward":
            return lambda: (torch().nn.functional.conv2d(tx, tw, tb, stride, pads).relu_(),)
        wanted = [what == "backward input", *[what == "backward params"] * 2]
        arguments = (td, tx, tw, [outputs], stride, pads, (1, 1), False, (0, 0), 1, wanted)
        return lambda: [made for made in aten.convolution_backward(*arguments) if made is not None]

    expect, expected = ours(reference)
    expect()
    flops = 2 * BATCH * outputs * size[0] * size[1] * channels * kernel**2
    name = f"convolution {what} {channels}x{height}x{width} to {outputs}@{kernel}x{kernel} batch {BATCH}"
    measure(benchmark, machine, name, system, (ours, theirs), expected, flops=flops, images=BATCH)


def measure(benchmark, machine, name, system, makers, expected, **amounts):
    """Make the system's call, check its answers, time it."""
    with on_threads(1):
        if system == "mlpkernels":
            call, found = makers[0](cpu)
            call()
        else:
            call = makers[1]()
            found = [np.asarray(made.detach()) for made in call()]
        check(found, expected)
        benchmark.group = name
        benchmark(call)
    record(benchmark, machine, system, 1, **amounts)


@pytest.mark.parametrize("system", PEERS)
@pytest.mark.parametrize("what", ["forward", "backward"])
def test_max_pool(benchmark, machine, what, system):
    window, stride, none = (2, 2), (2, 2), (0, 0)
    x, delta = normal((BATCH, 10, 24, 24), (BATCH, 10, 12, 12))
    places = np.empty(delta.shape, np.int32)
    reference.maxpool2d_forward(x, window, stride, none, np.empty_like(delta), places)

    def ours(backend):
        if what == "forward":
            out, at = np.empty_like(delta), np.empty_like(places)
            return lambda: backend.maxpool2d_forward(x, window, stride, none, out, at), (out, at)
        dx = np.empty_like(x)
        return lambda: backend.maxpool2d_backward(delta, places, x, backend.IDENTITY, dx), (dx,)

    def theirs():
        aten, tx, td = torch().ops.aten, *map(torch().from_numpy, (x, delta))
        if what == "forward":
            return lambda: aten.max_pool2d_with_indices(tx, window, stride, none)
        at = torch().from_numpy(places.astype(np.int64))
        return lambda: (aten.max_pool2d_with_indices_backward(td, tx, window, stride, none, (1, 1), False, at),)

    expect, expected = ours(reference)
    expect()
    measure(benchmark, machine, f"max pool {what}", system, (ours, theirs), expected, images=BATCH)


@pytest.mark.parametrize("system", PEERS)
@pytest.mark.parametrize("what", ["forward", "backward"])
@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_batch_norm(benchmark, machine, shape, what, system):
    x, delta, gamma, beta = normal(shape, shape, shape[1], shape[1])
    mean, variance = np.empty(shape[1]), np.empty(shape[1])
    reference.batchnorm_forward(x, gamma, beta, EPSILON, reference.IDENTITY, mean, variance, np.empty_like(x))

    def ours(backend):
        if what == "forward":
            out, m, v = np.empty_like(x), np.empty_like(mean), np.empty_like(variance)
            return lambda: backend.batchnorm_forward(x, gamma, beta, EPSILON, backend.IDENTITY, m, v, out), (out,)
        dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(beta)
        settings = (delta, x, gamma, mean, variance, EPSILON, backend.IDENTITY)
        return lambda: backend.batchnorm_backward(*settings, dx, dgamma, dbeta), (dx, dgamma, dbeta)

    def theirs():
        aten, tx, td, tg, tb = torch().ops.aten, *map(torch().from_numpy, (x, delta, gamma, beta))
        if what == "forward":
            return lambda: aten.native_batch_norm(tx, tg, tb, None, None, True, 0.1, EPSILON)[:1]
        kept = [torch().from_numpy(kept.astype(np.float32)) for kept in (mean, 1 / np.sqrt(variance + EPSILON))]
        settings = (td, tx, tg, None, None, *kept, True, EPSILON, [True] * 3)
        return lambda: aten.native_batch_norm_backward(*settings)

    expect, expected = ours(reference)
    expect()
    measure(benchmark, machine, f"batch norm {what} {shape}", system, (ours, theirs), expected, values=x.size)


@pytest.mark.parametrize("system", PEERS)
@pytest.mark.parametrize("what", ["forward", "backward"])
def test_dropout(benchmark, machine, what, system):
    x, delta = normal((BATCH, 1024), (BATCH, 1024))

    def ours(backend):
        out = np.empty_like(x)
        if what == "forward":
            return lambda: backend.dropout(x, P, 7, 3, 1, out), (out,)
        return lambda: backend.dropout_backward(delta, P, 7, 3, 1, x, backend.IDENTITY, out), (out,)

    expect, (wanted,) = ours(reference)
    expect()
    if system == "mlpkernels":
        call, (found,) = ours(cpu)
        call()
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    else:  # its masks are its own: what is kept is checked, and how much
        aten, tx, td = torch().ops.aten, *map(torch().from_numpy, (x, delta))
        kept = aten.native_dropout(tx, P, True)[1]

        def call():
            if what == "forward":
                return aten.native_dropout(tx, P, True)[0]
            return aten.native_dropout_backward(td, kept, 1 / (1 - P))

        found, values = call().numpy(), x if what == "forward" else delta
        np.testing.assert_allclose(found[found != 0], values[found != 0] / (1 - P), rtol=1e-5)
        assert abs((found != 0).mean() - (1 - P)) < 0.02
    benchmark.group = f"dropout {what} {x.shape}"
    with on_threads(1):
        benchmark(call)
    record(benchmark, machine, system, 1, values=x.size)


@pytest.mark.parametrize("system", ["zeros skipped", "dense", "NumPy"])
@pytest.mark.parametrize("what", ["forward", "loss and gradient"])
@pytest.mark.parametrize("batch", [64, 128, 1024])
@pytest.mark.parametrize("width", [64, 128])
def test_zero_skipping(benchmark, machine, width, batch, what, system):
    """A network of one layer on MNIST's bytes: its forward product; that, the loss, and the weights' gradient."""
    images = data.load(batch)
    network = Network([Dense(width)], data.KINDS[data.MNIST].shape, scaling=Scaling("unit", 1 / 255, 0.0))
    source = network.rows_source(images.x, Answers(images.y), None)._replace(skip_zeros=system == "zeros skipped")
    rows = np.arange(batch)

    def make(backend):
        work = backend.make_workspace(network.plan, batch, np.float32)
        if what == "forward":
            out = np.empty((batch, width), np.float32)
            return lambda: backend.predict(network.model, source, 0, batch, work, out, 1), out
        out = np.empty_like(network.params)
        return lambda: backend.loss_and_gradient(network.model, source, rows, batch, work, out, 1), out

    expect, expected = make(reference)
    expect()
    call, found = make(reference if system == "NumPy" else cpu)
    with on_threads(1):
        call()
        check([found], [expected])
        benchmark.group = f"first layer 784-{width}, {what}, batch {batch}"
        benchmark(call)
    flops = 2 * data.WIDTH * width * batch * (1 if what == "forward" else 2)
    record(benchmark, machine, system, 1, flops=flops, images=batch)
    benchmark.extra_info["data"] = images.source
