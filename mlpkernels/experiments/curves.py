"""mlp-128, its regularised forms, mlp-120-84, mlp-50-50 and cnn: accuracy and loss of both sets by epoch."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets import Dataset
from ..layers import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d
from ..network import Network
from ..optimizers import Adam
from ..scaling import Scaling
from .catalogue import Options, Row
from .report import NOT_STATED, NUMBER, POINTS, Measured, Report, columns, finished, grouped, quick_word, reached, times
from .side_by_side import Job, Trained, Watch, train_all
from .study import parts

if TYPE_CHECKING:
    from .report import Figures

DROPOUT = 0.2  # of each hidden unit
# Student's t that 99 % stay below on both sides, of 1, 2, … degrees of freedom; the last serves for more.
_STUDENT = (63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)


def _dense(*widths: int) -> Callable[[], list[Any]]:
    return lambda: [*(Dense(width, "relu") for width in widths), Dense(10)]


def _regularised(dropout: bool, normalised: bool) -> Callable[[], list[Any]]:
    def stack() -> list[Any]:
        hidden: list[Any] = [Dense(128), BatchNorm(activation="relu")] if normalised else [Dense(128, "relu")]
        hidden += [Dropout(DROPOUT)] if dropout else []
        return [*hidden, *hidden, Dense(10)]

    return stack


def _convolutional() -> list[Any]:
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
    "mlp-128": Setting(0.001, 128, {"784-128-128-10": _dense(128, 128)}, others={10: "97.6 %", 20: "97.7 ± 0.2 %"}),
    "mlp-128-regularised": Setting(
        0.001, 128,
        {
            "plain": _dense(128, 128), "dropout": _regularised(True, False), "batch norm": _regularised(False, True),
            "both": _regularised(True, True),
        },
    ),
    "mlp-120-84": Setting(0.001, 64, {"784-120-84-10": _dense(120, 84)}, "97 %", "0.1778", 0.97, {10: "97.7 ± 0.1 %"}),
    "mlp-50-50": Setting(0.01, 64, {"784-50-50-10": _dense(50, 50)}, "96 %", NOT_STATED, 0.96, {10: "96.3 ± 0.2 %"}),
    "cnn": Setting(0.001, 64, {"cnn": _convolutional}, "99 %", "0.0341", 0.989, {5: "98.8 %"}, 10.0),
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
    if len(groups) == 1 and trained[0].diverged is None:
        report.model = trained[0].network
    return report


def _make(dataset: Dataset, stack: Callable[[], list[Any]], seed: int) -> Network:
    return Network(
        stack(), dataset.shape, classes=dataset.classes, init="pytorch", seed=seed,
        scaling=Scaling.fit("unit", dataset.train.x, dataset.full_scale, True),
    )  # fmt: skip


def _lines(name: str, group: Sequence[Trained], row: Row, options: Options, setting: Setting) -> list[Measured]:
    suffix = "" if len(setting.networks) == 1 else f", {name}"
    accuracy = tuple(one.final[1] for one in group)
    mean = Measured("", accuracy).mean
    by_epoch = columns(group, "test_accuracy")
    told = "" if setting.least is None else reached(options, row, mean, setting.least)
    if told and setting.least is not None and mean < setting.least:
        told += _earlier(columns(finished(group), "test_accuracy"), setting.least)
    lines = [
        Measured(f"test accuracy{suffix}", accuracy, setting.accuracy, seconds=times(group), verdict=told),
        Measured(f"test loss{suffix}", tuple(one.final[0] for one in group), setting.loss, NUMBER),
    ]
    if setting.least is None:
        training = tuple(float(one.column("train_accuracy")[-1]) for one in group)
        lines.insert(1, Measured(f"train accuracy{suffix}", training))
    for epoch, told in setting.others.items():
        if epoch <= by_epoch.shape[1] and not options.quick:
            values = tuple(by_epoch[:, epoch - 1].tolist())
            lines.append(Measured(f"test accuracy after {epoch} epochs", values, f"{told} (independent, JAX)"))
    return lines


def _earlier(accuracy: np.ndarray, least: float) -> str:
    """For a verdict: the earlier epoch, if there is one, after which the networks' mean was at least `least`.

    accuracy: by network and epoch (networks, epochs), of those that did not diverge, as the final mean is theirs.
    """
    means = accuracy[:, :-1].mean(axis=0)
    if not (means >= least).any():
        return ""
    epoch = int(means.argmax())
    return f"; {100 * means[epoch]:.2f} % after {epoch + 1} epochs, chosen by the test images"


def _effects(groups: dict[str, list[Trained]]) -> list[Measured]:
    """What each form changes in test accuracy, seed by seed against the plain network of the same seed."""
    plain = [one.final[1] for one in groups["plain"]]
    lines = []
    for name, group in groups.items():
        if name == "plain":
            continue
        gains = tuple(one.final[1] - base for one, base in zip(group, plain, strict=True))
        line = Measured(f"gain in test accuracy by {name}", gains, form=POINTS)
        lines.append(dataclasses.replace(line, verdict=_beyond_chance(line)))
    return lines


def _beyond_chance(gain: Measured) -> str:
    """Whether a mean gain is more than chance, by Student's t test of the pairs; nothing for a single seed."""
    pairs = len(gain.known)
    if pairs < 2:
        return ""
    quantile = _STUDENT[min(pairs - 1, len(_STUDENT)) - 1]
    clear = abs(gain.mean) > quantile * gain.deviation / pairs**0.5
    return f"{'clear' if clear else 'may be chance'} (t test, 99 %)"


def _notes(groups: dict[str, list[Trained]], row: Row) -> list[str]:
    notes = []
    for name, group in groups.items():
        if not (done := finished(group)):
            continue
        accuracy = columns(done, "test_accuracy")
        text = Measured("", tuple(accuracy.max(axis=1).tolist())).text
        which = f"{name}: " if len(groups) > 1 else ""
        epochs = ", ".join(map(str, accuracy.argmax(axis=1) + 1))
        notes.append(f"{which}highest test accuracy of any epoch, which flatters: {text} (epoch {epochs})")
    if "log-softmax" in row.network:
        notes.append("log-softmax and its negative log-likelihood are the softmax cross-entropy used here")
    return notes


def _figures(groups: dict[str, list[Trained]], row: Row, options: Options) -> "Figures":
    from ..gallery import filters_figure
    from . import figures

    title = f"{row.name}: loss and accuracy by epoch{quick_word(options)}"
    values = {
        name: {
            column: columns(group, column)
            for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        }
        for name, group in groups.items()
    }  # fmt: skip
    drawn: Figures = {"curves": functools.partial(figures.curves_figure, title, values, row.unit)}
    first = next(iter(groups.values()))[0]
    if first.diverged is None and isinstance(first.network.layers[0], Conv2d):
        weights = next(iter(first.network.parameters().values()))
        title = f"{row.name}: filters, seed {first.job.seed}{quick_word(options)}"
        drawn["filters"] = functools.partial(filters_figure, weights, title=title)
    return drawn
