"""One trainer a system, ours and each peer's at its best setting, all with the same four methods.

reset() puts the initial parameters and a fresh optimiser; place(order) does what is not timed; run(placed) trains
over the rows of that order in mini-batches, the last one smaller, and returns when all is computed, with the loss of
each step (scikit-learn: their mean); parameters() are the weights (I, O) and biases (O,) it has arrived at.
Each system's package is imported when its trainer is made.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cases import BETA1, BETA2, EPSILON, POOL, Case
from data import MNIST, TABLE, Images
from peers_jax import Jax

Parameters = list[np.ndarray]


class Kernels:
    """mlpkernels: images stay bytes, scaled as a batch is gathered; zeros are skipped where `fit` would skip them.

    skip_zeros=False makes the first layer dense.
    """

    def __init__(
        self, case: Case, images: Images, threads: int, skip_zeros: bool | None = None, backend: str = "cpu"
    ) -> None:  # fmt: skip
        from mlpkernels import SGD, Adam, Conv2d, Dense, MaxPool2d, Network, Scaling, kernels
        from mlpkernels.losses import Answers

        self.case, self.threads, self.backend = case, threads, kernels.load(backend)
        layers: list[Any] = []
        for channels, kernel in case.convolutions:  # ReLU before the pool gives the same
            layers += [Conv2d(channels, kernel, activation="relu"), MaxPool2d(POOL)]
        layers += [Dense(width, "relu") for width in case.hidden] + [Dense(case.kind.classes)]
        scaling = Scaling("unit", 1 / 255, 0.0) if images.x.dtype == np.uint8 else None
        self.network = Network(layers, case.kind.shape, scaling=scaling)
        self.model = self.network.model
        rate = case.learning_rate
        self.rule = SGD(rate) if case.optimizer == "sgd" else Adam(rate, BETA1, BETA2, EPSILON)
        source = self.network.rows_source(images.x, Answers(images.y), None)
        self.source = source if skip_zeros is None else source._replace(skip_zeros=skip_zeros)
        self.work = self.backend.make_workspace(self.model.plan, case.batch, np.float32)
        self.reset()

    def reset(self) -> None:
        start = [array for layer in self.case.initial() for array in layer]
        for view, values in zip(self.network.parameters().values(), start, strict=True):
            view[...] = values
        self.optimizer = self.rule.state(self.model.params)

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
        return [view.copy() for view in self.network.parameters().values()]


class Torch:
    """PyTorch: float images in memory, a batch taken by index_select, fused optimisers; compiled: by torch.compile.

    Measured: index_select per batch beats shuffling the images once an epoch by a fifth; fused optimisers beat
    foreach and plain ones by up to a quarter (Adam at batch 128) and lose nowhere beyond the noise.
    """

    def __init__(self, case: Case, images: Images, threads: int, compiled: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.case = torch, case
        shape = case.kind.shape if case.convolutions else (-1,)
        self.x = torch.from_numpy(images.floats()).reshape(len(images.y), *shape)
        self.y = torch.from_numpy(images.y.astype(np.int64))
        self.network = self._network()
        # The last, smaller batch has code of its own, too.
        self.forward = torch.compile(self.network, dynamic=False) if compiled else self.network
        self.reset()

    def _network(self) -> Any:
        nn = self.torch.nn
        modules: list[Any] = []
        for (channels, _, _), (outputs, kernel) in zip(self.case.images, self.case.convolutions, strict=False):
            modules += [nn.Conv2d(channels, outputs, kernel), nn.MaxPool2d(POOL), nn.ReLU()]
        modules += [nn.Flatten()] if modules else []
        for inputs, outputs in self.case.pairs:
            modules += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def reset(self) -> None:
        start = [array for layer in self.case.initial() for array in layer]
        with self.torch.no_grad():
            for tensor, values in zip(self.network.parameters(), start, strict=True):
                tensor.copy_(self.torch.from_numpy(_turned(values)))
        optim, rate = self.torch.optim, self.case.learning_rate
        if self.case.optimizer == "sgd":
            self.optimizer = optim.SGD(self.network.parameters(), rate, fused=True)
        else:
            self.optimizer = optim.Adam(self.network.parameters(), rate, (BETA1, BETA2), EPSILON, fused=True)

    def place(self, order: np.ndarray) -> Any:
        return self.torch.from_numpy(order)

    def run(self, placed: Any) -> np.ndarray:
        x, y, network, optimizer, batch = self.x, self.y, self.forward, self.optimizer, self.case.batch
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
        return [_turned(tensor.detach().numpy()) for tensor in self.network.parameters()]


def _turned(values: np.ndarray) -> np.ndarray:
    """A copy of a dense layer's weights (I, O) as (O, I), or back; of all else as it is."""
    return values.T.copy() if values.ndim == 2 else values.copy()


