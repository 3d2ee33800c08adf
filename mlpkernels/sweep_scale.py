"""Where the values of a swept option stand on an axis, and how they are written there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .drawing import MUTED, SMALL, Page, names_of
from .sweep_results import Value

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_NAMED = 12  # up to so many values are named themselves; of more, round numbers among them
_FACTOR = 16  # from this factor between the least and the greatest on, positive numbers stand by their logarithm
_ROOM = 110  # pixels at most for a value's name


def name_of(value: Value) -> str:
    """A value as figures write it: four significant digits of a fraction, letters that no font has as escapes."""
    if isinstance(value, str):
        return names_of([value])[0]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def brief(seconds: float) -> str:
    """Seconds in two digits, 0.0013 or 0.15, and one decimal from 1 on."""
    return f"{seconds:.2g}" if seconds < 0.995 else f"{seconds:.1f}"


class Scale:
    """An axis from 0 to 1 for values in order: numbers by size or logarithm, texts side by side."""

    def __init__(self, values: Sequence[Value], logarithmic: bool) -> None:
        numbers = [value for value in values if isinstance(value, int | float)]
        self.values = list(values)
        self.spaced = len(numbers) < len(values) or len(values) < 3
        self.logarithmic = not self.spaced and numbers[0] > 0 and (logarithmic or numbers[-1] >= _FACTOR * numbers[0])
        self._ends = (self._of(numbers[0]), self._of(numbers[-1])) if not self.spaced else (0.0, 1.0)

    def _of(self, number: float) -> float:
        return math.log10(number) if self.logarithmic else float(number)

    def place(self, value: Value) -> float:
        """Where a value stands."""
        if self.spaced or isinstance(value, str):
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high = self._ends
        return 0.04 + 0.92 * (self._of(value) - low) / (high - low)

    def name(self, page: Page, axis: Axis, width: float) -> None:
        """Name as many values along an axis of `width` pixels as have room, the first and the last before others."""
        named = self.values if self.spaced or len(self.values) <= _NAMED else self._round()
        order = sorted(range(len(named)), key=lambda k: (k not in (0, len(named) - 1), k))
        halves = [page.measure(page.fit(name_of(value), _ROOM, SMALL), SMALL) / 2 for value in named]
        places = [self.place(value) for value in named]
        shown: list[int] = []
        for k in order:
            if all(abs(places[k] - places[j]) * width >= halves[k] + halves[j] + 6 for j in shown):
                shown.append(k)
        page.ticks(axis, [places[k] for k in shown], [name_of(named[k]) for k in shown], MUTED, room=_ROOM)

    def _round(self) -> list[Value]:
        """Round numbers within the values' range."""
        from matplotlib.ticker import MaxNLocator

        low, high = self._ends
        if not self.logarithmic:
            even = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
            return [float(f"{tick:.12g}") for tick in even if low <= tick <= high]
        powers = range(math.floor(low), math.ceil(high) + 1)
        factors = (1,) if high - low > 2 else (1, 2, 5)
        ticks = np.array([k * 10.0**power for power in powers for k in factors])
        return [float(f"{tick:.12g}") for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
