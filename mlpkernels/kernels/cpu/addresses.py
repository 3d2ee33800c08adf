"""Numbers as addresses, in compiled code: typed pointers, and calls of compiled functions that a number points to.

A block of numbers that holds addresses has one plain type for every network, in compiled code, in C and in Python, and
a function behind an address compiles nothing into its caller.
"""

import itertools
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


def _function(context: Any, builder: Any, kind: Any, number: Any) -> Any:
    """The function of a FunctionType at an address: neither with an owner nor in Numba's own calling convention."""
    pointer = cgutils.create_struct_proxy(kind)(context, builder)
    pointer.c_addr = builder.inttoptr(number, context.get_value_type(types.voidptr))
    return pointer._getvalue()


@intrinsic
def phases_at(typingctx, addresses, like):
    """The phases of an executor, from the addresses of its functions one behind the other.

    like: a pointer to numbers of the network's type.
    """
    from .signatures import signatures, tuples  # which know this module's users

    taken = signatures(like.dtype)
    members = [types.FunctionType(taken[name]) for name in ("rows_phase", "params_phase")]
    made = types.NamedTuple([*members, tuples(like.dtype)["Kinds"]], Phases)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = (builder.load(builder.gep(args[0], [ir.Constant(ir.IntType(64), i)])) for i in itertools.count())
        rows, params, kinds = made.types
        values = [_function(context, builder, kind, next(numbers)) for kind in (rows, params)]
        members = [_function(context, builder, kind, next(numbers)) for kind in kinds.types]
        values.append(context.make_tuple(builder, kinds, members))
        return context.make_tuple(builder, made, values)

    return made(types.CPointer(types.int64), like), codegen


@intrinsic(prefer_literal=True)
def entry_at(typingctx, name, address, like):
    """The entry point of that name, a literal, at an address. like: a pointer to numbers of the network's type."""
    from .signatures import signatures  # which knows this module's users

    made = types.FunctionType(signatures(like.dtype)[name.literal_value])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _function(context, builder, made, args[1])

    return made(name, types.int64, like), codegen
