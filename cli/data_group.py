"""`mlpk data`: commands about data sets themselves, each imported when it is called."""

import click

from .main import LazyGroup

COMMANDS = {"show": "show", "csv": "data_csv"}


@click.group(
    "data",
    cls=LazyGroup,
    modules=COMMANDS,
    examples=[
        ("mlpk data show mnist", "pictures of a data set: samples, counts, means, histogram"),
        ("mlpk data csv mnist", "its images as rows of pixels"),
    ],
    short_help="Look at data sets, or write them.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Look at data sets, or write them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
