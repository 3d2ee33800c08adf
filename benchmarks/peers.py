"""One trainer a system, ours and each peer's at its best setting, all with the same four methods.

reset() puts the initial parameters and a fresh optimiser; place(order) does what is not timed; run(placed) trains
over the rows of that order in mini-batches, the last one smaller, and returns when all is computed, with the loss of
each step (scikit-learn: their mean); parameters() are the weights (I, O) and biases (O,) it has arrived at.
Each system's package is imported when its trainer is made.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import BETA1, BETA2, EPSILON, Case
from data import CLASSES, Images

Parameters = list[np.ndarray]


class Kernels:
    """mlpkernels: the images stay bytes and are scaled as a batch is gathered."""

    def __init__(self, case: Case, images: Images, threads: int) -> None:
        from mlpkernels import SGD, Adam, kernels
        from mlpkernels.kernels import plan

        self.case, self.threads, self.plans, self.backend = case, threads, plan, kernels.load("cpu")
        layers = [(i, o, plan.RELU) for i, o in case.pairs[:-1]] + [(*case.pairs[-1], plan.IDENTITY)]
        table, size = plan.build(layers)
        self.model = plan.Model(table, plan.zeros(size, np.float32))
        rate = case.learning_rate
        self.rule = SGD(rate) if case.optimizer == "sgd" else Adam(rate, BETA1, BETA2, EPSILON)
        rows = len(images.y)
        none, ones = np.empty((0, images.x.shape[1]), np.float32), np.ones(rows, np.float32)
        self.source = plan.Source(images.x, none, np.float32(1 / 255), np.float32(0), images.y, ones)
        self.work = self.backend.make_workspace(table, case.batch, np.float32)
        self.reset()

    def reset(self) -> None:
        table, params = self.model[:2]
        for layer, (weights, biases) in enumerate(self.case.initial()):
            self.plans.weight_view(table, layer, params)[...] = weights
            self.plans.bias_view(table, layer, params)[...] = biases
        self.optimizer = self.rule.state(params)

    def place(self, order: np.ndarray) -> tuple[np.ndarray, ...]:
        steps = -(-len(order) // self.case.batch)
        rates = np.full(steps, self.case.learning_rate)
        return order, rates, np.zeros(steps), np.zeros(steps, np.int64)

    def run(self, placed: tuple[np.ndarray, ...]) -> np.ndarray:
        order, rates, losses, corrects = placed
        sizes = [self.case.batch] * len(losses)
        sizes[-1] = len(order) - sum(sizes[:-1])
        reached = self.backend.train_steps(
            self.model, self.optimizer, self.source, order, self.case.batch, 0, len(losses), rates, self.work, losses,
            corrects, self.threads,
        )  # fmt: skip
        if reached != len(losses):
            raise RuntimeError(f"{self.case}: the loss of step {reached + 1} is not finite")
        return losses / sizes

    def parameters(self) -> Parameters:
        table, params = self.model[:2]
        views = (self.plans.weight_view, self.plans.bias_view)
        return [view(table, layer, params).copy() for layer in range(len(table)) for view in views]


class Torch:
    """PyTorch eager: float images in memory, a batch taken by index_select, fused optimisers.

    Measured: index_select per batch beats shuffling the images once an epoch by a fifth; fused optimisers beat
    foreach and plain ones by up to a quarter (Adam at batch 128) and lose nowhere beyond the noise.
    """

    def __init__(self, case: Case, images: Images, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.case = torch, case
        self.x = torch.from_numpy(images.x.astype(np.float32) / np.float32(255))
        self.y = torch.from_numpy(images.y.astype(np.int64))
        self.reset()

    def reset(self) -> None:
        nn = self.torch.nn
        modules: list[Any] = []
        for (inputs, outputs), (weights, biases) in zip(self.case.pairs, self.case.initial(), strict=True):
            linear = nn.Linear(inputs, outputs)
            with self.torch.no_grad():
                linear.weight.copy_(self.torch.from_numpy(weights.T.copy()))
                linear.bias.copy_(self.torch.from_numpy(biases))
            modules += [linear, nn.ReLU()]
        self.network = nn.Sequential(*modules[:-1])
        optim, rate = self.torch.optim, self.case.learning_rate
        if self.case.optimizer == "sgd":
            self.optimizer = optim.SGD(self.network.parameters(), rate, fused=True)
        else:
            self.optimizer = optim.Adam(self.network.parameters(), rate, (BETA1, BETA2), EPSILON, fused=True)

    def place(self, order: np.ndarray) -> Any:
        return self.torch.from_numpy(order)

    def run(self, placed: Any) -> np.ndarray:
        x, y, network, optimizer, batch = self.x, self.y, self.network, self.optimizer, self.case.batch
        cross_entropy, losses = self.torch.nn.functional.cross_entropy, []
        for start in range(0, len(placed), batch):
            rows = placed[start : start + batch]
            loss = cross_entropy(network(x.index_select(0, rows)), y.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return self.torch.stack(losses).numpy().astype(np.float64)

    def parameters(self) -> Parameters:
        return [tensor.detach().numpy().T.copy() for tensor in self.network.parameters()]


class Jax:
    """JAX: the whole epoch one jitted lax.scan, parameters and optimiser state donated, the images on the device.

    stored "uint8" gathers bytes and scales the batch, "float32" gathers images scaled beforehand; which is faster
    depends on batch and threads, so both are run. One-hot labels and unrolled scans were measured: no faster.
    """

    def __init__(self, case: Case, images: Images, threads: int, stored: str) -> None:
        import jax

        self.jax, self.case, self.stored = jax, case, stored
        x = images.x if stored == "uint8" else images.x.astype(np.float32) / np.float32(255)
        self.x, self.y = jax.device_put(x), jax.device_put(images.y)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        put, zeros = self.jax.device_put, self.jax.numpy.zeros_like
        parameters = [(put(weights), put(biases)) for weights, biases in self.case.initial()]
        self.state: tuple[Any, ...] = (parameters,)
        if self.case.optimizer == "adam":
            tree = self.jax.tree.map
            self.state += (
                tree(zeros, parameters),
                tree(zeros, parameters),
                self.jax.numpy.zeros((), "int32"),
            )

    def place(self, order: np.ndarray) -> Any:
        return self.jax.block_until_ready(self.jax.device_put(order.astype(np.int32)))

    def run(self, placed: Any) -> np.ndarray:
        self.state, losses = self.epoch(self.state, self.x, self.y, placed)
        self.jax.block_until_ready((self.state, losses))
        return np.asarray(losses, np.float64)

    def parameters(self) -> Parameters:
        return [np.array(array) for layer in self.state[0] for array in layer]

    def _epoch(self, state: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
        batch, numpy = self.case.batch, self.jax.numpy
        whole = len(order) // batch * batch

        def step(state: Any, rows: Any) -> tuple[Any, Any]:
            taken = x.at[rows].get(mode="promise_in_bounds")
            if self.stored == "uint8":
                taken = taken.astype(numpy.float32) * np.float32(1 / 255)
            loss, grad = self.jax.value_and_grad(self._loss)(state[0], taken, y[rows])
            return self._update(state, grad), loss

        state, losses = self.jax.lax.scan(step, state, order[:whole].reshape(-1, batch))
        if whole < len(order):  # the last, smaller batch
            state, last = step(state, order[whole:])
            losses = numpy.append(losses, last)
        return state, losses

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        for weights, biases in parameters[:-1]:
            x = self.jax.nn.relu(x @ weights + biases)
        weights, biases = parameters[-1]
        logarithms = self.jax.nn.log_softmax(x @ weights + biases)
        return -self.jax.numpy.take_along_axis(logarithms, y[:, None], axis=1).mean()

    def _update(self, state: tuple[Any, ...], grad: Any) -> tuple[Any, ...]:
        rate, tree, numpy = self.case.learning_rate, self.jax.tree.map, self.jax.numpy
        if self.case.optimizer == "sgd":
            return (tree(lambda p, g: p - rate * g, state[0], grad),)
        parameters, first, second, count = state
        count = count + 1
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grad)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * (g * g), second, grad)
        rate = rate / (1 - BETA1**count)
        scale = 1 / numpy.sqrt(1 - BETA2**count)
        moved = tree(lambda p, m, v: p - rate * m / (numpy.sqrt(v) * scale + EPSILON), parameters, first, second)
        return moved, first, second, count


class Sklearn:
    """scikit-learn's MLPClassifier on float32: partial_fit is one epoch, over rows shuffled beforehand, untimed."""

    def __init__(self, case: Case, images: Images, threads: int) -> None:
        import threadpoolctl

        self.case = case
        self.limits = threadpoolctl.threadpool_limits(threads)
        self.x, self.y = images.x.astype(np.float32) / np.float32(255), images.y
        self.reset()

    def reset(self) -> None:
        from sklearn.neural_network import MLPClassifier

        case = self.case
        self.model = MLPClassifier(
            case.sizes[1:-1], solver=case.optimizer, alpha=0.0, batch_size=case.batch, shuffle=False, momentum=0.0,
            nesterovs_momentum=False, learning_rate_init=case.learning_rate, beta_1=BETA1, beta_2=BETA2,
            epsilon=EPSILON, random_state=0,
        )  # fmt: skip
        self.model.partial_fit(self.x[: case.batch], self.y[: case.batch], classes=np.arange(CLASSES))
        for layer, (weights, biases) in enumerate(case.initial()):
            self.model.coefs_[layer][...] = weights
            self.model.intercepts_[layer][...] = biases
        del self.model._optimizer  # it kept what the first batch left; the next partial_fit makes a fresh one

    def place(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[order], self.y[order]

    def run(self, placed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        self.model.partial_fit(*placed)
        return np.array([self.model.loss_])

    def parameters(self) -> Parameters:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [array.copy() for pair in pairs for array in pair]


# What a worker can run, and the package each needs. Systems of one name are one system's variants.
TRAINERS: dict[str, Callable[[Case, Images, int], Any]] = {
    "mlpkernels": Kernels,
    "PyTorch eager": Torch,
    "JAX jit + scan, float32": lambda case, images, threads: Jax(case, images, threads, "float32"),
    "JAX jit + scan, uint8": lambda case, images, threads: Jax(case, images, threads, "uint8"),
    "scikit-learn": Sklearn,
}
PACKAGES = {"PyTorch eager": "torch", "JAX jit + scan": "jax", "scikit-learn": "sklearn"}
_DISTRIBUTIONS = (
    "mlpkernels",
    "numpy",
    "numba",
    "llvmlite",
    "torch",
    "jax",
    "jaxlib",
    "scikit-learn",
    "scipy",
)


def family(system: str) -> str:
    """The system that a variant belongs to: its name up to the comma."""
    return system.partition(",")[0]


def absent() -> list[str]:
    """The peers whose package is not installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None]


def versions() -> dict[str, str]:
    """Versions of Python's packages that play a part; "not installed" where one is missing."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if found["mlpkernels"] == "not installed":  # run from the source tree
        import mlpkernels

        found["mlpkernels"] = mlpkernels.__version__
    return found
