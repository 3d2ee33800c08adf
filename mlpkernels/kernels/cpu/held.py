"""What a call works on, kept behind one pointer: functions that are called by address pass that on.

Passed one by one, a network's arrays and the batch's are 200 numbers, which the caller of each phase and of each kind
of layer writes and the callee reads: 1.1 µs of a step of 8 rows that took 7.9.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .borrow import without_count


class Call(NamedTuple):
    """What every phase of a call takes: pointers to the kinds' functions, and what they work on."""

    kinds: Any
    model: Any
    source: Any
    order: Any
    work: Any
    x_stride: Any


def _registered(name: str, like: Any) -> Any:
    """The type of a tuple of that name, for a pointer to the network's numbers."""
    from .signatures import tuples  # which knows this module's users

    return tuples(like.dtype)[name]


def _read(builder: Any, place: Any, kind: Any) -> Any:
    """A value of an LLVM type, number by number: what nobody uses of it is not read."""
    if not isinstance(kind, (ir.LiteralStructType, ir.ArrayType)):
        return builder.load(place)
    value = ir.Constant(kind, ir.Undefined)
    members = kind.elements if isinstance(kind, ir.LiteralStructType) else [kind.element] * kind.count
    for i, member in enumerate(members):
        part = _read(builder, cgutils.gep_inbounds(builder, place, 0, i), member)
        value = builder.insert_value(value, part, i)
    return value


def _members(context: Any, builder: Any, kind: Any, place: Any) -> Any:
    """A tuple of arrays, numbers and such tuples at a place, its arrays not counted."""
    if isinstance(kind, types.NamedTuple):
        places = (cgutils.gep_inbounds(builder, place, 0, i) for i in range(len(kind)))
        members = [_members(context, builder, *each) for each in zip(kind.types, places, strict=True)]
        return context.make_tuple(builder, kind, members)
    value = _read(builder, place, context.get_value_type(kind))
    return without_count(context, builder, kind, value) if isinstance(kind, types.Array) else value


@intrinsic(prefer_literal=True)
def hold(typingctx, name, value, like):
    """A pointer to a copy of a tuple: a `Call`, or another of signatures.tuples, of that name.

    It is valid as long as the function that holds it runs. like: a pointer to numbers of the network's type.
    """
    if value != _registered(name.literal_value, like):
        raise TypeError(f"the {name.literal_value} to be held must have the types of signatures.py, got {value}")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            room = builder.alloca(args[1].type)
        builder.store(args[1], room)
        return builder.bitcast(room, context.get_value_type(like))

    return like(name, value, like), codegen


@intrinsic(prefer_literal=True)
def held(typingctx, name, pointer):
    """The tuple of that name that `hold` has put behind a pointer; its arrays have no owners."""
    kind = _registered(name.literal_value, pointer)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(args[1], context.get_value_type(kind).as_pointer())
        return _members(context, builder, kind, place)

    return kind(name, pointer), codegen
