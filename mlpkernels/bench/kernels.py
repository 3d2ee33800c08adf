"""The kernels alone, as training calls them: each checked against the plain NumPy backend, then ready to be timed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .. import kernels
from ..errors import MlpkError
from ..kernels import plan
from ..kernels.cpu import simd, steps, threads
from ..kernels.plan import Source
from ..layers import Conv2d, Dense, Layer, MaxPool2d
from ..losses import Answers
from ..network import Network
from ..scaling import Scaling
from .images import CLASSES, Images
from .timing import Timed

OURS = "mlpkernels"
FORWARD, WEIGHTS, INPUTS = "forward", "weight gradient", "input gradient"
_EPSILON = float(np.finfo(np.float32).eps)
_ADAM_FLOPS, _SGD_FLOPS = 13, 2  # operations a parameter
_LARGE = 8_000_000  # parameters that no cache holds


@dataclass(frozen=True)
class Product:
    """One of a dense layer's products: FORWARD x @ w, WEIGHTS x.T @ delta, INPUTS delta @ w.T."""

    kind: str
    inputs: int
    outputs: int
    batch: int

    def __str__(self) -> str:
        return f"{self.kind} {self.inputs}-{self.outputs}, batch {self.batch}"

    @property
    def mnk(self) -> tuple[int, int, int]:
        """Rows, columns and the length of the sums."""
        b, i, o = self.batch, self.inputs, self.outputs
        return {FORWARD: (b, o, i), WEIGHTS: (i, o, b), INPUTS: (b, i, o)}[self.kind]

    @property
    def flops(self) -> float:
        """Two a term of the sums."""
        m, n, k = self.mnk
        return 2.0 * m * n * k

    @property
    def bytes(self) -> float:
        """Each operand read once, the result written once."""
        m, n, k = self.mnk
        return 4.0 * (m * k + k * n + m * n)

    @functools.cached_property
    def _bounded(self) -> tuple[np.ndarray, np.ndarray]:
        """The product in double precision, and the bound of float32's rounding."""
        a, b = (operand.astype(np.float64) for operand in self.operands())
        return a @ b, (self.mnk[2] + 1) * _EPSILON * (abs(a) @ abs(b))

    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        """The two matrices (m, k) and (k, n), float32, from a fixed seed; a transposed one is a view."""
        random = np.random.default_rng((self.inputs, self.outputs, self.batch))
        shapes = (self.batch, self.inputs), (self.batch, self.outputs), (self.inputs, self.outputs)
        x, delta, w = (random.standard_normal(shape, np.float32) for shape in shapes)
        return {FORWARD: (x, w), WEIGHTS: (x.T, delta), INPUTS: (delta, w.T)}[self.kind]

    def check(self, result: np.ndarray, system: str) -> None:
        """MlpkError unless result (m, n) is the product within the bound of float32's rounding."""
        product, bound = self._bounded
        if not (abs(result - product) <= bound).all():
            raise MlpkError(f"{system}: {self} is wrong, so nothing is timed; mlpk doctor tells about this machine")


@functools.cache
def products(quick: bool) -> list[Product]:
    """The products of a training step of 784-64-64-10 at batch 64 and of 784-128-128-10 at 128 and 1024.

    The first layer's input has no gradient. Quick: of the second network at batch 128 alone.
    """
    steps_of = [(128, 128)] if quick else [(64, 64), (128, 128), (128, 1024)]
    return [
        Product(kind, inputs, hidden, batch)
        for hidden, batch in steps_of
        for kind, inputs in (
            (FORWARD, 784), (FORWARD, hidden), (WEIGHTS, 784), (WEIGHTS, hidden), (INPUTS, hidden),
        )
    ]  # fmt: skip


def entries(images: Images, counts: list[int], quick: bool) -> Iterator[Timed]:
    """Every kernel of ours on each number of threads, answers checked."""
    for product in products(quick):
        for count in counts:
            yield _product(product, count)
    yield from _losses((128,) if quick else (64, 128, 1024))
    yield from _updates((118_282,) if quick else (118_282, _LARGE))
    for what, network, rows, skips in _networks(images):
        yield from _passes(what, network, rows, skips, counts)


