"""A sweep's results.csv: a row a network and epoch; read back, with the repeats over seeds put together."""

import csv
import functools
import io
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import DataError
from .state import HISTORY_COLUMNS, EpochResult

REPEATS = ("seed", "split-seed", "split_seed")  # options that only repeat a setting
DONE = ("finished", "stopped early", "diverged")  # the status of a network's last row
_STATUSES = ("training", *DONE)

Value = int | float | str

# ---- writing


def text(value: Any) -> str:
    """A setting's value in results.csv and in figures: numbers in full precision, 64,64 for a list of widths."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    return str(value.item() if hasattr(value, "item") else value)


def header(options: Iterable[str]) -> str:
    """The first line of results.csv: the swept options, the status, the columns of history.csv."""
    return _csv([*options, "status", *HISTORY_COLUMNS])


def line(settings: Iterable[Any], status: str, epoch: int, result: EpochResult | None) -> str:
    """A row of results.csv. `settings` are the options' values in the header's order; result None: diverged."""
    figures: list[Any] = [epoch, *[None] * (len(HISTORY_COLUMNS) - 1)]
    if result is not None:
        figures = [getattr(result, name) for name in HISTORY_COLUMNS]
    return _csv([*map(text, settings), status, *("" if figure is None else text(figure) for figure in figures)])


def _csv(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(list(cells))
    return buffer.getvalue()


# ---- reading


@dataclass(frozen=True)
class Swept:
    """One network of a sweep: its settings as texts, its epochs' figures (None: a cell left empty), its status.

    diverged_at: the epoch in which it diverged, or None.
    """

    settings: dict[str, str]
    epochs: list[dict[str, float | None]]
    status: str
    diverged_at: int | None

    @property
    def done(self) -> bool:
        """Whether it was trained to its end, be it that it diverged."""
        return self.status in DONE

    def kept(self, best: bool) -> dict[str, float | None]:
        """The figures of the network's weights: of the last epoch, or with `best` of the lowest validation loss."""
        watched = [row for row in self.epochs if row["val_loss"] is not None] if best else []
        return min(watched, key=lambda row: _or_inf(row["val_loss"])) if watched else self.epochs[-1]


