"""Ctrl-C and SIGTERM: raised at once in most places, kept until a safe moment while training."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = "stopped at once"  # by a second signal


class Interrupted(BaseException):
    """A signal asked the command to stop; a BaseException, so that no `except Exception` swallows it.

    `message` is what the user should know, one line; empty where nothing was kept.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum
        self.message = message

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM: what a shell reports for a process that the signal ended."""
        return 128 + self.signum


class _Handlers:
    """Installs `self.handle` for both signals inside a `with` block; signals are the main thread's alone."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    def __enter__(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A job started with Ctrl-C ignored (nohup, a shell's background job) stays so.
                if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class RaiseAtOnce(_Handlers):
    """Inside it a signal raises Interrupted wherever the program stands."""


class Deferred(_Handlers):
    """Inside it the first signal raises a flag that `check` turns into Interrupted; a second one raises."""

    def __init__(self) -> None:
        super().__init__()
        self.signum: int | None = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise Interrupted(signum, AT_ONCE)
        self.signum = signum

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum)
