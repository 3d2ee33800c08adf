"""Numbers as addresses, in compiled code: typed pointers, and calls of compiled functions that a number points to.

A block of numbers that holds addresses has one plain type for every network, in compiled code, in C and in Python, and
a function behind an address compiles nothing into its caller.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _to_pointer(kind: Any) -> Any:
    """(signature, code) of an intrinsic that takes a number, and perhaps more, to a pointer of a type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return codegen


@intrinsic
def integers_at(typingctx, address):
    """The int64 numbers at an address."""
    kind = types.CPointer(types.int64)
    return kind(types.int64), _to_pointer(kind)


@intrinsic
def doubles_at(typingctx, address):
    """The float64 numbers at an address."""
    kind = types.CPointer(types.float64)
    return kind(types.int64), _to_pointer(kind)


@intrinsic
def numbers_at(typingctx, address, like):
    """The numbers at an address, of the type of another pointer's."""
    return like(types.int64, like), _to_pointer(like)


@intrinsic
def call_at(typingctx, address, arguments):
    """Call the compiled function at an address, which takes these arguments, a tuple, and returns nothing.

    The function must have been compiled for just these types: pointers and numbers.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.extract_value(args[1], i) for i in range(len(arguments))]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen
