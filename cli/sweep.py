"""`mlpk sweep`: train a network for every combination of some settings, side by side, and tell which is best."""

from typing import Any

import click

from .axes import SWEPT, axis_parser
from .command import Checked, Command, SectionOption, setting_option, setting_type
from .parsing import flag, whole
from .settings import FIELDS


def _options(function: Any) -> Any:
    for name in reversed(FIELDS):
        if name in SWEPT:
            function = _swept_option(name)(function)
        elif name not in ("data", "checkpoint-every", *_OTHERWISE):
            function = setting_option(name)(function)
    return function


# Options that are something else here than for mlpk train: name -> (metavar, help).
_OTHERWISE = {
    "out": ("DIR", "The sweep folder, new or of this sweep. [default: runs/sweep-DATA-DATE-TIME]"),
    "threads": ("N", "Networks trained side by side, each on one core. [default: one a core]"),
}


def _run_options(function: Any) -> Any:
    for name, (metavar, text) in reversed(_OTHERWISE.items()):
        function = click.option(
            f"--{name}", cls=SectionOption, section="Run", type=setting_type(name), metavar=metavar, help=text,
        )(function)  # fmt: skip
    return function


def _swept_option(name: str) -> Any:
    """The option --name, with as many values as one likes."""
    metadata = FIELDS[name].metadata
    options: dict[str, Any] = {"metavar": metadata["metavar"]}
    if metadata["parse"] is flag:
        options = {"metavar": "on|off", "is_flag": False, "flag_value": "on"}
    return click.option(
        f"--{name}", name.replace("-", "_"), cls=SectionOption, section=metadata["section"], default=None,
        type=Checked(axis_parser(name)), help=metadata["help"], **options,
    )  # fmt: skip


@click.command(
    "sweep",
    cls=Command,
    examples=[
        ("mlpk sweep --batch-size 8,16,32 --learning-rate log:1e-4:1e-1:7 --seed 0:5", "a grid, five seeds each"),
        ("mlpk sweep mnist --hidden 64,64/128,128/none --dtype float32", "networks"),
        ("mlpk sweep --learning-rate log:1e-4:1 --batch-size 8,16,32 --sample 20", "20 settings drawn at random"),
        ("mlpk sweep mine.csv --optimizer sgd,adam --val-split 0.1 --out study", "chosen on validation data"),
    ],
)
@click.argument("data", required=False, type=setting_type("data", "DATA"))
@_options
@click.option(
    "--sample", cls=SectionOption, section="Sweep", type=Checked(whole(1)), metavar="N",
    help="Draw N settings at random, each trained with every seed. [default: all combinations]",
)  # fmt: skip
@click.option(
    "--sample-seed", cls=SectionOption, section="Sweep", type=Checked(whole(0)), metavar="N",
    help="Seed of that drawing. [default: 0]",
)  # fmt: skip
@_run_options
@click.option(
    "--config", "file", metavar="FILE", cls=SectionOption, section="Run",
    help="Settings from a TOML file, a sweep.toml too; options override them.",
)  # fmt: skip
def command(file: str | None, sample: int | None, sample_seed: int | None, **options: Any) -> None:
    """Train a network for every combination of settings, one a core side by side, and keep a sweep folder.

    DATA is as for mlpk train. Any setting may have several values: a list 8,16,32; FIRST:END or FIRST:END:STEP,
    without END; lin:FIRST:LAST:N or log:FIRST:LAST:N, N values evenly or logarithmically, with both ends; or a
    list of these. Where a comma is part of a value, slashes part them: --hidden 64,64/128,128/none. With
    --sample, lin:LOW:HIGH and log:LOW:HIGH are drawn from. Seeds are repeats: figures are means over them.

    The folder's results.csv gets a row a network and epoch. After Ctrl-C the same command goes on.
    """
    from . import sweep_plan, sweep_session

    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    sweep_session.run(sweep_plan.from_options(file, given, sample, sample_seed))
