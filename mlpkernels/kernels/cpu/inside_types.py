"""Numba's types of a CompiledNetwork and its GradientWorkspace.

To Numba either is an address: nothing is counted or copied, and a function that takes one is compiled and cached for
its dtype alone, whatever the layers. Values say their type themselves, in `_numba_type_`: a call of 0.4 µs; by
Numba's register of types it takes 5. The type's name carries the kernels' digest: a cached caller holds a little of
this package's code, and is compiled again when that has changed.
"""

from functools import cache as once
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, overload_attribute, register_model, unbox

from .cache import digest
from .gradient import CAPACITY
from .simd import load
from .single import INPUTS, OUTPUTS, SCRATCH

_digest = once(digest)
_POINTER = ir.IntType(64).as_pointer()


class NetworkType(types.Type):
    """Numba's type of a CompiledNetwork: see `network_type`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"CompiledNetwork({dtype}, {_digest()})")


class WorkspaceType(types.Type):
    """Numba's type of a GradientWorkspace: see `workspace_type`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"GradientWorkspace({dtype}, {_digest()})")


@once
def network_type(dtype: Any) -> NetworkType:
    """The type of networks of float32 or float64, for signatures."""
    return NetworkType(getattr(types, np.dtype(dtype).name))


@once
def workspace_type(dtype: Any) -> WorkspaceType:
    """The type of workspaces of float32 or float64, for signatures."""
    return WorkspaceType(getattr(types, np.dtype(dtype).name))


@register_model(NetworkType)
@register_model(WorkspaceType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _POINTER)


@unbox(NetworkType)
@unbox(WorkspaceType)
def _unbox(kind: Any, value: Any, c: Any) -> Any:
    number = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    failed = cgutils.is_not_null(c.builder, c.pyapi.err_occurred())
    return NativeValue(c.builder.inttoptr(address, _POINTER), is_error=failed)


_in_code: list[Any] = []  # those whose address compiled code holds


@lower_constant(NetworkType)
@lower_constant(WorkspaceType)
def _constant(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """One among a function's globals: its address is this process's, so Numba does not cache the function."""
    _in_code.append(value)
    address = context.add_dynamic_addr(builder, value.address, info=type(value).__name__)
    return builder.bitcast(address, _POINTER)


@intrinsic
def block_of(typingctx, value):
    """The numbers of a network's or workspace's block."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.CPointer(types.int64)(value), codegen


@overload_attribute(NetworkType, "inputs")
def _inputs(net):
    return lambda net: load(block_of(net), INPUTS)


@overload_attribute(NetworkType, "outputs")
def _outputs(net):
    return lambda net: load(block_of(net), OUTPUTS)


@overload_attribute(NetworkType, "scratch_size")
def _scratch_size(net):
    return lambda net: load(block_of(net), SCRATCH)


@overload_attribute(WorkspaceType, "rows")
def _rows(work):
    return lambda work: load(block_of(work), CAPACITY)
