"""How a step is divided among threads: every row and weight once, more of them to who keeps the others waiting less."""

import numpy as np
import pytest
from numba import njit

from mlpkernels.kernels.cpu import shares as s


@njit(nogil=True)
def _share(n, phase, slot, slots, shares, unit):
    return s.share(n, phase, slot, slots, shares, unit)


@njit(nogil=True)
def _begin(shares, slots):
    s.begin(shares, slots)


@njit(nogil=True)
def _adapt(shares, phase, slots, n, unit, seconds, waited, every):
    s.adapt(shares, phase, slots, n, unit, seconds, waited, every)


@njit(nogil=True)
def _settled(slots, shares):
    return s.settled(slots, shares)


@njit(nogil=True)
def _settle(shares, slots, seconds, waited, every):
    s.settle(shares, slots, seconds, waited, every)


def parts(n, phase, slots, shares, unit):
    return [_share(n, phase, slot, slots, shares, unit) for slot in range(slots)]


def sizes(kept, phase, slots):
    first = 1 + phase * (s.MOST + 1)
    return np.diff(kept[first : first + slots + 1])


@pytest.mark.parametrize("unit", [1, 2, 8])
@pytest.mark.parametrize("slots", [1, 2, 3, 7, s.MOST])
def test_shares_cover_everything_once(slots, unit):
    random = np.random.default_rng(slots)
    for n in (0, 1, 2, 5, 64, 65, 784, 60_000):
        kept = s.make()
        equal = parts(n, s.PARAMS_PHASE, slots, kept, unit)
        _begin(kept, slots)
        for trial in range(5):
            found = parts(n, s.PARAMS_PHASE, slots, kept, unit)
            borders = [0, *(stop for _, stop in found)]
            assert [start for start, _ in found] == borders[:-1] and borders[-1] == n and borders == sorted(borders)
            assert all(border % unit == 0 or border == n for border in borders)
            if trial == 0 and n % (unit * slots) == 0:
                assert found == equal
            _adapt(kept, s.PARAMS_PHASE, slots, n, unit, 1e-3, random.integers(0, 1_000_000, slots), 1)


def test_who_waits_gets_more():
    """Threads of speeds 3, 2 and 1 end with these shares, each phase with its own; nobody ends with nothing."""
    kept = s.make()
    _begin(kept, 3)
    for speeds, phase in (((3, 2, 1), s.ROWS_PHASE), ((1, 1, 100), s.PARAMS_PHASE)):
        for _ in range(30):
            took = sizes(kept, phase, 3) / speeds
            waited = np.zeros((3, 8), np.int64)
            waited[:, 2] = 1e9 * (took.max() - took)
            _adapt(kept, phase, 3, s.WHOLE, 1, took.max(), waited.ravel()[2:], 8)
    assert np.allclose(sizes(kept, s.ROWS_PHASE, 3) / s.WHOLE, [1 / 2, 1 / 3, 1 / 6], atol=1e-3)
    assert sizes(kept, s.PARAMS_PHASE, 3).min() >= s.WHOLE // 12 - 1
    assert sizes(kept, s.ROWS_PHASE, 3).sum() == sizes(kept, s.PARAMS_PHASE, 3).sum() == s.WHOLE


@pytest.mark.parametrize("faster", [1.0, 1.2, 1.5, 2.5])
def test_what_is_divided_in_large_units_comes_to_rest(faster):
    """Four units for two threads: two each, or three for one that is faster by more than that gives the other."""
    kept, found = s.make(), []
    _begin(kept, 2)
    for _ in range(20):
        rows = np.diff([0, *(stop for _, stop in parts(64, s.ROWS_PHASE, 2, kept, 16))])
        took = rows / (faster, 1)
        _adapt(kept, s.ROWS_PHASE, 2, 64, 16, took.max(), (1e9 * (took.max() - took)).astype(np.int64), 1)
        found.append(rows.tolist())
    best = min(([rows, 64 - rows] for rows in range(0, 65, 16)), key=lambda pair: max(pair[0] / faster, pair[1]))
    assert found[10:] == [best] * 10


