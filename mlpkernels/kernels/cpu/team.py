"""Threads that run one call together: they gather once and then meet, between two phases, at a barrier.

A parallel loop for every phase costs 2 µs to start and end, and some steps take 10. Here one parallel loop runs the
whole call, each of its threads all the steps, and a barrier is an atomic count that they wait for: 30 ns between two
cores. Nobody waits for long for who has not come, so that no threading layer, no busy machine and no pool with fewer
threads than were asked for can leave the others waiting for ever: a team may be one. Who comes late asks to be let in,
which the first member does where all stand at a barrier.

A system may wake a thread on the very core that wakes it, and leave it there for 10 to 80 ms (Linux, two virtual cores:
in half of the calls that follow a pause), a whole epoch of a small network: who finds the first one on its core moves.
Where the system does not tell threads their cores, who comes late stays out. Nobody is sent out again: beside another
program a call of several threads goes at the pace of the slowest; `fit` measures, and takes one then.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..plan import zeros
from .clock import clock
from .cores import core, move, offer, rest
from .jit import ONE, ZERO, inner
from .simd import pointer_to

LINE = 8  # int64 numbers of a cache line: what different threads write lies on lines of its own
JOINED, SIZE, ASKED, CORE, LET_IN, ENDED, MET, STOP, REACHED, DUE, GROWN, STEPS = (LINE * i for i in range(12))
AHEAD = REACHED + 1
WAITED = STEPS + 1  # of each member: the nanoseconds that it has waited behind each phase
_CLOSED = 1 << 32  # added to JOINED when nobody can join any more
_PATIENCE = 30_000  # looks at a count, 10 to 50 ns each, for the others to come: a sleeping thread wakes in 0.1 ms
_MOVES = 4  # looks of a late member at which it tries to leave the first one's core
_SPINS = 2_000  # looks at a count before the processor is offered to other programs, too


def make(members: int) -> np.ndarray:
    """What a team of at most so many members shares, for one call."""
    team = zeros(STEPS + LINE * members, np.int64)
    team[CORE] = -1
    return team


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


@intrinsic
def _put(typingctx, place, value):
    """place[0] = value, and with it what this thread wrote before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], args[0], "release", 8)
        return context.get_dummy_value()

    return types.void(types.CPointer(types.int64), types.int64), codegen


@inner
def _wait(place, wanted):
    looks = 0
    while _look(place) < wanted:
        looks += 1
        if looks < _SPINS:
            rest()
        else:
            offer()


@inner
def _apart(first):
    """Whether this thread is on another core than the first one, as far as the system tells."""
    here = core()
    return here >= 0 and here != _look(first)


@inner
def claim(team):
    """The next slot, counted from 0, that no thread has yet: for a call whose slots need not meet."""
    return _add(pointer_to(team, JOINED), 1)


@inner
def join(team, most):
    """(rank, size) of a member in a team of at most so many; a size of 0 for one that comes too late."""
    if most <= 1:
        return 0, 1
    joined, size = pointer_to(team, JOINED), pointer_to(team, SIZE)
    rank = _add(joined, 1)
    if rank >= _CLOSED:
        return 0, 0
    if rank == 0:
        _put(pointer_to(team, CORE), core())
        looks = 0
        while _look(joined) < most and looks < _PATIENCE:
            looks += 1
            if looks == _SPINS:
                offer()  # to one that waits behind this thread, and moves
            rest()
        came = _add(joined, _CLOSED)
        team[ASKED] = came
        _put(size, came)
    elif not _apart(pointer_to(team, CORE)):
        move()
    _wait(size, ONE)
    return rank, _look(size)


@inner
def follow(team):
    """(rank, size, met) of a member that came too late for `join`, once it is let in; the first one calls `leave`.

    A size of 0 if the call ends before. It does not ask while it is on the first one's core, where one would wait for
    the other: the system may take 15 ms to give it another.
    """
    size, first, ended = pointer_to(team, SIZE), pointer_to(team, CORE), pointer_to(team, ENDED)
    if core() < 0:
        return ZERO, ZERO, ZERO
    _wait(size, ONE)
    rank, looks = ZERO, 0
    while _look(ended) == 0:
        if rank == 0 and looks < _MOVES and not _apart(first):
            move()
        if rank == 0 and _apart(first):
            rank = _add(pointer_to(team, ASKED), 1)
        if 0 < rank < _look(size):
            return rank, _look(size), team[LET_IN]
        looks += 1
        if rank > 0 and looks < _SPINS:
            rest()
        else:
            offer()
    return ZERO, ZERO, ZERO


@inner
def grown(team):
    """The size of a team that takes in who waits in `follow`; the first one asks, and says here on which core it is."""
    _put(pointer_to(team, CORE), core())
    return _look(pointer_to(team, ASKED))


@inner
def admit(team, size, met):
    """Let them in, as the first one of a team of their size, at a barrier that all others have left or are leaving.

    Whatever they are to find is written before.
    """
    team[LET_IN] = met
    _put(pointer_to(team, SIZE), size)


@inner
def leave(team):
    """Send home, as the first one, who still waits in `follow`."""
    _put(pointer_to(team, ENDED), ONE)


@inner
def meet(team, rank, size, met, phase):
    """Wait until all members have come here; met: how many have come to the barriers before. Returns how many now.

    The time that a member waits counts as lost behind a phase. A team of one neither waits nor counts.
    """
    if size > 1:
        wanted = met + size
        if _add(pointer_to(team, MET), 1) + 1 < wanted:
            begun = clock()
            _wait(pointer_to(team, MET), wanted)
            team[WAITED + LINE * rank + phase] += np.int64(1e9 * (clock() - begun))
        met = wanted
    return met