def _or_inf(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


@dataclass(frozen=True)
class Results:
    """A results.csv: the swept options and the networks, in the order in which their first rows came.

    lines: (the network's settings, the line) of every row as it stands in the file.
    """

    options: tuple[str, ...]
    networks: list[Swept]
    lines: list[tuple[tuple[str, ...], str]]

    @property
    def repeats(self) -> tuple[str, ...]:
        """The options that only repeat a setting: the seeds."""
        return tuple(name for name in self.options if name in REPEATS)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The options between whose values a user chooses: all but the seeds."""
        return tuple(name for name in self.options if name not in REPEATS)

    @property
    def measure(self) -> str:
        """The accuracy by which networks compare: on validation data where all have some, else on test data."""
        rows = [row for network in self.networks for row in network.epochs]
        for name in ("val_accuracy", "test_accuracy"):
            if rows and all(row[name] is not None for row in rows):
                return name
        return "train_accuracy"

    def values(self, option: str) -> list[Value]:
        """The values of an option that occur, in order: numbers as numbers, texts as texts by what is in them."""
        return ordered(value(network.settings[option]) for network in self.networks)


def value(cell: str) -> Value:
    """A cell as a number where it is one, else as its text."""
    for kind in (int, float):
        try:
            number: int | float = kind(cell)
        except ValueError:
            continue
        if math.isfinite(number) and not re.search(r"[_\s]", cell):
            return number
    return cell


def ordered(values: Iterable[Value]) -> list[Value]:
    """Different values, in order: numbers by size, then texts by what is in them."""
    return sorted(set(values), key=_order)


def _order(found: Value) -> tuple[Any, ...]:
    """What sorts values: numbers first, then texts, the numbers within them by size."""
    if isinstance(found, int | float):
        return (0, found)
    pieces = re.split(r"(\d+)", found)
    return (1, *((0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces))


def read(path: str | os.PathLike[str]) -> Results:
    """Read a results.csv; a last line without its end, which a power cut may leave, is passed over.

    Raises DataError naming file, line and column of what is damaged, OSError where it cannot be opened.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            whole, end, _ = file.read().rpartition("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a CSV file ({error}); start the sweep anew in another folder") from None
    lines = (whole + end).splitlines()
    cells = list(csv.reader(lines))
    wanted = ["status", *HISTORY_COLUMNS]
    options = tuple(cells[0][: -len(wanted)]) if cells else ()
    if not options or cells[0][-len(wanted) :] != wanted:
        raise DataError(f"{path}: line 1 is no header of a sweep: options, then {','.join(wanted)[:40]}…, were wanted")
    networks: dict[tuple[str, ...], Swept] = {}
    sources = []
    for number, (row, source) in enumerate(zip(cells[1:], lines[1:], strict=True), start=2):
        place = f"{path}: line {number}"
        if len(row) != len(cells[0]):
            raise DataError(f"{place} has {len(row)} cells, wanted {len(cells[0])}; remove it, and go on")
        key = tuple(row[: len(options)])
        before = networks.get(key) or Swept(dict(zip(options, key, strict=True)), [], "training", None)
        networks[key] = _with_row(before, row[len(options)], row[len(options) + 1 :], place)
        sources.append((key, source + "\n"))
    return Results(options, list(networks.values()), sources)


def _with_row(before: Swept, status: str, cells: Sequence[str], place: str) -> Swept:
    """The network with one row more."""
    if status not in _STATUSES:
        raise DataError(f"{place}, column status: {status!r}, wanted one of {', '.join(_STATUSES)}")
    figures: dict[str, float | None] = {}
    for column, cell in zip(HISTORY_COLUMNS, cells, strict=True):
        try:
            figures[column] = float(cell) if cell else None
        except ValueError:
            raise DataError(f"{place}, column {column}: {cell!r} is no number") from None
    epoch = figures["epoch"]
    if before.done or epoch != len(before.epochs) + 1:
        after = "its last row" if before.done else f"epoch {len(before.epochs)}"
        raise DataError(f"{place}: epoch {cells[0]} after {after} of this network; remove it, and go on")
    if status == "diverged":
        return Swept(before.settings, before.epochs, status, int(epoch))
    before.epochs.append(figures)
    return Swept(before.settings, before.epochs, status, None)


# ---- putting repeats together


@dataclass(frozen=True)
class Group:
    """The networks of one setting, which differ by their seeds alone.

    finals: the figures that the finished ones ended with; diverged: how many did.
    """

    settings: dict[str, Value]
    networks: list[Swept]
    finals: list[dict[str, float | None]]
    diverged: int

    def column(self, name: str) -> list[float]:
        """A figure of the finished networks, where they have it."""
        return [figure for row in self.finals if (figure := row[name]) is not None and math.isfinite(figure)]

    def mean(self, name: str) -> float:
        """A figure's mean over the finished networks; NaN where there is none."""
        column = self.column(name)
        return statistics.fmean(column) if column else math.nan

    def deviation(self, name: str) -> float:
        """Its standard deviation (n - 1) over them; NaN below two."""
        column = self.column(name)
        return statistics.stdev(column) if len(column) > 1 else math.nan


def groups(results: Results, best: Callable[[Mapping[str, str]], bool] = lambda settings: False) -> list[Group]:
    """The networks by setting, seeds put together, in the order of the settings' values.

    best(settings) tells whether a network keeps its best weights, as with early stopping, and not its last.
    """
    members: dict[tuple[Value, ...], list[Swept]] = {}
    for network in results.networks:
        members.setdefault(tuple(value(network.settings[name]) for name in results.chosen), []).append(network)
    made = []
    for key in sorted(members, key=lambda key: [_order(found) for found in key]):
        ended = [network for network in members[key] if network.done and network.diverged_at is None]
        finals = [network.kept(best(network.settings)) for network in ended]
        diverged = sum(network.diverged_at is not None for network in members[key])
        made.append(Group(dict(zip(results.chosen, key, strict=True)), members[key], finals, diverged))
    return made


def ranked(found: Iterable[Group], measure: str) -> list[Group]:
    """The settings that have a finished network, the best first: by the mean of an accuracy, ties by its loss.

    Those of which a network diverged come after all others: their mean leaves that one out.
    """
    ended = [group for group in found if group.finals]
    return sorted(ended, key=functools.partial(_rank, measure=measure))


def _rank(group: Group, measure: str) -> tuple[bool, float, float]:
    loss = group.mean(measure.replace("accuracy", "loss"))
    return group.diverged > 0, -group.mean(measure), math.inf if math.isnan(loss) else loss
