"""sweep: many networks trained side by side in Python threads, one a core, on data that are held once."""

import collections
import itertools
import math
import operator
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import thread_count
from .datasets import Part
from .errors import DivergenceError
from .network import Network
from .run import Data, Held, hold
from .seeds import check_seed
from .state import EpochResult, Progress, TrainingState
from .training import fit

TRAINING, FINISHED, STOPPED_EARLY, DIVERGED = "training", "finished", "stopped early", "diverged"

Make = Callable[..., tuple[Network, dict[str, Any]]]
OnProgress = Callable[[Mapping[int, Progress]], None]
OnStop = Callable[[int, Network, TrainingState], None]

_TICK = 0.1  # seconds between two calls of on_progress
_DATA = ("train", "validation", "test")  # the arguments of fit that are data
_COUNTED = 1_000_000  # up to so many combinations are shuffled; of more, each is drawn
_DRAWS = 1000  # tries for each different setting that a sample wants
_INTEGERS = 2**63  # above NumPy's integers

# ---- settings to try


@dataclass(frozen=True)
class Range:
    """Numbers from low to high for `sample` to draw from, evenly or, with log, evenly in their logarithm.

    whole: whole numbers alone, both ends among them; with log each as likely as all that rounds to it. Others have six
    significant digits, so that they can be typed again, or are an end. ValueError where low is not below high, log has
    a low of 0 or less, or whole an end that is no whole number of 64 bits.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Range: {self.low:g} to {self.high:g}: two numbers, the lower first, were wanted")
        if self.log and self.low <= 0:
            raise ValueError(f"Range: low={self.low:g}: above 0 was wanted for a logarithmic one")
        for name, end in {"low": self.low, "high": self.high}.items() if self.whole else ():
            if end != int(end) or not -_INTEGERS <= end < _INTEGERS:
                raise ValueError(f"Range: {name}={end!r}: a whole number of 64 bits was wanted for a whole one")

    def draw(self, generator: np.random.Generator) -> float | int:
        """A number of the range."""
        if self.whole and not self.log:
            return int(generator.integers(int(self.low), int(self.high), endpoint=True))
        side = 0.5 if self.whole else 0.0  # all that rounds to an end, as to the numbers between
        low, high = self.low - side, self.high + side
        if self.log:
            low, high = math.log(low), math.log(high)
        number = low + (high - low) * generator.random()
        number = math.exp(number) if self.log else number
        kind = int if self.whole else float
        short = round(number) if self.whole else float(f"{number:.6g}")
        return min(max(short, kind(self.low)), kind(self.high))


def grid(**options: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the options' values, as the settings of `sweep`; the last option changes fastest.

    TypeError for values that are no list, ValueError for an empty one, naming the option.
    """
    values = {name: _listed(name, given) for name, given in options.items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def sample(count: int, seed: int = 0, /, **options: Iterable[Any] | Range) -> list[dict[str, Any]]:
    """`count` different settings drawn at random, each option's from its list of values or its `Range`.

    A value that a list repeats counts once. The same count, seed and options give the same settings. ValueError where
    there are not that many.
    """
    if (number := operator.index(count)) < 1:
        raise ValueError(f"sample: count={count}: an integer from 1 was wanted")
    generator = np.random.Generator(np.random.PCG64(check_seed(seed)))
    axes = {name: given if isinstance(given, Range) else _different(name, given) for name, given in options.items()}
    if not axes:
        raise ValueError("sample: no options; at least one was wanted")
    total = math.prod(math.inf if isinstance(axis, Range) else len(axis) for axis in axes.values())
    if number > total:
        raise ValueError(f"sample: {number} settings of {total} combinations were wanted; draw fewer, or take all")
    lists = [axis for axis in axes.values() if isinstance(axis, list)]
    if total <= _COUNTED:
        places = np.unravel_index(generator.permutation(int(total))[:number], [len(axis) for axis in lists])
        columns = [[axis[k] for k in place] for axis, place in zip(lists, places, strict=True)]
        return [dict(zip(axes, chosen, strict=True)) for chosen in zip(*columns, strict=True)]
    drawn: dict[str, dict[str, Any]] = {}  # by text, which lists have too
    for _ in range(number * _DRAWS):
        setting = {name: _draw(axis, generator) for name, axis in axes.items()}
        drawn.setdefault(repr(setting), setting)
        if len(drawn) == number:
            return list(drawn.values())
    raise ValueError(f"sample: {number} different settings were wanted, {len(drawn)} were found; draw fewer")


def _draw(axis: list[Any] | Range, generator: np.random.Generator) -> Any:
    return axis.draw(generator) if isinstance(axis, Range) else axis[int(generator.integers(len(axis)))]


def _different(name: str, values: Iterable[Any]) -> list[Any]:
    """The values without repeats: by text, as lists have no hash."""
    return list({repr(value): value for value in _listed(name, values)}.values())


def _listed(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name}={values!r}: a list of values was wanted; a single one is [{values!r}]")
    if not (listed := list(values)):
        raise ValueError(f"{name}: no values; at least one was wanted")
    return listed


# ---- training them


@dataclass(frozen=True, eq=False)
class SweepRow:
    """An epoch of one of a sweep's networks, or its end where it diverged.

    number: its place in the sweep's settings, from 0. status: "training", or of its last row "finished",
    "stopped early" or "diverged". result: the epoch's figures, None for "diverged", whose `reason` says where;
    `network`: the network itself, still being trained until its last row.
    """

    number: int
    settings: dict[str, Any]
    status: str
    epoch: int
    result: EpochResult | None
    network: Network
    reason: str = ""


def sweep(
    make: Make,
    settings: Iterable[Mapping[str, Any]],
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    on_stop: OnStop | None = None,
) -> Iterator[SweepRow]:
    """Train a network for each of `settings` (see `grid` and `sample`) and yield every epoch as it is done.

    make(**setting) returns a network and the arguments of `fit` for it: train, test, batch_size, …; it is
    called from several threads at once. Each network trains on one thread, `workers` of them side by side
    (None: one a core), begun in the order of `settings`: put those that take longest first. A `Part` that
    several are trained on is checked and scaled once and held once: do not change it meanwhile. What comes out
    does not depend on `workers`, but for the order of the rows and the times in them.

    A network that diverges ends with a row that says so, and the others go on; any other error of one ends the
    sweep and is raised. on_progress is called in the caller's thread several times a second with the progress
    of the networks under way, by number. What it raises stops the sweep, as does closing the generator: within
    a tenth of a second or an evaluation; for each network then under way on_stop(number, network, state) is
    called, in its thread. Resuming one is for `make` to return it with its state among the arguments.
    """
    return _Crew(make, [dict(setting) for setting in settings], thread_count(workers), on_stop).rows(on_progress)


class _Stopped(Exception):
    """Raised within a network's training when the sweep is to stop."""


class _Crew:
    """The threads of a sweep, what they have still to do, and the rows they hand to the caller."""

    def __init__(self, make: Make, settings: list[dict[str, Any]], workers: int, on_stop: OnStop | None) -> None:
        self._make, self._settings, self._on_stop = make, settings, on_stop
        self._todo = collections.deque(range(len(settings)))
        self._rows: queue.SimpleQueue[SweepRow | BaseException | None] = queue.SimpleQueue()
        self._under_way: dict[int, Progress] = {}
        self._stop = threading.Event()
        self._held = _Shelf()
        count = min(workers, len(settings))
        self._threads = [threading.Thread(target=self._work, name=f"sweep-{k + 1}") for k in range(count)]

    def rows(self, on_progress: OnProgress | None) -> Iterator[SweepRow]:
        started: list[threading.Thread] = []
        called = time.monotonic()
        try:
            for thread in self._threads:
                thread.start()
                started.append(thread)
            ended = 0
            while ended < len(started):
                try:
                    row = self._rows.get(timeout=_TICK)
                except queue.Empty:
                    pass
                else:
                    if isinstance(row, BaseException):
                        raise row
                    if row is None:
                        ended += 1
                    else:
                        yield row
                if on_progress is not None and time.monotonic() - called >= _TICK:
                    on_progress(dict(self._under_way))
                    called = time.monotonic()
        finally:
            self._stop.set()
            for thread in started:
                thread.join()

    def _work(self) -> None:
        """One thread: network after network, until none is left."""
        try:
            # NumPy's warnings of overflow would only announce what DivergenceError says by name.
            with np.errstate(over="ignore", invalid="ignore"):
                while self._todo and not self._stop.is_set():
                    try:
                        number = self._todo.popleft()
                    except IndexError:  # another thread was quicker
                        break
                    self._train(number)
        except BaseException as error:
            self._rows.put(error)
        finally:
            self._rows.put(None)

    def _train(self, number: int) -> None:
        setting = self._settings[number]
        try:
            network, arguments = self._make(**setting)
            given = {"threads": 1, "state": TrainingState(), **arguments, **self._held.data(network, arguments)}
            state = given["state"]
            epochs = fit(network, **given, on_progress=lambda progress: self._tell(number, progress))
        except Exception as error:
            error.add_note(f"sweep: this is network {number}: {setting}")
            raise
        try:
            for result in epochs:
                status = _status(state)
                self._rows.put(SweepRow(number, setting, status, result.epoch, result, network))
                if status == TRAINING and self._stop.is_set():
                    raise _Stopped
        except DivergenceError as error:
            self._rows.put(SweepRow(number, setting, DIVERGED, error.epoch, None, network, str(error)))
        except _Stopped:
            if self._on_stop is not None:
                self._on_stop(number, network, state)
        finally:
            self._under_way.pop(number, None)

    def _tell(self, number: int, progress: Progress) -> None:
        self._under_way[number] = progress
        if self._stop.is_set():
            raise _Stopped


def _status(state: TrainingState) -> str:
    """What the epoch that has just ended is for its network."""
    if state.epoch >= state.settings["epochs"]:
        return FINISHED
    patience = state.settings["early_stopping"]
    return STOPPED_EARLY if patience is not None and state.epochs_since_best >= patience else TRAINING


class _Shelf:
    """Data made ready for networks of one kind, once for all of them, as long as the caller has them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakKeyDictionary[Part, dict[str, Held]] = weakref.WeakKeyDictionary()

    def data(self, network: Network, arguments: Mapping[str, Any]) -> dict[str, Data]:
        """The data among fit's arguments, held where they are parts."""
        given = {name: arguments[name] for name in _DATA if arguments.get(name) is not None}
        return {name: self._hold(network, part, name) for name, part in given.items()}

    def _hold(self, network: Network, part: Data, name: str) -> Data:
        if not isinstance(part, Part):
            return part
        facts = network.describe()
        kind = " ".join(facts[fact] for fact in ("shape", "classes", "dtype", "scaling"))
        with self._lock:  # while one thread makes them ready, the others wait for them
            held = self._held.setdefault(part, {})
            if kind not in held:
                held[kind] = hold(network, part, name)
            return held[kind]
