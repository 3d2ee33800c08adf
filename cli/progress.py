"""What `mlpk train` shows while it trains: a line an epoch and, on a terminal, a live bar below them."""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from . import tables

_COMPILING = 1.5  # seconds of waiting that need no word
_REFRESH = 0.1  # seconds between two drawings of the bar, and two looks


@contextlib.contextmanager
def compiling_notice(say: Callable[[str], object] | None = None, *names: str) -> Iterator[None]:
    """Around the first use of the kernels: a line if they have to be compiled, which takes all cores seconds.

    `say` prints it; without one it goes to stderr, where it does not mix with results. names: see `beside.waiting`.
    """
    from mlpkernels.kernels.beside import waiting

    text = "compiling the kernels for this processor; from the next time on they are loaded …"
    show = say or functools.partial(click.echo, err=True)
    ready = threading.Event()
    with waiting(*names) as compiling:

        def watch() -> None:
            wait = _COMPILING
            while not ready.wait(wait):
                if compiling.is_set():  # a busy machine may take as long to load them
                    show(text)
                    break
                wait = _REFRESH

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            ready.set()


class EpochLines:
    """The lines of epochs under one header; columns that the run does not have are left away."""

    def __init__(self, epochs: int, *, validation: bool, test: bool, unit: str) -> None:
        self.epochs = epochs
        columns = [("epoch", 2 * len(str(epochs)) + 1), ("loss", 9), ("accuracy", 9)]
        if validation:
            columns += [("val loss", 9), ("val accuracy", 12)]
        if test:
            columns += [("test loss", 9), ("test accuracy", 13)]
        self._columns = [(name, max(len(name), width)) for name, width in [*columns, (f"{unit}/s", 11)]]
        self._validation, self._test = validation, test

    def header(self) -> str:
        return self._join(name for name, _ in self._columns)

    def line(self, result: Any) -> str:
        """The line of an EpochResult; the best epoch so far by the validation loss carries a star."""
        cells = [f"{result.epoch}/{self.epochs}", *_pair(result.train_loss, result.train_accuracy)]
        if self._validation:
            cells += _pair(result.val_loss, result.val_accuracy)
        if self._test:
            cells += _pair(result.test_loss, result.test_accuracy)
        cells.append(tables.count(result.samples_per_second))
        return self._join(cells) + (" *" if self._validation and result.best else "")

    def _join(self, cells: Iterable[str]) -> str:
        return "  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, self._columns, strict=True))


def _pair(loss: float | None, accuracy: float | None) -> list[str]:
    return [tables.decimal(loss), tables.percent(accuracy)]


class Silence:
    """The display of --quiet: nothing."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, progress: Any) -> None:
        pass

    def epoch(self, result: Any) -> None:
        pass


class Lines(Silence):
    """The display of a pipe or a file: the header, then a line an epoch."""

    def __init__(self, lines: EpochLines) -> None:
        self._lines = lines

    def __enter__(self) -> "Lines":
        click.echo(self._lines.header())
        return self

    def epoch(self, result: Any) -> None:
        click.echo(self._lines.line(result))
        sys.stdout.flush()


class Live(Silence):
    """The display of a terminal: a line an epoch above a bar of the epoch under way."""

    def __init__(self, lines: EpochLines, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._lines = lines
        self._console = Console(highlight=False, soft_wrap=True)
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"),
            TextColumn("[cyan]{task.fields[speed]} " + unit + "/s[/]"),
            TextColumn("[dim]{task.fields[left]}[/]"),
        )
        # No refresh thread: training calls `update` many times a second, and a thread would take a core.
        self._bar = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task("", epoch="", loss="", accuracy="", speed="", left="", visible=False)
        self._drawn = 0.0
        self._began = time.perf_counter()
        self._first: float | None = None

    def __enter__(self) -> "Live":
        self._console.print(self._lines.header(), style="bold", markup=False)
        self._bar.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, progress: Any) -> None:
        now = time.perf_counter()
        share = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
        if self._first is None:
            self._first = share  # a resumed run starts in the middle
        if now - self._drawn < _REFRESH:
            return
        self._drawn = now
        done = share - self._first
        left = (now - self._began) / done * (1 - share) if done > 0 else None
        speed = progress.samples / progress.seconds if progress.seconds > 0 else 0.0
        self._bar.update(
            self._task, total=progress.steps, completed=progress.step, visible=True, refresh=True,
            epoch=f"{progress.epoch}/{progress.epochs}", loss=tables.decimal(progress.loss),
            accuracy=tables.percent(progress.accuracy), speed=tables.count(speed),
            left="" if left is None else f"{tables.seconds(left)} left",
        )  # fmt: skip

    def epoch(self, result: Any) -> None:
        style = "green" if result.best and result.val_loss is not None else None
        self._bar.update(self._task, visible=False)  # the next epoch's first call shows it again
        self._drawn = 0.0
        self._console.print(self._lines.line(result), style=style, markup=False)


def display(lines: EpochLines, unit: str, *, quiet: bool) -> Silence:
    """The display that fits: none, lines, or a live bar where stdout is a terminal."""
    if quiet:
        return Silence()
    return Live(lines, unit) if sys.stdout.isatty() else Lines(lines)


class Downloads:
    """A line on stderr that follows the download of data; on a pipe one line a file."""

    def __init__(self) -> None:
        self._file = ""
        self._drawn = 0.0
        self._live = sys.stderr.isatty()

    def __call__(self, file: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if file != self._file:
            self._file = file
            self._drawn = 0.0
            if not self._live:
                click.echo(f"downloading {file}", err=True)
        if not self._live:
            return
        finished = total is not None and done >= total
        if finished or now - self._drawn >= _REFRESH:
            self._drawn = now
            click.echo(f"\r\033[K{self._text(done, total)}", err=True, nl=finished)

    def _text(self, done: int, total: int | None) -> str:
        if not total:
            return f"downloading {self._file}  {tables.size(done)}"
        filled = round(24 * done / total)
        bar = "━" * filled + "─" * (24 - filled)
        sizes = f"{tables.size(done)} of {tables.size(total)}"
        return f"downloading {self._file}  {bar} {100 * done // total:3d} %  {sizes}"
