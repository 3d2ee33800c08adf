"""Plain-text tables and numbers for people, as wide as their content: a pipe never cuts a path."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import click


def width(text: str) -> int:
    """Columns that a text takes on a terminal: two for East Asian characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _fill(text: str, columns: int, align: str) -> str:
    gap = " " * (columns - width(text))
    return gap + text if align == ">" else text + gap


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = (), align: str = "", indent: int = 0) -> str:
    """Rows of cells as aligned lines. align has one of < and > a column; missing ones are >, the first <."""
    lines = [[str(cell) for cell in row] for row in ([header, *rows] if header else rows)]
    if not lines:
        return ""
    align = align + "<>"[len(align) > 0 :][:1]
    align += ">" * (len(lines[0]) - len(align))
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    texts = [
        " " * indent + "  ".join(map(_fill, line, widths, align)).rstrip()  #
        for line in lines
    ]
    if header:
        texts[0] = click.style(texts[0], bold=True)
    return "\n".join(texts)


def percent(share: float | None) -> str:
    """0.9756 as "97.56 %"; nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"


def decimal(value: float | None) -> str:
    """A loss in four decimals, or in powers of ten where those say nothing; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 0.0001 <= abs(value) < 100_000 else f"{value:.2e}"


def count(value: float) -> str:
    """12345.6 as "12,346"."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """0.31 as "0.31 s", 75 as "1 min 15 s", 3700 as "1 h 02 min"."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(bytes: float) -> str:
    """1500 as "1.5 kB", in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if bytes < 1000 or unit == "GB":
            break
        bytes /= 1000
    return f"{bytes:.0f} {unit}" if unit == "bytes" or bytes >= 100 else f"{bytes:.1f} {unit}"


def quantity(value: float, unit: str) -> str:
    """52_000 of "FLOP" as "52.0 kFLOP"."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000 or prefix == "T":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if not prefix else f"{value:.1f} {prefix}{unit}"
