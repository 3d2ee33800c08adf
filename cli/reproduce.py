"""`mlpk reproduce`: what the first users did by hand, each experiment with one command."""

from __future__ import annotations

import datetime
import shlex
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.affinity import cpu_count

from . import parsing, tables
from .command import Checked, Command, setting_option
from .errors import OptionError, close_match
from .interrupts import Interrupted
from .parsing import AUTO, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlpkernels.experiments import Options, Row
    from mlpkernels.experiments.folder import Folder
    from mlpkernels.experiments.report import Kept, Report

    from .runs import RunFolder

ALL = "all"
_OPTIONS = {"numpy-gd": ("csv", "unlabelled"), "speedrun": ("peers", "peer_seeds")}  # a row's own


@click.command(
    "reproduce",
    cls=Command,
    examples=[
        ("mlpk reproduce", "the experiments and what they claimed"),
        ("mlpk reproduce mlp-64 --seeds 5", "one of them, with the spread over five seeds"),
        ("mlpk reproduce all --seeds 5 --out results", "all: one table, one folder of pictures"),
        ("mlpk reproduce all --quick", "a small version of all, in half a minute"),
        ("mlpk reproduce numpy-gd --csv train.csv --unlabelled test.csv", "on a CSV of your own"),
        ("mlpk reproduce speedrun --peers", "the least time to an accuracy, beside PyTorch and JAX"),
    ],
)
@click.argument("name", required=False, metavar="[NAME|all]")
@click.option(
    "--seeds", type=Checked(whole(1, 1000)), metavar="N",
    help="Seeds 0 to N - 1. [default: 1, quick 2, speedrun 20]"
)  # fmt: skip
@click.option(
    "--epochs", type=Checked(whole(1)), metavar="E",
    help="Epochs, of numpy-gd iterations. [default: as the document]",
)  # fmt: skip
@click.option(
    "--out", type=Checked(parsing.path), metavar="DIR",
    help="A new or empty folder for all files; all goes on in one where it was stopped. "
    "[default: runs/reproduce-NAME-DATE-TIME]",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Few epochs on few images; everything written says quick.")
@click.option(
    "--csv", type=Checked(parsing.path), metavar="FILE",
    help="numpy-gd: a CSV label,pixel0,…,pixel783. [default: 42,000 rows as mlpk data csv mnist writes]",
)  # fmt: skip
@click.option(
    "--unlabelled", type=Checked(parsing.path), metavar="FILE",
    help="numpy-gd: a CSV pixel0,…,pixel783 to predict. [default: the other 28,000 rows]",
)  # fmt: skip
@click.option("--peers", is_flag=True, help="speedrun: PyTorch and JAX beside it, where installed: some minutes.")
@click.option(
    "--peer-seeds", type=Checked(whole(1, 1000)), metavar="N", help="speedrun: seeds of the peers. [default: 3]"
)
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
@click.option(
    "--threads", type=Checked(parsing.threads), metavar="N",
    help="Networks trained side by side, each on one core; speedrun: threads of one network. [default: one a core]",
)  # fmt: skip
@setting_option("quiet", "Options")
def command(name: str | None, out: str | None, quiet: bool | None, **options: Any) -> None:
    """Train again what this project's first users reported, and write claimed beside measured.

    Without NAME the experiments are listed. Each trains on MNIST with the document's settings; tables tell which
    settings are ours. speedrun is ours altogether: the least training time to an accuracy.
    """
    from mlpkernels.experiments import ROWS

    if name is None:
        given = [option for option, value in {"out": out, **options}.items() if value]
        if given:
            raise OptionError(f"--{given[0].replace('_', '-')}", None, f"it needs the name of an experiment, or {ALL}")
        click.echo(listing(ROWS))
        return
    rows = _rows(name, ROWS)
    _check_options(name, rows, options)
    data = {key: value for key in ("data_dir", "offline") if (value := options.pop(key)) is not None}
    options["seeds"] = options["seeds"] or (2 if options["quick"] else 1 if name == ALL else rows[0].seeds)
    _run(name, rows, _options(**options), out or "", data, bool(quiet))


def _check_options(name: str, rows: Sequence[Row], options: Mapping[str, Any]) -> None:
    """Refuse an option that none of the rows takes."""
    for row, own in _OPTIONS.items():
        for option in own:
            if options[option] and all(row != chosen.name for chosen in rows):
                given, value = f"--{option.replace('_', '-')}", options[option]
                reason = f"it goes with {row} and all, not with {name}"
                raise OptionError(given, None if value is True else value, reason)
    if options["peer_seeds"] and not options["peers"]:
        raise OptionError("--peer-seeds", options["peer_seeds"], "it goes with --peers")


def _rows(name: str, rows: Sequence[Row]) -> list[Row]:
    if name == ALL:
        return list(rows)
    names = [row.name for row in rows]
    if name not in names:
        hint = close_match(name, [*names, ALL]) or f"; {', '.join(names)} or {ALL} was wanted"
        raise OptionError(name, None, f"no such experiment{hint}")
    return [rows[names.index(name)]]


def _options(csv: str | None, unlabelled: str | None, threads: Any, peer_seeds: int | None, **others: Any) -> Options:
    from mlpkernels.experiments import Options

    return Options(
        threads=None if threads == AUTO else threads, csv=Path(csv) if csv else None,
        unlabelled=Path(unlabelled) if unlabelled else None, peer_seeds=peer_seeds or Options.peer_seeds, **others,
    )  # fmt: skip


def listing(rows: Sequence[Row]) -> str:
    """Every experiment with its network, training and claim."""
    texts = []
    for row in rows:
        lines = []
        for word, text in (("network", row.network), ("training", row.training), ("claimed", row.claim)):
            first, *rest = textwrap.wrap(text, 88)
            lines += [(word, first), *(("", more) for more in rest)]
        texts.append(f"{click.style(row.name, bold=True)}\n{tables.table(lines, align='<<', indent=2)}")
    return "\n\n".join([*texts, "run one with mlpk reproduce NAME, every one with mlpk reproduce all"])


def _run(name: str, rows: Sequence[Row], options: Options, out: str, data: dict[str, Any], quiet: bool) -> None:
    """Run the rows into a folder; one in which nothing was finished is removed again."""
    from mlpkernels import experiments
    from mlpkernels.experiments.folder import PICTURES

    from .data import load_one
    from .settings import Settings

    kept = _kept(name, options, out)
    rows = [row for row in rows if row.name not in kept]
    for row in rows:
        experiments.check_packages(row)
    dataset = load_one(Settings(data="mnist", **data), "mnist")
    for row in rows:
        experiments.check(row, dataset, options)
    run, folder = _open_folder(name, options, out, going_on=bool(kept))
    began = time.perf_counter()
    try:
        _reproduce(rows, dataset, options, folder, quiet)
    except Interrupted as error:
        error.message = _stopped(name, folder)
        raise
    finally:
        run.close(keep=bool(folder.reports))
    took = tables.seconds(time.perf_counter() - began)
    if quiet:
        click.echo(table(folder.reports))
    click.echo(f"{took}; table in {folder.table}, pictures in {folder.path / PICTURES}")


def _stopped(name: str, folder: Folder) -> str:
    """What to say to someone who stopped."""
    if not folder.reports:
        return "stopped; nothing was kept"
    done = f"stopped; finished and kept in {folder.path}: {', '.join(report.row.name for report in folder.reports)}"
    again = f"; the same command goes on with --out {shlex.quote(str(folder.path))}"
    return done + (again if name == ALL else "")


def _reproduce(rows: Sequence[Row], dataset: Any, options: Options, folder: Folder, quiet: bool) -> None:
    from mlpkernels import experiments

    from .reproduce_progress import Shown

    with Shown(quiet) as shown:
        for report in folder.reports:
            shown.kept(report.name)
        if folder.reports:
            folder.write()  # a run that was killed may have left the table behind
        for row in rows:
            shown.row(row, options)
            report = experiments.run(row.name, dataset, options, shown)
            if not folder.reports:
                folder.add_samples(dataset)
            folder.add(report)
            shown.report(table([report]), report)


def table(reports: Sequence[Report | Kept]) -> str:
    """The lines of some reports, claimed beside measured."""
    from mlpkernels.experiments.report import HEADER

    rows = [cells for report in reports for cells in report.cells]
    return tables.table(rows, HEADER, align="<<<>><<")


def _kept(name: str, options: Options, out: str) -> list[str]:
    """The rows that an earlier `all` finished in the folder `out`. DataError where something else is in it."""
    from mlpkernels.errors import DataError
    from mlpkernels.experiments.folder import Folder

    if not out or not Path(out).is_dir() or not any(Path(out).iterdir()):
        return []
    folder = Folder(Path(out), options.quick, _facts(name, options))
    try:
        folder.take_over()
    except DataError as error:
        raise DataError(f"{error} with --out") from None
    if name != ALL:
        raise DataError(f"{out}: {name} is finished in it, and nothing is overwritten: name a new one with --out")
    return [report.row.name for report in folder.reports]


def _open_folder(name: str, options: Options, out: str, *, going_on: bool) -> tuple[RunFolder, Folder]:
    from mlpkernels.experiments.folder import Folder

    from .runs import RunFolder

    if going_on:
        run = RunFolder.reopen(Path(out))
    else:
        run = RunFolder.create(out, f"reproduce-{name}{'-quick' if options.quick else ''}")
    folder = Folder(run.path, options.quick, _facts(name, options))
    if going_on:
        folder.take_over()  # again, now that no other process writes to it
    return run, folder


def _facts(name: str, options: Options) -> dict[str, str]:
    """What stands above the table: when, where and by which command it was made."""
    from mlpkernels import __version__
    from mlpkernels.experiments import find
    from mlpkernels.kernels.cpu import machine

    count = options.threads or cpu_count()
    alone = name != ALL and find(name).alone
    at_once = f"one network at a time on up to {count}" if alone else f"{count} networks at a time"
    words = ["mlpk", "reproduce", name, "--seeds", str(options.seeds)]
    words += ["--epochs", str(options.epochs)] if options.epochs else []
    words += ["--quick"] if options.quick else []
    for option, path in (("--csv", options.csv), ("--unlabelled", options.unlabelled)):
        words += [option, str(path)] if path else []
    words += ["--peers", "--peer-seeds", str(options.peer_seeds)] if options.peers else []
    return {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "machine": f"{machine.cpu_name()}, {cpu_count()} cores, {at_once}",
        "command": shlex.join(words),
        "version": f"mlpkernels {__version__}",
    }
