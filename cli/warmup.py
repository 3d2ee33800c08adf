"""`mlpk warmup`: compile all kernels ahead, so that the first training starts at once."""

import click

from . import tables
from .command import Command


@click.command(
    "warmup",
    cls=Command,
    short_help="Compile all kernels ahead.",
    examples=[("mlpk warmup", "once after installing")],
)
@click.option("--quiet", is_flag=True, help="Print the last line only.")
def command(quiet: bool) -> None:
    """Compile every kernel into the cache and tell how long it took."""
    from mlpkernels.kernels.cpu import warmup

    def on_step(name: str, seconds: float) -> None:
        if not quiet:
            click.echo(f"  {tables.seconds(seconds):>9}  {name}")

    took = warmup.warmup(on_step=on_step)
    click.echo(f"all kernels ready in {tables.seconds(took)}")
