"""Threads that run one call together: they gather once and then meet, between two phases, at a barrier.

A parallel loop for every phase costs 2 µs to start and end, and some steps take 10. Here one parallel loop runs the
whole call, each of its threads all the steps, and a barrier is an atomic count that they wait for: 30 ns between two
cores. Whoever has not come soon after the first stays out, so that no threading layer, no busy machine and no pool with
fewer threads than were asked for can leave the others waiting for ever: a team may be one.
"""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..plan import zeros
from .clock import clock
from .jit import ONE, inner, jit
from .simd import pointer_to

LINE = 8  # int64 numbers of a cache line: what different threads write lies on lines of its own
JOINED, SIZE, MET, STOP, REACHED, DUE, STEPS = (LINE * i for i in range(7))  # STEPS: of each member
WAITED = STEPS + 1  # of each member: the nanoseconds that it has waited behind each phase
_CLOSED = 1 << 32  # added to JOINED when nobody can join any more
# Looks at a count, 10 to 50 ns each, for the others to come. A sleeping thread wakes in 0.1 ms; one that is put behind
# this thread on its core comes 10 to 20 ms later, and stays out of this call.
_PATIENCE = 30_000
_SPINS = 2_000  # looks at a count before the processor is offered to other programs, too


def make(members: int) -> np.ndarray:
    """What a team of at most so many members shares, for one call."""
    return zeros(STEPS + LINE * members, np.int64)


@intrinsic
def _offer(typingctx):
    """Offer the processor to other threads, where the system has a call for it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _rest(typingctx):
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


@intrinsic
def _add(typingctx, place, value):
    """place[0] += value, as one with what other threads do; returns what was there. What was written before is seen."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], args[1], "seq_cst")

    return types.int64(types.CPointer(types.int64), types.int64), codegen


@intrinsic
def _look(typingctx, place):
    """place[0], and with it what the thread that put it there wrote before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(args[0], "acquire", 8)

    return types.int64(types.CPointer(types.int64)), codegen


@inner
def _wait(place, wanted):
    looks = 0
    while _look(place) < wanted:
        looks += 1
        if looks < _SPINS:
            _rest()
        else:
            _offer()


@jit
def join(team, most):
    """(rank, size) of a member in a team of at most so many; a size of 0 for one that comes too late."""
    if most <= 1:
        return 0, 1
    joined, size = pointer_to(team, JOINED), pointer_to(team, SIZE)
    rank = _add(joined, 1)
    if rank >= _CLOSED:
        return 0, 0
    if rank == 0:
        looks = 0
        while _look(joined) < most and looks < _PATIENCE:
            looks += 1
            _rest()
        _add(size, _add(joined, _CLOSED))
    _wait(size, ONE)
    return rank, _look(size)


@jit
def meet(team, rank, size, times, phase):
    """Wait until all members have come here; times: how often this one has before. Returns times + 1.

    The time that a member waits counts as lost behind a phase.
    """
    if size > 1:
        met, wanted = pointer_to(team, MET), (times + 1) * size
        if _add(met, 1) + 1 < wanted:
            begun = clock()
            _wait(met, wanted)
            team[WAITED + LINE * rank + phase] += np.int64(1e9 * (clock() - begun))
    return times + 1
