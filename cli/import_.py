"""`mlpk import`: a network made elsewhere becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import parsing
from .command import Checked, Command, SectionOption, setting_option
from .errors import OptionError
from .parsing import choice, number, text, whole

if TYPE_CHECKING:
    from mlpkernels import Network, Scaling

ACTIVATIONS = ("relu", "tanh", "logistic", "none")
LOSSES = ("cross-entropy", "binary", "squared-error", "poisson")


def _listed(parser: parsing.Parser, separator: str = ",") -> parsing.Parser:
    """Values that `parser` takes, separated by commas."""

    def parse(value: Any) -> tuple[Any, ...]:
        return tuple(parser(part.strip()) for part in value.split(separator))

    return parse


def _shape(value: str) -> tuple[int, ...]:
    try:
        return tuple(_listed(whole(1, 2**31 - 1), "x")(value))
    except ValueError:
        raise ValueError("sizes were wanted, as 784 or, of images, channels x height x width: 1x28x28") from None


def _classes(value: str) -> tuple[int | str, ...]:
    """Labels; whole numbers where all of them are."""
    labels = _listed(text)(value)
    try:
        return tuple(int(label) for label in labels)
    except ValueError:
        return labels


def _data(value: str) -> str:
    """A data set's name or a path that exists."""
    from .settings import BUNDLED, parse

    data = str(parse("data", value))
    if data not in BUNDLED and not Path(data).exists():
        raise ValueError(f"{', '.join(BUNDLED)} or the path of data was wanted")
    return data


def _option(section: str, name: str, parser: parsing.Parser, metavar: str, help: str) -> Any:
    return click.option(
        f"--{name}", cls=SectionOption, section=section, type=Checked(parser), metavar=metavar, help=help
    )  # fmt: skip


_number = number(float("-inf"))
_FILE, _STATE, _RUN = "What the file does not tell", "What a state dict does not tell", "The run"


@click.command(
    "import",
    cls=Command,
    examples=[
        ("mlpk import model.onnx --data mnist", "from PyTorch, Keras or scikit-learn; then mlpk eval"),
        ("mlpk import model.safetensors --activation tanh", "a PyTorch state dict of Linear layers"),
        ("mlpk import cnn.safetensors --input-shape 1x28x28 --pool 2 --scale unit", "with convolutions, of pictures"),
    ],
)
@click.argument("file", metavar="FILE", type=Checked(text, "FILE"))
@_option(_FILE, "input-shape", _shape, "SHAPE", "Of a sample: 784, or 1x28x28 of images.")
@_option(
    _FILE, "classes", _classes, "LABELS", "In the order of the outputs, as cat,dog. [default: the file's, or 0,1,…]"
)
@_option(_FILE, "loss", choice(*LOSSES), "NAME", f"What the outputs mean: {', '.join(LOSSES)}. [default: as it ends]")
@_option(_FILE, "scale", choice("unit", "symmetric", "none"), "NAME",
         "Raw inputs, 0 to --full-scale, to [0, 1]: unit, to [-1, 1]: symmetric, or none. [default: none]")  # fmt: skip
@_option(_FILE, "full-scale", number(0, above=True), "VALUE", "The greatest raw value; pictures and data are "
         "brought to it. [default: 255 with --scale unit or symmetric]")  # fmt: skip
@_option(_FILE, "mean", _listed(_number), "VALUES", "Then subtract this; one value, one a channel or one a column.")
@_option(_FILE, "std", _listed(number(0, above=True)), "VALUES", "And divide by this.")
@_option(_STATE, "activation", choice(*ACTIVATIONS), "NAME", "Between layers: relu, tanh, logistic or none. "
         "[default: relu]")  # fmt: skip
@_option(
    _STATE,
    "modules",
    _listed(text),
    "NAMES",
    "The modules in order, as in,hidden,out. [default: by number, or as they fit]",
)
@_option(_STATE, "stride", _listed(whole(1)), "N", "Of convolutions, one for all or one each. [default: 1]")
@_option(_STATE, "padding", _listed(whole(0)), "N", "Of convolutions, one for all or one each. [default: 0]")
@_option(_STATE, "pool", _listed(whole(0)), "N", "Max-pooling behind convolutions, N x N; 0: none. [default: 0]")
@_option(_RUN, "data", _data, "DATA", "What mlpk eval is to take, as for mlpk train.")
@setting_option("label-column", _RUN)
@setting_option("out", _RUN)
def command(file: str, out: str | None, data: str | None, label_column: str | None, **options: Any) -> None:
    """Make a run of FILE: an ONNX file, or a .safetensors file of a PyTorch state dict.

    Layers are dense, convolutions, maximum pools and batch norms, one behind the other. Scalers and class names in an
    ONNX file are kept; of a state dict, which holds weights alone, options tell the rest. mlpk eval, predict, info and
    export take the run as any other.
    """
    from mlpkernels import foreign

    from . import imported, runs

    path = Path(file).expanduser()
    _check_file(path)
    given = {name: value for name, value in options.items() if value is not None}
    network = _read(path, given)
    folder = runs.RunFolder.create(out or "", Path(file).stem, resumable=False)
    try:
        imported.write(folder, Path(file), network, data, label_column, _full_scale(given))
    except BaseException:
        folder.close(keep=False)
        raise
    folder.close()
    if _is_safetensors(path):
        names = foreign.module_order(path, shape=given.get("input_shape"), modules=given.get("modules"))
        click.echo(f"modules        {', '.join(name or '(unnamed)' for name in names)}\n")
    click.echo(network.summary())
    click.echo(f"\nrun folder     {folder.path}")


