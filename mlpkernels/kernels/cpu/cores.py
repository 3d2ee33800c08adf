"""What a thread asks of its core and of the system that gives cores to threads."""

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORDS = 16  # of 64 cores each, that a thread may use or not


@intrinsic
def offer(typingctx):
    """Offer the processor to other threads, where the system has a call for it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _current(builder: Any) -> Any:
    """The core, as the C library of Linux tells it."""
    kind = ir.FunctionType(ir.IntType(32), [])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_getcpu"), [])


@intrinsic
def core(typingctx):
    """The number of the core that runs this thread (20 ns a call); -1 where the system does not tell."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not sys.platform.startswith("linux"):
            return ir.Constant(ir.IntType(64), -1)
        return builder.sext(_current(builder), ir.IntType(64))

    return types.int64(), codegen


@intrinsic
def move(typingctx):
    """Move this thread to another core, where the system can do that and lets this thread use several.

    It may then use those that it might before, but for any that were offline just then.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not sys.platform.startswith("linux"):
            return context.get_dummy_value()
        number, long, cores = ir.IntType(32), ir.IntType(64), ir.ArrayType(ir.IntType(64), _WORDS)
        mask = cgutils.alloca_once(builder, cores)
        kind = ir.FunctionType(number, [number, long, mask.type])
        get, put = (
            cgutils.get_or_insert_function(builder.module, kind, f"sched_{what}affinity") for what in ("get", "set")
        )
        given = (number(0), long(8 * _WORDS), mask)  # 0: of this thread
        here = builder.zext(_current(builder), long)
        known = builder.icmp_signed("==", builder.call(get, given), number(0))
        with builder.if_then(builder.and_(known, builder.icmp_unsigned("<", here, long(64 * _WORDS)))):
            word = cgutils.gep_inbounds(builder, mask, number(0), builder.lshr(here, long(6)))
            before = builder.load(word)
            builder.store(builder.and_(before, builder.not_(builder.shl(long(1), builder.and_(here, long(63))))), word)
            builder.call(put, given)  # fails where no core is left
            builder.store(before, word)
            builder.call(put, given)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def rest(typingctx):
    """Tell the core that this loop waits: it saves power, and leaves the loop without a penalty."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        known = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [number(1)])}  # 1: yield
        known["arm64"] = known["aarch64"]
        name, given = known.get(builder.module.triple.split("-")[0], ("", []))
        if name:
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)
        return context.get_dummy_value()

    return types.void(), codegen
