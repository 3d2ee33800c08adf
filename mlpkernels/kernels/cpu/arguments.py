"""What the public ops ask of their arguments: from Python values, inside @njit types.

From Python an input of another dtype, order or a read-only one is copied, an output must be as wanted, and errors
name what came. Inside @njit types have to agree: C-contiguous arrays of one floating dtype.
"""

import operator
from typing import Any

import numba
import numpy as np
from numba import types

from ..plan import IDENTITY, LOGISTIC, RELU, TANH

Array = np.ndarray
FLOATS = (np.float32, np.float64)
_FLOAT_TYPES = (types.float32, types.float64)
ACTIVATIONS = (IDENTITY, RELU, TANH, LOGISTIC)  # of the dense ops
LARGEST = {"seed": 2**53 - 1, "step": 2**63 - 1, "layer": 2**63 - 1}  # of dropout's integers


# ---- from Python


def output(name: str, array: Any, dimensions: int | None, dtypes: tuple[Any, ...] = FLOATS) -> Array:
    """An array that a kernel writes: it must be what is wanted, since a converted copy would be lost.

    dimensions None: one at least.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.matrix | np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array to be written to, got {type(array).__name__}")
    if array.dtype not in dtypes:
        wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise TypeError(f"{name} must be {wanted}, got {array.dtype}")
    if dimensions is None and array.ndim == 0:
        raise ValueError(f"{name} must have at least 1 dimension, got shape {array.shape}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {array.shape}")
    if not array.flags.c_contiguous or not array.flags.writeable or not array.dtype.isnative:
        raise ValueError(f"{name} must be C-contiguous and writeable: pass np.empty(shape, dtype)")
    return array


def output_like(name: str, array: Any, shape: tuple[int, ...], dtype: Any, beside: str) -> Array:
    """An array that a kernel writes beside another, which says its shape and dtype."""
    if output(name, array, len(shape)).shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} must be {shape} {dtype} beside {beside}, got {array.shape} {array.dtype}")
    return array


def shaped(name: str, array: Array, shape: tuple[int, ...], why: str) -> None:
    """Raise ValueError where an output is not of the shape that its inputs give it."""
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, {why}, got {array.shape}")


def input_(name: str, array: Any, dtype: Any, shape: tuple[int, ...]) -> Array:
    """An array that a kernel reads, copied where it is not C-contiguous, writeable and of that dtype."""
    converted = np.asarray(array)
    if converted.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {converted.dtype}")
    if converted.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {converted.shape}")
    return np.require(converted, dtype, ("C", "A", "W"))


def shape_of(name: str, array: Any, dimensions: int) -> tuple[int, ...]:
    """The shape of an array, or of what becomes one."""
    shape = np.shape(array)
    if len(shape) != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {shape}")
    return shape


def apart(name: str, out: Array, **others: Array) -> None:
    """Raise ValueError where `out` would be written over an argument still to be read or written."""
    for other, array in others.items():
        if np.may_share_memory(out, array):
            raise ValueError(f"{name} shares memory with {other}: pass another array")


def same_or_apart(name: str, out: Array, **inputs: Array) -> None:
    """Raise ValueError where `out` lies across an input without being the same array."""
    for other, array in inputs.items():
        if out.__array_interface__["data"] != array.__array_interface__["data"]:
            apart(name, out, **{other: array})


def activation_code(code: Any, allowed: tuple[int, ...] = (IDENTITY, RELU)) -> int:
    if code not in allowed:
        names = ("IDENTITY", "RELU", "TANH", "LOGISTIC")
        wanted = [f"{names[one]} ({one})" for one in allowed]
        raise ValueError(f"activation must be {', '.join(wanted[:-1])} or {wanted[-1]}, got {code!r}")
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


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Two integers (height, width), neither below `least`."""
    try:
        high, wide = (operator.index(number) for number in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of integers (height, width), got {value!r}") from None
    if min(high, wide) < least:
        raise ValueError(f"{name} must be a pair of integers of at least {least}, got {value!r}")
    return high, wide


# ---- types inside @njit


def require(written: str, dimensions: dict[str, int], **arrays: Any) -> None:
    """Raise a typing error that names the array: what compiled code would misread, or write though it must not.

    dimensions: of each array by name. All have one floating dtype.
    """
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        require_array(name, array, dimensions[name], name in written.split())
        if array.dtype not in _FLOAT_TYPES or array.dtype != first.dtype:
            raise numba.TypingError(f"{name} must be float32 or float64 like the other arrays, got {array}")


def require_array(name: str, array: Any, dimensions: int, written: bool, dtype: Any = None) -> None:
    """Raise a typing error where a type is not that of an array which compiled code may read, or write."""
    if not isinstance(array, types.Array) or array.ndim != dimensions or array.layout != "C":
        raise numba.TypingError(f"{name} must be a C-contiguous array of {dimensions} dimensions, got {array}")
    if written and not array.mutable:
        raise numba.TypingError(f"{name} must be writeable, got {array}")
    if dtype is not None and array.dtype != dtype:
        raise numba.TypingError(f"{name} must be {dtype}, got {array}")


def require_real(name: str, array: Any) -> None:
    """Raise a typing error where a type is not that of an array of real numbers that compiled code can read."""
    known = types.Integer | types.Boolean
    if isinstance(array, types.Array) and (isinstance(array.dtype, known) or array.dtype in _FLOAT_TYPES):
        return
    raise numba.TypingError(
        f"{name} must be an array of real numbers (inside compiled code integers, booleans, float32 or float64), "
        f"got {array}"
    )


def require_labels(name: str, array: Any) -> None:
    """Raise a typing error where a type is not that of a vector of class indices."""
    if not (isinstance(array, types.Array) and array.ndim == 1 and isinstance(array.dtype, types.Integer)):
        raise numba.TypingError(f"{name} must be an array of integers of 1 dimension, got {array}")


def require_vectors(written: str, **arrays: Any) -> None:
    require(written, dict.fromkeys(arrays, 1), **arrays)


def require_matrices(written: str, **arrays: Any) -> None:
    require(written, dict.fromkeys(arrays, 2), **arrays)


def require_pairs(**pairs: Any) -> None:
    """Raise a typing error that names what is not two integers."""
    for name, value in pairs.items():
        members = tuple(getattr(value, "types", ())) if isinstance(value, types.BaseTuple) else ()
        if len(members) != 2 or not all(isinstance(types.unliteral(member), types.Integer) for member in members):
            raise numba.TypingError(f"{name} must be a pair of integers (height, width), got {value}")


def require_integers(**values: Any) -> None:
    """Raise a typing error that names what is not an integer."""
    for name, value in values.items():
        if not isinstance(types.unliteral(value), types.Integer):
            raise numba.TypingError(f"{name} must be an integer, got {value}")


def require_numbers(**values: Any) -> None:
    """Raise a typing error that names what is no real number."""
    for name, value in values.items():
        if not isinstance(types.unliteral(value), types.Integer | types.Float):
            raise numba.TypingError(f"{name} must be a number, got {value}")
