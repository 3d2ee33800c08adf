"""The one module that chooses the CUDA package, asks the driver what there is, and names what is missing.

`numba-cuda-mlir`, the maintained package, is taken where it is installed, else `numba-cuda`; MLPK_CUDA_PACKAGE names
one of them. With NUMBA_ENABLE_CUDASIM=1 it is the simulator inside Numba, which needs no GPU and is very slow.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import MlpkError, UnavailableError
from . import simulator

PACKAGES = {"numba-cuda-mlir": "numba_cuda_mlir", "numba-cuda": "numba_cuda"}  # the preferred one first
INSTALL = "pip install 'mlpkernels[cuda13]', or [cuda12] for a driver below 580"
_NUMPY_END = "2.5.0"  # from there on numba-cuda 0.30, in maintenance, cannot compile

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
# The CUDA release that the packages need at least, as the driver counts: 12.0. A CUDA toolkit installed beside them
# needs a driver of its own major release.
_LEAST_DRIVER = 12000


class DeviceError(MlpkError):
    """The GPU refused or failed: a launch, a copy, memory that is not there."""


def _installed() -> list[str]:
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is not None]


def _choose() -> tuple[str, ModuleType]:
    """(the package's name, its `cuda` module). UnavailableError names what to install."""
    module: Any
    if SIMULATED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the simulator's place inside Numba
            module = importlib.import_module("numba.cuda")
        simulator.repair()
        return "simulator", module
    wanted = os.environ.get("MLPK_CUDA_PACKAGE", "")
    if wanted and wanted not in PACKAGES:
        raise UnavailableError(f"MLPK_CUDA_PACKAGE={wanted}: one of {', '.join(PACKAGES)} was wanted")
    found = _installed()
    if wanted and wanted not in found:
        raise UnavailableError(f"MLPK_CUDA_PACKAGE={wanted}: it is not installed: pip install '{wanted}[cu13]'")
    if not found:
        raise UnavailableError(f"the CUDA backend needs a package that is not installed: {INSTALL}")
    name = wanted or found[0]
    if name == "numba-cuda" and np.lib.NumpyVersion(np.__version__) >= _NUMPY_END:
        raise UnavailableError(
            f"numba-cuda needs NumPy below {_NUMPY_END}, here is {np.__version__}: pip install 'numpy<2.5', or the "
            f"other package: {INSTALL}"
        )
    home = "numba_cuda_mlir.numba_cuda" if name == "numba-cuda-mlir" else "numba.cuda"
    try:
        # A small network fills no GPU: the packages would warn of it at every launch.
        config: Any = importlib.import_module(f"{home}.core.config")
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        return name, importlib.import_module(home.replace(".numba_cuda", ".cuda"))
    except ImportError as error:
        raise UnavailableError(f"{name} cannot be imported ({error}): {INSTALL}") from None


PACKAGE, cuda = _choose()


# ---- devices


@cache
def library() -> Any:
    """The driver's own library, None where there is no driver."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def driver_version() -> int | None:
    """The newest CUDA release that the driver knows, 13000 for 13.0; None without a driver."""
    version = ctypes.c_int()
    if library() is None or library().cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value


def device_count() -> int:
    """The GPUs that the driver shows this process."""
    count = ctypes.c_int()
    if library() is None or library().cuInit(0) or library().cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def lack() -> str | None:
    """Why no kernel can run here, with what to do; None where one can."""
    if SIMULATED:
        return None
    version = driver_version()
    if version is None:
        return "there is no NVIDIA driver here: install one, or take --backend cpu"
    least = max(_LEAST_DRIVER, 1000 * _toolkit())
    if version < least:
        return (
            f"the NVIDIA driver is too old: it knows CUDA {_release(version)}, {_release(least)} was wanted; update it"
            + (", or pip install 'mlpkernels[cuda12]'" if version >= _LEAST_DRIVER else "")
        )
    if device_count() == 0:
        return "the NVIDIA driver shows no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES, or take --backend cpu"
    return None


def _toolkit() -> int:
    """The major release of the CUDA toolkit installed beside the package; 0 where there is none."""
    try:
        return int(importlib.metadata.version("cuda-toolkit").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


def _release(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


class _Taken(threading.local):
    """Whether this thread has taken its device: the driver's context is a thread's own."""

    ready = False


_taken = _Taken()


def require_device() -> None:
    """Take the GPU, once a thread: number MLPK_CUDA_DEVICE, by default 0. UnavailableError says what is missing."""
    if _taken.ready:
        return
    reason = lack()
    if reason is not None:
        raise UnavailableError(f"the CUDA backend cannot run: {reason}")
    number = os.environ.get("MLPK_CUDA_DEVICE", "0")
    count = 1 if SIMULATED else device_count()
    if not number.isdecimal() or int(number) >= count:
        raise UnavailableError(f"MLPK_CUDA_DEVICE={number}: this machine has {count} GPU, counted from 0")
    with named("taking the GPU"):
        cuda.select_device(int(number))
        if not SIMULATED:
            cuda.current_context()
    _taken.ready = True


def facts() -> dict[str, Any]:
    """What a report of trouble needs: each GPU, or what is missing and what to do; package and driver."""
    version = driver_version()
    return {
        "cuda": lack() or ("simulated" if SIMULATED else _names()),
        "cuda package": f"{PACKAGE} {_version(PACKAGE)}".strip(),
        "cuda driver": "none" if version is None else f"knows CUDA {_release(version)}",
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package) if package in PACKAGES else ""


def _names() -> list[str]:
    names = []
    for index in range(device_count()):
        text = ctypes.create_string_buffer(256)
        library().cuDeviceGetName(text, len(text), index)
        names.append(text.value.decode(errors="replace"))
    return names


# ---- what may fail on a device


@contextmanager
def named(what: str, needed: int = 0, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the package raises while `what` is done into DeviceError or, of memory, MemoryError.

    needed: bytes that were asked for. also: exceptions of Python's that are the package's here.
    """
    try:
        yield
    except MlpkError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if "OUT OF MEMORY" in text.upper().replace("_", " "):
            raise MemoryError(_memory_text(what, needed)) from None
        if "cuda" in type(error).__module__ or "Cuda" in type(error).__name__ or type(error) in also:
            raise DeviceError(f"{what} failed on the GPU: {' '.join(text.split())}") from None
        raise


def _memory_text(what: str, needed: int) -> str:
    free = "an unknown number of"
    try:
        free = f"{cuda.current_context().get_memory_info()[0]:,}"
    except Exception as error:  # a context that failed answers nothing: the needed bytes are still worth telling
        free = f"({type(error).__name__})"
    lack = f"{needed:,} were needed" if needed else f"too few for {what}"
    return f"the GPU has {free} bytes free, {lack}: a smaller network, batch or data set"


def stream_of(stream: Any) -> Any:
    """A stream of the package from None, one of its own, a number, or one of CuPy, PyTorch or cuda.core."""
    if stream is None:
        return 0
    if hasattr(stream, "synchronize") and "numba" in type(stream).__module__:
        return stream
    number = stream
    if hasattr(stream, "__cuda_stream__"):
        number = (stream.__cuda_stream__() if callable(stream.__cuda_stream__) else stream.__cuda_stream__)[1]
    for name in ("cuda_stream", "ptr"):  # PyTorch's, CuPy's
        number = getattr(stream, name, number)
    if not isinstance(number, int):
        raise TypeError(f"stream must be a CUDA stream or its number, got {type(stream).__name__}")
    return cuda.external_stream(number) if number else 0


def synchronize(stream: Any = 0) -> None:
    """Wait for all that was launched; a launch that failed says so here."""
    with named("a launch"):
        if stream:
            stream.synchronize()
        else:
            cuda.synchronize()


def launch(kernel: Any, blocks: int, threads: int, stream: Any, *arguments: Any) -> None:
    """Launch a kernel without waiting for it. DeviceError names one that cannot be compiled, loaded or launched.

    numba-cuda-mlir 0.6 raises RuntimeError for most of that, without the driver's name for it.
    """
    with named(f"launching {getattr(kernel, '__name__', 'a kernel')}", also=() if SIMULATED else (RuntimeError,)):
        kernel[blocks, threads, stream](*arguments)
