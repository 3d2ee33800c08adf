"""`mlpk doctor`: what the kernels find on this machine, for a first look and for a report of trouble."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import click

from . import tables
from .command import Command, format_option, output_option

_PACKAGES = ("numpy", "numba", "llvmlite", "click", "rich", "matplotlib", "safetensors", "pillow")


@click.command(
    "doctor",
    cls=Command,
    examples=[("mlpk doctor", "versions, processor, threads, cache, speed")],
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Measure the processor's speed, 2 seconds. [default: measure]",
)
@format_option("table", "json")
@output_option
def command(measure: bool, form: str, output: str | None) -> None:
    """Show versions, processor, threading layer, compile cache, CUDA, and the speed kernels can reach."""
    from . import trained
    from .report import to_text

    facts = {**_versions(), **_cache(), **_cuda(), **_processor(measure)}
    if form == "json":
        trained.write(to_text(facts), output)
    else:
        trained.write(tables.table([_text(*fact) for fact in facts.items()], align="<<"), output)


def _text(name: str, value: Any) -> list[str]:
    """A fact as a line for people: name and value."""
    if isinstance(value, list):
        return [name, ", ".join(value) or "none"]
    if isinstance(value, float):
        return [name, f"{value:.1f}"]
    return [name, str(value)]


def _versions() -> dict[str, Any]:
    from mlpkernels import __version__

    found = {"mlpkernels": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "system": platform.platform()}


def _processor(measured: bool) -> dict[str, Any]:
    """Processor and threads; with `measured` what one core reaches, in GFLOP/s and GB/s."""
    from mlpkernels.affinity import cpu_count
    from mlpkernels.kernels.cpu import cache, machine, simd, threads

    facts = {
        "processor": machine.cpu_name(),
        "vector extensions": machine.features(),
        "vector registers": f"{simd.REGISTERS} of {simd.VECTOR_BYTES} bytes",
        "cores": cpu_count(),
        "threads": threads.available(),
        "threading layer": threads.layer(),
    }
    if measured and not cache.disabled():
        facts |= {
            "float32 multiply-add peak, GFLOP/s a core": machine.fma_peak("float32") / 1e9,
            "float64 multiply-add peak, GFLOP/s a core": machine.fma_peak("float64") / 1e9,
            "memory bandwidth, GB/s of one core": machine.bandwidth() / 1e9,
        }
    return facts


def _cache() -> dict[str, Any]:
    """Where compiled kernels are kept and how many there are."""
    from pathlib import Path

    from numba import njit

    from mlpkernels.kernels.cpu import cache

    if not cache.wanted():
        return {"compile cache": "off, by MLPK_CACHE=0"}
    if cache.disabled():
        return {"compile cache": "off, since NUMBA_DISABLE_JIT is set: nothing is compiled"}
    try:
        # Nothing is compiled: this only asks where Numba would keep it.
        folder = Path(str(njit(cache=True)(cache.digest).stats.cache_path))
    except RuntimeError:
        return {"compile cache": "off: no writable place; NUMBA_CACHE_DIR may name one"}
    files = list(folder.glob("*.nbc")) if folder.is_dir() else []
    state = f"{len(files)} kernels, {tables.size(sum(file.stat().st_size for file in files))}"
    writable = os.access(folder if folder.is_dir() else folder.parent, os.W_OK)
    return {"compile cache": str(folder), "cache state": state + ("" if writable else "; not writable")}


def _cuda() -> dict[str, Any]:
    """Which CUDA package the backend would take, driver and GPUs, or what to install."""
    from mlpkernels.errors import UnavailableError

    try:
        from mlpkernels.kernels.cuda import driver
    except UnavailableError as error:
        return {"cuda": f"no: {error}"}
    return driver.facts()
