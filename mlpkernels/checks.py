"""Settings of layers and optimisers checked: each error names the owner, the setting and what was wanted."""

import math
import operator
from typing import Any


def check_number(owner: object, name: str, wanted: str, low: float, high: float, *, open_low: bool = False) -> None:
    """Make a setting a float, or refuse one that is no finite number in [low, high), in (low, high) with open_low."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: {wanted} was wanted"
    if isinstance(value, (bool, str)):
        raise TypeError(text)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(text) from None
    if not math.isfinite(number) or number < low or number >= high or (open_low and number == low):
        raise ValueError(text)
    object.__setattr__(owner, name, number)


def check_integer(owner: object, name: str, low: int) -> None:
    """Make a setting an int (a NumPy integer would not pass through JSON), or refuse one that is none from `low`."""
    value: Any = getattr(owner, name)
    text = f"{type(owner).__name__}: {name}={value!r}: an integer from {low} was wanted"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(text) from None
    if isinstance(value, bool) or number < low:
        raise ValueError(text)
    object.__setattr__(owner, name, number)


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