def test_two_slots_keep_to_their_halves_unless_one_is_far_slower():
    """Twice in a row, whichever; a share within bounds is left as it is. They try again after a while."""
    kept, cut = s.make(), 2 + s.PARAMS_PHASE * (s.MOST + 1)
    assert _settled(2, kept) and _settled(2, kept[:0]) and not _settled(1, kept) and not _settled(3, kept)
    _begin(kept, 2)
    for waits, wanted in (((0, 0.1), None), ((0.3, 0), None), ((0.05, 0), None), ((0, 0.3), None), ((0.1, 0.4), 0.4)):
        kept[cut] = 0.55 * s.WHOLE
        _settle(kept, 2, 1e-3, 1e6 * np.array(waits), 1)
        assert _settled(2, kept) == (wanted is None) and not _settled(3, kept)
        assert kept[cut] / s.WHOLE == pytest.approx(wanted or 0.55)
    for left in range(s._PATIENCE, 0, -1):
        assert kept[-1] == left and not _settled(2, kept)
        _settle(kept, 2, 1e-3, np.array([0.0, 5e5]), 1)
    assert _settled(2, kept)
    for _ in range(2):
        kept[cut] = 0.55 * s.WHOLE
        _settle(kept, 2, 1e-3, np.array([4e5, 1e5]), 1)
    assert not _settled(2, kept) and kept[cut] / s.WHOLE == pytest.approx(0.6)
    kept[-1] = 0
    kept[cut] = 0.9 * s.WHOLE
    _settle(kept, 2, 1e-3, np.zeros(2), 1)
    assert kept[cut] == 0.75 * s.WHOLE
    kept[-1] = 5
    _begin(kept, 3)
    _begin(kept, 2)
    assert _settled(2, kept)


@pytest.mark.parametrize("faster", [1.0, 1.1, 1.4, 3.0])
def test_two_slots_come_to_rest(faster):
    """Settled where they are about equal; else most of the time each with its share of everything."""
    kept, apart = s.make(), 0
    _begin(kept, 2)
    for _ in range(400):
        share = 0.5 if _settled(2, kept) else sizes(kept, s.PARAMS_PHASE, 2)[0] / s.WHOLE
        took = np.array([share / faster, 1 - share])
        waited = 1e9 * (took.max() - took)
        _adapt(kept, s.PARAMS_PHASE, 2, s.WHOLE, 1, took.max(), waited.astype(np.int64), 1)
        _settle(kept, 2, took.max(), waited, 1)
        apart += not _settled(2, kept)
    assert apart == 0 if faster < s._UNEQUAL else apart > 350


def test_equal_threads_keep_equal_shares():
    kept = s.make()
    _begin(kept, 4)
    for _ in range(100):
        _adapt(kept, s.ROWS_PHASE, 4, 64, 2, 1e-3, np.full(4, 1000), 1)
    assert sizes(kept, s.ROWS_PHASE, 4).tolist() == [s.WHOLE // 4] * 4


def test_shares_are_kept_for_as_many_slots():
    kept = s.make()
    _begin(kept, 2)
    _adapt(kept, s.ROWS_PHASE, 2, 64, 2, 1e-3, np.array([500_000, 0]), 1)
    before = kept.copy()
    _begin(kept, 2)
    assert np.array_equal(kept, before) and sizes(kept, s.ROWS_PHASE, 2)[0] > s.WHOLE // 2
    _begin(kept, 3)
    assert kept[0] == 3 and sizes(kept, s.ROWS_PHASE, 3).tolist() == [s.WHOLE // 3, s.WHOLE // 3, s.WHOLE // 3 + 1]
    _begin(kept, s.MOST + 1)  # more than there is room for: equal shares, what is kept is left
    assert kept[0] == 3 and parts(1000, s.ROWS_PHASE, 500, kept, 2)[499] == (998, 1000)
