"""mlp-128, its regularised forms, mlp-120-84, mlp-50-50 and cnn: accuracy and loss of both sets by epoch."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..datasets import Dataset
from ..layers import Dense
from ..network import Network
from ..optimizers import Adam
from ..scaling import Scaling
from .catalogue import Options, Row
from .report import NOT_STATED, NUMBER, POINTS, Measured, Report, columns, grouped, quick_word, reached
from .side_by_side import Job, Trained, Watch, train_all
from .study import parts

if TYPE_CHECKING:
    from .report import Figures

DROPOUT = 0.2  # of each hidden unit


def _dense(*widths: int) -> Callable[[], list[Any]]:
    return lambda: [*(Dense(width, "relu") for width in widths), Dense(10)]


def _regularised(dropout: bool, normalised: bool) -> Callable[[], list[Any]]:
    def stack() -> list[Any]:
        from ..layers import BatchNorm, Dropout

        hidden: list[Any] = [Dense(128), BatchNorm(activation="relu")] if normalised else [Dense(128, "relu")]
        hidden += [Dropout(DROPOUT)] if dropout else []
        return [*hidden, *hidden, Dense(10)]

    return stack


def _convolutional() -> list[Any]:
    from ..layers import Conv2d, MaxPool2d

    # ReLU before the pool gives what the document's pool before ReLU gives, and costs no layer of its own.
    return [
        Conv2d(10, 5, activation="relu"), MaxPool2d(2), Conv2d(20, 5, activation="relu"), MaxPool2d(2),
        Dense(50, "relu"), Dense(10),
    ]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A row's optimiser, batch size and networks by name, and what is known of their test figures.

    accuracy, loss: as the document claims. least: the accuracy wanted. others: epoch -> test accuracy that an
    independent implementation reached by then.
    """

    learning_rate: float
    batch_size: int
    networks: dict[str, Callable[[], list[Any]]]
    accuracy: str = NOT_STATED
    loss: str = NOT_STATED
    least: float | None = None
    others: Mapping[int, str] = field(default_factory=dict)
    cost: float = 1.0


SETTINGS = {
    "mlp-128": Setting(0.001, 128, {"plain": _dense(128, 128)}, others={10: "97.6 %", 20: "97.7 ± 0.2 %"}),
    "mlp-128-regularised": Setting(
        0.001, 128,
        {
            "plain": _dense(128, 128), "dropout": _regularised(True, False), "batch norm": _regularised(False, True),
            "both": _regularised(True, True),
        },
    ),
    "mlp-120-84": Setting(0.001, 64, {"plain": _dense(120, 84)}, "97 %", "0.1778", 0.97, {10: "97.7 ± 0.1 %"}),
    "mlp-50-50": Setting(0.01, 64, {"plain": _dense(50, 50)}, "96 %", NOT_STATED, 0.96, {10: "96.3 ± 0.2 %"}),
    "cnn": Setting(0.001, 64, {"plain": _convolutional}, "99 %", "0.0341", 0.989, {5: "98.8 %"}, 10.0),
}  # fmt: skip


def run(row: Row, dataset: Dataset, options: Options, watch: Watch | None) -> Report:
    """Train the row's networks with every seed, evaluating both sets after each epoch."""
    began = time.perf_counter()
    setting = SETTINGS[row.name]
    train, test = parts(dataset, options)
    jobs = [
        Job(
            {"network": name, "seed": seed}, functools.partial(_make, dataset, stack, seed), lambda: (train, test),
            options.epochs_of(row), setting.batch_size, Adam(setting.learning_rate), seed, setting.cost, True,
        )
        for name, stack in setting.networks.items() for seed in range(options.seeds)
    ]  # fmt: skip
    trained = train_all(row.name, jobs, options.threads, watch or Watch())
    groups = grouped(trained, "network")
    lines = [line for name, group in groups.items() for line in _lines(name, group, row, options, setting)]
    if len(groups) > 1:
        lines += _effects(groups)
    report = Report(row, options, lines, trained, time.perf_counter() - began, _notes(groups, row))
    report.figures = _figures(groups, row, options)
    return report


def _make(dataset: Dataset, stack: Callable[[], list[Any]], seed: int) -> Network:
    return Network(
        stack(), dataset.shape, classes=dataset.classes, init="pytorch", seed=seed,
        scaling=Scaling.fit("unit", dataset.train.x, dataset.full_scale, True),
    )  # fmt: skip


def _lines(name: str, group: Sequence[Trained], row: Row, options: Options, setting: Setting) -> list[Measured]:
    suffix = "" if name == "plain" and len(setting.networks) == 1 else f", {name}"
    accuracy = tuple(one.final[1] for one in group)
    seconds = tuple(one.seconds for one in group)
    mean = Measured("", accuracy).mean
    told = "" if setting.least is None else reached(options, row, mean, setting.least)
    lines = [
        Measured(f"test accuracy{suffix}", accuracy, setting.accuracy, seconds=seconds, verdict=told),
        Measured(f"test loss{suffix}", tuple(one.final[0] for one in group), setting.loss, NUMBER),
    ]
    if setting.least is None:
        training = tuple(float(one.column("train_accuracy")[-1]) for one in group)
        lines.insert(1, Measured(f"train accuracy{suffix}", training))
    by_epoch = columns(group, "test_accuracy")
    for epoch, told in setting.others.items():
        if epoch <= by_epoch.shape[1] and not options.quick:
            values = tuple(by_epoch[:, epoch - 1].tolist())
            lines.append(Measured(f"test accuracy after {epoch} epochs", values, f"{told} (independent, JAX)"))
    return lines


def _effects(groups: dict[str, list[Trained]]) -> list[Measured]:
    """What each form changes in test accuracy, seed by seed against the plain network of the same seed."""
    plain = [one.final[1] for one in groups["plain"]]
    lines = []
    for name, group in groups.items():
        if name == "plain":
            continue
        gains = tuple(one.final[1] - base for one, base in zip(group, plain, strict=True))
        line = Measured(f"gain in test accuracy by {name}", gains, form=POINTS)
        error = line.deviation / max(len(line.known), 1) ** 0.5
        clear = len(line.known) > 1 and abs(line.mean) > 3 * error
        told = "" if len(line.known) < 2 else f"{'clear' if clear else 'within chance'} (3 standard errors)"
        lines.append(dataclasses.replace(line, verdict=told))
    return lines


def _notes(groups: dict[str, list[Trained]], row: Row) -> list[str]:
    notes = []
    for name, group in groups.items():
        best = columns(group, "test_accuracy").max(axis=1)
        when = columns(group, "test_accuracy").argmax(axis=1) + 1
        line = Measured("", tuple(best.tolist()))
        text = line.text
        which = f"{name}: " if len(groups) > 1 else ""
        epochs = ", ".join(map(str, when))
        notes.append(f"{which}highest test accuracy of any epoch, which flatters: {text} (epoch {epochs})")
    if "log-softmax" in row.network:
        notes.append("log-softmax and its negative log-likelihood are the softmax cross-entropy used here")
    return notes


def _figures(groups: dict[str, list[Trained]], row: Row, options: Options) -> "Figures":
    from . import figures

    title = f"{row.name}: loss and accuracy by epoch{quick_word(options)}"
    values = {
        name: {
            column: columns(group, column)
            for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        }
        for name, group in groups.items()
    }  # fmt: skip
    return {"curves": functools.partial(figures.curves_figure, title, values, row.unit)}
