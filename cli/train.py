"""`mlpk train`: train a network and keep a run folder."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import config
from .command import Command, SectionOption, setting_option, setting_type
from .errors import OptionError
from .parsing import AUTO
from .settings import FIELDS, Settings, build, resolve

if TYPE_CHECKING:
    from .runs import RunFolder
    from .session import Session

CHANGEABLE = ("epochs", "threads", "quiet", "out")  # what a resumed run may be given anew


def _options(function: Any) -> Any:
    for name in reversed(FIELDS):
        if name != "data":
            function = setting_option(name)(function)
    return function


@click.command(
    "train",
    cls=Command,
    examples=[
        ("mlpk train", "the bundled handwritten digits"),
        ("mlpk train mnist --hidden 256,128 --epochs 20", "another network on MNIST"),
        ("mlpk train mnist --dropout 0.2 --batch-norm", "regularised"),
        ("mlpk train mnist --conv 10x5,20x5 --hidden 50", "two convolutions, each with a pool, before it"),
        (
            "mlpk train mine.csv --label-column kind --early-stopping 5",
            "a table, stopped when it gets no better",
        ),
        ("mlpk train --config runs/NAME/config.toml --seed 1", "a run again, with another seed"),
        ("mlpk train --resume runs/NAME", "go on where Ctrl-C stopped a run"),
    ],
)
@click.argument("data", required=False, type=setting_type("data", "DATA"))
@_options
@click.option(
    "--resume", "run", metavar="RUN", cls=SectionOption, section="Run",
    help="Go on with a run, exactly as if it had not stopped. Only --epochs (more), --threads, --quiet and "
    "--out may change.",
)  # fmt: skip
@click.option(
    "--config", "file", metavar="FILE", cls=SectionOption, section="Run",
    help="Settings from a TOML file; options override them.",
)  # fmt: skip
@click.option(
    "--print-config", is_flag=True, cls=SectionOption, section="Run",
    help="Print all settings as TOML and do nothing else.",
)  # fmt: skip
def command(run: str | None, file: str | None, print_config: bool, **options: Any) -> None:
    """Train a network on DATA and keep a run folder with settings, history, model, checkpoint and figures.

    DATA is digits (bundled, the default), mnist, fashion-mnist, kmnist, or a path to a .csv, a .npz, a folder
    of IDX files or a folder of images by class.
    """
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    if run is not None:
        if file is not None or print_config:
            other = "--config" if file is not None else "--print-config"
            raise OptionError(other, None, f"it does not go with --resume, which takes the settings of {run}")
        _resume(run, given)
        return
    settings = build((config.read(Path(file)) if file is not None else {}) | given)
    if print_config:
        click.echo(config.to_toml(settings, with_out=True), nl=False)
        return
    _start(settings)


def _start(settings: Settings) -> None:
    from mlpkernels import TrainingState
    from mlpkernels.scaling import default_kind

    from . import backend
    from .data import load
    from .runs import RunFolder
    from .session import Session, class_weight, make_network

    data = load(settings)
    settings = resolve(settings, len(data.train), default_kind(data.dataset.images))
    class_weight(settings, data.dataset.classes)  # names a wrong class before anything is made
    network = make_network(settings, data)
    settings = backend.for_training(settings, network, len(data.train))
    folder = RunFolder.create(settings.out, data.dataset.name)
    Session(folder, settings, data, network, TrainingState()).run()


def _resume(name: str, given: dict[str, Any]) -> None:
    from . import imported, runs

    path = runs.find(name)
    if path is None or not path.is_dir():
        raise OptionError("--resume", name, "no run folder; the folder of an earlier mlpk train was wanted")
    if imported.origin(path) is not None:
        raise OptionError("--resume", name, "it was imported: there is no training to go on with")
    stored = config.read_run(path / runs.CONFIG)
    # "auto" leaves to the run what it was started with; the threads alone are chosen anew.
    given = {name: value for name, value in given.items() if value != AUTO or name == "threads"}
    _refuse_changes(path, stored, given)
    settings = config.merged(stored, given)
    folder = runs.RunFolder.create(settings.out, "") if settings.out else runs.RunFolder.reopen(path)
    try:
        session = _session_to_resume(path, folder, settings)
    except BaseException:
        folder.close(keep=False)
        raise
    if session is None:
        folder.close(keep=False)
    else:
        session.run()


def _session_to_resume(path: Path, folder: "RunFolder", settings: Settings) -> "Session | None":
    """The session that goes on from the checkpoint in `path`; None, and a line for the user, if it is finished."""
    from mlpkernels import load_checkpoint
    from mlpkernels.errors import ModelFileError, ResumeError

    from . import runs
    from .data import load
    from .session import Session, make_network

    checkpoint = path / runs.CHECKPOINT
    if not checkpoint.is_file():
        raise ResumeError(f"{path}: no {checkpoint.name} in it; start anew: mlpk train --config {path / runs.CONFIG}")
    network, state, _ = load_checkpoint(checkpoint)
    patience = settings.early_stopping
    early = bool(patience) and state.epochs_since_best >= patience
    if (early or state.epoch >= settings.epochs) and (path / runs.METRICS).is_file():
        click.echo(_finished(path, settings, state, early))
        return None
    data = load(settings)
    wanted, found = make_network(settings, data).describe(), network.describe()
    for fact in ("architecture", "dtype"):
        if wanted[fact] != found[fact]:
            raise ModelFileError(f"{checkpoint} is of another {fact} than {path / runs.CONFIG}: {found[fact]}")
    return Session(folder, settings, data, network, state)


def _refuse_changes(path: Path, stored: Settings, given: dict[str, Any]) -> None:
    """ResumeError for settings that cannot change when a run goes on."""
    from mlpkernels.errors import ResumeError
    from mlpkernels.schedules import schedule

    fixed = {"epochs"} if schedule(stored.schedule).depends_on_epochs else set()
    allowed = [name for name in CHANGEABLE if name not in fixed]
    if given.get("epochs", stored.epochs) < stored.epochs and not fixed:
        raise ResumeError(f"--epochs {given['epochs']}: the run was started with {stored.epochs}; epochs may grow only")
    for name, (before, now) in config.differences(stored, given).items():
        if name not in allowed:
            label = "DATA" if name == "data" else f"--{name}"
            if name in fixed:
                why = f"its schedule {stored.schedule} depends on it"
            else:
                why = f"only {', '.join(f'--{changeable}' for changeable in allowed)} may change"
            change = f"{label} {config.shown(now)} where the run has {config.shown(before)}"
            raise ResumeError(f"--resume {path} with {change}: {why}")


def _finished(path: Path, settings: Settings, state: Any, early: bool) -> str:
    from mlpkernels.schedules import schedule

    if early:
        return f"{path}: finished; stopped early after epoch {state.epoch}, the best was {state.best_epoch}"
    text = f"{path}: finished {f'all {state.epoch} epochs' if state.epoch > 1 else 'its one epoch'}"
    if schedule(settings.schedule).depends_on_epochs:
        return text
    return f"{text}; for more: mlpk train --resume {shlex.quote(str(path))} --epochs {2 * state.epoch}"
