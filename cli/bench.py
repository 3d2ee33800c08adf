"""`mlpk bench`: how fast this machine trains, beside its limits, beside others, and beside an earlier measurement."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import parsing
from .command import Checked, Command, setting_option
from .errors import OptionError
from .interrupts import Interrupted

if TYPE_CHECKING:
    from mlpkernels.bench import Results
    from mlpkernels.bench.images import Images

RESULTS, ROOFLINE = "results.json", "roofline.png"


@click.command(
    "bench",
    cls=Command,
    examples=[
        ("mlpk bench", "kernels and epochs beside this machine's limits"),
        ("mlpk bench --quick --only kernels", "a look, in a few seconds"),
        ("mlpk bench --peers", "beside NumPy, PyTorch, JAX and scikit-learn, as far as they are installed"),
        ("mlpk bench --save before.json", "keep the measurement"),
        ("mlpk bench --compare before.json --threshold 1.1", "fail where something takes 1.1 times as long as then"),
    ],
)
@click.option("--only", type=Checked(parsing.choice("kernels", "epochs")), metavar="NAME", help="kernels or epochs.")
@click.option("--quick", is_flag=True, help="Fewer kernels, images and turns, 10 seconds: a look, not a measurement.")
@click.option("--peers", is_flag=True, help="Measure the others that are installed, too: some minutes.")
@click.option(
    "--out", type=Checked(parsing.path), metavar="DIR",
    help=f"A new or empty folder for {RESULTS} and {ROOFLINE}. [default: runs/bench-DATE-TIME]",
)  # fmt: skip
@click.option(
    "--save", type=Checked(parsing.path), metavar="FILE",
    help="Write the measurement to this file, too; it may hold an earlier one.",
)  # fmt: skip
@click.option(
    "--compare", type=Checked(parsing.path), metavar="FILE",
    help="Print times beside those of a file of --save, with their spread.",
)  # fmt: skip
@click.option(
    "--threshold", type=Checked(parsing.number(1)), metavar="R",
    help="With --compare: exit code 1 where one of ours takes more than R times as long.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Compare with a file of another machine or other settings all the same.")
@setting_option("data-dir", "Options")
@setting_option("quiet", "Options")
def command(
    only: str | None, quick: bool, peers: bool, out: str | None, save: str | None, compare: str | None,
    threshold: float | None, force: bool, data_dir: str | None, quiet: bool | None,
) -> None:  # fmt: skip
    """Time the kernels and whole epochs on one thread and on all, answers checked first.

    Shown are medians of interleaved turns: GFLOP/s, images a second, and which share of the multiply-adds and bytes a
    second they are that this machine was measured to reach meanwhile. Epochs train on MNIST where it is found, else
    on made-up images like it.
    """
    for name, value in {"--threshold": threshold, "--force": force}.items():
        if compare is None and value:
            raise OptionError(name, threshold if name == "--threshold" else None, "it goes with --compare FILE")
    from mlpkernels.bench import forced

    aside = tuple(forced.set_aside()) if peers else ()  # before NumPy is loaded and its OpenBLAS has chosen its kernels
    from mlpkernels.bench import Options, images, read, running

    from . import bench_report

    options = Options(quick=quick, only=only, peers=peers, data_dir=data_dir or None, set_aside=aside)
    before = read(compare) if compare is not None else None
    if save is not None:
        _check_place(save)
    found = images.load(options.data_dir)
    if before is not None:
        _check_alike(before, running.settings(options, found), compare or "", force)
        _check_common(before, only, compare or "")
    with _folder(out) as folder:
        results = _measure(options, found, bool(quiet))
        results.write(folder / RESULTS)
        written = [folder / RESULTS, *_draw(results, folder)]
        click.echo(bench_report.text(results))
        click.echo(f"\nwritten: {', '.join(map(str, written))}")
    for line in bench_report.warnings(results):
        click.echo(f"warning: {line}", err=True)
    if before is not None:
        _compare(before, results, threshold, compare or "", save)
    if save is not None:
        results.write(save)
        click.echo(f"saved: {save}")


def _check_place(save: str) -> None:
    """Refuse, before a minute is spent, a file that cannot be written, or that holds something else."""
    from mlpkernels.bench import read
    from mlpkernels.errors import MlpkError

    if os.path.isfile(save):
        try:
            read(save)
        except (MlpkError, OSError):
            raise OptionError("--save", save, "it exists and is no measurement; name a new file") from None
        return
    if os.path.isdir(save) or not os.path.isdir(os.path.dirname(save)):
        reason = "it is a folder" if os.path.isdir(save) else "there is no such folder"
        raise OptionError("--save", save, f"{reason}; a file in a folder that exists was wanted")


def _check_alike(before: Results, settings: dict[str, Any], name: str, force: bool) -> None:
    from mlpkernels.bench import differences, machine
    from mlpkernels.errors import MlpkError

    found = differences(before, machine.facts(), settings)
    if not found:
        return
    if not force:
        raise MlpkError(f"{name} is no measure for this one: {'; '.join(found)}; --force compares them all the same")
    click.echo(f"note: compared all the same: {'; '.join(found)}", err=True)


def _check_common(before: Results, only: str | None, name: str) -> None:
    from mlpkernels.errors import MlpkError

    sections = {entry.section for entry in before.entries}
    if only is not None and only not in sections:
        raise MlpkError(f"{name} has no {only}: it was measured with --only {' '.join(sections)}; do so again")


@contextlib.contextmanager
def _folder(out: str | None) -> Iterator[Path]:
    """The folder for all files; it goes again where the measurement does not come to its end."""
    from .runs import RunFolder

    run, done = RunFolder.create(out or "", "bench", resumable=False), False
    try:
        yield run.path
        done = True
    except Interrupted as error:
        error.message = "stopped; nothing was kept"
        raise
    finally:
        run.close(keep=done)


def _measure(options: Any, found: Images, quiet: bool) -> Results:
    """Measure, with a line on stderr where something else keeps the machine busy, and before each stage."""
    from mlpkernels.affinity import cpu_count
    from mlpkernels.bench import get_ready, machine, run, running

    from .bench_report import Stages
    from .progress import compiling_notice

    others = machine.others_now()
    if others is not None and others >= running.BUSY:
        click.echo(
            f"warning: other programs keep {others:.1f} of {cpu_count()} cores busy: figures will be low and scatter",
            err=True,
        )
    stages = Stages(quiet)
    with compiling_notice():
        get_ready(options)
    try:
        return run(options, found, stages)
    finally:
        stages.close()


def _draw(results: Results, folder: Path) -> list[Path]:
    if not results.section("kernels"):
        return []
    from mlpkernels.bench import roofline_figure
    from mlpkernels.plots import save_figure

    save_figure(roofline_figure(results), folder / ROOFLINE)
    return [folder / ROOFLINE]


def _compare(before: Results, now: Results, threshold: float | None, name: str, save: str | None) -> None:
    """Print the ratios. MlpkError, one line with the worst, where one of ours is beyond the threshold."""
    from mlpkernels.bench import compare
    from mlpkernels.bench.results import worst
    from mlpkernels.errors import MlpkError

    from . import bench_report

    ratios = compare(before, now)
    click.echo("\n" + bench_report.comparison(before, now, ratios, name))
    most = worst(ratios)
    if threshold is None or most is None or most.ratio <= threshold:
        return
    beyond = sum(each.ratio > threshold for each in ratios if each.entry.system == most.entry.system)
    kept = ""
    if save is not None:
        if os.path.exists(save) and os.path.samefile(save, name):
            kept = f"; {shlex.quote(name)} stays as it was"
        else:
            now.write(save)
    doubt = ", which may be chance: measure again on a quiet machine" if most.low <= 1 else ""
    raise MlpkError(
        f"{bench_report.titled(most.entry)} takes {most.ratio:.2f} times as long as before ({most.low:.2f} to "
        f"{most.high:.2f}{doubt}), beyond {threshold:g}, the worst of {beyond}{kept}"
    )
