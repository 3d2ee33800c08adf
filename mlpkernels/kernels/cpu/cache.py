"""The compile cache: on where a writable place exists, off without failing where none does.

MLPK_CACHE=0 turns it off; NUMBA_CACHE_DIR moves it. Numba's key knows the function's own bytecode and closure but
no other file, so each cached entry point carries `digest()` of all kernel files in a closure cell.
"""

import contextlib
import hashlib
import os
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
    except Exception:  # the same error comes again, by its name, where it is not the cache's
        return None
    return dispatcher


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
