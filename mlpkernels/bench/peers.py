"""The others, as far as they are installed: NumPy's products, PyTorch eager, JAX jit + scan, scikit-learn.

Each at a good setting, in this process; answers are checked before anything is timed. benchmarks/compare.py of the
project's repository is the thorough comparison, each system in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import epochs
from .epochs import EPSILON, Case
from .images import CLASSES, Images
from .kernels import products, repeated
from .timing import Timed

NUMPY, TORCH, JAX, SKLEARN = "NumPy", "PyTorch eager", "JAX jit + scan", "scikit-learn"
PACKAGES = {TORCH: "torch", JAX: "jax", SKLEARN: "sklearn"}
_CNN_ROWS = 1920  # images of a peer's CNN epoch


def absent() -> list[str]:
    """The peers that are not installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None]


def blas_threads(count: int) -> contextlib.AbstractContextManager[Any]:
    """NumPy's and scikit-learn's products on so many threads."""
    import threadpoolctl

    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(count)
    return limits


def _blas_counts(counts: list[int]) -> list[int]:
    """The numbers of threads that can be set for NumPy: without threadpoolctl all is what it takes."""
    return counts if importlib.util.find_spec("threadpoolctl") is not None else counts[-1:]


def _blas_setting(count: int) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    if importlib.util.find_spec("threadpoolctl") is None:
        return contextlib.nullcontext
    return lambda: blas_threads(count)


def kernel_entries(counts: list[int], quick: bool) -> Iterator[Timed]:
    """NumPy's products at the same shapes, without a bias and an activation."""
    for product in products(quick):
        a, b = product.operands()
        out = np.empty(product.mnk[:2], np.float32)
        np.matmul(a, b, out=out)
        product.check(out, NUMPY)
        for count in _blas_counts(counts):
            yield Timed(
                "kernels", f"dense {product.kind}", str(product), NUMPY, count, _matmul(a, b, out), product.flops,
                product.bytes, product.batch, empty=_matmul(a[:0], b, out[:0]), around=_blas_setting(count),
            )  # fmt: skip


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Callable[[int], None]:
    return repeated(lambda: np.matmul(a, b, out=out))


def epoch_entries(images: Images, counts: list[int], rows: dict[Case, int]) -> Iterator[Timed]:
    """Every installed system on every case that it can train; JAX on all cores, which cannot be changed later."""
    missing = absent()
    floats = images.x.astype(np.float32) / np.float32(255)
    for case, count_of_rows in rows.items():
        part = images.part(count_of_rows if case.hidden else min(count_of_rows, _CNN_ROWS))
        x = floats[: len(part.y)]
        expected = epochs.reference_losses(case, part)
        if TORCH not in missing:
            for count in counts:
                torch = Torch(case, x, part.y, count)
                yield _ready(case, TORCH, torch, part, count, expected, torch.setting)
        if JAX not in missing:
            yield _ready(case, JAX, Jax(case, part.x, part.y), part, counts[-1], expected, contextlib.nullcontext)
        if SKLEARN not in missing and case.hidden:
            for count in _blas_counts(counts):
                yield _ready(case, SKLEARN, Sklearn(case, x, part.y), part, count, expected, _blas_setting(count))


def _ready(
    case: Case, system: str, trainer: epochs.Trainer, images: Images, threads: int, expected: np.ndarray,
    around: Callable[[], contextlib.AbstractContextManager[Any]],
) -> Timed:  # fmt: skip
    """Checked, and run over an epoch once: some compile for its length."""
    with around():
        epochs.check(case, system, trainer, len(images.y), expected)
        if trainer.compiles:
            trainer.run(trainer.place(np.arange(len(images.y))))
    entry = epochs.timed(case, system, trainer, images, threads)
    entry.around, entry.nominal = around, False
    return entry


