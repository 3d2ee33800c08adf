"""Parsers of single settings: text from the shell, or a value from a TOML file, to a checked value.

Each takes one value and returns it in its own type, or raises ValueError saying what was wanted.
"""

import math
import os
from collections.abc import Callable
from typing import Any

from mlpkernels.affinity import cpu_count

Parser = Callable[[Any], Any]

AUTO = "auto"


def _listed(wanted: str, words: tuple[str, ...]) -> str:
    *rest, last = [wanted, *words]
    return f"{', '.join(rest)} or {last}" if rest else last


def whole(low: int, high: int = 2**63 - 1, words: tuple[str, ...] = ()) -> Parser:
    """A whole number from low to high, or one of `words`."""
    wanted = _listed(f"a whole number from {low}" + (f" to {high}" if high < 2**63 - 1 else ""), words)

    def parse(value: Any) -> int | str:
        if isinstance(value, str):
            if value in words:
                return value
            try:
                value = int(value)
            except ValueError:
                raise ValueError(f"{wanted} was wanted") from None
        if isinstance(value, int) and value > high:
            raise ValueError(f"{wanted} was wanted, {high} at most")
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{wanted} was wanted")
        return value

    return parse


def number(
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    words: tuple[str, ...] = (),
) -> Parser:
    """A finite number from low to high (above: not low itself, below: not high itself), or one of `words`."""
    wanted = f"a number {'above' if above else 'from'} {low:g}" if low > -math.inf else "a finite number"
    if high < math.inf:
        wanted += f" {'and below' if below else 'to'} {high:g}"
    wanted = _listed(wanted, words)

    def parse(value: Any) -> float | str:
        if isinstance(value, str):
            if value in words:
                return value
            try:
                value = float(value)
            except ValueError:
                raise ValueError(f"{wanted} was wanted") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{wanted} was wanted")
        if value < low or value > high or (above and value == low) or (below and value == high):
            raise ValueError(f"{wanted} was wanted")
        return float(value)

    return parse


def choice(*names: str) -> Parser:
    """One of `names`."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            from .errors import close_match

            near = close_match(value, names) if isinstance(value, str) else ""
            raise ValueError(f"one of {', '.join(names)} was wanted{near}")
        return value

    return parse


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false was wanted")
    return value


def text(value: Any) -> str:
    """Any text; "" stands for not given."""
    if not isinstance(value, str):
        raise ValueError("text was wanted, in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a name in UTF-8 was wanted") from None
    return value


def path(value: Any) -> str:
    """The absolute path of a file or folder, `~` expanded, so that a settings file works from anywhere."""
    value = text(value)
    return os.path.abspath(os.path.expanduser(value)) if value else ""


def widths(value: Any) -> tuple[int, ...]:
    """The widths of hidden layers: "128,128" or [128, 128]; "none", "" or [] for none."""
    wanted = 'widths from 1 to 1000000 were wanted, as 128,128, or "none"'
    if isinstance(value, str):
        value = [] if value in ("", "none") else value.split(",")
    if not isinstance(value, list | tuple):
        raise ValueError(wanted)
    try:
        return tuple(whole(1, 10**6)(width) for width in value)
    except ValueError:
        raise ValueError(wanted) from None


def convolutions(value: Any) -> tuple[str, ...]:
    """Convolutions, channels x kernel: "10x5,20x5" or ["10x5", "20x5"]; "none", "" or [] for none."""
    wanted = 'channels x kernel, as 10x5,20x5, or "none" was wanted'
    if isinstance(value, str):
        value = [] if value in ("", "none") else value.split(",")
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(wanted)
    try:
        return tuple("{}x{}".format(*convolution(each)) for each in value)
    except ValueError:
        raise ValueError(wanted) from None


def convolution(value: str) -> tuple[int, int]:
    """(channels, kernel) of "10x5"."""
    channels, _, kernel = value.partition("x")
    return whole(1, 10**6)(channels), whole(1, 1000)(kernel)


def class_weight(value: Any) -> str:
    """ "none", "balanced" or CLASS=WEIGHT pairs as "3=2,5=0.5"."""
    if isinstance(value, str) and (value in ("none", "balanced") or parse_pairs(value)):
        return value
    raise ValueError("none, balanced or CLASS=WEIGHT pairs as 3=2,5=0.5 were wanted, each weight at least 0")


def parse_pairs(value: str) -> dict[str, float] | None:
    """ "3=2,5=0.5" as {"3": 2.0, "5": 0.5}; None where it is not written so."""
    pairs: dict[str, float] = {}
    for pair in value.split(","):
        name, equals, weight = pair.rpartition("=")
        try:
            pairs[name.strip()] = number(0)(weight)
        except ValueError:
            return None
        if not equals or not name.strip():
            return None
    return pairs


def schedule(value: Any) -> str:
    """A learning-rate schedule as `mlpkernels.schedules.schedule` reads it."""
    if not isinstance(value, str):
        raise ValueError("constant, step:EPOCHS:FACTOR, cosine or one-cycle was wanted")
    from mlpkernels import schedules

    try:
        schedules.schedule(value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"schedule {value!r}: ")) from None
    return value


def threads(value: Any) -> int | str:
    """A number of threads that this machine has cores for, or "auto"."""
    count: int | str = whole(1, words=(AUTO,))(value)
    if isinstance(count, int) and count > cpu_count():
        raise ValueError(f"this machine has {cpu_count()} cores for it; 1 to {cpu_count()} or auto was wanted")
    return count
