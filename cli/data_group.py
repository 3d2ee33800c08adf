"""`mlpk data`: commands about data sets themselves, each imported when it is called."""

import click

from .main import Lazy, LazyGroup

COMMANDS = {
    "show": Lazy("show", "Draw samples, class counts, means and histogram."),
    "csv": Lazy("data_csv", "Write images as a CSV of pixels."),
}


@click.group(
    "data",
    cls=LazyGroup,
    lazy=COMMANDS,
    examples=[
        ("mlpk data show mnist", "pictures of a data set: samples, counts, means, histogram"),
        ("mlpk data csv mnist", "its images as rows of pixels"),
    ],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Look at data sets, or write them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
