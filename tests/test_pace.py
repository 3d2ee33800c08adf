"""Pace: the faster of one thread and all of them, whatever the machine does meanwhile."""

import numpy as np
import pytest
from support import blobs, network

from mlpkernels import fit, pace
from mlpkernels.pace import Pace


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def drive(chosen, clock, cost, seconds):
    """Calls whose steps cost cost(threads) seconds; the seconds spent on each number of threads."""
    spent = {}
    until = clock.now + seconds
    while clock.now < until:
        threads, limit = chosen.choose()
        steps = max(1, int(limit / cost(threads)))
        clock.now += steps * cost(threads)
        spent[threads] = spent.get(threads, 0) + steps * cost(threads)
        chosen.record(threads, steps, steps * cost(threads))
    return spent


@pytest.mark.parametrize("slower", [1, 2])
def test_the_faster_way_gets_nearly_all_the_time(clock, slower):
    spent = drive(Pace(2, asked=False), clock, lambda threads: 4e-5 if threads == slower else 2e-5, 20)
    assert spent[slower] < 0.01 * sum(spent.values())


def test_it_follows_the_machine(clock):
    chosen = Pace(2, asked=False)
    assert drive(chosen, clock, lambda threads: 5e-5 / threads, 5)[2] > 4.8
    busy = drive(chosen, clock, lambda threads: 5e-5 if threads == 1 else 2e-2, 20)
    assert busy[1] > 19.5  # trials of 20 ms each, ever more rarely
    assert drive(chosen, clock, lambda threads: 5e-5 / threads, 20)[2] > 15


def test_what_was_asked_for_is_kept(clock):
    assert set(drive(Pace(2, asked=True), clock, lambda threads: threads * 1e-4, 2)) == {2}
    assert set(drive(Pace(1, asked=False), clock, lambda threads: 1e-4, 2)) == {1}


def test_a_call_of_no_steps_says_nothing(clock):
    chosen = Pace(2, asked=False)
    chosen.record(1, 0, 1.0)
    assert chosen.choose() == (1, pace._TRIAL_SECONDS)


def test_no_bit_depends_on_it(monkeypatch):
    def trained(threads):
        net = network()
        list(fit(net, blobs(2000), epochs=2, batch_size=16, threads=threads))
        return net.params

    monkeypatch.setattr(pace, "CALL_SECONDS", 0.001)
    assert np.array_equal(trained(None), trained(1)) and np.array_equal(trained(None), trained(2))