def _checked(name: str, found: Any, wanted: Any, tolerance: float) -> None:
    """MlpkError unless two arrays agree to a share of the largest value."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    limit = tolerance * max(float(abs(wanted).max()), 1e-30)
    if not (abs(found - wanted) <= limit).all():
        raise MlpkError(f"{OURS}: {name} is wrong, so nothing is timed; mlpk doctor tells about this machine")


def repeated(call: Callable[[], Any]) -> Callable[[int], None]:
    """call, so many times."""

    def loop(times: int) -> None:
        for _ in range(times):
            call()

    return loop


# ---- products


def _padded(matrix: np.ndarray, stride: Callable[[int], int]) -> tuple[np.ndarray, int, int]:
    """A matrix's elements in rows of `stride`, padded with zeros, and the steps from row to row and within one.

    A transposed view keeps its own order in memory, as the kernels read it.
    """
    turned = not matrix.flags.c_contiguous
    laid = matrix.T if turned else matrix
    row = stride(laid.shape[1])
    flat = plan.zeros(laid.shape[0] * row, np.float32)
    flat.reshape(-1, row)[:, : laid.shape[1]] = laid
    return flat, *((1, row) if turned else (row, 1))


def _product(product: Product, count: int) -> Timed:
    """With what training does in its store: bias and ReLU forward, ReLU's slope in the input's gradient."""
    (m, n, k), (left, right) = product.mnk, product.operands()
    # Rows as long as in training: a multiple of PAD in parameters (w and its gradient), an odd one elsewhere.
    a, a_row, a_k = _padded(left, plan.odd_stride)
    b, b_k, b_j = _padded(right, plan.odd_stride if product.kind == WEIGHTS else plan.pad)
    slots = threads.slots(count, product.flops)
    c_row = n if slots > 1 else (plan.pad if product.kind == WEIGHTS else plan.odd_stride)(n)
    c, ones = plan.zeros(m * c_row, np.float32), plan.zeros(m * c_row, np.float32)
    ones[:] = 1
    epilogue, aux, aux_row = {
        FORWARD: (simd.ADD_BIAS_RELU, plan.zeros(plan.pad(n), np.float32), 0),
        WEIGHTS: (simd.STORE, c, 0),
        INPUTS: (simd.RELU_SLOPE, ones, c_row),
    }[product.kind]
    gemm = steps.pointer("gemm", "float32").__wrapper_address__()
    if slots == 1:
        one = steps.get("product", "float32")

        def call(rows: int) -> None:
            one(gemm, a, 0, a_row, a_k, b, 0, b_k, b_j, c, 0, c_row, rows, n, k, True, epilogue, aux, 0, aux_row)
    else:
        parallel = steps.get("product_parallel", "float32")

        def call(rows: int) -> None:
            used = slots if rows else 1  # an empty call waits for nobody: what parallel threads cost is measured
            with threads.launch(used):
                parallel(gemm, used, a, a_row, a_k, b, b_k, b_j, c, rows, n, k, epilogue, aux, aux_row)

    call(m)
    result = c.reshape(m, c_row)[:, :n]
    if product.kind == FORWARD:  # what ReLU has made 0 is only known to be no more
        product_itself = np.asarray(left @ right)
        result = np.where(result > 0, result, np.minimum(product_itself, 0))
    product.check(result, OURS)
    return Timed(
        "kernels", f"dense {product.kind}", str(product), OURS, count, repeated(lambda: call(m)), product.flops,
        product.bytes, product.batch, empty=repeated(lambda: call(0)),
    )  # fmt: skip


# ---- loss and updates, which one thread does


def _losses(batches: tuple[int, ...]) -> Iterator[Timed]:
    entry, reference = steps.get("cross_entropy", "float32"), kernels.load("reference")
    for batch in batches:
        random = np.random.default_rng(batch)
        logits, labels = random.standard_normal((batch, CLASSES), np.float32), random.integers(0, CLASSES, batch)
        labels, weights = labels.astype(np.int32), np.ones(batch, np.float32)
        out, wanted = np.empty_like(logits), np.empty(logits.shape)
        divisor, name = np.float32(batch), f"softmax cross-entropy, batch {batch}"
        loss = entry(logits, labels, weights, divisor, out)[0]
        expected = reference.softmax_cross_entropy(logits, labels, weights, batch, wanted)[0]
        _checked(name, loss, expected, 1e-5)
        _checked(name, out, wanted, 1e-5)

        def call(rows: int, given: Any = (logits, labels, weights, divisor, out)) -> None:
            entry(*(array[:rows] for array in given[:3]), given[3], given[4][:rows])

        yield Timed(
            "kernels", "loss", name, OURS, 1, repeated(lambda call=call, batch=batch: call(batch)),  # type: ignore[misc]
            0.0, 8.0 * logits.size + 8 * batch, batch,
            empty=repeated(lambda call=call: call(0)),  # type: ignore[misc]
        )  # fmt: skip


def _updates(sizes: tuple[int, ...]) -> Iterator[Timed]:
    reference = kernels.load("reference")
    for size in sizes:
        for rule, flops, passes in (("SGD", _SGD_FLOPS, 3), ("Adam", _ADAM_FLOPS, 7)):
            entry = steps.get(f"{rule.lower()}_step", "float32")
            few = 4096
            found, wanted = _memory(few), _memory(few)
            entry(*_arguments(rule, found, few))
            getattr(reference, f"{rule.lower()}_step")(*_arguments(rule, wanted, few))
            name = f"{rule} update, {size:,} parameters"
            _checked(name, found[0] - _memory(few)[0], wanted[0] - _memory(few)[0], 1e-3)
            given = _arguments(rule, _memory(size), size)
            nothing = _arguments(rule, _memory(0), 0)
            yield Timed(
                "kernels", "update", name, OURS, 1, repeated(lambda entry=entry, given=given: entry(*given)),  # type: ignore[misc]
                float(flops * size), 4.0 * passes * size,
                empty=repeated(lambda entry=entry, nothing=nothing: entry(*nothing)),  # type: ignore[misc]
            )  # fmt: skip


def _memory(size: int) -> list[np.ndarray]:
    """Parameters, gradient and two moments, all of the order of 1."""
    random = np.random.default_rng(0)
    return [random.random(size, np.float32) + np.float32(0.5) for _ in range(4)]


def _arguments(rule: str, memory: list[np.ndarray], size: int) -> tuple[Any, ...]:
    params, grad, first, second = memory
    if rule == "SGD":
        return params, grad, first[:0], 1e-3, 0.0, False, 0.0
    return params, grad, first, second, 1e-3, 0.9, 0.999, 1e-8, 0.0, False, 10


# ---- layers that the executor alone runs


def _networks(images: Images) -> Iterator[tuple[str, Network, Images, bool]]:
    """(what, network, images, whether zeros are left out) of what is timed by the verbs that run a network.

    1,024 images for the dense layers, 256 for the convolutions: entering a verb is then a few hundredths of its time.
    """
    unit, many, few = Scaling("unit", 1 / 255, 0.0), images.part(1024), images.part(256)
    for skips in (True, False):
        first = Network([Dense(128)], 784, scaling=unit)
        yield "first layer 784-128", first, many, skips
        yield "784-128-10", Network([Dense(128, "relu"), Dense(CLASSES)], 784, scaling=unit), many, skips
    layers: list[Layer] = [
        Conv2d(10, 5, activation="relu"),
        MaxPool2d(2),
        Conv2d(20, 5, activation="relu"),
        MaxPool2d(2),
    ]
    yield "convolutions", Network([*layers, Dense(CLASSES)], (1, 28, 28), scaling=unit), few, False


def _passes(what: str, network: Network, images: Images, skips: bool, counts: list[int]) -> Iterator[Timed]:
    """Forward, or forward and backward, through one network on one call's images."""
    source = network.rows_source(images.x, Answers(images.y), None)._replace(skip_zeros=skips)
    forward, training = _flops(network, len(images.y), images.lit if skips else 1.0)
    values = len(images.y) * float(network.plan[:, plan.GIVES].sum()) + network.params.size
    moved = 4.0 * values + images.x.size
    group, how = "first layer", ", zeros left out" if skips else ", dense"
    if what == "convolutions":
        what, group, how = "5x5 convolutions 1-10-20, pools,", "convolution", ""
    for does, flops, size in ((_forward, forward, moved), (_backward, training, 3 * moved)):
        # of 128 classes the loss would take most of the time, and forward 784-128-10 is forward 784-128
        if does is (_backward if what == "first layer 784-128" else _forward) and what.startswith(("first", "784")):
            continue
        name = f"{what} {'forward' if does is _forward else 'forward and backward'}{how}"
        wanted = does(kernels.load("reference"), network, source, 1)()
        for count in counts:
            call = does(kernels.load("cpu"), network, source, count)
            _checked(name, call(), wanted, 1e-4)
            yield Timed("kernels", group, name, OURS, count, repeated(call), flops, size, len(images.y))


