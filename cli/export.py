"""`mlpk export`: a trained network as C source or as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import parsing, tables
from .command import Checked, Command, format_option
from .errors import OptionError

if TYPE_CHECKING:
    from mlpkernels import Network


@click.command(
    "export",
    cls=Command,
    examples=[
        ("mlpk export", "model.h and model.c of the newest run"),
        ("mlpk export runs/NAME --name digits --out firmware", "digits.h and digits.c, into a folder"),
        ("mlpk export runs/NAME --format onnx", "model.onnx, into the run's folder export"),
    ],
)
@click.argument("arguments", nargs=-1, metavar="[RUN]")
@format_option("c", "onnx")
@click.option("--out", type=Checked(parsing.path), metavar="DIR", help="The files' folder. [default: RUN/export]")
@click.option(
    "--name", type=Checked(parsing.text), default="model", metavar="NAME",
    help="Of the files, and what every name in the C header begins with. [default: model]",
)  # fmt: skip
def command(arguments: tuple[str, ...], form: str, out: str | None, name: str) -> None:
    """Write a trained network for other programs: scaling of raw inputs and class names are inside.

    c: C99, one header and one source that need nothing but math.h; with -DTEST the source is a program that checks
    golden vectors. onnx: a graph for ONNX Runtime and others (needs mlpkernels[onnx]). RUN is a run folder, its name
    in runs/ or a model.safetensors file; without it the newest run is taken. Existing files are not overwritten.
    """
    from mlpkernels import Network

    from . import runs

    if len(arguments) > 1:
        raise OptionError(arguments[1], None, "one RUN was wanted, no more")
    _check_name(name, form)
    run = _run(arguments[0]) if arguments else runs.newest()
    network = Network.load(runs.model_file(run))
    folder = Path(out) if out else (run if run.is_dir() else run.parent) / "export"
    made = runs.make_folders(folder)
    try:
        paths = _write(network, form, folder, name)
    except BaseException:
        runs.remove_empty(made)
        raise
    for path in paths:
        click.echo(f"{path}: {tables.size(path.stat().st_size)}")


def _run(name: str) -> Path:
    """The run folder or model file that an argument names; OptionError says what is there in its place."""
    from . import runs

    run = runs.find(name)
    if run is not None:
        return run
    path = Path(name).expanduser()
    if path.is_dir():
        raise OptionError(name, None, f"no run folder: there is no {runs.CONFIG} in it; one that mlpk train or mlpk "
                          "import made was wanted, or a model.safetensors file")  # fmt: skip
    if path.exists():
        raise OptionError(name, None, "no run folder and no .safetensors file; mlpk import reads other files")
    raise OptionError(name, None, "neither a run folder nor a file; without RUN the newest is taken")


def _check_name(name: str, form: str) -> None:
    if form == "c":
        from mlpkernels.export.c_text import check_name

        try:
            check_name(name)
        except ValueError as error:
            raise OptionError("--name", name, str(error)) from None
    elif not name or Path(name).name != name or "\0" in name:
        raise OptionError("--name", name, "a file's name was wanted, without a folder: that is --out")


def _write(network: Network, form: str, folder: Path, name: str) -> list[Path]:
    """Write the files; MlpkError for a network that cannot be exported."""
    from mlpkernels import export
    from mlpkernels.errors import MlpkError

    try:
        if form == "c":
            return export.write_c(network, folder, name)
        return [export.write_onnx(network, folder / f"{name}.onnx")]
    except ValueError as error:
        raise MlpkError(str(error)) from None
