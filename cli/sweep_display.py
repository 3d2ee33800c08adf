"""What `mlpk sweep` shows while it trains: a line a network and, on a terminal, those under way below them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from . import tables
from .sweep_jobs import Job

if TYPE_CHECKING:
    from mlpkernels import EpochResult, Progress
    from mlpkernels.sweep import SweepRow

_REFRESH = 0.25  # seconds between two drawings, each of which keeps the networks' threads from Python for some ms


class NetworkLines:
    """The lines of networks under one header: number, swept values, epochs, accuracy, loss, seconds, what befell it."""

    def __init__(self, jobs: Sequence[Job], total: int, validation: bool) -> None:
        from mlpkernels.sweep_results import text

        self._part = "val" if validation else "test"
        self._total, self._text = total, text
        options = list(jobs[0].setting) if jobs else []
        self._columns = [("network", 2 * len(str(total)) + 1)]
        self._columns += [(name, max(len(text(job.setting[name])) for job in jobs)) for name in options]
        self._columns += [("epochs", 6), (f"{self._part} accuracy", 9), (f"{self._part} loss", 8), ("training", 12)]
        self._columns = [(name, max(len(name), width)) for name, width in self._columns]

    def header(self) -> str:
        return self._join([name for name, _ in self._columns])

    def line(self, job: Job, row: SweepRow, count: int, seconds: float, last: EpochResult | None) -> str:
        """The line of a network that is done, the `count`-th; last: its last epoch, None where it had none."""
        figures = ["", ""]
        if last is not None:
            accuracy, loss = getattr(last, f"{self._part}_accuracy"), getattr(last, f"{self._part}_loss")
            figures = [tables.percent(accuracy), tables.decimal(loss)]
        cells = [f"{count}/{self._total}", *map(self._text, job.setting.values()), str(row.epoch), *figures]
        befell = "" if row.status == "finished" else f"  {row.status}"
        return self._join([*cells, tables.seconds(seconds)]) + befell

    def _join(self, cells: Sequence[str]) -> str:
        return "  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, self._columns, strict=True))


class Silence:
    """The display of --quiet: nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, under_way: Mapping[int, Progress]) -> None:
        pass

    def network(self, line: str, job: Job, diverged: bool) -> None:
        pass


class Lines(Silence):
    """The display of a pipe or a file: the header, then a line a network."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __enter__(self) -> Lines:
        click.echo(self._header)
        return self

    def network(self, line: str, job: Job, diverged: bool) -> None:
        click.echo(line)
        sys.stdout.flush()


class Live(Silence):
    """The display of a terminal: a line a network above a table of those under way and the bar of all."""

    def __init__(self, header: str, jobs: Sequence[Job], done: int, begun: Mapping[int, float]) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self._header, self._jobs = header, {job.number: job for job in jobs}
        self._order = [job.number for job in jobs]
        self._done, self._total = done, done + len(jobs)
        self._cost, self._left = 0.0, sum(job.cost for job in jobs)
        self._console = Console(highlight=False, soft_wrap=True)
        # No refresh thread: it would take a core from the networks.
        self._screen = Screen(console=self._console, auto_refresh=False, transient=True)
        self._drawn = self._began = time.perf_counter()
        self._begun = begun  # the share that a network had done before this sitting
        self._ended: set[int] = set()

    def __enter__(self) -> Live:
        self._console.print(self._header, style="bold", markup=False)
        self._screen.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._screen.update("", refresh=True)
        self._screen.stop()

    def network(self, line: str, job: Job, diverged: bool) -> None:
        self._done += 1
        self._ended.add(job.number)
        self._cost += job.cost * (1 - self._begun.get(job.number, 0.0))
        self._left -= job.cost
        self._console.print(line, style="yellow" if diverged else None, markup=False)

    def update(self, under_way: Mapping[int, Progress]) -> None:
        now = time.perf_counter()
        if now - self._drawn < _REFRESH:
            return
        self._drawn = now
        shares = {self._order[place]: (p.epoch - 1 + p.step / p.steps) / p.epochs for place, p in under_way.items()}
        shares = {number: share for number, share in shares.items() if number not in self._ended}
        cost = {number: self._jobs[number].cost for number in shares}
        done = self._cost + sum(cost[n] * (share - self._begun.get(n, 0.0)) for n, share in shares.items())
        left = self._left - sum(cost[n] * share for n, share in shares.items())
        seconds = (now - self._began) / done * left if done > 0 else None
        self._screen.update(self._table(under_way, shares, seconds), refresh=True)

    def _table(self, under_way: Mapping[int, Progress], shares: Mapping[int, float], left: float | None) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from mlpkernels.sweep_results import text

        table = Table.grid(padding=(0, 2))
        for place, progress in sorted(under_way.items()):
            job = self._jobs[self._order[place]]
            if job.number in self._ended:
                continue
            setting = ", ".join(f"{name} {text(value)}" for name, value in job.setting.items())
            table.add_row(
                Text(setting, style="cyan"), ProgressBar(1.0, shares[job.number], width=24),
                f"epoch {progress.epoch}/{progress.epochs}",
                f"loss {tables.decimal(progress.loss)}", f"accuracy {tables.percent(progress.accuracy)}",
            )  # fmt: skip
        whole = Table.grid(padding=(0, 2))
        share = (self._done + sum(shares.values())) / self._total
        remaining = "" if left is None else f"{tables.seconds(left)} left"
        whole.add_row(
            f"{self._done} of {self._total} networks", ProgressBar(1.0, min(share, 1.0), width=24),
            f"{100 * share:.0f} %", Text(remaining, style="dim"),
        )  # fmt: skip
        return Group(table, whole)


def display(header: str, jobs: Sequence[Job], done: int, begun: Mapping[int, float], *, quiet: bool) -> Silence:
    """The display that fits: none, lines, or a live table where stdout is a terminal."""
    if quiet:
        return Silence()
    return Live(header, jobs, done, begun) if sys.stdout.isatty() else Lines(header)
