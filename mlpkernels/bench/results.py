"""What was measured: as a JSON file, read again, and two of them set side by side."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..errors import MlpkError
from ..files import write_atomic
from .kernels import OURS

FORMAT = "mlpk-bench 1"
_DRAWS = 2000


@dataclass(frozen=True)
class Entry:
    """One timed thing: see timing.Timed; seconds of a call, turn by turn."""

    section: str
    group: str
    name: str
    system: str
    threads: int
    flops: float
    bytes: float
    images: float
    nominal: bool
    cut: bool
    seconds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median of the turns, in seconds."""
        return median(self.seconds)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What is the same thing in another measurement."""
        return self.section, self.name, self.system, self.threads


@dataclass(frozen=True)
class Results:
    """A measurement. machine and settings have to be equal where two are compared; versions need not.

    load: see machine.Load, with "waits", the median of clock over processor time of one thread's turns. ceilings:
    {threads: {"flops", "bytes"}} a second. peers: what there is to say of the others.
    """

    date: str
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    load: Mapping[str, Any]
    ceilings: Mapping[str, Mapping[str, float]]
    peers: Mapping[str, Any]
    entries: Sequence[Entry] = field(default_factory=list)

    @property
    def counts(self) -> list[int]:
        """The numbers of threads."""
        return sorted(map(int, self.ceilings))

    def section(self, name: str) -> list[Entry]:
        """The entries of "kernels" or "epochs"."""
        return [entry for entry in self.entries if entry.section == name]

    def share(self, entry: Entry, what: str) -> float:
        """The entry's "flops" or "bytes" a second as a share of what its threads can do at best."""
        return float(getattr(entry, what) / entry.middle / self.ceilings[str(entry.threads)][what])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, whole or not at all. OSError names the path and the reason."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        write_atomic(path, text.encode() + b"\n")


def read(path: str | os.PathLike[str]) -> Results:
    """The measurement in a file that `write` wrote. OSError; MlpkError says what is wrong with what is there."""
    name = os.fspath(path)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "format" not in found:
            raise ValueError("it lacks its format")
        kind = found.pop("format")
        if kind != FORMAT:
            raise MlpkError(f"{name} has format {kind}, {FORMAT} was wanted: measure again with mlpk bench --save")
        entries = [Entry(**{**entry, "seconds": tuple(map(float, entry["seconds"]))}) for entry in found.pop("entries")]
        results = Results(**found, entries=entries)
        _check(results)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MlpkError(
            f"{name} is damaged or not a file of mlpk bench --save ({type(error).__name__}: {error}); "
            "measure again with mlpk bench --save"
        ) from None
    return results


def _check(results: Results) -> None:
    """ValueError or TypeError where a file does not hold what a measurement has."""
    for name in ("machine", "settings", "versions", "load", "ceilings", "peers"):
        if not isinstance(getattr(results, name), dict):
            raise TypeError(f"{name} is no table")
    if not results.entries or not all(entry.seconds and min(entry.seconds) > 0 for entry in results.entries):
        raise ValueError("times are missing")
    for entry in results.entries:
        if not isinstance(entry.name, str) or not math.isfinite(sum(entry.seconds)) or not entry.images >= 0:
            raise ValueError("a time is no number")


# ---- two of them


@dataclass(frozen=True)
class Ratio:
    """One thing in two measurements: its time now over its time before, and the 95 % interval of that."""

    entry: Entry
    before: float
    now: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Above 1 it takes longer than before."""
        return self.now / self.before


def differences(before: Results, machine: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What of machine and settings is not as it was, in words: name, before, now."""
    found = []
    for earlier, later in ((before.machine, machine), (before.settings, settings)):
        for name in {**earlier, **later}:
            old, new = earlier.get(name), later.get(name)
            if old != new:
                found.append(f"{name} was {_words(old)}, is {_words(new)}")
    return found


def _words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "not known"}[value]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def compare(before: Results, now: Results) -> list[Ratio]:
    """What is in both, in the order of now; times an image where calls may have had more or fewer of them.

    The interval is the bootstrap's: medians of turns drawn again, 2,000 times. MlpkError where nothing is in both.
    """
    earlier = {entry.key: entry for entry in before.entries}
    found = [_ratio(earlier[entry.key], entry) for entry in now.entries if entry.key in earlier]
    if not found:
        raise MlpkError(
            "the two measurements have nothing in common: measure the same with --only, --quick and --peers"
        )
    return found


def _ratio(before: Entry, now: Entry) -> Ratio:
    random = np.random.default_rng(0)
    old, new = (np.asarray(entry.seconds) / (entry.images or 1) for entry in (before, now))
    drawn = [np.median(random.choice(each, (_DRAWS, len(each))), axis=1) for each in (new, old)]
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    return Ratio(now, float(np.median(old)), float(np.median(new)), float(low), float(high))


def mean(ratios: Sequence[Ratio]) -> float:
    """The geometric mean of some ratios."""
    return math.exp(sum(math.log(each.ratio) for each in ratios) / len(ratios))


def worst(ratios: Sequence[Ratio]) -> Ratio | None:
    """The one of ours that has become slower most; None where there is none of ours."""
    return max((each for each in ratios if each.entry.system == OURS), key=lambda each: each.ratio, default=None)
