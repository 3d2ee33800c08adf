"""The `mlpk` group: its commands, each imported when it is called."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mlpkernels import __version__

from .errors import guarded
from .examples import write_examples

_COMPLETION = "_MLPK_COMPLETE"  # set by the shell that completes a line

# Command -> module beside this one. In the order in which `mlpk --help` shows them.
COMMANDS = {
    "train": "train",
    "sweep": "sweep",
    "eval": "evaluate",
    "predict": "predict",
    "plot": "plot",
    "export": "export",
    "import": "import_",
    "reproduce": "reproduce",
    "info": "info",
    "data": "data_group",
    "bench": "bench",
    "doctor": "doctor",
    "warmup": "warmup",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is wanted.

    modules: command -> module beside this one; examples that close --help: (command line, what for).
    """

    def __init__(
        self, *args: Any, modules: dict[str, str], examples: list[tuple[str, str]], **kwargs: Any
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.modules, self.examples = modules, examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self.modules.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(f".{module}", __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.modules:
            from .errors import close_match

            raise click.UsageError(f"{args[0]}: no such command{close_match(args[0], self.modules)}", ctx)
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
    modules=COMMANDS,
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
