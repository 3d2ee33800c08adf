"""The compile cache: on where a writable place exists, off without failing where none does.

MLPK_CACHE=0 turns it off; NUMBA_CACHE_DIR moves it. Numba's key knows the function's own bytecode and closure but
no other file, so each cached entry point carries `digest()` of all kernel files in a closure cell. The names of its
files carry it, too: those of other digests go when they are a week old and something new has been compiled.
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import njit

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


def compiled(function: Callable[..., Any], signature: Any, parallel: bool = False) -> Any:
    """The function compiled for one signature and no other, from the cache where it is there."""
    dispatcher = _cached(function, signature, parallel) if wanted() else None
    if dispatcher is None:
        dispatcher = njit(parallel=parallel, **OPTIONS)(function)
        dispatcher.compile(signature)
    dispatcher.disable_compile()  # other types are an error here, not a minute of compiling
    return dispatcher


def _cached(function: Callable[..., Any], signature: Any, parallel: bool) -> Any:
    """The function compiled with the cache; None where there is no writable place, a full disk or no mending it."""
    try:
        _name_with_digest(function)
        dispatcher = njit(parallel=parallel, cache=True, **OPTIONS)(function)
        path = Path(dispatcher.stats.cache_path)
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path / "mlpkernels.lock"):
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


def _name_with_digest(function: Callable[..., Any]) -> None:
    """Put the digest into the qualified name, of which Numba makes the names of the files."""
    start = f"{_own_digest()}."
    function.__qualname__ = start + function.__qualname__.removeprefix(start)


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
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: two that compile at once may store one's code under the other's name."""
    if fcntl is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:  # not left to closing: a child forked meanwhile has the file open, too
            fcntl.flock(file, fcntl.LOCK_UN)
