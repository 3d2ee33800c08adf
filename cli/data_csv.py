"""`mlpk data csv`: images as a CSV of pixels, rows drawn by a seed."""

from pathlib import Path
from typing import Any

import click

from . import parsing, tables
from .command import Checked, Command, check_new, setting_option, setting_type
from .errors import OptionError


@click.command(
    "csv",
    cls=Command,
    examples=[
        ("mlpk data csv mnist", "mnist.csv: 42,000 rows label,pixel0,…, drawn by seed 0"),
        ("mlpk data csv mnist --output train.csv --rest test.csv", "and the other 28,000 rows without labels"),
    ],
)
@click.argument("data", type=setting_type("data", "DATA"))
@click.option(
    "--rows", type=Checked(parsing.whole(1)), default="42000", metavar="N",
    help="Rows, drawn from all that DATA has. [default: 42000]",
)  # fmt: skip
@click.option("--seed", type=Checked(parsing.whole(0)), default="0", metavar="N", help="Of the drawing. [default: 0]")
@click.option("--output", type=Checked(parsing.path), metavar="FILE", help="The CSV. [default: DATA.csv]")
@click.option("--rest", type=Checked(parsing.path), metavar="FILE", help="A CSV of the other rows, without labels.")
@setting_option("data-dir", "Options")
@setting_option("offline", "Options")
def command(data: str, rows: int, seed: int, output: str | None, rest: str | None, **options: Any) -> None:
    """Draw rows of DATA (training and test part together) and write them as label,pixel0,pixel1,….

    The same DATA, --rows and --seed give the same file, byte by byte. Existing files are not overwritten.
    """
    from mlpkernels.datasets.csvwriting import write_both

    from .data import load_one
    from .settings import Settings

    given = {name: value for name, value in options.items() if value is not None}
    path = Path(output or f"{Path(data).stem}.csv")
    other = Path(rest) if rest else None
    if other is not None and other.absolute() == path.absolute():
        raise OptionError("--rest", str(other), "another file than --output was wanted")
    check_new("--output", path)
    check_new("--rest", other)
    dataset = load_one(Settings(data=data, **given), data)
    counts = write_both(dataset, rows, seed, path, other)
    for file, count in zip((path, other), counts, strict=True):
        if file is not None:
            click.echo(f"{file}: {tables.count(count)} rows, {tables.size(file.stat().st_size)}")
