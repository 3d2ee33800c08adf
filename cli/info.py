"""`mlpk info`: what a data set or a run is: shapes, counts, parameters, operations, bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from . import tables
from .command import Command, setting_option

if TYPE_CHECKING:
    from pathlib import Path

    from mlpkernels.datasets import Dataset

_MOST = 40  # classes that are listed one by one


@click.command(
    "info",
    cls=Command,
    examples=[
        ("mlpk info", "the newest run"),
        ("mlpk info mnist", "a data set: shapes and classes"),
        ("mlpk info runs/NAME", "a run: network, training, files"),
    ],
)
@click.argument("what", required=False, metavar="[RUN|DATA]")
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
@setting_option("label-column", "Options")
def command(what: str | None, **options: Any) -> None:
    """Describe a run (folder, name in runs/ or model.safetensors) or a data set (as for mlpk train)."""
    from mlpkernels.errors import UnknownDataError

    from . import runs
    from .data import load_one
    from .settings import Settings, parse

    path = runs.newest() if what is None else runs.find(what)
    if path is not None:
        click.echo(_run(path))
        return
    assert what is not None
    given = {name: value for name, value in options.items() if value is not None}
    data = parse("data", what)
    try:
        dataset = load_one(Settings(data=data, **given), data, min_classes=1)
    except UnknownDataError as error:
        raise UnknownDataError(f"{error}, or a run by its folder or its name in {runs.PARENT}{os.sep}") from None
    click.echo(describe(dataset))


def describe(dataset: Dataset) -> str:
    """A data set for people: source, shape, values, and how many rows of each class its parts have."""
    import numpy as np

    parts = {"training": dataset.train} | ({"test": dataset.test} if dataset.test is not None else {})
    x = dataset.train.x
    shape = " x ".join(map(str, dataset.shape)) + (" (channels, height, width)" if dataset.images else " columns")
    low, high = (min(part.x.min() for part in parts.values()), max(part.x.max() for part in parts.values()))
    full = f", full scale {dataset.full_scale:g}" if dataset.full_scale else ""
    rows = [
        ["data", dataset.name],
        ["source", dataset.source],
        ["shape", shape],
        ["values", f"{x.dtype}, {low:g} to {high:g}{full}"],
        *([f"{name} rows", f"{len(part):,}, {tables.size(part.x.nbytes)}"] for name, part in parts.items()),
        ["classes", str(len(dataset.classes))],
    ]  # fmt: skip
    if dataset.test is None:
        rows.insert(-1, ["test rows", "none of its own: mlpk train keeps --test-split of the training rows"])
    counts = {name: np.bincount(part.y, minlength=len(dataset.classes)) for name, part in parts.items()}
    order = list(range(len(dataset.classes)))
    lines = [[dataset.classes[k], *(tables.count(count[k]) for count in counts.values())] for k in order[:_MOST]]
    text = tables.table(rows, align="<<") + "\n\n" + tables.table(lines, ["class", *counts])
    return text + (f"\n… and {len(order) - _MOST} more classes" if len(order) > _MOST else "")


def _run(path: Path) -> str:
    from . import runs
    from .trained import load

    found = load(path)
    network = found.network
    classes = ", ".join(map(str, network.classes[:_MOST])) + (", …" if len(network.classes) > _MOST else "")
    numbers = f"{network.outputs} number{'s' if network.outputs > 1 else ''}"
    scaling = "none" if network.scaling is None else network.scaling.kind
    rows: list[list[str]] = [["run", str(path)]]
    if found.origin is not None:
        rows += [["imported from", found.origin]] + ([["data", found.settings.data]] if found.settings else [])
    elif found.settings is not None:
        settings = found.settings
        rows += [
            ["data", settings.data],
            ["training", f"{settings.optimizer} {settings.learning_rate:g}, batch {settings.batch_size}, "
                         f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}, seed {settings.seed}"],
        ]  # fmt: skip
        rows += _state(path if path.is_dir() else path.parent)
    rows += [
        ["input", f"{' x '.join(map(str, network.shape))}, scaling {scaling}"],
        ["classes", f"{len(network.classes)}: {classes}"] if classes else ["outputs", numbers],
        *([["loss", network.loss]] if network.loss != "cross-entropy" else []),
        ["parameters", f"{tables.count(network.parameter_count)} {network.dtype}, "
                       f"{tables.size(network.parameter_count * network.dtype.itemsize)}"],
        ["forward pass", tables.quantity(network.flops, "FLOP") + " a sample"],
    ]  # fmt: skip
    text = tables.table(rows, align="<<") + "\n\n" + network.summary()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != runs.LOCK)
        text += "\n\n" + tables.table([[file.relative_to(path), tables.size(file.stat().st_size)] for file in files])
    return text


def _state(run: Path) -> list[list[str]]:
    """How far a run has come. MlpkError for a damaged metrics.json."""
    import json
    import shlex

    from mlpkernels.errors import MlpkError

    from . import runs

    if not (run / runs.METRICS).is_file():
        return [["state", f"not finished; go on with: mlpk train --resume {shlex.quote(str(run))}"]]
    try:
        metrics = json.loads((run / runs.METRICS).read_text(encoding="utf-8"))
        took = tables.seconds(metrics["seconds"])
        return [
            ["state", f"finished after {metrics['epochs']} epoch{'s' * (metrics['epochs'] > 1)}, {took} of training"],
            ["test accuracy", tables.percent(metrics["test"]["accuracy"])],
        ]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__} {error}"
        raise MlpkError(f"{run / runs.METRICS}: damaged ({reason}); mlpk eval {run} measures again") from None
