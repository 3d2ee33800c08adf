"""Arrays of other libraries by the DLPack protocol, without a copy: what they hold is read off the capsule.

https://dmlc.github.io/dlpack/latest
"""

from __future__ import annotations

import ctypes
from typing import Any

_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("number", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dimensions", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER)]

_python = ctypes.pythonapi
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_USED = b"used_dltensor"  # what a consumer renames the capsule to; kept alive, since the capsule keeps the pointer


class Borrowed:
    """A DLPack array with __cuda_array_interface__; it gives the memory back when it is itself let go."""

    def __init__(self, name: str, value: Any) -> None:
        capsule = value.__dlpack__()
        self._managed = ctypes.cast(
            _python.PyCapsule_GetPointer(capsule, b"dltensor"), ctypes.POINTER(_Managed)
        ).contents
        _python.PyCapsule_SetName(capsule, _USED)
        self._owner, tensor = value, self._managed.tensor
        kind = _KINDS.get(tensor.dtype.code)
        if kind is None or tensor.dtype.lanes != 1:
            raise TypeError(f"{name} must hold real numbers, got DLPack's type {tensor.dtype.code}")
        size = max(1, tensor.dtype.bits // 8)
        shape = tuple(tensor.shape[i] for i in range(tensor.dimensions))
        strides = tuple(tensor.strides[i] * size for i in range(tensor.dimensions)) if tensor.strides else None
        self.device = int(tensor.device.number)
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": shape,
            "strides": strides,
            "typestr": f"{'|' if size == 1 else '<'}{kind}{size}",
            "data": ((tensor.data or 0) + tensor.offset, False),
            "stream": None,
        }

    def __del__(self) -> None:
        managed = getattr(self, "_managed", None)
        if managed is not None and managed.deleter:
            managed.deleter(ctypes.byref(managed))
