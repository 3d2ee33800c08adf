"""Settings of layers and optimisers checked: each error names the owner, the setting and what was wanted."""

import math
import operator
from typing import Any

import numpy as np


def check_number(owner: object, name: str, wanted: str, low: float, high: float, *, open_low: bool = False) -> None:
    """Make a setting a float, or refuse one that is no finite number in [low, high), in (low, high) with open_low."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: {wanted} was wanted"
    object.__setattr__(owner, name, number(value, text, low, high, open_low=open_low))


def check_integer(owner: object, name: str, low: int, wanted: str = "an integer") -> None:
    """Make a setting an int (a NumPy integer would not pass through JSON), or refuse one that is none from `low`."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: {wanted} from {low} was wanted"
    object.__setattr__(owner, name, integer(value, text, low))


def number(value: Any, text: str, low: float, high: float = math.inf, *, open_low: bool = False) -> float:
    """value as a float, finite and in [low, high), in (low, high) with open_low; else an error of the text.

    TypeError: it is no number; a bool is none. ValueError: it is out of its range.
    """
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(text)
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(text) from None
    if not math.isfinite(found) or found < low or found >= high or (open_low and found == low):
        raise ValueError(text)
    return found


def integer(value: Any, text: str, low: int) -> int:
    """value as an int from low on; else a TypeError or, out of its range or a bool, a ValueError of the text."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(text) from None
    if isinstance(value, bool) or found < low:
        raise ValueError(text)
    return found


def check_pair(owner: object, name: str, low: int) -> None:
    """Make a setting a pair (height, width) of ints, or refuse what is neither one nor an integer from `low`."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: an integer from {low} or a pair (height, width) was wanted"
    high = 2**31  # places in an image are int32
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        pair = tuple(operator.index(number) for number in both)
    except TypeError:
        raise TypeError(text) from None
    if len(pair) != 2 or min(pair) < low or max(pair) >= high or any(isinstance(number, bool) for number in both):
        raise ValueError(text)
    object.__setattr__(owner, name, pair)
