"""The `mlpk` group: its commands, each imported when it is called."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from mlpkernels import __version__

from .errors import guarded
from .examples import write_examples

_COMPLETION = "_MLPK_COMPLETE"  # set by the shell that completes a line


class Lazy(NamedTuple):
    """A command that is not imported yet: the module beside this one, and its line in the group's --help."""

    module: str
    summary: str


# In the order in which `mlpk --help` shows them.
COMMANDS = {
    "train": Lazy("train", "Train a network and keep a run folder."),
    "sweep": Lazy("sweep", "Train for many settings, side by side."),
    "eval": Lazy("evaluate", "Accuracy by class, confusion matrix."),
    "predict": Lazy("predict", "Classes of pictures and table rows."),
    "plot": Lazy("plot", "Draw a run's figures."),
    "export": Lazy("export", "A network as C source or ONNX file."),
    "import": Lazy("import_", "A network made elsewhere as a run."),
    "reproduce": Lazy("reproduce", "Repeat the experiments this project grew from."),
    "info": Lazy("info", "Describe a run or a data set."),
    "data": Lazy("data_group", "Look at data sets, or write them."),
    "bench": Lazy("bench", "Measure how fast this machine trains."),
    "doctor": Lazy("doctor", "What the kernels find on this machine."),
    "warmup": Lazy("warmup", "Compile all kernels ahead."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called: importing all doubles the time of --help.

    lazy: its commands by name; examples that close --help: (command line, what for).
    """

    def __init__(
        self, *args: Any, lazy: dict[str, Lazy], examples: list[tuple[str, str]], **kwargs: Any
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.lazy, self.examples = lazy, examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.lazy.get(cmd_name)
        if lazy is None:
            return None
        command: click.Command = importlib.import_module(f".{lazy.module}", __package__).command
        command.short_help = lazy.summary  # what a shell shows beside the name that it completes
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.lazy:
            from .errors import close_match

            raise click.UsageError(f"{args[0]}: no such command{close_match(args[0], self.lazy)}", ctx)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode or _COMPLETION in os.environ:
            return super().main(args, "mlpk", _COMPLETION, standalone_mode=standalone_mode, **extra)

        def run() -> Any:
            # Not Click's own main, which would answer broken pipes and Ctrl-C before `guarded` can.
            try:
                with self.make_context("mlpk", sys.argv[1:] if args is None else list(args), **extra) as ctx:
                    return self.invoke(ctx)
            except click.exceptions.Exit as error:
                return error.exit_code

        sys.exit(guarded(run))


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    examples=[
        ("mlpk train", "train on the bundled handwritten digits"),
        ("mlpk eval", "how good the newest run is"),
        ("mlpk predict digit.png", "what it sees in a picture"),
        ("mlpk train --help", "options and examples of a command"),
    ],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mlpk", message="%(prog)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Train and run small neural networks on compiled kernels."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without UTF-8, a file name that is no text: shown escaped, not as a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    group()
