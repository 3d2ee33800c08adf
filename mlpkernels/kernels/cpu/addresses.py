"""Numbers as addresses, in compiled code: typed pointers, and calls of compiled functions that a number points to.

A block of numbers that holds addresses has one plain type for every network, in compiled code, in C and in Python, and
a function behind an address compiles nothing into its caller.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def at(typingctx, address, kind):
    """What lies at an address: numbers of a kind, np.int64 for one, or of the kind that another pointer points to."""
    pointer = kind if isinstance(kind, types.CPointer) else types.CPointer(kind.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, kind), codegen


@intrinsic
def as_places(typingctx, pointer):
    """The memory of other numbers, of 4 bytes or more, as int32."""
    kind = types.CPointer(types.int32)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(kind))

    return kind(pointer), codegen


@intrinsic
def is_null(typingctx, pointer):
    """Whether a pointer points to nothing."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cgutils.is_null(builder, args[0])

    return types.boolean(pointer), codegen


@intrinsic
def call_at(typingctx, address, result, arguments):
    """Call the compiled function at an address, which takes these arguments, a tuple.

    result: of the type that it returns, or None. It must have been compiled for just these types, pointers and numbers.
    """
    returns = types.void if isinstance(result, types.NoneType) else result

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.extract_value(args[2], i) for i in range(len(arguments))]
        made = ir.VoidType() if returns == types.void else context.get_value_type(returns)
        kind = ir.FunctionType(made, [value.type for value in values])
        value = builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
        return context.get_dummy_value() if returns == types.void else value

    return returns(types.int64, result, arguments), codegen


class Phases(NamedTuple):
    """What `steps.phases` gives."""

    rows: Any
    params: Any
    kinds: Any


@intrinsic
def phases_at(typingctx, addresses, like):
    """The phases of an executor, from the addresses of its functions one behind the other.

    like: a pointer to numbers of the network's type.
    """
    from .signatures import signatures  # which knows this module's users

    made = types.NamedTuple(signatures(like.dtype)["differentiate"].args[:3], Phases)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = iter(range(len(made.types) + len(made.types[-1].types)))

        def function(kind: Any) -> Any:
            pointer = cgutils.create_struct_proxy(kind)(context, builder)  # cleared: neither owner nor Numba's own ABI
            number = builder.load(builder.gep(args[0], [ir.Constant(ir.IntType(64), next(place))]))
            pointer.c_addr = builder.inttoptr(number, context.get_value_type(types.voidptr))
            return pointer._getvalue()

        rows, params, kinds = made.types
        values = [function(rows), function(params)]
        values.append(context.make_tuple(builder, kinds, [function(kind) for kind in kinds.types]))
        return context.make_tuple(builder, made, values)

    return made(types.CPointer(types.int64), like), codegen
