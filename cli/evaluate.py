"""`mlpk eval`: loss, accuracy, figures by class and the confusion matrix of a trained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import backend as backends
from . import tables
from .command import Checked, Command, format_option, output_option, setting_option
from .errors import OptionError
from .parsing import AUTO, choice
from .settings import Settings, parse

if TYPE_CHECKING:
    from mlpkernels.datasets import Dataset, Part

    from .trained import Trained

PARTS = ("test", "validation", "train")


@click.command(
    "eval",
    cls=Command,
    examples=[
        ("mlpk eval", "the newest run on its test data"),
        ("mlpk eval runs/NAME --part train", "a run on what it was trained on"),
        ("mlpk eval runs/NAME other.csv", "a run on other data"),
        ("mlpk eval --format json --output figures.json", "for a program"),
    ],
)
@click.argument("arguments", nargs=-1, metavar="[RUN] [DATA]")
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
@setting_option("label-column", "Options")
@click.option(
    "--part", type=Checked(choice(*PARTS)), metavar="NAME",
    help="test, validation or train. [default: test; all rows of DATA without a test part]",
)  # fmt: skip
@setting_option("backend", "Options")
@setting_option("threads", "Options")
@format_option("table", "json")
@output_option
def command(
    arguments: tuple[str, ...], part: str | None, backend: str | None, threads: Any, form: str,
    output: str | None, **options: Any,
) -> None:  # fmt: skip
    """Show how good a trained network is: loss, accuracy, figures by class, confusion matrix.

    RUN is a run folder, its name in runs/ or a model.safetensors file; without it the newest run is taken.
    DATA is as for mlpk train; without it the run's own data are taken.
    """
    from . import report, trained

    run, rest = trained.split_arguments(arguments)
    if len(rest) > 1:
        raise OptionError(rest[1], None, "one RUN and one DATA were wanted, no more")
    given = {name: value for name, value in options.items() if value is not None}
    found = trained.load(run)
    found.check_one_class()
    name, rows = chosen(found, parse("data", rest[0]) if rest else None, part, given)
    count = None if threads in (None, AUTO) else threads
    measured = report.measure(found.network, rows, backends.chosen(backend, found.network, len(rows)), count)
    if form == "json":
        trained.write(report.to_text({"run": str(run), "data": name, **measured.to_json()}), output)
        return
    summary = [
        ["run", str(run)],
        ["data", name],
        ["accuracy", f"{tables.percent(measured.accuracy)}   {measured.right:,} of {measured.rows:,}"],
        ["loss", tables.decimal(measured.loss)],
    ]  # fmt: skip
    texts = [tables.table(summary, align="<<"), measured.class_table()]
    if len(measured.classes) <= report.MOST_CLASSES:
        texts.append(measured.confusion_table())
    else:
        texts.append(f"The confusion matrix of {len(measured.classes)} classes is in --format json.")
    trained.write("\n\n".join(texts), output)


def chosen(found: Trained, data: str | None, part: str | None, given: dict[str, Any]) -> tuple[str, Part]:
    """(name, rows) of the data to evaluate on, their classes, columns and scale made the network's."""
    from mlpkernels.errors import DataError

    from .data import load, load_one

    own = found.settings is not None and data in (None, found.settings.data)
    if own:
        assert found.settings is not None
        loaded = load(dataclasses.replace(found.settings, **given))
        parts = {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}
        dataset, default = loaded.dataset, "test"
    elif data is None:
        raise OptionError(str(found.path), None, "nothing tells what data it is for: give DATA after it")
    else:
        if "label_column" not in given:
            given = given | {"label_column": _label_column(found, data)}
        dataset = load_one(Settings(data=data, **given), data, min_classes=1)
        parts = {"train": dataset.train, "validation": None, "test": dataset.test}
        default = "train" if dataset.test is None else "test"
    wanted = part or default
    rows = parts[wanted]
    if rows is None:
        raise DataError(f"{dataset.name} has no {wanted} part here; --part {default} is there")
    name = dataset.name if part is None and wanted == "train" else f"{dataset.name}, {wanted} part"
    return name, conformed(found, dataclasses.replace(dataset, train=rows, test=None)).train


def _label_column(found: Trained, data: str) -> str:
    """The column of other data's labels: the run's own, or the one beside pixels; "" for the first."""
    if not data.lower().endswith((".csv", ".csv.gz", ".tsv")) or not Path(data).is_file():
        return ""
    from mlpkernels.datasets import csvfile, inputs

    names = csvfile.read_header(Path(data)).names
    own = found.settings.label_column if found.settings is not None else ""
    return own if own in names else inputs.label_among_pixels(names) or ""


def conformed(found: Trained, dataset: Dataset) -> Dataset:
    """The data set with the network's classes, columns and scale; DataError where it cannot have them."""
    from mlpkernels import datasets

    return datasets.conform(
        dataset, classes=found.network.classes, shape=found.network.shape, full_scale=found.full_scale,
        feature_names=found.feature_names,
    )  # fmt: skip
