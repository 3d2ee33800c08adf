"""How rows and weights are divided among a team's slots: equally, then by how long each slot has waited for others.

Two cores are seldom equally fast: one kind of core beside another, a sibling thread or another program at work on one.
A phase takes as long as its slowest slot. No number depends on how it is divided.
"""

import numpy as np

from .jit import inner

WHOLE = 1 << 24  # all of a phase's rows or weights; shares are fractions of it
MOST = 256  # slots at most whose shares are kept
# The phases that have shares of their own, and what comes between.
ROWS_PHASE, PARAMS_PHASE, HALVES_PHASE, NO_PHASE = range(4)
OFTEN = 2e-4  # seconds from one look at the shares to the next
_EASE = 0.5  # how far a share moves at once to what was measured
_LEAST = 0.25  # of an equal share, so that a slot's speed is always known
_UNEQUAL = 1.25  # times as long as another: too long for two slots that keep to a half each
_PATIENCE = 64  # looks until they try that again
# Where it is kept how many of these looks are left; or -1 behind one at which they were unequal.
_APART = 1 + NO_PHASE * (MOST + 1)


def make() -> np.ndarray:
    """What a workspace keeps from call to call: the count of slots, and for each phase where their shares begin.

    0 slots, as at first: all shares are equal. Last, whether two slots keep to a half each: `settle`.
    """
    return np.zeros(_APART + 1, np.int64)


@inner
def equal_share(n, slot, slots, unit=2):
    """The rows start, stop of n that a slot takes: multiples of a unit; of 2, so that the tiles of two rows fit."""
    if slots == 1:  # without dividing, 4 ns each in every step
        return 0, n
    each = ((n + slots - 1) // slots + unit - 1) // unit * unit
    return min(slot * each, n), min((slot + 1) * each, n)


@inner
def _border(n, fraction, unit):
    """The multiple of a unit that is next to a fraction of n; n itself for all of it."""
    return n if fraction == WHOLE else min((n * fraction + unit * WHOLE // 2) // (unit * WHOLE) * unit, n)


@inner
def share(n, phase, slot, slots, shares, unit):
    """equal_share, or where there are `shares` for so many slots a part of that size."""
    if slots == 1 or shares.shape[0] == 0 or shares[0] != slots:
        return equal_share(n, slot, slots, unit)
    at = 1 + phase * (MOST + 1) + slot
    return _border(n, shares[at], unit), _border(n, shares[at + 1], unit)


@inner
def begin(shares, slots):
    """Equal shares, unless there are those of as many slots; one slot leaves what there is for others."""
    if shares.shape[0] > 0 and shares[0] != slots and 1 < slots <= MOST:
        shares[0] = slots
        for phase in range(NO_PHASE):
            for slot in range(slots + 1):
                shares[1 + phase * (MOST + 1) + slot] = slot * WHOLE // slots
        shares[_APART] = 0


@inner
def _busy(seconds, nanoseconds):
    """The nanoseconds, at least one, that a slot was at work in a phase in which it waited for the others so long."""
    return max(1e9 * seconds - nanoseconds, 1e9 * seconds / 16, 1.0)


@inner
def adapt(shares, phase, slots, n, unit, seconds, waited, every):
    """Move a phase's shares, of n in whole units: slot i waited waited[i · every] ns of the seconds that it took.

    A slot's speed is what it had, in whole units, by the time that it was busy.
    """
    first, total = 1 + phase * (MOST + 1), 0.0
    for slot in range(slots):
        start, stop = share(n, phase, slot, slots, shares, unit)
        total += (stop - start) / _busy(seconds, waited[slot * every])
    if total <= 0:
        return
    start, wanted, before, least = 0, 0.0, 0.0, _LEAST * WHOLE / slots
    for slot in range(slots - 1):
        cut = shares[first + slot + 1]
        stop = _border(n, cut, unit)
        wanted += (stop - start) / _busy(seconds, waited[slot * every]) / total * WHOLE
        before = min(max(cut + _EASE * (wanted - cut), before + least), WHOLE - (slots - 1 - slot) * least)
        shares[first + slot + 1] = np.int64(before)
        start = stop


@inner
def settled(slots, shares):
    """Whether two slots keep to a half each of what is divided in halves; what else there is is shared as ever."""
    return slots == 2 and (shares.shape[0] == 0 or shares[0] != 2 or shares[_APART] <= 0)


@inner
def settle(shares, slots, seconds, waited, every):
    """Decide whether two slots keep to a half each, from what each waited behind the weights' phase: see `adapt`.

    They do not for a while where one of them was at work for far longer than the other at two looks in a row: then they
    share all weights, at first by the speeds that they had with a half each. While they do, `adapt` moves the share of
    all other weights, which evens out what the halves leave; it is kept between a quarter and three.
    """
    if slots != 2:
        return
    cut = 1 + PARAMS_PHASE * (MOST + 1) + 1
    if shares[_APART] > 0:
        shares[_APART] -= 1
        return
    one, other = _busy(seconds, waited[0]), _busy(seconds, waited[every])
    shares[cut] = min(max(shares[cut], WHOLE // 4), WHOLE - WHOLE // 4)
    if max(one, other) <= _UNEQUAL * min(one, other):
        shares[_APART] = 0
    elif shares[_APART] == 0:
        shares[_APART] = -1
    else:
        shares[_APART], shares[cut] = _PATIENCE, np.int64(WHOLE * (other / (one + other)))
