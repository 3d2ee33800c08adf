"""What a sweep comes to: the best settings as a table and as a command, and its figures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import runs, sweep_folder, sweep_plan, tables
from .settings import FIELDS
from .sweep_plan import Plan

if TYPE_CHECKING:
    from mlpkernels.sweep_results import Group, Results

_NOT_TYPED = ("data", "out", "quiet", "threads", "plots", "checkpoint-every")  # of a command for one network


def train_command(plan: Plan, best: Group) -> str:
    """The command that trains a network of the best settings."""
    from mlpkernels.sweep_results import text

    words = ["mlpk", "train"]
    if plan.fixed.get("data", FIELDS["data"].default) != FIELDS["data"].default:
        words.append(plan.fixed["data"])
    typed = {name: value for name, value in plan.fixed.items() if value != FIELDS[name].default}
    cells = {name: text(value) for name, value in typed.items() if name not in _NOT_TYPED}
    cells |= {name: str(value) for name, value in best.settings.items()}
    for name in FIELDS:
        if (cell := cells.get(name)) is None:
            continue
        words += [f"--{name}", cell] if cell not in ("on", "off") else [f"--{'' if cell == 'on' else 'no-'}{name}"]
    return shlex.join(words)


def keeps_best(plan: Plan) -> Callable[[Mapping[str, str]], bool]:
    """Whether a network with these settings, as texts, keeps the weights of its lowest validation loss."""

    def best(settings: Mapping[str, str]) -> bool:
        return str(settings.get("early-stopping", plan.fixed.get("early-stopping", 0))) != "0"

    return best


def by_what(results: Results) -> str:
    """By what settings are ranked, in words."""
    part = {"val": "validation", "test": "test", "train": "training"}[results.measure.partition("_")[0]]
    repeats = f", mean ± standard deviation over {' and '.join(results.repeats)}" if results.repeats else ""
    return f"by {part} accuracy{repeats}"


def best_table(results: Results, best: list[Group]) -> str:
    """The best settings as text: values, accuracy, number of networks, loss, seconds."""
    from mlpkernels.sweep_scale import brief

    measure = results.measure
    loss = measure.replace("accuracy", "loss")
    header = [*results.chosen, "accuracy", *(["n"] if results.repeats else []), "loss", "s/epoch", ""]
    lines = []
    for group in best:
        deviation = group.deviation(measure)
        spread = f" ± {100 * deviation:.2f}" if not math.isnan(deviation) else ""
        cells = [str(value) for value in group.settings.values()]
        cells.append(tables.percent(group.mean(measure)).replace(" %", f"{spread} %"))
        cells += [str(len(group.finals))] if results.repeats else []
        cells += [tables.decimal(group.mean(loss)), brief(group.mean("seconds"))]
        lines.append([*cells, f"{group.diverged} diverged" if group.diverged else ""])
    return tables.table(lines, header, align=">", indent=2)


def draw(folder: Path, plan: Plan, results: Results, option: str | None = None) -> list[Path]:
    """Write the figures of a sweep into `folder`, which is made where it is missing; the files' paths.

    option: what named the folder, if anything did; see `runs.save_picture`.
    """
    from mlpkernels import sweep_plots

    folder.mkdir(exist_ok=True)
    logarithmic = [name for name, axis in plan.axes.items() if axis.logarithmic]
    written = []
    for name, figure in sweep_plots.figures(results, logarithmic, keeps_best(plan)):
        written.append(folder / f"{name}.png")
        runs.save_picture(figure, written[-1], option)
    return written


def draw_folder(path: Path, output: Path | None) -> list[Path]:
    """`mlpk plot` of a sweep's folder."""
    from mlpkernels import sweep_results

    plan, _ = sweep_plan.read(path / sweep_plan.FILE)
    results = sweep_results.read(path / sweep_folder.RESULTS)
    return draw(output or path / runs.PLOTS, plan, results, None if output is None else "--output")
