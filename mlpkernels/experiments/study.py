"""mlp-64: the study of batch sizes, test accuracy after every epoch, with SGD 0.1 on pixels in [-1, 1]."""

import dataclasses
import functools
import math
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..datasets import Dataset, Part
from ..layers import Dense
from ..network import Network
from ..optimizers import SGD
from ..scaling import Scaling
from .catalogue import QUICK_ROWS, Options, Row
from .initial import pytorch_biases
from .report import Measured, Report, columns, grouped, quick_word, times
from .side_by_side import Job, Trained, Watch, train_all

if TYPE_CHECKING:
    from .report import Figures


class Claim(NamedTuple):
    """The document's accuracy and seconds an epoch, and an independent implementation's accuracy of four seeds."""

    accuracy: float
    seconds: float
    other_mean: float
    other_deviation: float


CLAIMS = {
    8: Claim(0.9148, 14.5, 0.84, 0.19),
    16: Claim(0.9400, 7.7, 0.952, 0.011),
    32: Claim(0.9682, 5.1, 0.969, 0.002),
    48: Claim(0.9701, 3.7, 0.970, 0.003),
    64: Claim(0.9693, 3.0, 0.972, 0.001),
    90: Claim(0.9745, 2.4, 0.972, 0.002),
    128: Claim(0.9711, 1.9, 0.973, 0.002),
    150: Claim(0.9696, 1.8, 0.971, 0.002),
}
HEADLINE = 0.9764
COLLAPSED = 0.8  # a seed below it has collapsed: large steps have switched units off
_OTHER_SEEDS, _MOST = 4, 0.015  # of the independent implementation; the largest difference of means


def run(row: Row, dataset: Dataset, options: Options, watch: Watch | None) -> Report:
    """The whole study: every batch size with every seed."""
    began = time.perf_counter()
    epochs = options.epochs_of(row)
    train, test = parts(dataset, options)
    jobs = [
        Job(
            {"batch_size": batch, "seed": seed}, functools.partial(make, dataset, seed), lambda: (train, test),
            epochs, batch, SGD(0.1), seed, cost=1 + 40 / batch,
        )
        for batch in CLAIMS for seed in range(options.seeds)
    ]  # fmt: skip
    trained = train_all(row.name, jobs, options.threads, watch or Watch())
    groups = grouped(trained, "batch_size")
    compared = not options.quick and epochs == row.epochs
    lines = [_line(batch, group, epochs, compared) for batch, group in groups.items()]
    best = tuple(
        float(np.nanmax([one.column("test_accuracy") for one in trained if one.job.seed == seed], initial=0.0))
        for seed in range(options.seeds)
    )
    lines.append(Measured("best of all batches and epochs", best, f"{100 * HEADLINE:.2f} % (headline)"))
    report = Report(row, options, lines, trained, time.perf_counter() - began, _notes(groups))
    report.figures = _figures(groups, options)
    report.extra = {"independent": {str(batch): list(claim[2:]) for batch, claim in CLAIMS.items()}}
    return report


def make(dataset: Dataset, seed: int) -> Network:
    """784-64-64-10, untrained: Glorot-uniform weights, PyTorch's default biases, pixels in [-1, 1]."""
    network = Network(
        [Dense(64, "relu"), Dense(64, "relu"), Dense(10)], dataset.shape, classes=dataset.classes,
        init="glorot-uniform", seed=seed, scaling=Scaling.fit("symmetric", dataset.train.x, dataset.full_scale, True),
    )  # fmt: skip
    pytorch_biases(network, seed)
    return network


def parts(dataset: Dataset, options: Options) -> tuple[Part, Part]:
    """The training part, its first rows in a quick run, and the test part."""
    assert dataset.test is not None
    train = dataset.train
    if options.quick:
        train = Part(train.x[:QUICK_ROWS], train.y[:QUICK_ROWS])
    return train, dataset.test


