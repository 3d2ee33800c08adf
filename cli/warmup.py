"""`mlpk warmup`: compile all kernels ahead, so that the first training starts at once."""

import click

from . import tables
from .command import Command

# What the kernels of some layers are for, where their names alone do not tell.
_PURPOSES = {
    "no_layers": "in place of flat_layers and image_layers where a network has none",
    "flat_layers": "batch normalisation and dropout behind dense layers",
    "image_layers": "convolutions, max-pooling, batch normalisation and dropout behind them",
    "no_sparse_layer": "in place of sparse_layer for data without many zeros",
    "sparse_layer": "first layers that leave out the zeros of images",
    "no_curves": "in place of curved_layer in networks without such activations",
    "curved_layer": "tanh and the logistic function",
    "no_targets": "in place of target_losses in networks of classes",
    "target_losses": "losses of yes or no, of numbers and of counts",
    "gradient": "loss_and_gradient inside @njit",
    "predict_row": "one sample, from Python and inside @njit",
    "single_layers": "what of its layers is not dense",
    "rows_of_uint8": "a few rows from Python",
    "c_predict_one": "for C and SciPy, as all that begin so",
}


@click.command(
    "warmup",
    cls=Command,
    examples=[("mlpk warmup", "once after installing")],
)
@click.option("--quiet", is_flag=True, help="Print the last line only.")
def command(quiet: bool) -> None:
    """Compile every kernel into the cache, on all cores, and tell how long it took."""
    from mlpkernels.kernels.cpu import warmup

    def on_step(name: str, seconds: float) -> None:
        if not quiet:
            purpose = _PURPOSES.get(name.partition(" ")[0])
            click.echo(f"  {tables.seconds(seconds):>9}  {name}{f': {purpose}' if purpose else ''}")

    took = warmup.warmup(on_step=on_step)
    click.echo(f"all kernels ready in {tables.seconds(took)}")
