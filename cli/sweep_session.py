"""A sweep in its folder: begun or gone on with, recorded as it goes, stopped without loss, summed up."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.affinity import cpu_count
from mlpkernels.errors import MlpkError

from . import runs, sweep_folder, tables
from .errors import os_error_text
from .interrupts import Deferred, Interrupted
from .parsing import AUTO
from .runs import RunFolder
from .session import get_ready, make_network
from .summary import LABEL_WIDTH
from .sweep_display import NetworkLines, Silence, display
from .sweep_folder import Record
from .sweep_jobs import Job, Shelf, in_order, maker, prepare
from .sweep_plan import Plan
from .sweep_report import best_table, by_what, draw, keeps_best, train_command

if TYPE_CHECKING:
    from pathlib import Path

    from mlpkernels import EpochResult
    from mlpkernels.sweep import SweepRow
    from mlpkernels.sweep_results import Group, Results

    from .settings import Settings

_BEST = 10  # settings in the closing table


def run(plan: Plan) -> None:
    """Train all networks of a plan that are not trained yet, and sum up."""
    shelf = Shelf(plan.base, keep=_workers(plan) + 1)
    jobs = prepare(plan, plan.combinations(), shelf)
    checksums = shelf.checksums()
    folder = sweep_folder.open_folder(plan, checksums, shelf.dataset.name)
    record = Record(folder, plan, [job.setting for job in jobs])
    try:
        record.begin(checksums)
        _Sweeping(plan, folder, record, shelf, jobs).run()
    finally:
        record.close()


def _workers(plan: Plan) -> int:
    return cpu_count() if plan.base.threads == AUTO else plan.base.threads


@dataclasses.dataclass
class _Sweeping:
    """The sweep under way."""

    plan: Plan
    folder: RunFolder
    record: Record
    shelf: Shelf
    jobs: list[Job]
    _seconds: dict[int, float] = dataclasses.field(default_factory=dict)  # of training, by network
    _last: dict[int, EpochResult] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder.path

    def say(self, text: str) -> None:
        """Print a line, unless --quiet."""
        if not self.plan.base.quiet:
            click.echo(text)

    def run(self) -> None:
        todo = in_order([job for job in self.jobs if job.number not in self.record.done], self.record.going)
        self._describe(len(todo))
        began = time.perf_counter()
        try:
            if todo:
                self._get_ready(todo)
                began = time.perf_counter()
                self._train(todo)
        except Interrupted as error:
            error.message = error.message or self._stopped()
            raise
        except OSError as error:  # a full disk, most likely
            raise MlpkError(f"{os_error_text(error)}; {self._kept()}") from error
        except ValueError as error:  # settings are checked one by one before; these do not go together
            raise MlpkError(str(error)) from error
        self._sum_up(len(todo), time.perf_counter() - began)

    def _get_ready(self, todo: list[Job]) -> None:
        """Refuse what cannot train; compile the kernels that the networks will call, once a set of kinds of layers."""
        from mlpkernels.run import check_batch_norms

        kinds: dict[Any, Settings] = {}
        for job in todo:
            chosen = job.settings
            parts = (bool(chosen.conv), chosen.pool > 0, chosen.dropout > 0, chosen.batch_norm, chosen.dtype)
            kinds.setdefault((*parts, chosen.activation, chosen.backend), chosen)
            if chosen.batch_norm:
                data = self.shelf.data(chosen)
                rows = len(data.train)
                batch_size = rows if isinstance(chosen.batch_size, str) else chosen.batch_size
                check_batch_norms(make_network(chosen, data, self.shelf.scaling(chosen)), rows, batch_size)
        for number, settings in enumerate(kinds.values()):
            data = self.shelf.data(settings)
            network = make_network(settings, data, self.shelf.scaling(settings))
            get_ready(settings, data, network, 1, self.say if number == 0 else _silent)

    def _describe(self, left: int) -> None:
        data, total = self.shelf.data(self.jobs[0].settings), len(self.jobs)
        self.say(f"{data.dataset.name}: {data.describe()}")
        axes = [f"{len(axis.values)} of --{name}" for name, axis in self.plan.axes.items() if axis.range is None]
        drawn = f", {self.plan.sample} settings drawn with seed {self.plan.sample_seed}" if self.plan.sample else ""
        self.say(f"{total} networks{drawn or ': ' + ' x '.join(axes)}, {min(_workers(self.plan), total)} side by side")
        if left < total or self.record.going:
            begun = f", {len(self.record.going)} go on where they stopped" if self.record.going else ""
            self.say(f"{self.path}: {total - left} of them are done{begun}")

    # ---- training

    def _train(self, todo: list[Job]) -> None:
        from mlpkernels.sweep import sweep

        lines = NetworkLines(self.jobs, len(self.jobs), self.shelf.data(todo[0].settings).validation is not None)
        begun = {number: state.epoch / state.settings["epochs"] for number, (_, state) in self.record.going.items()}
        done = len(self.jobs) - len(todo)
        with Deferred() as stop:
            with display(lines.header(), todo, done, begun, quiet=self.plan.base.quiet) as shown:
                rows = sweep(
                    maker(todo, self.shelf, self.record.going), [{"job": place} for place in range(len(todo))],
                    workers=_workers(self.plan), on_progress=_watching(shown, stop),
                    on_stop=lambda place, network, state: self.record.save(todo[place].number, network, state),
                )  # fmt: skip
                try:
                    for row in rows:
                        self._record(todo[row.number], row, lines, shown)
                        stop.check()
                finally:
                    rows.close()  # type: ignore[attr-defined]  # at once, whatever holds on to the generator
            stop.check()

    def _record(self, job: Job, row: SweepRow, lines: NetworkLines, shown: Silence) -> None:
        self.record.add(job.number, row)
        if row.result is not None:
            self._last[job.number] = row.result
            self._seconds[job.number] = self._seconds.get(job.number, 0.0) + row.result.seconds
        if job.number in self.record.done:
            seconds, last = self._seconds.get(job.number, 0.0), self._last.get(job.number)
            line = lines.line(job, row, len(self.record.done), seconds, last)
            shown.network(line, job, row.result is None)

    def _stopped(self) -> str:
        """What to say to someone who stopped this sweep."""
        if not self.record.rows and self.folder.fresh and not sweep_folder.half_trained(self.path):
            return "stopped before the first epoch; nothing was kept"
        return f"stopped; {self._kept()}"

    def _kept(self) -> str:
        """What is done, and how to go on."""
        half = sweep_folder.half_trained(self.path)
        begun = f", {half} half-trained" if half else ""
        done = f"{len(self.record.done)} of {len(self.jobs)} networks are done{begun}"
        return f"{done}, in {self.path}; the same command goes on"

    # ---- the end

    def _sum_up(self, trained: int, seconds: float) -> None:
        from mlpkernels import sweep_results

        results = sweep_results.read(self.record.path)
        found = sweep_results.groups(results, keeps_best(self.plan))
        best = sweep_results.ranked(found, results.measure)
        if not best:
            raise MlpkError(
                f"all {len(self.jobs)} networks diverged; {self.record.path} says in which epoch: try a smaller "
                "--learning-rate, or --clip-norm 1"
            )
        if not self.plan.base.quiet:
            click.echo(f"\n{click.style('best settings', bold=True)}, {by_what(results)}")
        click.echo(best_table(results, best[:_BEST]))
        if len(best) > _BEST:
            self.say(f"  … and {len(best) - _BEST} more settings in {self.record.path}")
        if results.measure == "test_accuracy":
            self.say("  chosen on the test data, so a little flattered: --val-split 0.1 chooses without them")
        self._close(results, best[0], trained, seconds)

    def _close(self, results: Results, best: Group, trained: int, seconds: float) -> None:
        diverged = sum(network.diverged_at is not None for network in results.networks)
        networks = f"{len(self.jobs)} done" + (f", of which {diverged} diverged" if diverged else "")
        rows = [["networks", networks], ["sweep folder", str(self.path)]]
        if trained:
            rows.insert(1, ["training", f"{tables.seconds(seconds)} for {trained} networks"])
        click.echo("\n" + tables.table(rows, align="<<", indent=2))
        if self.plan.base.plots:
            self._draw(results)
        quoted = shlex.quote(str(self.path))
        again = " again" if self.plan.base.plots else ""
        lines = [train_command(self.plan, best), "  the best settings again, with a model to keep",
                 f"mlpk plot {quoted}", f"  draw the figures{again}"]  # fmt: skip
        self.say("\n".join(["", click.style("next", bold=True), *(f"  {line}" for line in lines)]))

    def _draw(self, results: Results) -> None:
        began = time.perf_counter()
        try:
            draw(self.path / runs.PLOTS, self.plan, results)
        except Interrupted as error:
            error.message = f"stopped while drawing; the sweep is complete, draw with: mlpk plot {self.path}"
            raise
        took = tables.seconds(time.perf_counter() - began)
        self.say(f"  {'figures':{LABEL_WIDTH - 1}}  {self.path / runs.PLOTS}   drawn in {took}")


def _silent(text: str) -> None:
    """Say nothing."""


def _watching(shown: Silence, stop: Deferred) -> Callable[[Mapping[int, Any]], None]:
    def on_progress(under_way: Mapping[int, Any]) -> None:
        shown.update(under_way)
        stop.check()

    return on_progress
