"""A training run made ready: its settings and data checked and converted, and told apart from another's."""

import ast
import itertools
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from . import checks, kernels, seeds
from .arrays import as_rows, check_indices, combined_weights, mean_one, thread_count
from .datasets import Part
from .errors import DataError, ResumeError
from .kernels import plan
from .kernels.plan import Source, Workspace
from .losses import Answers
from .network import Network
from .optimizers import Optimizer
from .pace import Pace
from .schedules import Schedule
from .state import Mark, Progress, TrainingState

_BATCH = 128  # rows of a mini-batch, where there are as many
_CHECKED_BYTES = 1 << 24  # of a checksum's block


@dataclass(frozen=True, eq=False)
class Held:
    """Data checked, scaled and fingerprinted once, for many trainings: see `hold`.

    Its arrays must not change while it is in use; `source` has weights of 1.
    """

    source: Source
    fingerprint: str
    network: dict[str, Any]  # what of a network they were made for


Data = Part | tuple[Any, Any] | Held


@dataclass
class Settings:
    """The settings of `fit` that are plain values; see there. TypeError or ValueError names a wrong one."""

    epochs: int
    batch_size: int | str | None  # None until the number of rows is known
    optimizer: Optimizer
    schedule: Schedule
    seed: int
    class_weight: str | Mapping[Any, float] | None
    early_stopping: int | None
    clip_norm: float | None
    eval_train: bool
    skip_zeros: bool | None
    threads: int | None
    backend: str

    def __post_init__(self) -> None:
        for name, method, wanted in (
            ("optimizer", "state", "SGD(…), Adam(…) or AdamW(…)"),
            ("schedule", "rates", "Constant(), Step(…), Cosine(…) or OneCycle(…)"),
        ):
            value = getattr(self, name)
            if isinstance(value, type) or not callable(getattr(value, method, None)):
                raise TypeError(f"{name}={value!r}: {wanted} was wanted")
        self.epochs = _count("epochs", self.epochs)
        if self.batch_size not in ("full", None):
            self.batch_size = _count("batch_size", self.batch_size, " or 'full'")
        self.seed = seeds.check_seed(self.seed)
        if self.early_stopping is not None:
            self.early_stopping = _count("early_stopping", self.early_stopping, " or None")
        if self.clip_norm is not None:
            text = f"clip_norm={self.clip_norm!r}: a finite number above 0, or None, was wanted"
            self.clip_norm = checks.number(self.clip_norm, text, 0.0, open_low=True)
        self.eval_train = bool(self.eval_train)
        if self.skip_zeros not in (True, False, None):
            raise TypeError(f"skip_zeros={self.skip_zeros!r}: True, False or None, which looks at the data, was wanted")
        self.pace = Pace(thread_count(self.threads), self.threads is not None)


def _count(name: str, value: Any, alternative: str = "") -> int:
    return checks.integer(value, f"{name}={value!r}: an integer from 1{alternative} was wanted", 1)


@dataclass
class Run:
    """All that an epoch needs, checked and converted. The state is filled."""

    network: Network
    compiled: ModuleType
    settings: Settings
    train: Source
    validation: Source | None
    test: Source | None
    batch_size: int
    state: TrainingState
    work: Workspace
    on_progress: Callable[[Progress], None] | None

    @property
    def rows(self) -> int:
        """Rows of the training part."""
        return len(self.train.labels)

    @property
    def mark(self) -> Mark:
        """The state's mark."""
        assert self.state.mark is not None
        return self.state.mark

    def train_steps(self, order: np.ndarray, rates: np.ndarray, first: int, last: int) -> int:
        """Run some of the epoch's steps first … last - 1; returns the one reached, or whose loss is not finite."""
        state, pace = self.state, self.settings.pace
        threads, seconds = pace.choose()
        began = time.perf_counter()
        reached = self.compiled.train_steps(
            self.network.model, state.optimizer, self.train, order, self.batch_size, first, last,
            rates, self.work, state.losses, state.corrects, threads, seconds,
        )  # fmt: skip
        took = time.perf_counter() - began
        pace.record(threads, reached - first, took)
        self.mark.clock[0] += took
        return int(reached)

    def prepare_kernels(self) -> None:
        """Compile what training will call, or load it, before time is taken: a call of no steps does."""
        state, nothing = self.state, np.zeros(self.state.steps)
        for threads in self.settings.pace.ways:
            self.compiled.train_steps(
                self.network.model, state.optimizer, self.train, np.arange(self.rows), self.batch_size, 0, 0,
                nothing, self.work, state.losses, state.corrects, threads,
            )  # fmt: skip

    def evaluate(self, source: Source | None) -> tuple[float, float] | tuple[None, None]:
        """(mean loss, accuracy) on a source."""
        if source is None:
            return None, None
        loss, correct = self.network.evaluate_sources([source], self.compiled, self.settings.pace.best)
        return loss / len(source.labels), self.network.accuracy(correct, len(source.labels))


