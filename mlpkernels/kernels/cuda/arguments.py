"""What the public ops ask of their arguments: NumPy arrays, or arrays on the GPU, as the other backends ask it.

An input on the host of another dtype or order is copied; an output, and anything that lies on the GPU, must be as
wanted, and errors name what came.
"""

import operator
from typing import Any

import numpy as np

from ..plan import IDENTITY, LOGISTIC, RELU, TANH
from .arrays import View, as_device, on_device

FLOATS = (np.float32, np.float64)
LARGEST = {"seed": 2**53 - 1, "step": 2**63 - 1, "layer": 2**63 - 1}  # of dropout's integers
_ACTIVATIONS = {IDENTITY: "IDENTITY", RELU: "RELU", TANH: "TANH", LOGISTIC: "LOGISTIC"}
Pair = tuple[int, int]


def output(name: str, array: Any, dimensions: int | None, dtypes: tuple[Any, ...] = FLOATS) -> View:
    """An array that a kernel writes: it must be what is wanted, since a converted copy would be lost.

    dimensions None: one at least.
    """
    device = on_device(array)
    if device:
        _writeable(name, array)
        array = as_device(name, array)
    elif not isinstance(array, np.ndarray) or isinstance(array, np.matrix | np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array to be written to, NumPy's or on the GPU, got {type(array).__name__}")
    if array.dtype not in dtypes:
        wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise TypeError(f"{name} must be {wanted}, got {array.dtype}")
    if dimensions is None and array.ndim == 0:
        raise ValueError(f"{name} must have at least 1 dimension, got shape {array.shape}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {tuple(array.shape)}")
    if device:
        _contiguous(name, array)
    elif not array.flags.c_contiguous or not array.flags.writeable or not array.dtype.isnative:
        raise ValueError(f"{name} must be C-contiguous and writeable: pass np.empty(shape, dtype)")
    return View(name, array, array.shape, array.dtype, device)


def output_like(name: str, array: Any, shape: tuple[int, ...], dtype: Any, beside: str) -> View:
    """An array that a kernel writes beside another, which says its shape and dtype."""
    view = output(name, array, len(shape))
    if view.shape != shape or view.dtype != dtype:
        raise ValueError(f"{name} must be {shape} {dtype} beside {beside}, got {view.shape} {view.dtype}")
    return view


def shaped(name: str, view: View, shape: tuple[int, ...], why: str) -> None:
    """Raise ValueError where an output is not of the shape that its inputs give it."""
    if view.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, {why}, got {view.shape}")


def input_(name: str, array: Any, dtype: Any, shape: tuple[int, ...]) -> View:
    """An array that a kernel reads; on the host copied where it is not C-contiguous and of that dtype."""
    device = on_device(array)
    converted = as_device(name, array) if device else np.asarray(array)
    if converted.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {converted.dtype}")
    if tuple(converted.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(converted.shape)}")
    if device:
        if converted.dtype != dtype:
            raise TypeError(f"{name} must be {np.dtype(dtype)} on the GPU, got {converted.dtype}: convert it there")
        _contiguous(name, converted)
    else:
        converted = np.require(converted, dtype, ("C", "A", "W"))
    return View(name, converted, shape, dtype, device)


def _writeable(name: str, array: Any) -> None:
    """Raise ValueError for an array on the GPU that its library says, or takes for granted, never changes."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if type(array).__module__.partition(".")[0] == "jaxlib" or (interface and interface["data"][1]):
        raise ValueError(f"{name} must be writeable: {type(array).__name__} on the GPU is read-only")


def _contiguous(name: str, array: Any) -> None:
    if not array.is_c_contiguous():
        raise ValueError(f"{name} must be C-contiguous on the GPU: make a contiguous copy there")


def shape_of(name: str, array: Any, dimensions: int) -> tuple[int, ...]:
    """The shape of an array, or of what becomes one."""
    if on_device(array):
        shape = tuple(array.shape if hasattr(array, "shape") else as_device(name, array).shape)
    else:
        shape = np.shape(array)
    if len(shape) != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {shape}")
    return shape


def _overlap(one: View, other: View) -> bool:
    if one.device != other.device or not one.size or not other.size:
        return False
    (a, b), (c, d) = one.span(), other.span()
    return a < d and c < b


def apart(name: str, out: View, **others: View) -> None:
    """Raise ValueError where `out` would be written over an argument still to be read or written."""
    for other, view in others.items():
        if _overlap(out, view):
            raise ValueError(f"{name} shares memory with {other}: pass another array")


def same_or_apart(name: str, out: View, **inputs: View) -> None:
    """Raise ValueError where `out` lies across an input without being the same array."""
    for other, view in inputs.items():
        if out.device != view.device or out.span()[0] != view.span()[0]:
            apart(name, out, **{other: view})


def class_indices(labels: Any, batch: int, classes: int) -> View:
    """Labels (batch,) as int32, all of them classes: a kernel would read elsewhere."""
    return _indices("labels", labels, (batch,), "", classes)


def places_within(places: Any, shape: tuple[int, ...], pixels: int) -> View:
    """Places to read, all of them within an image of that many pixels."""
    return _indices("places", places, shape, ", that of delta", pixels)


def _indices(name: str, given: Any, shape: tuple[int, ...], why: str, count: int) -> View:
    """Integers 0 … count - 1. Those on the GPU are copied to be looked at."""
    device = on_device(given)
    array: Any = as_device(name, given) if device else np.asarray(given)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}{why}, got {tuple(array.shape)}")
    values = array.copy_to_host() if device else array
    if values.size and (values.min() < 0 or values.max() >= count):
        raise ValueError(f"{name} must be 0 … {count - 1}, got {values.min()} … {values.max()}")
    if device and array.dtype == np.int32 and array.is_c_contiguous():
        return View(name, array, shape, np.int32, True)
    return View(name, np.require(values, np.int32, ("C", "A", "W")), shape, np.int32, False)


def activation_code(code: Any) -> int:
    if code not in tuple(_ACTIVATIONS):
        wanted = ", ".join(f"{name} ({number})" for number, name in _ACTIVATIONS.items())
        raise ValueError(f"activation must be {wanted}, got {code!r}")
    return int(code)


def integer(name: str, value: Any) -> int:
    """One of dropout's integers."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= number <= LARGEST[name]:
        raise ValueError(f"{name} must be 0 … {LARGEST[name]}, got {number}")
    return number


def pair(name: str, value: Any, least: int) -> Pair:
    """Two integers (height, width), neither below `least`."""
    try:
        high, wide = (operator.index(number) for number in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of integers (height, width), got {value!r}") from None
    if min(high, wide) < least:
        raise ValueError(f"{name} must be a pair of integers of at least {least}, got {value!r}")
    return high, wide