def _check_file(path: Path) -> None:
    from mlpkernels.files import check_is_file

    from . import runs

    if runs.is_run(path):
        raise OptionError(str(path), None, "it is a run already, which mlpk eval, predict, info and export take")
    check_is_file(str(path), "an ONNX or .safetensors file")


def _read(path: Path, given: dict[str, Any]) -> Network:
    """The network of a file, by what its first bytes are."""
    from mlpkernels import foreign

    scaling = _scaling(given)
    reading = foreign.Reading(scaling, given.get("classes"), given.get("loss"))
    shape = given.get("input_shape")
    if not _is_safetensors(path):
        wrong = [name for name in ("activation", "modules", "stride", "padding", "pool") if name in given]
        if wrong:
            raise OptionError(f"--{wrong[0]}", None, f"it goes with a .safetensors file, and {path} is none")
        return foreign.from_onnx(path, shape=shape, reading=reading)
    windows = foreign.Windows(**{name: given[name] for name in ("stride", "padding", "pool") if name in given})
    activation = given.get("activation", "relu")
    network = foreign.from_state_dict(
        path, activation=None if activation == "none" else activation, shape=shape, windows=windows,
        modules=given.get("modules"), reading=reading,
    )  # fmt: skip
    if given.get("activation", "none") != "none" and not any(layer.code for layer in network.layers):
        raise OptionError("--activation", activation, f"{path} leaves no place for one: it has one layer, or its "
                          "modules' numbers leave none out")  # fmt: skip
    return network


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as one, or, where it is of neither kind, is called so."""
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{" or path.suffix == ".safetensors"
    except OSError:
        return path.suffix == ".safetensors"


def _full_scale(given: dict[str, Any]) -> float | None:
    """The greatest raw value; None where nothing tells it: no factor does, which a deviation may be part of."""
    scaled = given.get("scale", "none") != "none"
    full_scale: float | None = given.get("full_scale", 255.0 if scaled else None)
    return full_scale


def _scaling(given: dict[str, Any]) -> Scaling | None:
    """(x · factor + offset - mean) / std of the options; None without any of them."""
    import numpy as np

    from mlpkernels import Scaling

    scale, moments = given.get("scale", "none"), [name for name in ("mean", "std") if name in given]
    if scale == "none" and not moments:
        return None
    full_scale = _full_scale(given) or 1.0
    factor, offset = {"none": (1.0, 0.0), "unit": (1 / full_scale, 0.0), "symmetric": (2 / full_scale, -1.0)}[scale]
    mean, std = _columns(given)
    with np.errstate(all="ignore"):
        factors, offsets = np.broadcast_arrays(factor / std, (offset - mean) / std)
    if not (np.isfinite(factors).all() and np.isfinite(offsets).all()):
        name = "full-scale" if not np.isfinite(factor) else "std"
        value = given[name.replace("-", "_")]
        raise OptionError(f"--{name}", f"{np.min(value):g}", "inputs divided by it are not finite; a greater number "
                          "was wanted")  # fmt: skip
    return Scaling("standard" if moments else scale, factors, offsets)


def _columns(given: dict[str, Any]) -> list[Any]:
    """Mean and deviation: float64 of one value, or of as many as channels or columns. OptionError where they disagree.

    Where the sample's shape is given, a value a channel becomes one a pixel; else that is done once the file told it.
    """
    import math

    import numpy as np

    shape = given.get("input_shape", ())
    made = []
    for name, usual in (("mean", 0.0), ("std", 1.0)):
        values = np.array(given.get(name, (usual,)))
        if len(values) > 1 and len(shape) == 3 and len(values) == shape[0]:
            values = np.repeat(values, math.prod(shape[1:]))
        if len(values) > 1 and shape and len(values) != math.prod(shape):
            raise OptionError(f"--{name}", None, f"{len(values)} values; one, or one a channel or column of "
                              f"{'x'.join(map(str, shape))} was wanted")  # fmt: skip
        made.append(values if len(values) > 1 else values[0])
    if np.size(made[0]) != np.size(made[1]) and 1 not in (np.size(made[0]), np.size(made[1])):
        raise OptionError("--std", None, f"{np.size(made[1])} values, and --mean {np.size(made[0])}; as many, or one, "
                          "were wanted; with --input-shape one may be of channels")  # fmt: skip
    return made
