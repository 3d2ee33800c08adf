"""numpy-gd: four networks by full-batch gradient descent on the rows of a CSV, shuffled and split 80/20."""

import csv
import functools
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import seeds
from ..datasets import Dataset, Part, load, read_inputs
from ..datasets.csvfile import read_header
from ..datasets.csvwriting import drawn
from ..errors import DataError
from ..layers import Dense
from ..network import Network
from ..optimizers import SGD
from ..scaling import Scaling
from .catalogue import QUICK_ROWS, Options, Row
from .initial import fan_out_normal
from .report import Measured, Report, columns, finished, grouped, quick_word, times
from .side_by_side import Job, Trained, Watch, train_all

if TYPE_CHECKING:
    from .report import Figures

ROWS, SEED = 42_000, 0  # of the CSV that is made where none is given: `mlpk data csv mnist`
PIXELS = tuple(f"pixel{k}" for k in range(784))
NETWORKS = {
    (256, 128, 64): (0.920, 0.928),
    (128, 32): (0.903, 0.908),
    (128,): (0.907, 0.909),
    (32,): (0.840, 0.841),
}  # hidden widths -> test and train accuracy as reported
LEARNING_RATE, TEST_SHARE = 0.1, 0.2
_MOST = 0.015  # the difference from the document's accuracy that still is "the same"
_SHOWN = 16  # validation images with their predictions


@dataclass(frozen=True)
class Table:
    """The rows of the CSV, those to predict, and where each came from."""

    labelled: Part
    classes: tuple[int | str, ...]
    unlabelled: np.ndarray
    source: str
    unlabelled_source: str


def run(row: Row, dataset: Dataset, options: Options, watch: Watch | None) -> Report:
    """Train the four networks with every seed; predict what has no label with the first that did not diverge."""
    began = time.perf_counter()
    watch = watch or Watch()
    table = read(dataset, options, watch)
    iterations = options.epochs_of(row)
    jobs = [
        Job(
            {"network": name(hidden), "seed": seed}, functools.partial(_make, table, hidden, seed),
            functools.partial(split, table.labelled, seed), iterations, "full", SGD(LEARNING_RATE), seed,
            cost=sum(a * b for a, b in zip((784, *hidden), (*hidden, 10), strict=True)),
        )
        for hidden in NETWORKS for seed in range(options.seeds)
    ]  # fmt: skip
    trained = train_all(row.name, jobs, options.threads, watch)
    groups = grouped(trained, "network")
    whole = options.csv is None and not options.quick and iterations == row.epochs
    lines = [line for hidden in NETWORKS for line in _lines(hidden, groups[name(hidden)], table, whole)]
    first = next(iter(finished(trained)), None)
    report = Report(row, options, lines, trained, time.perf_counter() - began, _notes(table, first))
    report.figures = _figures(groups, first, dataset, table, options)
    if first is not None:
        report.files = {"predictions.csv": predictions(first.network, table.unlabelled)}
    return report


def name(hidden: Sequence[int]) -> str:
    """A network by its widths, 784-128-10."""
    return "-".join(map(str, (784, *hidden, 10)))


def read(dataset: Dataset, options: Options, watch: Watch) -> Table:
    """The rows to train on and to predict: --csv and --unlabelled, or those drawn from MNIST's 70,000 by seed 0.

    Raises DataError where a CSV does not have the columns label,pixel0,…,pixel783.
    """
    chosen, others = drawn(dataset, ROWS, SEED)
    unlabelled, told = others.x, f"the {len(others):,} MNIST images that were not drawn"
    if options.csv is None:
        labelled, classes = chosen, dataset.classes
        source = f"{ROWS:,} of MNIST's 70,000 images, drawn by seed {SEED}"
    else:
        watch.say(f"reading {options.csv}")
        found = _read_csv(options.csv)
        labelled, classes, source = found.train, found.classes, f"{options.csv}, {len(found.train):,} rows"
    if options.unlabelled is not None:
        watch.say(f"reading {options.unlabelled}")
        told = str(options.unlabelled)
        unlabelled = read_inputs([options.unlabelled], (1, 28, 28), 255.0)[0]
    if options.quick:
        source = f"the first {QUICK_ROWS:,} of {source}"
        labelled = Part(labelled.x[:QUICK_ROWS], labelled.y[:QUICK_ROWS])
    return Table(labelled, classes, unlabelled, source, told)


def check_columns(options: Options) -> None:
    """Refuse, by a look at their headers, CSV files without the columns wanted: DataError names the file."""
    if options.csv is not None:
        _check_header("--csv", options.csv, ("label", *PIXELS), "label,pixel0,…,pixel783")
    if options.unlabelled is not None:
        _check_header("--unlabelled", options.unlabelled, PIXELS, "pixel0,…,pixel783")