class Sklearn:
    """scikit-learn's MLPClassifier on float32: partial_fit is one epoch, over rows shuffled beforehand, untimed.

    For two classes it has one logistic output instead of two: the same function with half the last parameters, which
    Adam moves otherwise. Then only the first step's loss can be compared, and parameters() is empty.
    """

    def __init__(self, case: Case, images: Images, threads: int) -> None:
        import threadpoolctl

        self.case = case
        self.one_output = case.kind.classes == 2
        self.limits = threadpoolctl.threadpool_limits(threads)
        self.x, self.y = images.floats(), images.y
        self.reset()

    def reset(self) -> None:
        from sklearn.neural_network import MLPClassifier

        case = self.case
        self.model = MLPClassifier(
            case.sizes[1:-1], solver=case.optimizer, alpha=0.0, batch_size=case.batch, shuffle=False, momentum=0.0,
            nesterovs_momentum=False, learning_rate_init=case.learning_rate, beta_1=BETA1, beta_2=BETA2,
            epsilon=EPSILON, random_state=0,
        )  # fmt: skip
        self.model.partial_fit(self.x[: case.batch], self.y[: case.batch], classes=np.arange(case.kind.classes))
        start = case.initial()
        if self.one_output:
            start[-1] = tuple(array[..., 1:] - array[..., :1] for array in start[-1])  # type: ignore[assignment]
        for layer, (weights, biases) in enumerate(start):
            self.model.coefs_[layer][...] = weights
            self.model.intercepts_[layer][...] = biases
        del self.model._optimizer  # it kept what the first batch left; the next partial_fit makes a fresh one

    def place(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[order], self.y[order]

    def run(self, placed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        self.model.partial_fit(*placed)
        return np.array([self.model.loss_])

    def parameters(self) -> Parameters:
        if self.one_output:
            return []
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [array.copy() for pair in pairs for array in pair]


# What a worker can run. Systems of one name up to the comma are one system's variants.
OURS, DENSE, COMPILED = "mlpkernels", "mlpkernels, layer 1 dense", "PyTorch, compiled"
_JAX = "JAX jit + scan, "
TRAINERS: dict[str, Callable[[Case, Images, int], Any]] = {
    OURS: Kernels,
    DENSE: partial(Kernels, skip_zeros=False),
    "PyTorch, eager": Torch,
    COMPILED: partial(Torch, compiled=True),
    _JAX + "float32": partial(Jax, stored="float32"),
    _JAX + "uint8": partial(Jax, stored="uint8"),
    _JAX + "patches": partial(Jax, stored="float32", patches=True),
    "scikit-learn": Sklearn,
}
PACKAGES = {
    "PyTorch": "torch", "JAX jit + scan": "jax", "scikit-learn": "sklearn", "ONNX Runtime": "onnx onnxruntime",
}  # fmt: skip
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
    "onnxruntime",
)


def trainers(case: Case, compiled: bool = False) -> list[str]:
    """The systems that are installed and can train a case; those of PyTorch's compiler only if wanted."""
    unfit = set() if compiled else {COMPILED}
    if case.convolutions:
        unfit |= {DENSE, _JAX + "uint8", "scikit-learn"}
    else:
        unfit |= {_JAX + "patches"}
    if case.data != MNIST:
        unfit |= {DENSE}  # nothing is skipped
    if case.data == TABLE:
        unfit |= {_JAX + "uint8"}
    missing = absent()
    return [system for system in TRAINERS if system not in unfit and family(system) not in missing]


def family(system: str) -> str:
    """The system that a variant belongs to: its name up to the comma."""
    return system.partition(",")[0]


def absent() -> list[str]:
    """The peers of which a package is not installed."""
    needed = {name: packages.split() for name, packages in PACKAGES.items()}
    return [name for name, each in needed.items() if not all(map(importlib.util.find_spec, each))]


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
