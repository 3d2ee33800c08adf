"""Threads that run a call together: who comes late stays out, and behind the barrier all see what each wrote before."""

import numpy as np
import pytest
from numba import njit, prange

from mlpkernels.kernels.cpu import team as teams
from mlpkernels.kernels.cpu import threads
from mlpkernels.kernels.cpu.team import join, make, meet


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


def test_who_comes_late_stays_out():
    """The first member of three closes the team after a while, alone; the second finds it closed."""
    team, found = make(3), np.zeros(2, np.int64)
    _join(team, 3, found)
    assert found.tolist() == [0, 1]
    _join(team, 3, found)
    assert found[1] == 0


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
