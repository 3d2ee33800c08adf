"""What `mlpk reproduce` shows: a line a network and, on a terminal, a live bar with the time left."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.experiments.side_by_side import Watch

from . import tables
from .progress import compiling_notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpkernels.experiments import Options, Row
    from mlpkernels.experiments.report import Report
    from mlpkernels.experiments.side_by_side import Job, Trained
    from mlpkernels.state import EpochResult

_REFRESH = 0.1  # seconds between two drawings of the bar


class Shown(Watch):
    """The display of a run: nothing with `quiet`, lines on a pipe, lines above a bar on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total = self._done = 0.0
        self._drawn = self._began = 0.0
        if not quiet and sys.stdout.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            columns = (
                TextColumn("{task.fields[name]}"), BarColumn(bar_width=32), TaskProgressColumn(),
                TextColumn("[dim]{task.fields[left]}[/]"),
            )  # fmt: skip
            # No refresh thread: it would take a core from the networks.
            console = Console(highlight=False, soft_wrap=True)
            self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task("", name="", left="", visible=False)

    def __enter__(self) -> Shown:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        else:
            click.echo(text)
            sys.stdout.flush()

    def row(self, row: Row, options: Options) -> None:
        """A row begins."""
        epochs = options.epochs_of(row)
        seeds = f"{options.seeds} seed{'s' * (options.seeds > 1)}"
        quick = " (quick)" if options.quick else ""
        self._line(f"\n{row.name}{quick}: {row.network}\n  {row.length(epochs)}, {seeds}")

    def kept(self, name: str) -> None:
        """A row was finished by an earlier run."""
        self._line(f"{name}: finished before, kept")

    def compiling(self) -> AbstractContextManager[None]:
        return compiling_notice(self._line)

    def begin(self, name: str, jobs: Sequence[Job]) -> None:
        self._total = sum(job.cost * job.epochs for job in jobs)
        self._done, self._began = 0.0, time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, name=name, left="", total=self._total, completed=0, visible=True)

    def epoch(self, job: Job, result: EpochResult) -> None:
        self._done += job.cost
        now = time.perf_counter()
        if self._bar is None or now - self._drawn < _REFRESH:
            return
        self._drawn = now
        left = (now - self._began) * (self._total - self._done) / self._done
        self._bar.update(self._task, completed=self._done, left=f"{tables.seconds(left)} left", refresh=True)

    def done(self, trained: Trained) -> None:
        labels = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in trained.job.labels.items())
        if trained.diverged:
            self._line(f"  {labels}: diverged in {trained.diverged}")
        else:
            loss, accuracy = trained.final
            took = tables.seconds(trained.seconds)
            self._line(f"  {labels}: test accuracy {tables.percent(accuracy)}, loss {tables.decimal(loss)}, {took}")

    def say(self, text: str) -> None:
        self._line(f"  {text}")

    def report(self, table: str, report: Report) -> None:
        """A row is finished and written."""
        if self._bar is not None:
            self._bar.update(self._task, visible=False)
        self._line("\n".join(["", table, "", *(f"  {remark}" for remark in report.remarks()), ""]))
