"""What every `mlpk` command shares: the shape of its --help, and options made from the settings table."""

import os
from collections.abc import Callable
from typing import Any

import click

from .errors import OptionError
from .examples import write_examples
from .parsing import Parser, choice
from .settings import FIELDS


class Command(click.Command):
    """A command whose --help shows options by section and closes with examples: (command line, what for)."""

    def __init__(self, *args: Any, examples: list[tuple[str, str]], **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(*args, **kwargs)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _refuse_empty(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # Click's parser does not always tell which command it was
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        # One width for all sections: their columns stand one under the other.
        widest = max(len(names) for rows in sections.values() for names, _ in rows)
        for section in sorted(sections, key=lambda name: name == "Options"):
            with formatter.section(section):
                formatter.write_dl([(f"{names:{widest}}", text) for names, text in sections[section]], col_max=40)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


def _refuse_empty(args: list[str]) -> None:
    """Refuse empty values, most likely of a shell's variable that is not set: "" would be the current folder.

    Of a setting whose default is "" it is that, for who wants to undo what a settings file says.
    """
    for before, word in zip(["", *args], args, strict=False):
        if word == "--":
            return
        if word and not (word.startswith("--") and word.endswith("=")):
            continue
        name = word[:-1] or (before if before.startswith("-") and "=" not in before else "an argument")
        default = FIELDS[name[2:]].default if name[2:] in FIELDS else None
        if default != "":
            hint = "none for no layers" if isinstance(default, tuple) else "a value"
            raise OptionError(name, "''", f"it is empty; give {hint}, or leave it out")


class Checked(click.ParamType):
    """A parser of `parsing` as Click's parameter type; its errors name option, value and what was wanted."""

    def __init__(self, parser: Parser, label: str = "") -> None:
        self.name = "value"
        self.parser = parser
        self.label = label

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parser(value)
        except ValueError as error:
            raise OptionError(self.label or (param.opts[-1] if param else "value"), value, str(error)) from None


class SectionOption(click.Option):
    """An option that stands under a heading of its command's --help."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def setting_type(name: str, label: str = "") -> Checked:
    """The type of the setting `name` on the command line."""
    return Checked(FIELDS[name].metadata["typed"], label)


def setting_option(name: str, section: str | None = None) -> Callable[[Any], Any]:
    """The option --name of the settings table; None where it was not given."""
    metadata = FIELDS[name].metadata
    section, text = section or metadata["section"], metadata["help"]
    variable = name.replace("-", "_")
    if isinstance(FIELDS[name].default, bool):
        return click.option(
            f"--{name}/--no-{name}", variable, cls=SectionOption, section=section, default=None, help=text
        )
    return click.option(
        f"--{name}", variable, cls=SectionOption, section=section, default=None,
        type=setting_type(name), metavar=metadata["metavar"], help=text,
    )  # fmt: skip


def format_option(*formats: str) -> Callable[[Any], Any]:
    """--format of a command that prints for people or for programs; the first is the default."""
    return click.option(
        "--format", "form", type=Checked(choice(*formats)), default=formats[0], metavar="NAME",
        help=f"{', '.join(formats[:-1])} or {formats[-1]}. [default: {formats[0]}]",
    )  # fmt: skip


def check_new(name: str, path: str | os.PathLike[str] | None) -> None:
    """Refuse, before anything is computed, to write where something is; name is the option's."""
    if path is not None and os.path.exists(path):
        raise OptionError(name, os.fspath(path), "it exists; name a new file")


def _new_file(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    check_new("--output", value)
    return value


output_option = click.option(
    "--output", metavar="FILE", callback=_new_file, help="Write to a new file instead of the terminal."
)
