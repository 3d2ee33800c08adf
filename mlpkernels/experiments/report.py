"""What a row reports: claimed beside measured with its spread, settings that are ours, figures and histories."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..network import Network
from ..state import HISTORY_COLUMNS
from .catalogue import QUICK_ROWS, Options, Row, find
from .side_by_side import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Figures = dict[str, Callable[[], Figure]]

PERCENT, POINTS, NUMBER = "percent", "points", "number"
_FORMS = {PERCENT: (100, ".2f", " %"), POINTS: (100, "+.2f", " points"), NUMBER: (1, ".4f", "")}
NOT_STATED = "not stated"
QUICK = " (quick)"
HEADER = ("experiment", "what", "claimed", "measured", "n", "training time", "verdict")


@dataclass(frozen=True)
class Measured:
    """One line of a table: values (one a network, NaN where it diverged) beside what was claimed.

    form: how the values are written, PERCENT, POINTS (of percent, with a sign) or NUMBER. claimed: as the document has
    it. seconds: the networks' `times`; per is what they are divided by and called, `("an epoch", 15)`. races: the time
    is the median with the least and the most, not the mean.
    """

    what: str
    values: tuple[float, ...]
    claimed: str = NOT_STATED
    form: str = PERCENT
    seconds: tuple[float, ...] = ()
    per: tuple[str, int] = ("", 1)
    verdict: str = ""
    races: bool = False

    @property
    def known(self) -> tuple[float, ...]:
        """The values of the networks that did not diverge."""
        return tuple(value for value in self.values if math.isfinite(value))

    @property
    def mean(self) -> float:
        return float(np.mean(self.known)) if self.known else math.nan

    @property
    def deviation(self) -> float:
        """The sample's standard deviation; NaN of fewer than two values."""
        return float(np.std(self.known, ddof=1)) if len(self.known) > 1 else math.nan

    @property
    def text(self) -> str:
        """Mean ± standard deviation."""
        if not self.known:
            return "diverged" if self.values else ""
        return spread(self.mean, self.deviation, self.form)

    @property
    def time(self) -> str:
        """The mean time of training, or the median (least…most); nothing where all networks diverged."""
        if not self.seconds:
            return ""
        if self.races and len(self.seconds) > 1:
            return f"{np.median(self.seconds):.3g} s ({min(self.seconds):.3g}…{max(self.seconds):.3g})"
        word, count = self.per
        mean = float(np.mean(self.seconds)) / count
        return f"{mean:.3g} s {word}".strip() if mean < 100 else f"{mean:.0f} s {word}".strip()

    def cells(self, name: str) -> tuple[str, ...]:
        """A line of the table."""
        count = str(len(self.values)) if self.values else ""
        if len(self.known) < len(self.values):
            count += f" ({len(self.values) - len(self.known)} diverged)"
        return name, self.what, self.claimed, self.text, count, self.time, self.verdict

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for NaN."""
        return {
            "what": self.what, "claimed": self.claimed, "mean": plain(self.mean), "sd": plain(self.deviation),
            "values": [plain(value) for value in self.values], "seconds": list(self.seconds), "verdict": self.verdict,
        }  # fmt: skip


def spread(mean: float, deviation: float, form: str = PERCENT) -> str:
    """Mean ± standard deviation in a form; the mean alone where there is no deviation."""
    factor, pattern, unit = _FORMS[form]
    text = f"{factor * mean:{pattern}}"
    return text + ("" if math.isnan(deviation) else f" ± {factor * deviation:{pattern.lstrip('+')}}") + unit


def plain(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None


@dataclass
class Report:
    """All that a row gives.

    figures: name -> a function that draws it; files: name -> content of another file; model: a network to keep, the
    one of seed 0.
    """

    row: Row
    options: Options
    lines: list[Measured]
    trained: Sequence[Trained]
    seconds: float
    notes: list[str] = field(default_factory=list)
    figures: "Figures" = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    model: Network | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The row's name, followed by "(quick)" where it was a quick run."""
        return self.row.name + quick_word(self.options)

    @property
    def settings(self) -> str:
        """What was trained, in a line."""
        epochs, seeds = self.options.epochs_of(self.row), self.options.seeds
        text = f"{self.row.network}; {self.row.training}; here {self.row.length(epochs)}, "
        text += f"seeds 0 to {seeds - 1}" if seeds > 1 else "seed 0"
        return text + (f", the first {QUICK_ROWS:,} training images" if self.options.quick else "")

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The table's lines."""
        return [line.cells(self.name) for line in self.lines]

    def remarks(self) -> list[str]:
        """Sentences below the table: what departs from the document, what is ours, what else was seen."""
        epochs, document = self.options.epochs_of(self.row), self.row.epochs
        texts = []
        if self.options.quick:
            texts.append(f"quick: {epochs} instead of {self.row.length(document)}, few images: it runs, no more")
        elif epochs != document:
            texts.append(f"{epochs} instead of {self.row.length(document)}: not what was claimed")
        texts += [f"ours: {'; '.join(self.row.ours)}", *self.notes]
        if self.model is not None:
            file = f"{'quick-' if self.options.quick else ''}{self.row.name}-model.safetensors"
            texts.append(f"{file}: the network of seed 0, for mlpk info, eval and predict")
        return texts

    def to_json(self) -> dict[str, Any]:
        """Everything but figures and histories, as plain values."""
        return {
            "experiment": self.row.name, "quick": self.options.quick, "seeds": self.options.seeds,
            "epochs": self.options.epochs_of(self.row), "network": self.row.network, "training": self.row.training,
            "claim": self.row.claim, "ours": list(self.row.ours), "notes": self.notes, "wall_seconds": self.seconds,
            "settings": self.settings, "remarks": self.remarks(), "cells": self.cells,
            "lines": [line.to_json() for line in self.lines],
            "diverged": [{**one.job.labels, "at": one.diverged} for one in self.trained if one.diverged], **self.extra,
        }  # fmt: skip

    def history(self) -> bytes:
        """One row a network and epoch: what tells the networks apart, then the columns of a run's history.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["experiment", "quick", *self.trained[0].job.labels, *HISTORY_COLUMNS])
        for one in self.trained:
            labels = [self.row.name, str(self.options.quick).lower(), *one.job.labels.values()]
            for result in one.history:
                values = (getattr(result, name) for name in HISTORY_COLUMNS)
                writer.writerow([*labels, *("" if value is None else value for value in values)])
        return text.getvalue().encode()


@dataclass(frozen=True)
class Kept:
    """A row that an earlier run finished, as `Report.to_json` told of it: enough for the table and metrics of all.

    KeyError or TypeError where `content` is something else.
    """

    content: Mapping[str, Any]

    def __post_init__(self) -> None:
        markdown([self], {})  # what is missing or of another kind shows here

    @property
    def row(self) -> Row:
        """The row."""
        return find(self.content["experiment"])

    @property
    def name(self) -> str:
        """The row's name, followed by "(quick)" where it was a quick run."""
        return self.row.name + QUICK * self.content["quick"]

    @property
    def settings(self) -> str:
        """What was trained, in a line."""
        return str(self.content["settings"])

    @property
    def seconds(self) -> float:
        """Seconds it took."""
        return float(self.content["wall_seconds"])

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The table's lines."""
        return [tuple(map(str, cells)) for cells in self.content["cells"]]

    def remarks(self) -> list[str]:
        """Sentences below the table."""
        return [str(text) for text in self.content["remarks"]]

    def to_json(self) -> dict[str, Any]:
        """The content as it was."""
        return dict(self.content)


