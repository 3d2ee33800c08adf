"""`mlpk plot`: draw the figures of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from .command import Command, setting_option
from .errors import OptionError
from .parsing import AUTO


@click.command(
    "plot",
    cls=Command,
    examples=[
        ("mlpk plot", "the figures of the newest run, into its folder"),
        ("mlpk plot runs/NAME --output figures", "of another run, into another folder"),
        ("mlpk plot runs/sweep-NAME", "of a sweep"),
    ],
)
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--output", metavar="DIR", help="The folder for the figures. [default: RUN/plots]")
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
@setting_option("backend", "Options")
@setting_option("threads", "Options")
def command(run: str | None, output: str | None, backend: str | None, threads: Any, **options: Any) -> None:
    """Draw loss and accuracy by epoch, confusion matrix, worst mistakes, first layer and samples of the data.

    RUN is a run folder or its name in runs/; without it the newest run is taken. Of a sweep's folder: accuracy by
    epoch, final accuracy by option, a heat map a pair of options, the best settings.
    """
    from mlpkernels import plots

    from . import backend as backends
    from . import report, runs, sweep_folder, sweep_report, trained
    from .data import load
    from .evaluate import conformed

    if run is not None and (sweep := sweep_folder.find(run)) is not None:
        for figure in sweep_report.draw_folder(sweep, Path(output) if output is not None else None):
            click.echo(str(figure))
        return
    path = runs.newest() if run is None else runs.find(run)
    if path is None or not path.is_dir():
        raise OptionError(str(run), None, "no run folder; the folder of an earlier mlpk train or mlpk sweep was wanted")
    found = trained.load(path)
    found.check_one_class()
    if found.origin is not None:
        raise OptionError(str(run or path), None, "it was imported, with no training to draw; mlpk eval measures it")
    assert found.settings is not None
    given = {name: value for name, value in options.items() if value is not None}
    history = plots.read_history(path / runs.HISTORY)
    data = load(dataclasses.replace(found.settings, **given))
    dataset = conformed(found, data.dataset)
    assert dataset.test is not None
    count = None if threads in (None, AUTO) else threads
    measured = report.measure(
        found.network, dataset.test, backends.chosen(backend, found.network, len(dataset.test)), count
    )
    folder, option = (path / runs.PLOTS, None) if output is None else (Path(output), "--output")
    for figure in report.draw(folder, found.network, dataset, dataset.test, measured, history, option):
        click.echo(str(figure))