def _check_header(option: str, path: Path, columns: Sequence[str], wanted: str) -> None:
    names = read_header(path).names
    if names != tuple(columns):
        place = next((k for k, (a, b) in enumerate(zip(names, columns, strict=False)) if a != b), None)
        why = f"{len(names):,} columns" if place is None else f"column {place + 1} is '{names[place][:40]}'"
        raise DataError(f"{option} {path}: {why}; the columns {wanted} were wanted, as mlpk data csv mnist writes them")


def _read_csv(path: Path) -> Dataset:
    found = load(path, label_column="label")
    if found.train.x.dtype != np.uint8:
        raise DataError(f"--csv {path}: pixels that are no whole numbers; 0 to 255, as MNIST has them, were wanted")
    if len(found.classes) != 10:
        raise DataError(f"--csv {path}: {len(found.classes)} different labels; the ten digits were wanted")
    return found


def split(part: Part, seed: int) -> tuple[Part, Part]:
    """The rows shuffled by `seed`, then cut: the first 80 % to train on, the others to test."""
    key = (seeds.ORDER, 1)  # a stream of its own
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
    order = generator.permutation(len(part))
    cut = len(part) - round(TEST_SHARE * len(part))
    return Part(part.x[order[:cut]], part.y[order[:cut]]), Part(part.x[order[cut:]], part.y[order[cut:]])


def _make(table: Table, hidden: Sequence[int], seed: int) -> Network:
    """The untrained network: weights and biases N(0, 1) · √(1 / fan_out), pixels / 255."""
    network = Network(
        [*(Dense(width, "relu") for width in hidden), Dense(10)], (1, 28, 28), classes=table.classes,
        scaling=Scaling.fit("unit", table.labelled.x, 255.0, True),
    )  # fmt: skip
    fan_out_normal(network, seed)
    return network


def _lines(hidden: Sequence[int], group: Sequence[Trained], table: Table, whole: bool) -> list[Measured]:
    tested, trained_to = NETWORKS[tuple(hidden)]
    test = Measured(
        f"test accuracy, {name(hidden)}", tuple(one.final[1] for one in group), f"{100 * tested:.1f} %",
        seconds=times(group),
    )  # fmt: skip
    if whole and test.known:
        off = abs(test.mean - tested)
        told = f"within 1.5 points: {'yes' if off <= _MOST else 'no'} ({100 * off:.2f})"
        test = Measured(test.what, test.values, test.claimed, seconds=test.seconds, verdict=told)
    last = tuple(float(one.column("train_accuracy")[-1]) for one in group)
    return [test, Measured(f"train accuracy, {name(hidden)}", last, f"{100 * trained_to:.1f} %")]


def _whose(first: Trained) -> str:
    return f"{first.job.labels['network']}, seed {first.job.seed}"


def _notes(table: Table, first: Trained | None) -> list[str]:
    train, test = (len(part) for part in split(table.labelled, 0))
    told = "predictions.csv: not written, since every network diverged"
    if first is not None:
        told = (
            f"predictions.csv: {len(table.unlabelled):,} rows ({table.unlabelled_source}), by {_whose(first)}; "
            "imageId counts from 1"
        )
    return [
        f"rows: {table.source}; split into {train:,} to train and {test:,} to test, without regard to the classes",
        "training figures of an iteration are those of its forward pass, before its update, as the document has them",
        told,
    ]


def predictions(network: Network, x: np.ndarray) -> bytes:
    """The file `imageId,Predictions`: a row of x a line, counted from 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["imageId", "Predictions"])
    writer.writerows(enumerate(network.predict(x).tolist(), start=1))
    return text.getvalue().encode()


def _figures(
    groups: dict[str, list[Trained]], first: Trained | None, dataset: Dataset, table: Table, options: Options
) -> "Figures":  # fmt: skip
    from . import figures, pictures

    word = quick_word(options)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    values = {network: {column: columns(group, column) for column in names} for network, group in groups.items()}
    title = f"numpy-gd: loss and accuracy by iteration{word}"
    drawn: Figures = {"loss-and-accuracy": functools.partial(figures.curves_figure, title, values, "iteration")}
    if first is not None:
        held = split(table.labelled, first.job.seed)[1]
        shown = Part(held.x[:_SHOWN], held.y[:_SHOWN])
        title = f"numpy-gd: {len(shown)} validation images and predictions{word}"
        drawn["predictions"] = functools.partial(
            pictures.predictions_figure, title, shown, first.network, _whose(first)
        )
    return drawn