def quick_word(options: Options) -> str:
    """What the title of a quick run ends in."""
    return QUICK if options.quick else ""


def grouped(trained: Iterable[Trained], label: str) -> dict[Any, list[Trained]]:
    """Networks by one of their labels, in the order in which its values come."""
    groups: dict[Any, list[Trained]] = {}
    for one in trained:
        groups.setdefault(one.job.labels[label], []).append(one)
    return groups


def finished(trained: Iterable[Trained]) -> list[Trained]:
    """The networks that did not diverge."""
    return [one for one in trained if one.diverged is None]


def times(trained: Iterable[Trained]) -> tuple[float, ...]:
    """Seconds of training, one a network that did not diverge: of the others there are those of a few epochs."""
    return tuple(one.seconds for one in finished(trained))


def columns(trained: Sequence[Trained], name: str) -> np.ndarray:
    """One figure by network and epoch (networks, epochs); NaN after a divergence."""
    return np.stack([one.column(name) for one in trained])


def reached(options: Options, row: Row, mean: float, wanted: float) -> str:
    """The verdict on a claim that an accuracy is at least `wanted`; nothing for another run than the document's."""
    if options.quick or options.epochs_of(row) != row.epochs or not math.isfinite(mean):
        return ""
    return f"at least {100 * wanted:g} %: {'yes' if mean >= wanted else 'no'}"


def markdown(reports: Sequence[Report | Kept], facts: Mapping[str, str]) -> str:
    """The Markdown file of these rows: the table, then settings and remarks; `facts` tells date and machine."""
    word = QUICK if reports[0].name.endswith(QUICK) else ""
    lines = [f"# Experiments reproduced{word}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", _markdown_line(HEADER), _markdown_line(["---"] * len(HEADER))]
    lines += [_markdown_line(cells) for report in reports for cells in report.cells]
    lines += [
        "",
        "Mean ± standard deviation over n networks of different seeds. Training time is one network's",
    ]
    lines += ["mean, on one core beside the others, without evaluation" + _alone(reports) + "."]
    for report in reports:
        lines += ["", f"## {report.name}", "", f"{report.settings}. All together {report.seconds:.0f} s.", ""]
        lines += [f"Claimed: {report.row.claim}.", "", *(f"- {remark}" for remark in report.remarks())]
    return "\n".join(lines) + "\n"


def _alone(reports: Sequence[Report | Kept]) -> str:
    """What the rows whose networks train alone have for a time."""
    names = [report.row.name for report in reports if report.row.alone]
    return f"; of {', '.join(names)} the median (least…most) of networks trained one after another" if names else ""


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