def prepare(
    network: Network,
    train: Data,
    validation: Data | None,
    test: Data | None,
    sample_weight: Any,
    settings: Settings,
    state: TrainingState,
    on_progress: Callable[[Progress], None] | None,
) -> Run:
    """Check and convert everything; fill an empty state, or refuse by ResumeError one of another run."""
    compiled = kernels.load(settings.backend)
    if network.loss == "cross-entropy" and network.outputs == 1:
        raise ValueError(
            "loss 'cross-entropy' of one output is 0 whatever it is: Network(…, loss='binary') chooses between two "
            "classes by one, loss='squared-error' predicts a number; else the last layer needs an output a class"
        )
    if settings.early_stopping is not None and validation is None:
        raise ValueError("early_stopping: it watches validation data, and there is none; give validation=…")
    held = {"training data": hold(network, train, "train")}
    source = held["training data"].source
    rows = len(source.labels)
    if settings.batch_size is None:
        settings.batch_size = min(_BATCH, rows)
    batch_size = rows if isinstance(settings.batch_size, str) else settings.batch_size
    if batch_size > rows:
        raise ValueError(f"batch_size={batch_size}: at most {rows}, the training rows, or 'full' was wanted")
    check_batch_norms(network, rows, batch_size)
    steps = -(-rows // batch_size)
    settings.schedule.rates(settings.optimizer.learning_rate, 0, steps, settings.epochs)  # it may refuse them
    weights = _weights(network, source.labels, sample_weight, settings.class_weight)
    for name, data in (("validation", validation), ("test", test)):
        if data is not None:
            held[f"{name} data"] = hold(network, data, name)
    sources = {name: part.source for name, part in held.items()}
    sources["training data"] = source._replace(weights=network.loss_weights(weights))
    if settings.skip_zeros is not None:
        sources = {name: part._replace(skip_zeros=settings.skip_zeros) for name, part in sources.items()}
    prints = {name: part.fingerprint for name, part in held.items()}
    facts = _facts(network, settings, prints, weights if sample_weight is not None else None)
    if state.started:
        _check_resume(state, facts, settings, steps, network)
        state.settings = facts
    else:
        _start(state, facts, settings, network, steps)
    return Run(
        network, compiled, settings, sources["training data"], sources.get("validation data"),
        sources.get("test data"), batch_size, state,
        compiled.make_workspace(network.plan, batch_size, network.dtype), on_progress,
    )  # fmt: skip


def hold(network: Network, data: Data, name: str) -> Held:
    """Data as `fit` takes them, made ready for networks of this one's shape, classes, dtype and scaling.

    `fit` does so itself; many trainings on the same data do it once. What is held already is only checked:
    ValueError where it was made ready for another kind of network. Else errors as of `fit`; they use `name`.
    """
    kind = {name: getattr(network, name) for name in ("shape", "loss", "outputs", "classes", "dtype", "scaling")}
    if isinstance(data, Held):
        for fact, wanted in kind.items():
            if data.network[fact] != wanted:
                raise ValueError(f"{name}: held for networks of {fact} {data.network[fact]}, this one's is {wanted}")
        return data
    rows, answers = _part(network, data, name)
    source = network.rows_source(rows, answers, None, name)
    return Held(source, fingerprint(source), kind)


def _weights(network: Network, labels: np.ndarray, sample_weight: Any, class_weight: Any) -> np.ndarray:
    """The training rows' weights (N,), scaled to mean 1."""
    if len(network.classes) and not (network.loss == "binary" and network.outputs > 1):
        return combined_weights(labels, network.classes, sample_weight, class_weight, network.dtype)
    if class_weight is not None:
        raise ValueError(
            f"class_weight={class_weight!r}: None was wanted, since a row of loss {network.loss!r} with "
            f"{network.outputs} outputs has no one class; weight rows by sample_weight"
        )
    return mean_one(sample_weight, len(labels), network.dtype)


def _part(network: Network, data: Part | tuple[Any, Any], name: str) -> tuple[np.ndarray, Answers]:
    """Raw rows (N, D) of a Part or of (x, y), and what they should give."""
    if isinstance(data, Part):
        rows = as_rows(data.x, network.shape, name)
        if network.loss != "cross-entropy":
            raise TypeError(
                f"{name}: (x, y) was wanted for a network of loss {network.loss!r}: a Part has class indices"
            )
        answers = Answers(check_indices(data.y, network.classes, len(rows), f"{name}: y"))
    elif isinstance(data, tuple) and len(data) == 2:
        rows = as_rows(data[0], network.shape, f"{name}: x")
        answers = network.answers(data[1], len(rows), f"{name}: y")
    else:
        raise TypeError(f"{name}: a Part or a tuple (x, y) was wanted, not {type(data).__name__}")
    if len(rows) == 0:
        raise DataError(f"{name}: no rows; at least one was wanted")
    return rows, answers


def check_batch_norms(network: Network, rows: int, batch_size: int) -> None:
    """Refuse mini-batches in which a batch norm would see one value, which has no variance."""
    one = batch_size == 1 or rows % batch_size == 1
    for layer, row in zip(network.layers, network.plan, strict=True):
        if one and row[plan.KIND] == plan.BATCH_NORM and row[plan.HEIGHT] * row[plan.WIDTH] == 1:
            better = next((size for size in range(batch_size + 1, rows + 1) if rows % size != 1), None)
            remedy = "train on more rows" if better is None else f"take batch_size={better}"
            which = "a mini-batch" if batch_size == 1 else f"the last mini-batch of {rows} training rows"
            raise ValueError(
                f"batch_size={batch_size}: {which} is one row, of which {layer!r} can take no variance: {remedy}"
            )


def _start(state: TrainingState, facts: dict[str, Any], settings: Settings, network: Network, steps: int) -> None:
    generator = seeds.generator(settings.seed, seeds.ORDER)
    state.settings = facts
    state.optimizer = settings.optimizer.state(network.params, settings.clip_norm, seeds.masks_seed(settings.seed))
    state.losses, state.corrects = np.zeros(steps), np.zeros(steps, np.int64)
    state.mark = Mark(0, 0, dict(generator.bit_generator.state), np.zeros(1))


# ---- what must not change on resume


def _facts(
    network: Network, settings: Settings, fingerprints: Mapping[str, str], weights: np.ndarray | None
) -> dict[str, Any]:
    """What must not change on resume, as plain values for people to read and a file to hold.

    weights (N,) of the training rows, where sample weights were given.
    """
    description = network.describe()
    scaling = "none" if network.scaling is None else network.scaling.kind
    facts: dict[str, Any] = {
        "dtype": network.dtype.name,
        "layers": f"{_inputs(network)} inputs, {list(network.layers)}",
        "loss": network.loss,
        "classes": f"{len(network.classes)} ({checksum([description['classes'].encode()])})",
        "scaling": f"{scaling} ({checksum([description['scaling'].encode()])})",
    }
    for name in ("epochs", "batch_size", "optimizer", "schedule", "seed", "early_stopping"):
        value = getattr(settings, name)
        facts[name] = value if value is None or isinstance(value, (int, str)) else repr(value)
    facts |= {
        "clip_norm": settings.clip_norm,
        "eval_train": settings.eval_train,
        "skip_zeros": settings.skip_zeros,
        "class_weight": repr(_plain(settings.class_weight)),
        "sample_weight": None if weights is None else f"given ({checksum([weights])})",
        "backend": settings.backend,
    }
    for name in ("training data", "validation data", "test data"):
        facts[name] = fingerprints.get(name)
    return facts


def _plain(weights: str | Mapping[Any, float] | None) -> str | dict[Any, float] | None:
    """Class weights with labels and numbers of Python's own, which are written in one way."""
    if weights is None or isinstance(weights, str):
        return weights
    return {
        label.item() if isinstance(label, np.generic) else label: float(weight) for label, weight in weights.items()
    }


def _inputs(network: Network) -> str:
    """How many, or where a layer reads images, their shape."""
    return " x ".join(map(str, network.shape)) if network.plan[0, plan.IMAGE] else str(network.inputs)


def fingerprint(source: Source) -> str:
    """Tells two data sets apart by a checksum over every label and value.

    It is taken at once and not when first needed: the arrays are the caller's, who may change them meanwhile.
    It reads the data once, at 7 GB a second where it was measured: 7 ms for 60,000 images of 28 x 28 bytes.
    """
    rows = source.bytes if len(source.bytes) else source.rows
    size = max(1, _CHECKED_BYTES // max(1, rows[:1].nbytes))
    # by blocks, so that rows which do not lie one behind the other are not copied all at once
    blocks = (np.ascontiguousarray(rows[first : first + size]) for first in range(0, len(rows), size))
    answers = [source.labels, source.targets] if source.targets.size else [source.labels]
    return f"{len(rows)} rows ({checksum(itertools.chain(answers, blocks))})"


def checksum(buffers: Iterable[Any]) -> str:
    """Words that tell contents apart: the CRC-32 of C-contiguous arrays and bytes, one after the other."""
    crc = 0
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    return f"checksum {crc:08x}"


def _compared(text: Any) -> Any:
    """What class weights are compared by: equal ones may be written in another order, or 1 as 1.0."""
    try:
        # states of before hold what was given: {np.int64(0): np.float64(1.0)}
        return ast.literal_eval(re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", text))
    except (TypeError, ValueError, SyntaxError):  # none, or of a kind that has no literal
        return text


def _check_resume(
    state: TrainingState, facts: dict[str, Any], settings: Settings, steps: int, network: Network
) -> None:  # fmt: skip
    for name, new in facts.items():
        old = state.settings.get(name, "cross-entropy" if name == "loss" else None)  # files of before lack the loss
        if new == old or (name == "class_weight" and _compared(new) == _compared(old)):
            continue
        if name != "epochs":
            hint = f"resume with {name} as it was, or start a new run"
        elif settings.schedule.depends_on_epochs:
            hint = f"{settings.schedule!r} depends on it: resume with epochs={old}, or start a new run"
        elif new > state.settings["epochs"]:
            continue
        else:
            hint = f"it may grow, not shrink: resume with epochs={old} or more"
        raise ResumeError(f"resume: {name} was {old} and is now {new}; {hint}")
    assert state.optimizer is not None
    wanted = settings.optimizer.settings(settings.clip_norm, seeds.masks_seed(settings.seed))
    if not np.array_equal(wanted, state.optimizer.settings) or state.steps != steps:
        raise ResumeError("resume: the state's optimizer is another than its settings say; start a new run")
    updates = int(state.optimizer.step[0])
    if updates and network.untrained:
        raise ResumeError(
            f"resume: the state has trained {updates:,} steps, this network's weights are as they were drawn; "
            "give the network that it trained, or both as load_checkpoint returns them"
        )
