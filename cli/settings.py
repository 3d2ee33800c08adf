"""The settings of a training run: one table that makes the options, the settings file and the checks."""
# ruff: noqa: RUF009 (_setting is dataclasses.field)

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from . import parsing
from .errors import OptionError, close_match
from .parsing import AUTO, Parser, choice, flag, number, text, whole

BUNDLED = ("digits", "mnist", "fashion-mnist", "kmnist")
SCALES = ("unit", "symmetric", "standard", "none")
BACKENDS = ("cpu", "cuda", "reference", "auto")
DTYPES = ("float32", "float64")
ACTIVATIONS = ("relu", "tanh", "logistic")
INITS = ("he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "pytorch")

# Below this many training rows mini-batches are smaller and epochs more.
SMALL_DATA = 10_000

# What `resolve` decides: a run's own file holds values.
DECIDED = ("epochs", "batch-size", "scale")


def _setting(
    section: str, default: Any, parse: Parser, metavar: str, help: str, shown: str = "", typed: Parser | None = None
) -> Any:  # fmt: skip
    """A field with what its option needs; `shown` is the default in words, where it has to be told.

    `typed` is the parser on the command line, where it is stricter than that of a file.
    """
    help += f" [default: {shown}]" if shown else ""
    metadata = {"section": section, "parse": parse, "typed": typed or parse, "metavar": metavar, "help": help}
    return dataclasses.field(default=default, metadata=metadata)


def _data(value: Any) -> str:
    """A data set's name, or the absolute path of data; what does not exist stays as typed, for the error."""
    value = text(value)
    name = value.lower().replace("_", "-")
    if name in BUNDLED:
        return name
    return parsing.path(value) if os.path.exists(os.path.expanduser(value)) else value


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run. "auto": the data or another setting decide; `build` and `resolve` replace it."""

    # fmt: off
    data: str = _setting("Data", "digits", _data, "DATA", "")
    data_dir: str = _setting(
        "Data", "", parsing.path, "DIR",
        "Where mnist, fashion-mnist and kmnist lie.",
        "$MLPK_DATA_DIR, then the cache")
    offline: bool = _setting("Data", False, flag, "", "Never download.")
    label_column: str = _setting("Data", "", text, "NAME", "The CSV column of the labels.", "the first")
    scale: str = _setting(
        "Data", AUTO, choice(AUTO, *SCALES), "NAME",
        "Inputs to [0, 1]: unit, to [-1, 1]: symmetric, to mean 0 and deviation 1: standard; or none.",
        "unit for images, standard for tables")
    test_split: float = _setting(
        "Data", 0.2, number(0, 1, above=True, below=True), "FRACTION",
        "Part kept for testing, of data without a test set of their own.", "0.2")
    test_data: str = _setting("Data", "", _data, "DATA", "Test on these data instead.")
    val_split: Any = _setting(
        "Data", AUTO, number(0, 1, below=True, words=(AUTO,)), "FRACTION",
        "Part of the training data kept for validation.", "0, or 0.1 with early stopping")
    split_seed: int = _setting("Data", 0, whole(0), "N", "Seed of those splits.", "0")

    conv: tuple[str, ...] = _setting(
        "Network", (), parsing.convolutions, "LAYERS",
        "Convolutions of images, with ReLU, before the hidden layers: 10x5,20x5 is 10 channels by kernels of 5 x 5, "
        "then 20; or none.",
        "none")
    pool: int = _setting(
        "Network", 2, whole(0), "N", "Max-pooling behind each convolution, in windows of N x N; 0: none.", "2")
    hidden: tuple[int, ...] = _setting(
        "Network", (128, 128), parsing.widths, "WIDTHS", "Widths of the hidden layers, or none.",
        "128,128")
    activation: str = _setting(
        "Network", "relu", choice(*ACTIVATIONS), "NAME",
        f"Of the hidden layers: {', '.join(ACTIVATIONS)}; convolutions have ReLU.", "relu")
    batch_norm: bool = _setting(
        "Network", False, flag, "", "Batch normalisation before every hidden layer's activation, of convolutions too.")
    dropout: float = _setting(
        "Network", 0.0, number(0, 1, below=True), "P",
        "Share of each hidden layer's outputs that a training step drops, 0 to below 1.", "0")
    init: str = _setting(
        "Network", "he-normal", choice(*INITS), "NAME", f"Initial values: {', '.join(INITS)}.",
        "he-normal")
    dtype: str = _setting(
        "Network", "float32", choice(*DTYPES), "TYPE", "Of the parameters: float32 or float64.",
        "float32")

    epochs: Any = _setting(
        "Training", AUTO, whole(1, words=(AUTO,)), "N", "Passes over the training data.",
        f"10, or 30 below {SMALL_DATA:,} training rows")
    batch_size: Any = _setting(
        "Training", AUTO, whole(1, words=("full", AUTO)), "N|full", "Rows a step.",
        f"128, or 32 below {SMALL_DATA:,} training rows")
    optimizer: str = _setting(
        "Training", "adam", choice("sgd", "adam", "adamw"), "NAME", "sgd, adam or adamw.", "adam")
    learning_rate: Any = _setting(
        "Training", AUTO, number(0, above=True, words=(AUTO,)), "RATE", "Size of a step.",
        "0.001, or 0.1 with sgd")
    momentum: float = _setting("Training", 0.0, number(0, 1, below=True), "M", "Of sgd, 0 to below 1.", "0")
    nesterov: bool = _setting("Training", False, flag, "", "Nesterov's form of the momentum.")
    weight_decay: Any = _setting(
        "Training", AUTO, number(0, words=(AUTO,)), "W", "As in torch.optim.", "0, or 0.01 with adamw")
    schedule: str = _setting(
        "Training", "constant", parsing.schedule, "NAME",
        "Learning rate by epoch: constant, step:EPOCHS:FACTOR, cosine (cosine:2 with 2 epochs of warm-up), one-cycle.",
        "constant")
    clip_norm: float = _setting("Training", 0.0, number(0), "NORM", "Longest gradient; 0: any.", "0")
    early_stopping: int = _setting(
        "Training", 0, whole(0), "N",
        "Stop after N epochs without a lower validation loss and keep the best; 0: never.", "0")
    class_weight: str = _setting(
        "Training", "none", parsing.class_weight, "WEIGHTS", "none, balanced, or by class as 3=2,5=0.5.",
        "none")
    seed: int = _setting("Training", 0, whole(0), "N", "Of the initial values, the order of rows and dropout.", "0")
    eval_train: bool = _setting(
        "Training", False, flag, "", "Training loss by a pass after each epoch, not the mean while training.")

    backend: str = _setting(
        "Run", "cpu", choice(*BACKENDS), "NAME",
        "Kernels: cpu (compiled), cuda (on an NVIDIA GPU), reference (plain NumPy), or auto: a GPU where it pays.",
        "cpu")
    skip_zeros: str = _setting(
        "Run", AUTO, choice(AUTO, "always", "never"), "WHEN",
        "Leave the zeros of pictures out of a dense first layer: auto, always or never.", "auto, where it is faster")
    threads: Any = _setting(
        "Run", AUTO, whole(1, words=(AUTO,)), "N", "CPU threads; no bit of the result depends on it.",
        "one or all cores, whichever proves faster", parsing.threads)
    checkpoint_every: Any = _setting(
        "Run", AUTO, whole(1, words=(AUTO,)), "N", "Epochs between checkpoints.",
        "each epoch, at most one a second")
    plots: bool = _setting("Run", True, flag, "", "Draw figures into the run folder.", "plots")
    out: str = _setting("Run", "", parsing.path, "DIR", "The run folder.", "runs/DATA-DATE-TIME")
    quiet: bool = _setting("Run", False, flag, "", "Print the summary only.")
    # fmt: on


FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name.replace("_", "-"): field for field in dataclasses.fields(Settings)
}


def parse(name: str, value: Any) -> Any:
    """The value of the setting `name`, checked; ValueError says what was wanted."""
    return FIELDS[name].metadata["parse"](value)


def from_mapping(values: Mapping[str, Any], on_unknown: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Checked values by setting; ValueError names the setting and what was wanted.

    A name that is no setting goes to `on_unknown` and is left out; without it, it is a ValueError.
    """
    parsed = {}
    for name, value in values.items():
        if name not in FIELDS:
            if on_unknown is not None:
                on_unknown(name)
                continue
            raise ValueError(f"{name}: no such setting{close_match(name, FIELDS)}")
        try:
            parsed[name] = parse(name, value)
        except ValueError as error:
            raise ValueError(f"{name} = {value!r}: {error}") from None
    return parsed


def build(values: Mapping[str, Any]) -> Settings:
    """Settings from checked values by option name, with what does not need the data resolved."""
    settings = Settings(**{name.replace("-", "_"): value for name, value in values.items()})
    if settings.optimizer != "sgd":
        for name, shown in (("momentum", settings.momentum), ("nesterov", None)):
            if getattr(settings, name):
                reason = f"it goes with --optimizer sgd, and the optimizer is {settings.optimizer}"
                raise OptionError(f"--{name}", shown, reason)
    if settings.nesterov and not settings.momentum:
        raise OptionError("--nesterov", None, "it needs a --momentum above 0, such as 0.9")
    _check_layers(settings)
    resolved: dict[str, Any] = {}
    if settings.learning_rate == AUTO:
        resolved["learning_rate"] = 0.1 if settings.optimizer == "sgd" else 0.001
    if settings.weight_decay == AUTO:
        resolved["weight_decay"] = 0.01 if settings.optimizer == "adamw" else 0.0
    if settings.val_split == AUTO:
        resolved["val_split"] = 0.1 if settings.early_stopping else 0.0
    elif settings.early_stopping and not settings.val_split:
        raise OptionError(
            "--early-stopping",
            settings.early_stopping,
            "it needs validation data: --val-split above 0, such as 0.1",
        )
    return dataclasses.replace(settings, **resolved)


def _check_layers(settings: Settings) -> None:
    """OptionError for an option of layers that are not there."""
    if settings.pool != FIELDS["pool"].default and not settings.conv:
        raise OptionError("--pool", settings.pool, "it goes with --conv, such as --conv 10x5,20x5, and there is none")
    if settings.dropout and not settings.hidden:
        raise OptionError("--dropout", f"{settings.dropout:g}", "it needs a hidden layer, and --hidden is none")
    if settings.batch_norm and not (settings.hidden or settings.conv):
        raise OptionError("--batch-norm", None, "it needs a hidden layer or a convolution, and both are none")
    if settings.activation != FIELDS["activation"].default and not settings.hidden:
        raise OptionError("--activation", settings.activation, "it needs a hidden layer, and --hidden is none")


def resolve(settings: Settings, rows: int, default_scale: str) -> Settings:
    """Settings with what the data decide: `rows` to train on, `default_scale` for this kind of data."""
    small = rows < SMALL_DATA
    resolved: dict[str, Any] = {}
    if settings.epochs == AUTO:
        resolved["epochs"] = 30 if small else 10
    if settings.batch_size == AUTO:
        resolved["batch_size"] = _batch_size(settings, rows, min(32 if small else 128, rows))
    elif settings.batch_size != "full":
        if settings.batch_size > rows:
            reason = f"at most the {rows} training rows, or full, was wanted"
            raise OptionError("--batch-size", settings.batch_size, reason)
        if (better := _batch_size(settings, rows, settings.batch_size)) != settings.batch_size:
            which = "a mini-batch" if settings.batch_size == 1 else f"the last mini-batch of {rows:,} training rows"
            reason = f"{which} is one row, of which --batch-norm can take no variance"
            raise OptionError("--batch-size", settings.batch_size, f"{reason}; {better}, for instance, was wanted")
    if settings.scale == AUTO:
        resolved["scale"] = default_scale
    return dataclasses.replace(settings, **resolved)


def _batch_size(settings: Settings, rows: int, size: int) -> int:
    """The next batch size from `size` on that batch normalisation can take: no mini-batch, and no last, of one row."""
    while settings.batch_norm and settings.hidden and size < rows and (size == 1 or rows % size == 1):
        size += 1
    return size
