"""A PyTorch state dict, from a safetensors file: tensors named module.weight, read as the layers of a Sequential."""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ModelFileError
from ..files import check_is_file
from ..network import Network
from . import order
from .assemble import Reading, assemble
from .operations import Activation, Convolution, Normalisation, Operation, Pool, Product, refuse

_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_EPSILON = 1e-5  # of torch's batch norms, which no file tells


class Windows(NamedTuple):
    """What a state dict does not tell of convolutions, one for all or one each: stride and padding; pool: the width of
    the maximum pool behind it, 0 for none."""

    stride: Sequence[int] = (1,)
    padding: Sequence[int] = (0,)
    pool: Sequence[int] = (0,)

    def of(self, number: int, count: int) -> tuple[int, int, int]:
        """Those of convolution `number` of `count`. ValueError where there are neither one nor `count` of each."""
        chosen = []
        for name, values in self._asdict().items():
            if len(values) not in (1, count):
                raise ValueError(f"{name}: {len(values)} values for {count} convolutions; one for all or one each")
            chosen.append(values[number if len(values) == count else 0])
        return chosen[0], chosen[1], chosen[2]

    def given(self) -> list[str]:
        """The names of those that are not as they are where none is given."""
        usual = self._field_defaults
        return [name for name, values in self._asdict().items() if any(value != usual[name][0] for value in values)]


Module = dict[str, np.ndarray]


