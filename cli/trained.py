"""A trained network found by the name of its run, with what its run tells about the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.errors import MlpkError

from . import config, imported, runs
from .errors import OptionError, one_line
from .settings import BUNDLED, Settings

if TYPE_CHECKING:
    from mlpkernels import Network


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and its run folder (or model file); settings is None where nothing tells the data.

    full_scale and feature_names are the training data's, None where unknown. origin: the file that an imported run came
    from.
    """

    path: Path
    network: Network
    settings: Settings | None
    full_scale: float | None
    feature_names: tuple[str, ...] | None
    origin: str | None = None

    def check_one_class(self) -> None:
        """Refuse, by MlpkError, a network whose answer is not one class: Python's Network.evaluate takes any."""
        network = self.network
        if not network.classes or (network.loss == "binary" and network.outputs > 1):
            kind = "any number of classes" if network.classes else "numbers"
            raise MlpkError(f"{self.path}: it predicts {kind}; a network that predicts one class was wanted: "
                            "Network.evaluate in Python measures others")  # fmt: skip


def split_arguments(arguments: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """(run, the other arguments): the first names the run if it is one, else the newest run is meant."""
    if arguments:
        run = runs.find(arguments[0])
        if run is not None:
            return run, arguments[1:]
        first = Path(arguments[0]).expanduser()
        if not first.exists() and not first.suffix and arguments[0].lower() not in BUNDLED:
            raise OptionError(arguments[0], None, "neither a run folder nor a file; without RUN the newest is taken")
    return runs.newest(), arguments


def load(path: Path) -> Trained:
    """The network of a run folder or model file. ModelFileError where it is damaged."""
    from mlpkernels import Network

    network = Network.load(runs.model_file(path))
    folder = path if path.is_dir() else path.parent
    if not runs.is_run(folder):
        return Trained(path, network, None, _full_scale_of(network), None)
    extra = _extra(folder)
    names = extra.get("feature_names")
    origin = imported.origin(folder)
    settings = _settings(folder / runs.CONFIG) if origin is None or imported.tells_data(folder) else None
    told = imported.full_scale(folder)  # of an imported run nothing else is known: its factor may be anything
    full_scale = extra.get("full_scale", _full_scale_of(network)) if origin is None else told
    return Trained(path, network, settings, full_scale, None if names is None else tuple(names), origin)


def _settings(path: Path) -> Settings:
    """The run's settings; a note tells of those that this version does not know."""
    unknown: list[str] = []
    settings = config.read_run(path, unknown.append)
    unknown = [name for name in unknown if name not in (imported.KEY, imported.FULL_SCALE)]
    if unknown:
        click.echo(f"note: {path}: no such setting: {', '.join(unknown)}; passed over", err=True)
    return settings


def _extra(folder: Path) -> dict[str, Any]:
    """What the run's checkpoint tells about the data; nothing where a run was copied without it.

    The model is whole without it, so a damaged checkpoint is only told in a note.
    """
    from mlpkernels import load_checkpoint
    from mlpkernels.errors import ModelFileError

    if not (folder / runs.CHECKPOINT).is_file():
        return {}
    try:
        extra: dict[str, Any] = load_checkpoint(folder / runs.CHECKPOINT)[2]
    except ModelFileError as error:
        click.echo(f"note: {one_line(str(error))}; going on with the model alone", err=True)
        return {}
    return extra


def _full_scale_of(network: Network) -> float | None:
    """The pixel value that an images' scaling made 1, which is the full scale; None where it cannot tell."""
    scaling = network.scaling
    if scaling is None or len(network.shape) != 3 or not scaling.is_scalar:
        return None
    if scaling.kind == "unit":
        return round(1 / float(scaling.factor), 6)
    return round(2 / float(scaling.factor), 6) if scaling.kind == "symmetric" else None


def write(text: str, output: str | None) -> None:
    """Print a text, or write it without colours to the file `output`, whole or not at all."""
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    from mlpkernels.files import write_atomic

    text = click.unstyle(text)
    write_atomic(output, (text if text.endswith("\n") else text + "\n").encode())
    click.echo(f"written to {output}", err=True)