def _line(batch: int, group: list[Trained], epochs: int, compared: bool) -> Measured:
    claim = CLAIMS[batch]
    told = "14 to 15" if batch == min(CLAIMS) else f"{claim.seconds:.1f}"
    values = tuple(one.final[1] for one in group)
    line = Measured(
        f"test accuracy, batch {batch}", values, f"{100 * claim.accuracy:.2f} %, {told} s an epoch",
        seconds=times(group), per=("an epoch", epochs),
    )  # fmt: skip
    return dataclasses.replace(line, verdict=verdict(batch, line)) if compared else line


def verdict(batch: int, line: Measured) -> str:
    """How a batch size's mean compares with the independent implementation's, by both samples' spread."""
    claim = CLAIMS[batch]
    low = [value for value in line.values if not value >= COLLAPSED]
    if batch == min(CLAIMS):
        return f"every seed: see below; {len(low)} of {len(line.values)} collapsed"
    if math.isnan(line.deviation):
        return "two seeds or more are needed to compare"
    allowed = allowance(line, claim)
    off = abs(line.mean - claim.other_mean)
    text = "agrees with" if off <= allowed else "differs from"
    return (
        f"{text} {100 * claim.other_mean:.1f} ± {100 * claim.other_deviation:.1f} %: "
        f"{100 * off:.2f} of {100 * allowed:.2f} points"
    )


def allowance(line: Measured, claim: Claim) -> float:
    """How far two means may lie apart: three standard errors of their difference, and never 1.5 points."""
    error = math.sqrt(line.deviation**2 / len(line.known) + claim.other_deviation**2 / _OTHER_SEEDS)
    return min(3 * error, _MOST)


def _notes(groups: dict[int, list[Trained]]) -> list[str]:
    smallest = min(groups)
    values = [one.final[1] for one in groups[smallest]]
    shown = ", ".join("diverged" if math.isnan(value) else f"{100 * value:.2f} %" for value in values)
    low = {
        batch: sum(not one.final[1] >= COLLAPSED for one in group) for batch, group in groups.items()
    }  # NaN counts as collapsed
    counted = ", ".join(f"{count} of {len(groups[batch])} at batch {batch}" for batch, count in low.items() if count)
    return [
        f"batch {smallest}, every seed: {shown}",
        f"collapsed (below {100 * COLLAPSED:.0f} %; in the means, unless training diverged): {counted or 'none'}; "
        "the steps of 0.1 on pixels in [-1, 1] are too long for small batches, as in the document",
        "compared with an independent implementation (JAX, four seeds): allowed are three standard errors of the "
        "difference of the means, at most 1.5 points; the document's figures are one run each",
        "the best of all batches and epochs is chosen by the test images, so it flatters, here as in the document",
    ]


def _figures(groups: dict[int, list[Trained]], options: Options) -> "Figures":
    from . import figures

    word = quick_word(options)
    accuracy = {batch: columns(group, "test_accuracy") for batch, group in groups.items()}
    seconds = {batch: np.array(times(group)) / group[0].job.epochs for batch, group in groups.items()}
    claimed = {batch: claim.accuracy for batch, claim in CLAIMS.items()}
    other = {batch: (claim.other_mean, claim.other_deviation) for batch, claim in CLAIMS.items()}
    theirs = {batch: claim.seconds for batch, claim in CLAIMS.items()}
    return {
        "accuracy-by-epoch": functools.partial(
            figures.by_epoch_figure, f"mlp-64: test accuracy by epoch and batch size{word}", accuracy, "batch"
        ),
        "accuracy-by-batch": functools.partial(
            figures.final_figure, f"mlp-64: final test accuracy by batch size{word}", accuracy, claimed, other
        ),
        "accuracy-heat-map": functools.partial(
            figures.heat_figure, f"mlp-64: test accuracy by batch size and epoch{word}", accuracy, "batch size"
        ),
        "seconds-by-batch": functools.partial(
            figures.seconds_figure, f"mlp-64: seconds an epoch by batch size{word}", seconds, theirs
        ),
    }