def from_state_dict(
    path: str | os.PathLike[str],
    *,
    activation: str | None = "relu",
    shape: tuple[int, ...] | None = None,
    windows: Windows | None = None,
    modules: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> Network:
    """The network of a safetensors file of Linear, Conv2d and BatchNorm modules.

    activation: behind each layer but the last, for it is not in the file; of modules numbered as in a Sequential only
    where a number is missing, as 1 between 0.weight and 2.weight. shape: a sample's; needed for convolutions. windows:
    of convolutions; refused where there are none. modules: their names in order; needed where neither their numbers nor
    their shapes tell it. float64 tensors make a float64 network. FileNotFoundError; ModelFileError names the tensor
    that does not fit.
    """
    name = os.fspath(path)
    tensors = read(name)
    if windows is not None and not any(tensor.ndim == 4 for tensor in tensors.values()) and (given := windows.given()):
        raise ModelFileError(f"{name}: {given[0]}: it goes with convolutions, and no module in the file is one")
    dtype = "float64" if any(t.dtype == np.float64 for n, t in tensors.items() if n.endswith("weight")) else "float32"
    reading = (reading or Reading())._replace(dtype=dtype)
    parts = _in_order(name, _modules(name, tensors), modules, shape)
    inputs = _input_shape(name, parts, shape)
    body = _operations(name, parts, activation, inputs, windows or Windows())
    return assemble(name, body, inputs, reading)


def read(path: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. FileNotFoundError; ModelFileError says what is wrong with it."""
    import safetensors

    check_is_file(path, "a .safetensors file that torch or another program saved")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            if "format_version" in texts and "architecture" in texts:
                raise ModelFileError(f"{path} is a file of mlpkernels, which needs no import: use it as it is")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{path} is no safetensors file, or damaged ({error}); {_REMEDY}") from None
    except (KeyError, AttributeError, TypeError, ValueError) as error:  # a dtype that NumPy lacks
        raise ModelFileError(
            f"{path} holds a tensor of a type NumPy has not ({error}); save it with .float()"
        ) from None


_REMEDY = "safetensors.torch.save_file(model.state_dict(), FILE) writes one"


def _modules(path: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Module]:
    """{module: its tensors}; every tensor must be one that a module of ours has."""
    modules: dict[str, Module] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind not in _TENSORS:
            raise refuse(
                path, f"tensor {name}", f"not one of {', '.join(sorted(_TENSORS))}, which are all that is read"
            )
        if tensor.dtype.kind == "V":  # bfloat16 where a package has taught it to NumPy
            raise refuse(path, f"tensor {name}", f"of {tensor.dtype}, a type NumPy has not; save it with .float()")
        if tensor.dtype.kind not in "fiu" or (kind != "num_batches_tracked" and tensor.dtype.kind != "f"):
            raise refuse(path, f"tensor {name}", f"of {tensor.dtype}; floats were wanted, not quantised ones")
        modules.setdefault(module, {})[kind] = tensor.astype(np.float64)
    for module, parts in modules.items():
        if "weight" not in parts:
            raise refuse(path, f"module {module}", f"{', '.join(parts)}, and no weight; a weight was wanted")
        _check(path, module, parts)
    if not modules:
        raise ModelFileError(f"{path}: no tensors in it; {_REMEDY}")
    return modules


def _check(path: str, module: str, parts: Module) -> None:
    """Refuse a module that is none of ours, or whose tensors disagree."""
    weight = parts["weight"]
    if weight.ndim == 1 and "running_mean" not in parts:
        raise refuse(path, f"module {module}", "a weight (C,) without running_mean, as LayerNorm and PReLU have it; "
                     "Linear, Conv2d and BatchNorm are read")  # fmt: skip
    if weight.ndim not in (1, 2, 4):
        raise refuse(path, f"module {module}", f"a weight {weight.shape}; (out, in), (out, in, height, width) or (C,) "
                     "was wanted")  # fmt: skip
    statistics = [kind for kind in ("running_mean", "running_var") if kind in parts]
    if weight.ndim != 1 and statistics:
        raise refuse(path, f"module {module}", f"{statistics[0]}, as BatchNorm has it, and a weight {weight.shape}; "
                     "(C,) was wanted")  # fmt: skip
    if weight.ndim == 1 and len(statistics) == 1:
        raise refuse(path, f"module {module}", "a BatchNorm without running_var; its statistics were wanted, as "
                     "track_running_stats=True keeps them")  # fmt: skip
    width = len(weight)
    for kind, tensor in parts.items():
        if kind not in ("weight", "num_batches_tracked") and tensor.shape != (width,):
            raise refuse(path, f"tensor {module}.{kind}", f"shape {tensor.shape}; ({width},) was wanted")


def module_order(
    path: str | os.PathLike[str], *, shape: tuple[int, ...] | None = None, modules: Sequence[str] | None = None
) -> list[str]:
    """The file's modules in the order that `from_state_dict` takes them in. Errors as there."""
    name = os.fspath(path)
    return list(_in_order(name, _modules(name, read(name)), modules, shape))


def _in_order(
    path: str, modules: dict[str, Module], names: Sequence[str] | None, shape: tuple[int, ...] | None
) -> dict[str, Module]:
    """The modules in the order given, or that of their numbers, or the only one in which their shapes fit."""
    if names is None:
        found = order.orders({name: part["weight"].shape for name, part in modules.items()}, shape)
        if len(found) > 1:
            raise ModelFileError(
                f"{path}: its modules fit in more than one order, such as {', '.join(found[0])} and "
                f"{', '.join(found[1])}: give the modules in order"
            )
        names = found[0]
    elif sorted(names) != sorted(modules):
        raise ModelFileError(f"{path}: modules {', '.join(names)} were given; it has {', '.join(modules)}")
    return {name: modules[name] for name in names}


def _input_shape(path: str, parts: dict[str, Module], shape: tuple[int, ...] | None) -> tuple[int, ...]:
    name, first = next(iter(parts.items()))
    weight = first["weight"]
    images = any(part["weight"].ndim == 4 for part in parts.values())
    if shape is None:
        if images:
            raise refuse(path, f"module {name}", "the file does not tell the images' size: give the input shape, such "
                         f"as {weight.shape[1] if weight.ndim == 4 else 1}x28x28")  # fmt: skip
        return (int(weight.shape[-1]),)
    wanted = int(weight.shape[1] if weight.ndim > 1 else weight.shape[0])
    # A batch norm before dense layers alone may be one of the pixels.
    flat = weight.ndim == 2 or (weight.ndim == 1 and (len(shape) == 1 or (not images and math.prod(shape) == wanted)))
    if (math.prod(shape) if flat else shape[0]) != wanted or (weight.ndim == 4 and len(shape) != 3):
        kind = f"{wanted} values" if flat else f"images of {wanted} channels"
        raise refuse(path, f"module {name}", f"it takes {kind}, not the given shape {'x'.join(map(str, shape))}")
    return shape


def _operations(
    path: str, parts: dict[str, Module], activation: str | None, shape: tuple[int, ...], windows: Windows
) -> list[Operation]:
    """The modules one behind the other, with what the file does not tell between them."""
    ranks = [part["weight"].ndim for part in parts.values()]
    between = _modules_between(list(parts))
    sample = _Sample(path, shape if 4 in ranks else (math.prod(shape),))
    made: list[Operation] = []
    pool = 0
    for number, (name, part) in enumerate(parts.items()):
        where = f"module {name}"
        if ranks[number] == 4:
            try:
                stride, padding, pool = windows.of(ranks[:number].count(4), ranks.count(4))
            except ValueError as error:
                raise ModelFileError(f"{path}: {error} was wanted") from None
            made.append(sample.convolution(where, part, stride, padding))
        else:
            made.append(sample.product(where, part) if ranks[number] == 2 else sample.normalisation(where, part))
        behind = ranks[number + 1] if number + 1 < len(ranks) else 0
        pooled = pool > 0 and behind != 1  # a batch norm comes before the pool
        if activation is not None and behind:
            known = pooled + (len(sample.shape) == 3 and behind == 2)  # the pool, a Flatten
            if behind != 1 if between is None else between[number] > known:
                made.append(Activation(where, activation))
        if pooled:
            made.append(sample.pool(f"the pool behind module {name}", pool))
            pool = 0
    return made


def _modules_between(names: Sequence[str]) -> list[int] | None:
    """How many modules without tensors stand behind each, by the numbers of a Sequential; None where those do not tell.

    0, 2, 4 leave one out each, 0, 1, 3 with a batch norm too. Where none is left out, as in a ModuleList, or modules
    have names, activations are functions that the program calls.
    """
    numbers = [re.fullmatch(r"(.*\.)?(\d+)", name) for name in names]
    if not all(numbers) or len({number[1] for number in numbers if number}) > 1:
        return None
    places = [int(number[2]) for number in numbers if number]
    left_out = [b - a - 1 for a, b in itertools.pairwise(places)]
    return left_out if any(left_out) else None


class _Sample:
    """The shape of a sample on its way through the modules, each of which must take it."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape

    def convolution(self, where: str, part: Module, stride: int, padding: int) -> Operation:
        """A Conv2d; the sample becomes what it gives."""
        weight = part["weight"]
        if len(self.shape) != 3 or self.shape[0] != weight.shape[1]:
            raise refuse(self.path, where, f"{self} reach it; its weight {weight.shape} takes images of "
                         f"{weight.shape[1]} channels")  # fmt: skip
        self._moved(where, weight.shape[2:], stride, padding, len(weight))
        return Convolution(where, weight, _bias(part), (stride, stride), (padding, padding))

    def pool(self, where: str, width: int) -> Operation:
        """A maximum pool; the sample becomes what it gives."""
        self._moved(where, (width, width), width, 0, self.shape[0])
        return Pool(where, (width, width), (width, width), (0, 0))

    def _moved(self, where: str, kernel: tuple[int, ...], stride: int, padding: int, channels: int) -> None:
        size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(self.shape[1:], kernel, strict=True)]
        if min(size) < 1:
            raise refuse(self.path, where, f"{self} reach it, smaller than its window {kernel[0]} x {kernel[1]}")
        self.shape = (channels, *size)

    def product(self, where: str, part: Module) -> Operation:
        """A Linear; the sample becomes flat."""
        weight = part["weight"]
        if weight.shape[1] != math.prod(self.shape):
            hint = "are stride, padding and pool right?" if len(self.shape) == 3 else "is the order of modules right?"
            raise refuse(
                self.path, where, f"{self} reach it; its weight {weight.shape} takes {weight.shape[1]}: {hint}"
            )
        self.shape = (len(weight),)
        return Product(where, weight.T, _bias(part))

    def normalisation(self, where: str, part: Module) -> Operation:
        """A BatchNorm."""
        gamma = part["weight"]
        if len(gamma) != self.shape[0]:
            raise refuse(self.path, where, f"{self} reach it; it normalises {len(gamma)}")
        return Normalisation(where, gamma, _bias(part), part["running_mean"], part["running_var"], _EPSILON)

    def __str__(self) -> str:
        flat = f"{math.prod(self.shape)} values"
        return f"{flat} ({' x '.join(map(str, self.shape))})" if len(self.shape) == 3 else flat


def _bias(part: Module) -> np.ndarray:
    return part.get("bias", np.zeros(len(part["weight"])))
