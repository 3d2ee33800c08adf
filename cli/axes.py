"""The values of a swept option: `8,16,32`, `0:5`, `0:100:10`, `lin:0:0.9:4`, `log:1e-4:1e-1:7`, `64,64/128,128`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .parsing import Parser, flag
from .settings import FIELDS

if TYPE_CHECKING:
    from mlpkernels.sweep import Range

# Options of mlpk train that a sweep has once, for all of its networks; the others may have several values.
ONCE = (
    "data", "data-dir", "offline", "label-column", "test-data", "threads", "checkpoint-every", "plots", "out", "quiet",
)  # fmt: skip
SWEPT = tuple(name for name in FIELDS if name not in ONCE)
# A comma is part of a value: of lists of layers, and of weights by class.
SLASHED = (*(name for name, field in FIELDS.items() if isinstance(field.default, tuple)), "class-weight")
_SWITCH = {"on": True, "true": True, "off": False, "false": False}
_MOST = 100_000  # values of one option
_SPACINGS = ("lin", "log")


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values that an option takes, in the order typed, or a Range to draw them from; and how it was typed.

    logarithmic: whether its values stand on a logarithmic scale.
    """

    name: str
    text: str
    values: tuple[Any, ...]
    range: Range | None = None
    logarithmic: bool = False

    @property
    def swept(self) -> bool:
        """Whether there is a choice."""
        return self.range is not None or len(self.values) > 1


def axis_parser(name: str) -> Callable[[Any], Axis]:
    """The parser of the option `name`: text to an Axis. ValueError says what was wanted."""

    def parse(text: Any) -> Axis:
        return parse_axis(name, text)

    return parse


def parse_axis(name: str, text: str) -> Axis:
    """The values of the option `name`. ValueError says what was wanted."""
    text = text.strip()
    pieces = [piece.strip() for piece in text.split("/" if name in SLASHED else ",")]
    if len(pieces) == 1 and (drawn := _drawn(name, text)) is not None:
        return Axis(name, text, (), drawn, drawn.log)
    parser = FIELDS[name].metadata["typed"]
    values: list[Any] = []
    for piece in pieces:
        try:
            if not piece and len(pieces) > 1:
                raise ValueError("nothing between two separators; a value was wanted")
            values += _range(name, piece) if _is_range(name, piece) else [_single(name, parser, piece)]
        except ValueError as error:
            raise ValueError(f"{piece}: {error}" if piece and len(pieces) > 1 else str(error)) from None
        if len(values) > _MOST:
            raise ValueError(f"more than {_MOST:,} values; fewer were wanted, or lin:A:B with --sample")
    return Axis(name, text, tuple(dict.fromkeys(values)), None, any(piece.startswith("log:") for piece in pieces))


def _single(name: str, parser: Parser, piece: str) -> Any:
    if FIELDS[name].metadata["parse"] is flag:
        if piece not in _SWITCH:
            raise ValueError("on or off was wanted")
        return _SWITCH[piece]
    return parser(piece)


# ---- ranges


def _is_range(name: str, piece: str) -> bool:
    head, colon, _ = piece.partition(":")
    return bool(colon) and (head in _SPACINGS or _kind(name) is not None)


def _kind(name: str) -> type | None:
    """int or float for an option of numbers, None for another."""
    for kind, trials in ((float, (0.5,)), (int, (1, 8))):
        for trial in trials:
            try:
                FIELDS[name].metadata["parse"](trial)
            except ValueError:
                break
        else:
            return kind
    return None


def _number(text: str, kind: type) -> Any:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text or 'nothing'} where a number was wanted: {_WRITTEN}")
    if kind is int:
        if not number.is_integer():
            raise ValueError(f"{text} where a whole number was wanted")
        return int(number)
    return number


_WRITTEN = "ranges are written FIRST:END, FIRST:END:STEP, lin:FIRST:LAST:N or log:FIRST:LAST:N"


def _range(name: str, piece: str) -> list[Any]:
    """The values of a range, each checked as a single value is."""
    kind = _kind(name)
    if kind is None:
        raise ValueError("ranges are for numbers; a list of values, a,b,c, was wanted")
    head, *words = piece.split(":")
    values = _spaced(head, words, kind) if head in _SPACINGS else _steps([head, *words], kind)
    parser = FIELDS[name].metadata["typed"]
    for value in values:
        try:
            parser(value)
        except ValueError as error:
            raise ValueError(f"{value:g}: {error}") from None
    return [parser(value) for value in values]


def _steps(words: list[str], kind: type) -> list[Any]:
    """FIRST:END:STEP, END not among them, as Python's range."""
    if len(words) > 3:
        raise ValueError(_WRITTEN)
    first, end = _number(words[0], kind), _number(words[1], kind)
    step = _number(words[2], kind) if len(words) == 3 else 1
    if step <= 0:
        raise ValueError(f"a step of {step:g}; one above 0 was wanted")
    # an end that rounding alone keeps apart from a step's multiple is no value
    count = math.ceil((end - first) / step - 1e-9)
    if count < 1:
        raise ValueError(f"an empty range; an end above {first:g} was wanted, which is not among the values")
    if count > _MOST:
        raise ValueError(f"{count:,} values; at most {_MOST:,} were wanted")
    return [_short(first + k * step, kind) for k in range(count)]


def _spaced(spacing: str, words: list[str], kind: type) -> list[Any]:
    """lin: or log:FIRST:LAST:N, both ends among them."""
    if len(words) == 2:
        raise ValueError(f"how many values? {spacing}:{':'.join(words)}:N was wanted, or --sample, and no list")
    if len(words) != 3:
        raise ValueError(_WRITTEN)
    first, last = _ends(spacing, words, kind)
    count = _number(words[2], int)
    if not 1 <= count <= _MOST:
        raise ValueError(f"{count} values; 1 to {_MOST:,} were wanted")
    if count == 1:
        return [first]
    if spacing == "log":
        return [_short(first * (last / first) ** (k / (count - 1)), kind) for k in range(count)]
    return [_short(first + (last - first) * k / (count - 1), kind) for k in range(count)]


def _ends(spacing: str, words: list[str], kind: type) -> tuple[Any, Any]:
    first, last = _number(words[0], kind), _number(words[1], kind)
    if first >= last:
        raise ValueError(f"an empty range; an end above {first:g} was wanted")
    if spacing == "log" and first <= 0:
        raise ValueError(f"a logarithmic range from {first:g}; numbers above 0 were wanted")
    return first, last


def _short(number: float, kind: type) -> Any:
    """A number that people can type again: whole, or of six significant digits."""
    return round(number) if kind is int else float(f"{number:.6g}")


def _drawn(name: str, text: str) -> Range | None:
    """The Range of lin:A:B or log:A:B, for --sample; None where it is written otherwise."""
    spacing, *words = text.split(":")
    if spacing not in _SPACINGS or len(words) != 2:
        return None
    kind = _kind(name)
    if kind is None:
        raise ValueError("ranges are for numbers; a list of values, a,b,c, was wanted")
    first, last = _ends(spacing, words, kind)
    for end in (first, last):
        FIELDS[name].metadata["typed"](end)
    from mlpkernels.sweep import Range

    return Range(first, last, log=spacing == "log", whole=kind is int)
