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


def test_what_takes_a_moment_stays_on_one_thread(clock):
    assert set(drive(Pace(2, asked=False), clock, lambda threads: 5e-5 / threads, 0.015)) == {1}
    assert drive(Pace(2, asked=False), clock, lambda threads: 5e-5 / threads, 2)[2] > 1.7


def test_it_follows_the_machine(clock):
    chosen = Pace(2, asked=False)
    assert drive(chosen, clock, lambda threads: 5e-5 / threads, 5)[2] > 4.8
    busy = drive(chosen, clock, lambda threads: 5e-5 if threads == 1 else 2e-2, 20)
    assert busy[1] > 19.5  # trials of 20 ms each, ever more rarely
    assert drive(chosen, clock, lambda threads: 5e-5 / threads, 20)[2] > 15


def test_what_was_asked_for_is_kept(clock):
    assert set(drive(Pace(2, asked=True), clock, lambda threads: threads * 1e-4, 2)) == {2}
    assert set(drive(Pace(1, asked=False), clock, lambda threads: 1e-4, 2)) == {1}


def test_one_hiccup_is_looked_at_again_soon(clock):
    chosen = Pace(2, asked=False)
    drive(chosen, clock, lambda threads: 5e-5 / threads, 30)
    chosen.record(2, 100, 0.05)
    assert chosen.best == 1
    assert drive(chosen, clock, lambda threads: 5e-5 / threads, 1)[2] > 0.6


def test_a_call_of_no_steps_says_nothing(clock):
    chosen = Pace(2, asked=False)
    chosen.record(1, 0, 1.0)
    assert chosen.choose() == (1, pace._TRIAL_SECONDS)


def test_predictions_take_the_faster_way(clock):
    chosen, cost, rows = Pace(2, asked=False), {1: 1e-6, 2: 5e-5}, {1: 0, 2: 0}

    def predict(threads):
        clock.now += 1000 * cost[threads]
        rows[threads] += 1000
        return "result"

    while clock.now < 2:
        assert chosen.call(1000, predict) == "result"
    assert rows[2] < 0.05 * rows[1] and chosen.best == 1
    cost[2] = 5e-7  # the other program has ended
    until = clock.now + 10
    while clock.now < until:
        chosen.call(1000, predict)
    assert chosen.best == 2


def test_a_few_rows_say_nothing(clock):
    chosen = Pace(2, asked=False)
    assert chosen.call(3, lambda threads: threads) == 1
    assert chosen.choose() == (1, pace._TRIAL_SECONDS)
    assert Pace(2, asked=True).call(1000, lambda threads: threads) == 2


def test_a_trial_takes_few_rows_and_the_way_that_is_known_as_many_as_it_may(clock):
    chosen = Pace(2, asked=False)
    assert chosen.rows(50_000) == pace._TRIED and chosen.rows(100) == 100  # nothing is known yet
    chosen.record(1, 1024, 0.001)
    assert chosen.rows(50_000) == 50_000  # several threads are not tried before _ALONE
    chosen.record(1, 50_000, 0.05)
    assert chosen.rows(50_000) == pace._TRIED
    chosen.record(2, 1024, 0.1)
    assert chosen.rows(50_000) == pace._TRIED  # once more, from the start of the clock
    chosen.record(2, 1024, 0.1)
    assert chosen.rows(50_000) == 50_000
    clock.now += pace._LATEST
    assert chosen.rows(50_000) == pace._TRIED
    assert Pace(2, asked=True).rows(50_000) == Pace(1, asked=False).rows(50_000) == 50_000


def test_predictions_and_evaluations_learn_from_one_another(monkeypatch):
    monkeypatch.setattr(pace, "thread_count", lambda threads: threads or 2)
    monkeypatch.setattr(pace, "_ALONE", 0.0)
    net, part = network(), blobs(300)
    x, y = part.x, part.y
    expected = net.predict_logits(x, threads=1)
    for _ in range(3):
        assert np.array_equal(net.predict_logits(x), expected)
        assert net.evaluate(x, y) == net.evaluate(x, y, threads=1)
    assert set(net._paces) == {2} and set(net._paces[2]._step_seconds) == {1, 2}
    assert net.copy()._paces == {}


def test_no_bit_depends_on_it(monkeypatch):
    def trained(threads):
        net = network()
        list(fit(net, blobs(2000), epochs=2, batch_size=16, threads=threads))
        return net.params

    monkeypatch.setattr(pace, "CALL_SECONDS", 0.001)
    monkeypatch.setattr(pace, "_ALONE", 0.0)
    assert np.array_equal(trained(None), trained(1)) and np.array_equal(trained(None), trained(2))
