"""Timing in turns: everything once a round, forwards and backwards, and medians of the rounds."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PAUSE = 0.01  # seconds: threads that have just finished still spin for more work
LEAST_ROUNDS = 3
_TRIES = 5


@dataclass(eq=False)
class Timed:
    """One thing to be timed: a system's work on some threads, its amounts a call, and the seconds it took.

    call(times) does it so often, and may return which share of the work it did before its time was up; empty(times),
    where there is one, enters as often with nothing to do: the least that took is taken off. prepare() comes before
    each turn and is not timed; around() is the setting in which all is called. flops, bytes and images are a call's;
    nominal says that the first are those of the work without leaving out zeros. took: seconds a call, turn by turn.
    """

    section: str
    group: str
    name: str
    system: str
    threads: int
    call: Callable[[int], Any]
    flops: float = 0.0
    bytes: float = 0.0
    images: float = 0.0
    empty: Callable[[int], Any] | None = None
    prepare: Callable[[], Any] | None = None
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    nominal: bool = False
    warm: bool = True
    times: int = 1
    took: list[float] = field(default_factory=list)
    entering: float = 0.0
    cut: bool = False  # whether a turn ended early and its time is extrapolated
    waits: list[float] = field(default_factory=list)  # clock over processor time, one thread's turns

    @property
    def seconds(self) -> list[float]:
        """Of a call, turn by turn, without entering it."""
        return [max(each - self.entering, 0.05 * each) for each in self.took]

    def to_json(self) -> dict[str, Any]:
        """All but the functions."""
        names = (
            "section",
            "group",
            "name",
            "system",
            "threads",
            "flops",
            "bytes",
            "images",
            "nominal",
            "cut",
            "seconds",
        )
        return {name: getattr(self, name) for name in names}

    def calibrate(self, seconds: float) -> None:
        """Choose how many calls a turn has: about so many seconds of undisturbed ones, at least one."""
        with self.around():
            self.call(1)
            times = 1
            while True:
                took = min(_clock(self.call, times)[0] for _ in range(_TRIES))
                if took >= seconds / 8 or times >= 1_000_000:
                    break
                times *= 4
            self.times = max(1, round(times * seconds / max(took, 1e-9)))
            if self.empty is not None:
                few = max(1, min(self.times, 50))
                self.entering = min(_clock(self.empty, few)[0] / few for _ in range(2 * _TRIES))

    def turn(self) -> None:
        """One turn, after a call that is not counted."""
        with self.around():
            if self.prepare is not None:
                self.prepare()
            if self.warm:
                self.call(1)
            took, busy, share = _clock(self.call, self.times)
        self.cut = self.cut or share < 1
        self.took.append(took / self.times / share)
        if self.threads == 1 and busy > 0.005:
            self.waits.append(took / busy)


def _clock(call: Callable[[int], Any], times: int) -> tuple[float, float, float]:
    """(seconds by the clock, of this process's processor time, the share of the work that was done)."""
    busy, began = time.process_time(), time.perf_counter()
    share = call(times)
    took, worked = time.perf_counter() - began, time.process_time() - busy
    return took, worked, 1.0 if share is None else share


def equal_turns(entries: Sequence[Timed]) -> None:
    """As many calls a turn for every system that does the same on as many threads: noise meets all alike."""
    most: dict[tuple[str, int], int] = {}
    for entry in entries:
        key = entry.name, entry.threads
        most[key] = max(most.get(key, 1), entry.times)
    for entry in entries:
        entry.times = most[entry.name, entry.threads]


def rounds(
    entries: Sequence[Timed],
    count: int,
    budget: float,
    between: Callable[[], None] = lambda: None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Time every entry once a round, each round in the other direction; fewer rounds where `budget` seconds run out.

    At least LEAST_ROUNDS. between() comes before each round; watch(done, total) is told of every turn.
    """
    until, done = time.perf_counter() + budget, 0
    for number in range(count):
        began = time.perf_counter()
        between()
        before: Timed | None = None
        for entry in entries if number % 2 == 0 else entries[::-1]:
            if before is not None and (before.threads > 1 or before.system != entry.system):
                time.sleep(PAUSE)
            entry.turn()
            before = entry
            done += 1
            watch(done, count * len(entries))
        now = time.perf_counter()
        if number + 1 >= LEAST_ROUNDS and now + (now - began) > until:
            break


def middle_wait(entries: Sequence[Timed]) -> float | None:
    """The median of clock over processor time of one thread's turns: 1.00 on an undisturbed machine."""
    waits = [wait for entry in entries for wait in entry.waits]
    return median(waits) if waits else None
