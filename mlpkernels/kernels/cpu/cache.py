"""The compile cache: on where a writable place exists, off without failing where none does.

MLPK_CACHE=0 turns it off; NUMBA_CACHE_DIR moves it. Numba's key knows the function's own bytecode and closure but
no other file, so each cached entry point carries `digest()` of all kernel files in a closure cell. The names of its
files carry it, too: those of other digests go when they are a week old and something new has been compiled. They carry
the signature, as well: one index lists one function of one signature, so that processes that compile different ones at
once never write the same file.
"""

import contextlib
import functools
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

from ...errors import UnavailableError
from .. import beside
from .jit import OPTIONS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def digest() -> str:
    """A digest of every source file the kernels are compiled from."""
    total = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*sorted(here.glob("*.py")), here.parent / "plan.py"):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


_own_digest = functools.cache(digest)  # the files are read once
_KEPT = 7 * 24 * 3600.0  # seconds that files of another digest stay: a branch that is left is often returned to


def wanted() -> bool:
    """Whether the environment leaves the compile cache on."""
    return os.environ.get("MLPK_CACHE", "1") != "0"


def disabled() -> bool:
    """Whether the environment has Numba compile nothing at all."""
    return bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set as the module is loaded


def compiled(function: Callable[..., Any], signature: Any, parallel: bool = False) -> Any:
    """The function compiled for one signature and no other, from the cache where it is there.

    UnavailableError where Numba was told to compile nothing.
    """
    if disabled():
        raise UnavailableError("NUMBA_DISABLE_JIT is set: unset it, or take the backend 'reference'")
    dispatcher = _cached(function, signature, parallel) if wanted() else None
    if dispatcher is None:
        dispatcher = njit(parallel=parallel, **OPTIONS)(function)
        dispatcher.compile(signature)
    return _closed(dispatcher)


def loaded(function: Callable[..., Any], signature: Any, parallel: bool = False) -> Any:
    """The function as `compiled` gives it, if it is in the cache, else None; nothing is compiled."""
    if not wanted():
        return None
    with contextlib.suppress(Exception):  # _AbsentError, or what `compiled` mends or names: no place, a damaged file
        dispatcher, path = _to_cache(function, signature, parallel)
        cached = dispatcher._cache
        dispatcher._cache = _OnlyThere(cached)
        with _locked(path, dispatcher, to_load=True):
            dispatcher.compile(signature)
        dispatcher._cache = cached
        return _closed(dispatcher)
    return None


def writable(function: Callable[..., Any], signature: Any) -> bool:
    """Whether what is compiled of the function will be kept."""
    try:
        return wanted() and bool(_to_cache(function, signature, False))
    except Exception:  # Numba's, that no locator has a place for it, or the file system's
        return False


def _closed(dispatcher: Any) -> Any:
    dispatcher.disable_compile()  # other types are an error here, not a minute of compiling
    return dispatcher


def _cached(function: Callable[..., Any], signature: Any, parallel: bool) -> Any:
    """The function compiled with the cache; None where there is no writable place, a full disk or no mending it."""
    try:
        dispatcher, path = _to_cache(function, signature, parallel)
        with _locked(path, dispatcher):
            try:
                dispatcher.compile(signature)
            except OSError:
                raise
            except Exception:  # unpickling a damaged file raises anything: forget what the index lists, once
                dispatcher._cache.flush()
                dispatcher.compile(signature)
            if dispatcher.stats.cache_misses:  # what only loads adds nothing, and need not look at all files
                _prune(path, Path(function.__code__.co_filename).stem)
    except Exception:  # the same error comes again, by its name, where it is not the cache's
        return None
    return dispatcher


def _to_cache(function: Callable[..., Any], signature: Any, parallel: bool) -> tuple[Any, Path]:
    """(a dispatcher that is to load or compile the function, the folder of its files), the folder made.

    Digest and signature are put into the qualified name, of which Numba makes the names of the files.
    """
    function.__qualname__ = f"{_own_digest()}.{function.__code__.co_qualname}.{zlib.crc32(str(signature).encode()):08x}"
    dispatcher = njit(parallel=parallel, cache=True, **OPTIONS)(function)
    path = Path(dispatcher.stats.cache_path)
    path.mkdir(parents=True, exist_ok=True)
    return dispatcher, path


class _AbsentError(Exception):
    """The cache does not hold what was asked for."""


class _OnlyThere:
    """In place of a dispatcher's cache: raises _AbsentError where that one would have the dispatcher compile."""

    def __init__(self, cached: Any) -> None:
        self._cached = cached

    def load_overload(self, *arguments: Any) -> Any:
        found = self._cached.load_overload(*arguments)
        if found is None:
            raise _AbsentError
        return found


def _prune(folder: Path, module: str) -> None:
    """Remove the module's cached files of other digests that are older than a week.

    A process that still wants one compiles again: Numba takes a file that is gone as one that never was, and one
    that is open elsewhere is read to its end, or on Windows stays.
    """
    own, oldest = f"{module}.{_own_digest()}.", time.time() - _KEPT
    for path in folder.glob(f"{module}.*.nb[ic]*"):  # with what a writer that was killed left: .nbc.tmp.…
        with contextlib.suppress(OSError):
            if not path.name.startswith(own) and path.stat().st_mtime < oldest:
                path.unlink()


@contextlib.contextmanager
def _locked(folder: Path, dispatcher: Any, to_load: bool = False) -> Iterator[None]:
    """One process at a time for each function and signature: two at once could write each other's files.

    to_load: several may load at once, none while one compiles.

    The lock is on one byte, which their name chooses, of one file: different functions are compiled side by side.
    """
    if fcntl is None:
        yield
        return
    byte = zlib.crc32(dispatcher.py_func.__qualname__.encode())
    kind = fcntl.LOCK_SH if to_load else fcntl.LOCK_EX
    with open(folder / "mlpkernels.lock", "a+") as file:  # closing it takes the lock back
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, byte)
        except OSError:  # another process compiles it
            beside.compiling()
            fcntl.lockf(file, kind, 1, byte)
        yield