class _Peer:
    """What the peers share: the start that ours has, weights (I, O) or (O, C, kh, kw) and biases, by turns."""

    may_stop = False
    compiles = False

    def __init__(self, case: Case) -> None:
        self.case = case
        self.start = [view.copy() for view in case.network().parameters().values()]

    def setting(self) -> contextlib.AbstractContextManager[None]:
        """Around all calls."""
        return contextlib.nullcontext()

    def rates(self, rows: int) -> np.ndarray:
        """The case's learning rate at each step of an epoch over so many rows."""
        return np.full(-(-rows // self.case.batch), self.case.rate)


class Torch(_Peer):
    """Float images, a batch taken by index_select, fused optimisers: measured to be its fastest on a CPU."""

    def __init__(self, case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> None:
        super().__init__(case)
        torch = importlib.import_module("torch")
        self.torch, self.threads = torch, threads
        self.x = torch.from_numpy(x if case.hidden else x.reshape(-1, 1, 28, 28))
        self.y = torch.from_numpy(y.astype(np.int64))
        self.reset()

    @contextlib.contextmanager
    def setting(self) -> Iterator[None]:
        before = self.torch.get_num_threads()
        self.torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            self.torch.set_num_threads(before)

    def reset(self) -> None:
        nn = self.torch.nn
        modules: list[Any] = []
        images = False
        for weights in self.start[::2]:
            if weights.ndim == 4:
                channels, colours, *kernel = weights.shape
                modules += [nn.Conv2d(colours, channels, kernel), nn.MaxPool2d(2), nn.ReLU()]
            else:
                modules += [nn.Flatten()] * images + [nn.Linear(*weights.shape), nn.ReLU()]
            images = weights.ndim == 4
        self.network = nn.Sequential(*modules[:-1])
        with self.torch.no_grad():
            for tensor, values in zip(self.network.parameters(), self.start, strict=True):
                tensor.copy_(self.torch.from_numpy(values.T.copy() if values.ndim == 2 else values))
        optim, rate = self.torch.optim, self.case.rate
        if self.case.rule == "SGD":
            self.optimizer = optim.SGD(self.network.parameters(), rate, fused=True)
        else:
            kind = optim.AdamW if self.case.rule == "AdamW" else optim.Adam
            settings = rate, self.case.betas, EPSILON, self.case.weight_decay
            self.optimizer = kind(self.network.parameters(), *settings, fused=True)

    def place(self, order: np.ndarray, rates: np.ndarray | None = None) -> Any:
        rates = self.rates(len(order)) if rates is None else rates
        return self.torch.from_numpy(order).split(self.case.batch), rates.tolist()

    def run(self, placed: Any) -> np.ndarray:
        cross_entropy, losses, (group,) = self.torch.nn.functional.cross_entropy, [], self.optimizer.param_groups
        for rows, rate in zip(*placed, strict=True):
            group["lr"] = rate
            loss = cross_entropy(self.network(self.x.index_select(0, rows)), self.y.index_select(0, rows))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return np.asarray(self.torch.stack(losses).numpy(), np.float64)

    def parameters(self) -> list[np.ndarray]:
        """What `start` holds, as it is now."""
        found = [tensor.detach().numpy() for tensor in self.network.parameters()]
        return [values.T if values.ndim == 2 else values for values in found]


class Jax(_Peer):
    """The whole epoch one jitted lax.scan, state donated, the images on the device as bytes, scaled as gathered.

    A convolution is one product with its windows side by side, a pool the maximum over two axes of a reshaped image:
    on a CPU XLA's own, with their gradients, were measured to take 5 and 1.6 times as long.
    """

    compiles = True

    def __init__(self, case: Case, x: np.ndarray, y: np.ndarray) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        super().__init__(case)
        self.jax = jax = importlib.import_module("jax")
        self.x, self.y = jax.device_put(x if case.hidden else x.reshape(-1, 28, 28, 1)), jax.device_put(y)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        parameters = [self.jax.numpy.array(values) for values in self.start]
        self.state: tuple[Any, ...] = (parameters,)
        if self.case.rule != "SGD":
            zeros, tree = self.jax.numpy.zeros_like, self.jax.tree.map
            self.state += (tree(zeros, parameters), tree(zeros, parameters), self.jax.numpy.zeros((), "int32"))

    def place(self, order: np.ndarray, rates: np.ndarray | None = None) -> Any:
        rates = self.rates(len(order)) if rates is None else rates
        placed = self.jax.device_put(order.astype(np.int32)), self.jax.device_put(rates.astype(np.float32))
        return self.jax.block_until_ready(placed)

    def run(self, placed: Any) -> np.ndarray:
        self.state, losses = self.epoch(self.state, self.x, self.y, *placed)
        self.jax.block_until_ready((self.state, losses))
        return np.asarray(losses, np.float64)

    def parameters(self) -> list[np.ndarray]:
        """What `start` holds, as it is now."""
        return [np.asarray(values) for values in self.state[0]]

    def _epoch(self, state: Any, x: Any, y: Any, order: Any, rates: Any) -> tuple[Any, Any]:
        batch, numpy = self.case.batch, self.jax.numpy
        steps = len(order) // batch
        whole = steps * batch

        def step(state: Any, taking: Any) -> tuple[Any, Any]:
            rows, rate = taking
            taken = x.at[rows].get(mode="promise_in_bounds").astype(numpy.float32) * np.float32(1 / 255)
            loss, grad = self.jax.value_and_grad(self._loss)(state[0], taken, y[rows])
            return self._update(state, grad, rate), loss

        state, losses = self.jax.lax.scan(step, state, (order[:whole].reshape(-1, batch), rates[:steps]))
        if whole < len(order):  # the last, smaller batch
            state, last = step(state, (order[whole:], rates[steps]))
            losses = numpy.append(losses, last)
        return state, losses

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        numpy = self.jax.numpy
        last = len(parameters) - 2
        for at in range(0, len(parameters), 2):
            weights, biases = parameters[at : at + 2]
            if weights.ndim == 4:
                x = self._pool(self._convolve(x, weights) + biases)
            else:
                x = x.transpose(0, 3, 1, 2).reshape(len(x), -1) if x.ndim == 4 else x
                x = x @ weights + biases
            x = self.jax.nn.relu(x) if at < last else x
        logarithms = self.jax.nn.log_softmax(x)
        return -numpy.take_along_axis(logarithms, y[:, None], axis=1).mean()

    def _convolve(self, x: Any, weights: Any) -> Any:
        """x (B, H, W, C), weights (O, C, kh, kw) -> (B, H', W', O)."""
        outputs, channels, kh, kw = weights.shape
        height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
        windows = [x[:, i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
        turned = weights.transpose(2, 3, 1, 0).reshape(kh * kw * channels, outputs)
        return self.jax.numpy.concatenate(windows, axis=3) @ turned

    def _pool(self, x: Any) -> Any:
        """The maxima of windows of 2 x 2: (B, H, W, C) -> (B, H // 2, W // 2, C)."""
        height, width = x.shape[1] // 2, x.shape[2] // 2
        windows = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1)
        return windows.max(axis=(2, 4))

    def _update(self, state: tuple[Any, ...], grad: Any, rate: Any) -> tuple[Any, ...]:
        tree, numpy, (beta1, beta2) = self.jax.tree.map, self.jax.numpy, self.case.betas
        if self.case.rule == "SGD":
            return (tree(lambda p, g: p - rate * g, state[0], grad),)
        parameters, first, second, count = state
        count = count + 1
        first = tree(lambda m, g: beta1 * m + (1 - beta1) * g, first, grad)
        second = tree(lambda v, g: beta2 * v + (1 - beta2) * (g * g), second, grad)
        if self.case.rule == "AdamW":
            parameters = tree(lambda p: (1 - rate * self.case.weight_decay) * p, parameters)
        scaled = rate / (1 - beta1**count)
        scale = 1 / numpy.sqrt(1 - beta2**count)
        moved = tree(lambda p, m, v: p - scaled * m / (numpy.sqrt(v) * scale + EPSILON), parameters, first, second)
        return moved, first, second, count


class Sklearn(_Peer):
    """MLPClassifier on float32 images: partial_fit is one epoch, over rows shuffled beforehand, untimed."""

    def __init__(self, case: Case, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__(case)
        self.x, self.y = x, y
        self.reset()

    def reset(self) -> None:
        from sklearn.neural_network import MLPClassifier

        case = self.case
        self.model = MLPClassifier(
            case.hidden, solver=case.rule.lower(), alpha=0.0, batch_size=case.batch, shuffle=False, momentum=0.0,
            nesterovs_momentum=False, learning_rate_init=case.rate, beta_1=case.betas[0], beta_2=case.betas[1],
            epsilon=EPSILON, random_state=0,
        )  # fmt: skip
        self.model.partial_fit(self.x[: case.batch], self.y[: case.batch], classes=np.arange(CLASSES))
        for layer in range(len(case.hidden) + 1):
            self.model.coefs_[layer][...] = self.start[2 * layer]
            self.model.intercepts_[layer][...] = self.start[2 * layer + 1]
        del self.model._optimizer  # it kept what the first batch left; the next partial_fit makes a fresh one

    def place(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[order], self.y[order]

    def run(self, placed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        self.model.partial_fit(*placed)
        return np.array([self.model.loss_])


def libraries() -> list[str]:
    """The matrix libraries in use and whose kernels they have chosen, as far as threadpoolctl is there to tell."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return []
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    found = [f"{p['internal_api']} {p['version']} (kernels for {p.get('architecture', 'unknown')})" for p in pools]
    return list(dict.fromkeys(found))
