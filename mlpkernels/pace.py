"""How many threads the next call into a kernel takes: measured as the calls go, since no bit depends on it.

Two threads that meet twice a step wait for each other whenever another program has one of the cores: a step of 30 µs
was seen to take 20 ms. So both ways are timed again and again, the slower one briefly and ever more rarely; and what
takes a moment on one thread is not tried on several: beside other programs a trial was seen to take 0.1 s.
"""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from .arrays import thread_count

T = TypeVar("T")

CALL_SECONDS = 0.05  # of one call: progress and Ctrl-C wait no longer
_TRIAL_SECONDS = 0.004  # of a call that tries the slower way
_ALONE = 0.02  # seconds of calls on one thread before others are tried
_SOONEST, _LATEST = 0.25, 4.0  # seconds between trials
_TELLING = 64  # rows of a prediction; the time of fewer is mostly that of the call itself
_TRIED = 1024  # rows of a prediction that tries the slower way


class Pace:
    """Chooses between one thread and `threads`, or keeps to `threads` where they were asked for."""

    def __init__(self, threads: int, asked: bool) -> None:
        self.ways = (threads,) if asked or threads == 1 else (1, threads)
        self._step_seconds: dict[int, float] = {}
        self._wait, self._next_trial, self._spent = _SOONEST, 0.0, 0.0

    @property
    def best(self) -> int:
        """The number of threads that has been faster of late."""
        return min(self.ways, key=lambda way: self._step_seconds.get(way, math.inf))

    def choose(self) -> tuple[int, float]:
        """(threads, seconds) for the next call."""
        untried = [way for way in self.ways if way not in self._step_seconds]
        if untried and len(self.ways) > 1:
            if untried[0] != self.ways[0] and self._spent < _ALONE:
                return self.ways[0], CALL_SECONDS
            return untried[0], _TRIAL_SECONDS
        if len(self.ways) > 1 and time.perf_counter() >= self._next_trial:
            return next(way for way in self.ways if way != self.best), _TRIAL_SECONDS
        return self.best, CALL_SECONDS

    def record(self, threads: int, steps: int, seconds: float) -> None:
        """What a call took. A change of the best way brings the next trial forward, one that loses puts it off."""
        if steps == 0:
            return
        before = self.best
        self._spent += seconds
        known = len(self._step_seconds) == len(self.ways)
        self._step_seconds[threads] = seconds / steps
        if known and (threads != before or self.best != before):
            self._wait = _SOONEST if self.best != before else min(2 * self._wait, _LATEST)
            self._next_trial = time.perf_counter() + self._wait

    def rows(self, most: int) -> int:
        """How many rows the next `call` should take, of so many at most."""
        return most if len(self.ways) == 1 or self.choose()[1] == CALL_SECONDS else min(most, _TRIED)

    def call(self, rows: int, predict: Callable[[int], T]) -> T:
        """Predict or evaluate some rows: predict(threads), with the threads chosen and the time recorded.

        With another program on one of two cores, 100 rows of 784 values took 2.3 ms on both, 0.2 ms on one, and
        0.35 ms chosen so (means of 0.7 s, 784-128-128-10).
        """
        if rows < _TELLING or len(self.ways) == 1:
            return predict(self.best)
        threads, _ = self.choose()
        began = time.perf_counter()
        result = predict(threads)
        self.record(threads, rows, time.perf_counter() - began)
        return result


def pace_for(threads: int | None, learnt: dict[int, Pace]) -> Pace:
    """The pace of calls with `threads`: kept to where they are asked for, for None the one learnt before."""
    count = thread_count(threads)
    return Pace(count, True) if threads is not None else learnt.setdefault(count, Pace(count, False))
