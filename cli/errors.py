"""Every error as one line on stderr, and the exit code that goes with it."""

import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from .interrupts import Interrupted, RaiseAtOnce

DONE, NAMED_ERROR, WRONG_USAGE, BROKEN_PIPE = 0, 1, 2, 141


class OptionError(click.UsageError):
    """An option, argument or setting with a value that cannot be: `--batch-size 0: at least 1 was wanted`."""

    def __init__(self, name: str, value: Any, message: str) -> None:
        shown = name if value is None else f"{name} {value}"
        super().__init__(f"{shown}: {message}", click.get_current_context(silent=True))


def close_match(word: str, words: Iterable[str], before: str = "") -> str:
    """`, did you mean train?` for the nearest of `words`, written with `before`; nothing where none is near."""
    import difflib  # 2 ms, which only a mistake needs

    near = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {before}{near[0]}?" if near else ""


def one_line(text: str) -> str:
    """Text without line ends and control characters, which a file name may bring along."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def os_error_text(error: OSError) -> str:
    """`runs/a/history.csv: no space left on device`."""
    if error.strerror is None:  # raised with a text of its own
        return str(error) or type(error).__name__
    reason = error.strerror[:1].lower() + error.strerror[1:]
    names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
    return f"{names[-1]}: {reason}" if names else reason


_NEXT_STEPS = {
    errno.EACCES: "allow it, or name another place", errno.EPERM: "allow it, or name another place",
    errno.EROFS: "name another place", errno.ENOSPC: "make room", errno.EDQUOT: "make room",
    errno.EEXIST: "name another", errno.EISDIR: "name a file", errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name: what should be a folder is a file",
}  # fmt: skip


def _next_step(error: OSError) -> str:
    """What to try next after what the system alone says; what was raised with a text of its own tells it itself."""
    step = _NEXT_STEPS.get(error.errno or 0) if error.strerror is not None else None
    return f"; {step}" if step else ""


def _usage_line(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx is not None else "mlpk"
    if isinstance(error, click.NoSuchOption):
        text = f"{error.option_name}: no such option"
        # Click compares with the dashes, which make anything alike.
        names = [name.lstrip("-") for name in error.possibilities or ()]
        text += close_match(error.option_name.lstrip("-"), names, "--")
    else:
        text = error.format_message().rstrip(".")
        text = text if text[:2].isupper() else text[:1].lower() + text[1:]
    return f"{path}: {text}{' ' if text.endswith('?') else '; '}see {path} --help"


def explain(error: BaseException) -> tuple[str, int]:
    """(the line for stderr, the exit code) of an error a user can meet; re-raises any other: it is a bug."""
    from mlpkernels.errors import MlpkError

    if isinstance(error, click.UsageError):
        return _usage_line(error), WRONG_USAGE
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}", NAMED_ERROR
    if isinstance(error, Interrupted):
        return error.message or "interrupted", error.exit_code
    if isinstance(error, MlpkError):
        return f"error: {error}", NAMED_ERROR
    if isinstance(error, OSError):
        return f"error: {os_error_text(error)}{_next_step(error)}", NAMED_ERROR
    if isinstance(error, MemoryError):
        text = f"{error}; " if str(error) else ""
        return f"error: not enough memory: {text}use a smaller network, batch or data set", NAMED_ERROR
    raise error


def guarded(run: Callable[[], Any]) -> int:
    """Run a command; every foreseeable error becomes its line on stderr. Returns the exit code."""
    try:
        with RaiseAtOnce():
            code = run()
            sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        # `mlpk … | head`: the reader has enough. Python would complain once more while it shuts down.
        _discard_stdout()
        return BROKEN_PIPE
    except (Exception, Interrupted) as error:
        line, code = explain(error)
        click.echo(one_line(line), err=True)
        return code


def _discard_stdout() -> None:
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file: a test's buffer
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
