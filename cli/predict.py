"""`mlpk predict`: the classes that a trained network sees in files."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import click

from . import backend as backends
from . import report, tables
from .command import Checked, Command, format_option, output_option, setting_option
from .errors import OptionError
from .parsing import AUTO, whole
from .progress import compiling_notice

if TYPE_CHECKING:
    import numpy as np


@click.command(
    "predict",
    cls=Command,
    examples=[
        ("mlpk predict digit.png", "one picture, by the newest run"),
        ("mlpk predict --invert scan.png --top 3", "dark on light, with the second and third guess"),
        ("mlpk predict runs/NAME table.csv --format csv --output classes.csv", "a row a line"),
    ],
)
@click.argument("arguments", nargs=-1, metavar="[RUN] FILE…")
@click.option("--invert", is_flag=True, help="The pictures are dark on light; the network learned light on dark.")
@click.option(
    "--top",
    type=Checked(whole(1)),
    metavar="K",
    help="The K most probable classes. [default: 1; all where any number of them may be true]",
)
@setting_option("label-column", "Options")
@setting_option("backend", "Options")
@setting_option("threads", "Options")
@format_option("table", "csv", "json")
@output_option
def command(
    arguments: tuple[str, ...], invert: bool, top: int | None, label_column: str | None, backend: str | None,
    threads: Any, form: str, output: str | None,
) -> None:  # fmt: skip
    """Print the most probable class of every picture or row in FILEs, with its probability; of regressions, numbers.

    FILE is a picture (.png, .jpg, …) of the size the network was trained on, a .csv with its columns (labels
    may be there too), or a .npz with x. RUN is a run folder, its name in runs/ or a model.safetensors file;
    without it the newest run is taken.
    """
    from mlpkernels import datasets

    from . import trained

    run, files = trained.split_arguments(arguments)
    if not files:
        raise OptionError("FILE", None, "at least one picture, .csv or .npz was wanted")
    found = trained.load(run)
    network = found.network
    if top is not None and not network.classes:
        raise OptionError("--top", str(top), f"{run} predicts numbers, which have no order of probability")
    many = network.loss == "binary" and network.outputs > 1
    x, names = datasets.read_inputs(
        files,
        network.shape,
        found.full_scale,
        found.feature_names,
        invert=invert,
        label_column=label_column or None,
        usual_label=found.settings.label_column or None if found.settings and label_column is None else None,
    )
    count = None if threads in (None, AUTO) else threads
    taken = backends.chosen(backend, network, len(x))
    with compiling_notice():
        network.predict_logits(x[: report.SOME], threads=count, backend=taken)
    if not network.classes:
        numbers = network.predict(x, threads=count, backend=taken)
        trained.write(as_numbers(names, numbers, form), output)
        return
    proba = network.predict_proba(x, threads=count, backend=taken)
    writer = {"table": as_table, "csv": as_csv, "json": as_json}[form]
    trained.write(writer(names, network.classes, best(proba, top or (network.outputs if many else 1)), proba), output)


def best(proba: np.ndarray, top: int) -> np.ndarray:
    """The `top` most probable classes of each row, indices (N, top); the first of equals first."""
    import numpy as np

    return np.argsort(-proba, axis=1, kind="stable")[:, :top]


def as_table(names: list[str], classes: tuple[int | str, ...], order: np.ndarray, proba: np.ndarray) -> str:
    """A line a row: its name, then class and probability, the most probable first."""
    rows = [
        [name, *(cell for k in ranks for cell in (classes[k], tables.percent(float(row[k]))))]
        for name, ranks, row in zip(names, order.tolist(), proba, strict=True)
    ]
    header = ["input", *(text for k in range(order.shape[1]) for text in _titles(k, "class", "probability"))]
    return tables.table(rows, header)


def _titles(rank: int, *names: str) -> list[str]:
    return list(names) if rank == 0 else [f"{name} {rank + 1}" for name in names]


def as_csv(names: list[str], classes: tuple[int | str, ...], order: np.ndarray, proba: np.ndarray) -> str:
    """input,class,probability[,class_2,probability_2,…] with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [t.replace(" ", "_") for k in range(order.shape[1]) for t in _titles(k, "class", "probability")]
    writer.writerow(["input", *titles])
    for name, ranks, row in zip(names, order.tolist(), proba.tolist(), strict=True):
        writer.writerow([name, *(cell for k in ranks for cell in (classes[k], f"{row[k]:.6g}"))])
    return text.getvalue()


def as_json(names: list[str], classes: tuple[int | str, ...], order: np.ndarray, proba: np.ndarray) -> str:
    """A list with an object a row: input, class, probability and, for more than one, the ranking `top`."""
    from .report import to_text

    result = []
    for name, ranks, row in zip(names, order.tolist(), proba.tolist(), strict=True):
        ranking = [{"class": classes[k], "probability": row[k]} for k in ranks]
        entry: dict[str, Any] = {"input": name, **ranking[0]}
        result.append(entry | {"top": ranking} if len(ranking) > 1 else entry)
    return to_text(result)


def as_numbers(names: list[str], numbers: np.ndarray, form: str) -> str:
    """A line a row of a regression (N, K): its name and what is predicted; of json a list of objects,
    null for what is beyond the dtype's range, for which JSON has no word."""
    if form == "json":
        from .report import to_text

        known = [[value if math.isfinite(value) else None for value in row] for row in numbers.tolist()]
        return to_text([{"input": name, "output": row} for name, row in zip(names, known, strict=True)])
    header = ["input", *(f"output {k}" if k > 1 else "output" for k in range(1, numbers.shape[1] + 1))]
    rows = [[name, *(f"{value:.6g}" for value in row)] for name, row in zip(names, numbers.tolist(), strict=True)]
    if form == "table":
        return tables.table(rows, header)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[title.replace(" ", "_") for title in header], *rows])
    return text.getvalue()