def _forward(backend: ModuleType, network: Network, source: Source, threads: int) -> Callable[[], np.ndarray]:
    """A call that leaves the logits of all rows in what it returns."""
    rows = len(source.labels)
    work = backend.make_workspace(network.plan, rows, network.dtype)
    out = np.empty((rows, network.outputs), network.dtype)

    def call() -> np.ndarray:
        backend.predict(network.model, source, 0, rows, work, out, threads)
        return out

    return call


def _backward(backend: ModuleType, network: Network, source: Source, threads: int) -> Callable[[], np.ndarray]:
    """A call that leaves the gradient by all parameters in what it returns."""
    rows = len(source.labels)
    work, order = backend.make_workspace(network.plan, rows, network.dtype), np.arange(rows)
    grad = plan.zeros(network.params.size, network.dtype)

    def call() -> np.ndarray:
        backend.loss_and_gradient(network.model, source, order, rows, work, grad, threads)
        return grad

    return call


def layer_flops(network: Network) -> np.ndarray:
    """Floating-point operations of a sample's product in each layer that has weights, forward."""
    rows = network.plan[np.isin(network.plan[:, plan.KIND], (plan.DENSE, plan.CONV))]
    factors = [plan.INPUTS, plan.OUTPUTS, plan.OUT_HEIGHT, plan.OUT_WIDTH]
    return 2.0 * rows[:, factors].prod(axis=1)


def _flops(network: Network, rows: int, lit: float) -> tuple[float, float]:
    """Operations forward, and forward and backward, of the pixels that are not left out; no gradient of the inputs."""
    each = layer_flops(network)
    first, rest = lit * each[0], each[1:].sum()
    return float(rows * (first + rest)), float(rows * (2 * first + 3 * rest))
