"""Arrays as the ops take them: NumPy's are copied to the GPU and back, those that lie on it are used where they lie."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from .dlpack import Borrowed
from .driver import SIMULATED, cuda, device_count, library, named, require_device, synchronize

_CUDA_DEVICES = (2, 13)  # of DLPack: memory of a GPU, and managed memory


def on_device(value: Any) -> bool:
    """Whether a value is an array in a GPU's memory, by its protocol."""
    if isinstance(value, np.ndarray):
        return False
    if getattr(value, "__cuda_ndarray__", False):
        return True
    try:
        if hasattr(value, "__cuda_array_interface__"):
            return True
    except (AttributeError, RuntimeError, TypeError):  # PyTorch's, of a tensor that needs a gradient
        return False
    return hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) in _CUDA_DEVICES


def as_device(name: str, value: Any) -> Any:
    """A device array of the package over memory that stays where it is. ValueError for another GPU's."""
    array = value
    if not getattr(value, "__cuda_ndarray__", False):
        require_device()
        with named(f"{name}: taking the array"):
            array = cuda.as_cuda_array(value if hasattr(value, "__cuda_array_interface__") else Borrowed(name, value))
    _check_device(name, array)
    return array


def _check_device(name: str, array: Any) -> None:
    """Raise ValueError where an array lies on a GPU that the kernels do not run on."""
    if SIMULATED or device_count() < 2 or not array.size:
        return
    place = _ordinal(array.__cuda_array_interface__["data"][0])
    ours = int(cuda.get_current_device().id)
    if place is not None and place != ours:
        raise ValueError(f"{name} lies on GPU {place}, the kernels run on GPU {ours}: copy it there")


def _ordinal(pointer: int) -> int | None:
    """The number of the GPU that an address belongs to."""
    number, ordinal = ctypes.c_int(), 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    if library().cuPointerGetAttribute(ctypes.byref(number), ordinal, ctypes.c_uint64(pointer)):
        return None
    return number.value


class View:
    """An argument of an op: where it lies, of what shape and dtype, and its flat device array once it is needed."""

    def __init__(self, name: str, value: Any, shape: tuple[int, ...], dtype: Any, device: bool) -> None:
        self.name, self.value, self.shape, self.dtype, self.device = name, value, tuple(shape), np.dtype(dtype), device
        self._flat: Any = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def span(self) -> tuple[int, int]:
        """The first address and the one behind the last, on the host or on the GPU."""
        if self.device and not SIMULATED:
            start = int(self.value.__cuda_array_interface__["data"][0])
        else:
            host = self.value._ary if self.device else self.value
            start = int(host.__array_interface__["data"][0])
        return start, start + self.size * self.dtype.itemsize

    def flat(self, stream: Any, read: bool = True) -> Any:
        """The flat device array: the argument's own, or a copy of it; of an output not to be read, room for it."""
        if self._flat is None:
            if self.size == 0:
                self._flat = nothing(self.dtype.name)
            elif self.device:
                self._flat = self.value.reshape(self.size)
            elif read:
                self._flat = to_device(self.value.reshape(-1), stream)
            else:
                self._flat = room(self.size, self.dtype, stream)
        return self._flat

    def lies(self, flat: Any) -> None:
        """Take a flat device array for this argument."""
        self._flat = flat

    def back(self, stream: Any) -> None:
        """Copy what a kernel wrote to where the caller wants it; nothing where it lies there already."""
        if not self.device and self.size:
            with named(f"{self.name}: copying it back"):
                self._flat.copy_to_host(self.value.reshape(-1), stream=stream)


@cache
def nothing(dtype: str) -> Any:
    """One element for an argument that has none: a kernel never reads it."""
    return kept(np.zeros(1, dtype))


def room(size: int, dtype: Any, stream: Any = 0) -> Any:
    """An uninitialised flat device array. MemoryError says what was needed and what is free."""
    require_device()
    with named("taking memory", size * np.dtype(dtype).itemsize):
        return cuda.device_array(size, np.dtype(dtype), stream=stream)


def to_device(array: np.ndarray, stream: Any = 0) -> Any:
    """A copy of a host array on the GPU."""
    require_device()
    with named("copying to the GPU", array.nbytes):
        return cuda.to_device(array, stream=stream)


def kept(array: np.ndarray, stream: Any = 0) -> Any:
    """A copy on the GPU for later calls, waited for: a stream of theirs need not wait for this one."""
    copy = to_device(array, stream)
    synchronize(stream)
    return copy


def finish(stream: Any, *written: View) -> None:
    """Bring outputs back to the host and, if there are any, wait for them."""
    for view in written:
        view.back(stream)
    if any(not view.device for view in written):
        synchronize(stream)


def fetch(array: Any, stream: Any = 0) -> np.ndarray:
    """A device array's numbers, waited for."""
    with named("copying from the GPU"):
        values = array.copy_to_host(stream=stream)
    synchronize(stream)
    return np.asarray(values)
