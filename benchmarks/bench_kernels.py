"""Every kernel as people call it, against NumPy doing the same: `pytest benchmarks/bench_kernels.py`.

Both sides pay for Python here, and NumPy for a bias and an activation of their own; compare.py has the bare products.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType

import numba
import numpy as np
import pytest
from data import CLASSES
from products import FORWARD, INPUT, PARAMS, Product, products
from threadpoolctl import threadpool_info, threadpool_limits
from worker import cpus

from mlpkernels import kernels
from mlpkernels.kernels import reference

cpu = kernels.load("cpu")
SYSTEMS = ("mlpkernels", "NumPy")
THREADS = [count for count in (1, 2) if count <= max(1, len(cpus()))]
LAYERS = [product for product in products() if product.batch in (8, 64, 128, 1024) and product.outputs != 256]
PARAMETERS = (55_050, 118_282)  # of 784-64-64-10 and 784-128-128-10, near enough

Work = tuple[Callable[[], None], tuple[np.ndarray, ...]]  # what to call, and the arrays it fills

pytestmark = [
    pytest.mark.benchmark(min_time=1e-3, max_time=0.1, min_rounds=10, warmup=True, warmup_iterations=10),
    pytest.mark.usefixtures("settled"),
]


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Numba's and OpenBLAS's threads, set apart: neither library heeds the other's setting."""
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        numba.set_num_threads(before)


def record(benchmark, machine, system, threads, **amounts):
    """Settings of the result into its extra_info, and each amount of work as amount a second."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} {pool['version']} {pool['architecture']}" for pool in pools]
    benchmark.extra_info.update(machine, system=system, threads=threads, blas=blas)
    if benchmark.stats is not None:  # None where benchmarks are disabled: then this has been a check only
        for name, amount in amounts.items():
            benchmark.extra_info[f"{name}_a_second"] = amount / benchmark.stats.stats.median


def operands(product: Product) -> tuple[np.ndarray, ...]:
    """x (B, I), delta (B, O), w (I, O), b (O,) of a dense layer, the same every time."""
    random = np.random.default_rng(0)
    batch, inputs, outputs = product.batch, product.inputs, product.outputs
    shapes: list[tuple[int, ...]] = [(batch, inputs), (batch, outputs), (inputs, outputs), (outputs,)]
    return tuple(random.standard_normal(shape, np.float32) for shape in shapes)


def by_ops(product: Product, backend: ModuleType) -> Work:
    """The layer's op that holds the product, of one of our backends."""
    x, delta, w, b = operands(product)
    if product.kind == FORWARD:
        out = np.empty_like(delta)
        return lambda: backend.dense_forward(x, w, b, backend.RELU, out), (out,)
    if product.kind == PARAMS:
        dw, db = np.empty_like(w), np.empty_like(b)
        return lambda: backend.dense_backward_params(x, delta, dw, db), (dw, db)
    dx = np.empty_like(x)
    return lambda: backend.dense_backward_input(delta, w, x, backend.RELU, dx), (dx,)


def by_numpy(product: Product) -> Work:
    """The same as NumPy does it best: the product into a given array, the rest in place."""
    x, delta, w, b = operands(product)
    active, out, dw, db, dx = (
        x > 0,
        np.empty_like(delta),
        np.empty_like(w),
        np.empty_like(b),
        np.empty_like(x),
    )

    def forward():
        np.matmul(x, w, out=out)
        np.add(out, b, out=out)
        np.maximum(out, 0, out=out)

    def backward_params():
        np.matmul(x.T, delta, out=dw)
        np.sum(delta, axis=0, out=db)

    def backward_input():
        np.matmul(delta, w.T, out=dx)
        np.multiply(dx, active, out=dx)

    works = {FORWARD: (forward, (out,)), PARAMS: (backward_params, (dw, db)), INPUT: (backward_input, (dx,))}
    return works[product.kind]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("product", LAYERS, ids=lambda p: f"{p.kind} {p.inputs}-{p.outputs} batch {p.batch}")
def test_dense(benchmark, machine, product, system, threads):
    expect, expected = by_ops(product, reference)
    expect()
    call, outs = by_numpy(product) if system == "NumPy" else by_ops(product, cpu)
    with on_threads(threads):
        call()
        for out, wanted in zip(outs, expected, strict=True):
            # A sum of k products of numbers around 1: its rounding is far below k epsilon.
            np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5 * np.sqrt(product.mnk[2]))
        benchmark.group = f"{product.kind} {product.inputs}-{product.outputs} batch {product.batch}"
        benchmark(call)
    record(benchmark, machine, system, threads, flops=product.flops, images=product.batch)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("batch", [8, 64, 128, 1024])
def test_softmax_cross_entropy(benchmark, machine, batch, system):
    random = np.random.default_rng(0)
    logits = random.standard_normal((batch, CLASSES), np.float32)
    labels, weights = random.integers(0, CLASSES, batch).astype(np.int32), np.ones(batch, np.float32)
    out, expected = np.empty_like(logits), np.empty_like(logits)
    backend = cpu if system == "mlpkernels" else reference
    wanted = reference.softmax_cross_entropy(logits, labels, weights, batch, expected)
    found = backend.softmax_cross_entropy(logits, labels, weights, batch, out)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-8)
    benchmark.group = f"softmax cross-entropy batch {batch}"
    benchmark(backend.softmax_cross_entropy, logits, labels, weights, batch, out)
    record(benchmark, machine, system, 1, images=batch)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("size", PARAMETERS)
@pytest.mark.parametrize("rule", ["SGD", "SGD momentum", "Adam"])
def test_optimiser(benchmark, machine, rule, size, system):
    backend = cpu if system == "mlpkernels" else reference
    answers = []
    for each in (reference, backend):
        random = np.random.default_rng(0)
        params, grad, m, v = (random.random(size, np.float32) for _ in range(4))
        if rule == "Adam":
            settings = (params, grad, m, v, 1e-3, 0.9, 0.999, 1e-8, 0.0, False, 10)
            step = each.adam_step
        else:
            settings = (params, grad, m, 1e-3, 0.9 if "momentum" in rule else 0.0, False, 0.0)
            step = each.sgd_step
        step(*settings)
        answers.append(params)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5, atol=1e-7)
    benchmark.group = f"{rule} {size:,} parameters"
    benchmark(step, *settings)
    record(benchmark, machine, system, 1, parameters=size)
