"""Threads that run a call together: who comes late is let in, and behind the barrier all see what each wrote before."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from numba import njit, prange
from support import from_python

from mlpkernels.affinity import cpu_count
from mlpkernels.kernels.cpu import team as teams
from mlpkernels.kernels.cpu import threads
from mlpkernels.kernels.cpu.cores import core, move
from mlpkernels.kernels.cpu.team import admit, follow, grown, join, leave, make, meet


@njit(nogil=True)
def _join(team, most, found):
    found[0], found[1] = join(team, most)


@njit(parallel=True, nogil=True)
def _exchange(team, members, times, board, sizes, wrong):
    """Each member writes a number, all meet, each reads all numbers: what is not the one just written is counted."""
    for _ in prange(members):
        rank, size = join(team, members)
        if size > 0:
            sizes[rank] = size
            met = 0
            for i in range(times):
                board[rank * 8] = i
                met = meet(team, rank, size, met, i % 3)
                for other in range(size):
                    wrong[rank] += board[other * 8] != i
                met = meet(team, rank, size, met, i % 3)


def test_one_needs_nobody():
    found = np.zeros(2, np.int64)
    _join(make(1), 1, found)
    assert found.tolist() == [0, 1]


def test_who_comes_late_finds_it_closed():
    """The first member of three closes the team after a while, alone; the second cannot join, nor follow at the end."""
    team, found = make(3), np.zeros(3, np.int64)
    _join(team, 3, found)
    assert found.tolist() == [0, 1, 0]
    _join(team, 3, found)
    assert found[1] == 0
    from_python(leave)(team)
    _follow(team, found)
    assert found.tolist() == [0, 0, 0]


@njit(nogil=True)
def _follow(team, found):
    found[0], found[1], found[2] = follow(team)


@njit(nogil=True)
def _follow_and_exchange(team, times, board, wrong):
    """A member that comes late: as `_exchange`, from where the first one has come to."""
    rank, size, met = follow(team)
    if size > 0:
        for i in range(team[teams.REACHED], times):
            board[rank * 8] = i
            met = meet(team, rank, size, met, 0)
            for other in range(size):
                wrong[rank] += board[other * 8] != i
            met = meet(team, rank, size, met, 0)


@njit(nogil=True)
def _lead_and_exchange(team, most, times, board, wrong, sizes):
    """The first member: lets in who has asked, each time."""
    rank, size = join(team, most)
    met = 0
    for i in range(times):
        more = grown(team)
        board[rank * 8] = i
        met = meet(team, rank, size, met, 0)
        for other in range(size):
            wrong[rank] += board[other * 8] != i
        met = meet(team, rank, size, met, 0)
        if size == 1 and more > size:
            size = more
            team[teams.REACHED] = i + 1
            admit(team, size, met)
    leave(team)
    sizes[0] = size


def test_who_comes_late_is_let_in():
    """A pair is made while the first one is at work; from then on each sees at once what the other wrote."""
    if cpu_count() == 1:
        pytest.skip("on one core nobody asks to be let in")
    _follow_and_exchange(_ended(), 1, np.zeros(16), np.zeros(2, np.int64))  # compiled before anybody waits
    _lead_and_exchange(make(1), 1, 1, np.zeros(16), np.zeros(2, np.int64), np.zeros(1, np.int64))
    pairs = 0
    for _ in range(200):
        team, board, wrong, sizes = make(2), np.full(16, -1.0), np.zeros(2, np.int64), np.zeros(1, np.int64)
        first = threading.Thread(target=_lead_and_exchange, args=(team, 2, 20_000, board, wrong, sizes))
        found = np.ones(2, np.int64)
        second = threading.Thread(target=_join_and_follow, args=(team, 20_000, board, wrong, found))
        first.start()
        while team[teams.SIZE] == 0 and first.is_alive():
            time.sleep(0)
        second.start()
        first.join()
        second.join()
        assert found[1] == 0 and not wrong.any() and sizes[0] == team[teams.SIZE]
        pairs += sizes[0] == 2
        if pairs == 3:
            break
    assert pairs == 3 or core_unknown()


def core_unknown():
    """Whether the system does not tell a thread its core: then nobody is let in."""
    return _in_thread(None)[0] < 0


def _ended():
    team, found = make(2), np.zeros(2, np.int64)
    _join(team, 2, found)
    from_python(leave)(team)
    return team


def _join_and_follow(team, times, board, wrong, found):
    _join(team, 2, found)
    _follow_and_exchange(team, times, board, wrong)


def test_a_closed_team_keeps_its_size():
    """Also where more were launched than had joined when it was closed."""
    team, found = make(2), np.zeros(2, np.int64)
    team[teams.JOINED], team[teams.SIZE] = 1 + teams._CLOSED, 1
    _join(team, 2, found)
    assert found[1] == 0 and team[teams.SIZE] == 1


@pytest.mark.parametrize("members", [1, 2, 5])
def test_behind_the_barrier_all_see_what_each_wrote(members):
    """Whatever the size that the team has reached; the sizes that its members know are the same."""
    if threads.layer() == "none":
        pytest.skip("no threading layer")
    for _ in range(20):
        board, sizes, wrong = np.zeros(8 * members), np.zeros(members, np.int64), np.zeros(members, np.int64)
        with threads.launch(members) as launched:
            _exchange(make(members), launched, 200, board, sizes, wrong)
        size = int(sizes[0])
        assert 1 <= size <= launched and sizes[:size].tolist() == [size] * size and not sizes[size:].any()
        assert not wrong.any()


def test_a_small_phase_is_not_shared(monkeypatch):
    """Neither a call that is short nor phases behind which threads would meet more than they compute."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(threads, "layer", lambda: "omp")
    monkeypatch.setattr(threads, "_forked_after_launch", False)
    assert threads.slots(2, 1e5, 1000) == 1  # meets too often
    assert threads.slots(2, 1e6, 1) == 1  # too short a call
    assert threads.slots(2, 1e6, 1000) == 2
    assert threads.slots(1, 1e9, 1000) == 1


# ---- a thread and its core


@njit(nogil=True)
def _moved(found):
    found[0] = core()
    move()
    found[1] = core()


def _in_thread(cores):
    """(core before, core behind `move`, the cores allowed then) of a thread that may use some cores; None: all."""
    told = []

    def run():
        if cores is not None:
            os.sched_setaffinity(0, cores)  # of this thread
        found = np.zeros(2, np.int64)
        _moved(found)
        told.append((*found.tolist(), os.sched_getaffinity(0) if sys.platform.startswith("linux") else None))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return told[0]


@pytest.mark.skipif(sys.platform.startswith("linux"), reason="Linux tells a thread its core")
def test_where_the_system_does_not_tell_no_thread_is_on_a_known_core():
    assert _in_thread(None)[:2] == (-1, -1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system has no call for it")
def test_a_thread_moves_to_another_core_and_may_still_use_all():
    """Unless the system has moved it back at once."""
    allowed, others = os.sched_getaffinity(0), 0
    for _ in range(50):
        before, behind, cores = _in_thread(None)
        assert cores == allowed and {before, behind} <= allowed
        others += before != behind
    assert others > 25 or len(allowed) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system has no call for it")
def test_a_thread_that_has_one_core_stays():
    for allowed in os.sched_getaffinity(0):
        assert _in_thread({allowed}) == (allowed, allowed, {allowed})
