"""Arrays without their reference counts, for code that runs while its caller holds them.

Compiled code counts an array's references up and down, atomically, for each slice and each call through a pointer:
a third of a step of batch 8. (In a parallel loop's body arrays have no counts already.)
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def without_count(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The array with no owner known: what counts references then finds nothing to count."""
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = ir.Constant(array.meminfo.type, None)
    array.parent = ir.Constant(array.parent.type, None)
    return array._getvalue()


@intrinsic
def borrow(typingctx, value):
    """The same array, or tuple of arrays and numbers, not counted. Valid as long as the caller holds the original."""
    kinds = value.types if isinstance(value, types.BaseTuple) else None
    if kinds is None and not isinstance(value, types.Array):
        raise TypeError(f"borrow takes an array or a tuple of them, got {value}")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if kinds is None:
            return without_count(context, builder, value, args[0])
        members = cgutils.unpack_tuple(builder, args[0])
        borrowed = [
            without_count(context, builder, kind, member) if isinstance(kind, types.Array) else member
            for kind, member in zip(kinds, members, strict=True)
        ]
        return context.make_tuple(builder, value, borrowed)

    return value(value), codegen
