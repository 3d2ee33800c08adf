"""Learning-rate schedules: the rate of every step of an epoch, from the optimiser's learning rate."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np

from . import checks


class Schedule(Protocol):
    """What `fit` asks of a schedule; its repr tells two apart when training is resumed."""

    @property
    def depends_on_epochs(self) -> bool:
        """Whether the number of epochs changes the rates, so that it may not grow on resume."""
        ...

    def rates(self, base: float, epoch: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The rates (steps_per_epoch,) float64 of an epoch, counted from 0; base: the optimiser's rate."""
        ...


def _fraction(owner: object, name: str, low: float, high: float) -> None:
    above = math.nextafter(high, math.inf)
    checks.check_number(owner, name, f"a number from {low:g} to {high:g}", low, above)


@dataclass(frozen=True)
class Constant:
    """The optimiser's learning rate, always."""

    depends_on_epochs: ClassVar[bool] = False

    def rates(self, base: float, epoch: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The rates (steps_per_epoch,) float64 of epoch `epoch`, counted from 0."""
        return np.full(steps_per_epoch, base)


@dataclass(frozen=True)
class Step:
    """The learning rate times `factor` after every `every` epochs."""

    every: int
    factor: float = 0.1
    depends_on_epochs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.check_integer(self, "every", 1, "a number of epochs")
        _fraction(self, "factor", 0, 1)

    def rates(self, base: float, epoch: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The rates (steps_per_epoch,) float64 of epoch `epoch`, counted from 0."""
        return np.full(steps_per_epoch, base * self.factor ** (epoch // self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the learning rate down to `final` times it (Loshchilov & Hutter 2017), step by step.

    The rate first rises linearly over `warmup` epochs.
    """

    warmup: int = 0
    final: float = 0.0
    depends_on_epochs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.check_integer(self, "warmup", 0, "a number of epochs")
        _fraction(self, "final", 0, 1)

    def rates(self, base: float, epoch: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The rates (steps_per_epoch,) float64 of epoch `epoch`, counted from 0.

        ValueError where the warm-up fills all epochs.
        """
        if self.warmup >= epochs:
            raise ValueError(f"Cosine: warmup={self.warmup}: fewer than the {epochs} epochs was wanted")
        step = epoch * steps_per_epoch + np.arange(steps_per_epoch, dtype=np.float64)
        rise = self.warmup * steps_per_epoch
        rising = (step + 1) / max(rise, 1)
        done = (step - rise) / (epochs * steps_per_epoch - rise)
        falling = self.final + (1 - self.final) * (1 + np.cos(np.pi * done)) / 2
        return base * np.where(step < rise, rising, falling)


@dataclass(frozen=True)
class OneCycle:
    """Up to the learning rate and down again in cosines, once (Smith & Topin 2018), as torch's OneCycleLR.

    It starts at the rate / start_divisor, reaches it after warmup_fraction of all steps and ends at the
    starting rate / final_divisor. As there, the rate stands between two steps where the warm-up is shorter
    than one, and a warm-up of all steps ends at the rate itself.
    """

    warmup_fraction: float = 0.3
    start_divisor: float = 25.0
    final_divisor: float = 1e4
    depends_on_epochs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _fraction(self, "warmup_fraction", 0, 1)
        _fraction(self, "start_divisor", 1, 1e12)
        _fraction(self, "final_divisor", 1, 1e12)

    def rates(self, base: float, epoch: int, steps_per_epoch: int, epochs: int) -> np.ndarray:
        """The rates (steps_per_epoch,) float64 of epoch `epoch`, counted from 0."""
        steps = epochs * steps_per_epoch
        step = epoch * steps_per_epoch + np.arange(steps_per_epoch, dtype=np.float64)
        top = self.warmup_fraction * steps - 1  # the step at the rate: -1 … steps - 1, seldom whole
        start = base / self.start_divisor
        final = start / self.final_divisor
        rising = _cosine(start, base, step / max(top, math.ulp(1)))
        falling = _cosine(base, final, (step - top) / max(steps - 1 - top, math.ulp(1)))
        return np.where(step < top, rising, falling)


def _cosine(start: float, end: float, done: np.ndarray) -> np.ndarray:
    """From start (done = 0) to end (done = 1) along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * np.clip(done, 0, 1))) / 2


SCHEDULES: dict[str, type[Constant] | type[Step] | type[Cosine] | type[OneCycle]] = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "one-cycle": OneCycle,
}


def schedule(text: str, **options: Any) -> Schedule:
    """The schedule of a text: "constant", "step:10:0.5" (every, factor), "cosine:2" (warm-up), "one-cycle".

    What follows the name are the schedule's arguments in order; options are arguments by name. ValueError
    tells what was wanted.
    """
    name, *values = str(text).split(":")
    if name not in SCHEDULES:
        raise ValueError(f"schedule {text!r}: one of {', '.join(SCHEDULES)} was wanted")
    kind: Any = SCHEDULES[name]
    try:
        return kind(*(_number(value) for value in values), **options)
    except (TypeError, ValueError) as error:
        usage = ":".join([name, *(field.name for field in fields(kind))])
        reason = str(error) if str(error).startswith(kind.__name__ + ":") else "it does not read"
        raise ValueError(f"schedule {text!r}: {reason}; it is written {usage}") from None


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)
