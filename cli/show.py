"""`mlpk data show`: what a data set looks like, in pictures and in figures by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Checked, Command, setting_option
from .parsing import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlpkernels.datasets import Dataset

PARENT = Path("figures")


@click.command(
    "show",
    cls=Command,
    examples=[
        ("mlpk data show mnist", "pictures into figures/mnist"),
        ("mlpk data show mine.csv --label-column kind", "a table: heat maps and a histogram a column"),
        ("mlpk data show folder/ --out looks --per-class 20", "pictures by class, more of each"),
    ],
)
@click.argument("what", metavar="DATA")
@click.option("--out", metavar="DIR", help="The folder for the pictures. [default: figures/NAME]")
@click.option(
    "--per-class", type=Checked(whole(1, 100)), default="10", metavar="N", help="Samples of a class. [default: 10]"
)
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
@setting_option("label-column", "Options")
def command(what: str, out: str | None, per_class: int, **options: Any) -> None:
    """Show shapes and class counts of a data set, and draw what is in it.

    DATA is as for mlpk train. Into the folder go samples.png, counts.png, means.png (each class's mean) and
    histogram.png (of all pixels, or of each column of a table).
    """
    from . import runs
    from .data import load_one
    from .info import describe
    from .settings import Settings, parse

    given = {name: value for name, value in options.items() if value is not None}
    data = parse("data", what)
    dataset = load_one(Settings(data=data, **given), data, min_classes=1)
    figures = draw(dataset, per_class)
    folder = PARENT / dataset.name if out is None else Path(out)
    made = runs.make_folders(folder)
    try:
        for name, figure in figures.items():
            runs.save_picture(figure, folder / f"{name}.png", None if out is None else "--out")
    except BaseException:
        runs.remove_empty(made)
        raise
    click.echo(describe(dataset) + "\n")
    for name in figures:
        click.echo(str(folder / f"{name}.png"))


def draw(dataset: Dataset, per_class: int) -> dict[str, Figure]:
    """The figures of a data set by name; all but the counts are of its training part."""
    from mlpkernels import plots

    train, shape = dataset.train, dataset.shape
    parts = {"training": train.y} | ({} if dataset.test is None else {"test": dataset.test.y})
    known: dict[str, Any] = {"full_scale": dataset.full_scale, "feature_names": dataset.feature_names}
    return {
        "samples": plots.samples_figure(train.x, train.y, shape, dataset.classes, per_class=per_class, **known),
        "counts": plots.counts_figure(parts, dataset.classes),
        "means": plots.means_figure(train.x, train.y, shape, dataset.classes, **known),
        "histogram": plots.histogram_figure(train.x, shape, **known),
    }
