"""What C source is written with: names it may define, numbers that read back exactly, strings of any text."""

import re
from collections.abc import Iterable

import numpy as np

# C99's and C++'s words, so that a header serves both; "main" for -DTEST.
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr
        const_cast continue decltype default delete do double dynamic_cast else enum explicit export extern false float
        for friend goto if inline int long main mutable namespace new noexcept not not_eq nullptr operator or or_eq
        private protected public register reinterpret_cast restrict return short signed sizeof static static_assert
        static_cast struct switch template this thread_local throw true try typedef typeid typename typeof union
        unsigned using virtual void volatile wchar_t while xor xor_eq""",
    )
)
_LONGEST = 63  # of a name; C99 promises that compilers tell that many characters apart
_STRING = 4095  # bytes of a string literal that C99 promises
_WIDTH = 110


def check_name(name: str) -> str:
    """A prefix for C names. ValueError for a word of C or C++ and for what is no identifier."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name, re.ASCII) or len(name) > _LONGEST:
        raise ValueError(f"a C identifier was wanted: up to {_LONGEST} letters, digits and _, a letter first")
    if name in KEYWORDS:
        raise ValueError("a word of C or C++; another name was wanted")
    return name


def number(value: float | np.floating, dtype: np.dtype) -> str:
    """A constant with the fewest digits that read back to the same bits of dtype."""
    text = str(dtype.type(value))
    return f"{text}f" if dtype == np.float32 else text


def numbers(values: np.ndarray) -> str:
    """Constants of all values in their order, separated by commas, in lines."""
    return lines(number(value, values.dtype) for value in values.reshape(-1))


def lines(words: Iterable[str]) -> str:
    """Words separated by commas, in indented lines."""
    text, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > _WIDTH:
            text.append(line)
            line = "   "
        line += f" {word},"
    return "\n".join([*text, line.removesuffix(",")])


def string(text: str) -> str:
    """A string constant of the text in UTF-8, whatever is in it. ValueError for NUL and for more than 4,095 bytes."""
    data = text.encode("utf-8", "surrogatepass")
    if b"\0" in data or len(data) > _STRING:
        raise ValueError(f"class {text[:40]!r}: C keeps names of up to {_STRING:,} bytes without NUL")
    return '"' + "".join(_character(byte) for byte in data) + '"'


def _character(byte: int) -> str:
    if byte in b'"\\?':  # ?? would begin a trigraph
        return "\\" + chr(byte)
    # Octal escapes end after three digits; hexadecimal ones would take in digits that follow.
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
