"""Which kernels a command takes: those of --backend, or what auto chooses for this network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .parsing import AUTO

if TYPE_CHECKING:
    from mlpkernels import Network

    from .settings import Settings


def chosen(backend: str | None, network: Network, rows: int, passes: int = 1, quiet: bool = False) -> str:
    """The backend for calls of `rows` rows, each with so many passes through the network; auto says what it took.

    UnavailableError where the GPU that was asked for is not there: before anything else is done.
    """
    from mlpkernels import kernels

    if backend == AUTO:
        backend, reason = kernels.choose(float(network.flops) * rows * passes)
        if not quiet:
            click.echo(f"--backend auto: {backend} ({reason})", err=True)
    if backend == "cuda":
        kernels.load(backend).driver.require_device()
    return backend or "cpu"


def for_training(settings: Settings, network: Network, rows: int) -> Settings:
    """Settings whose backend is not auto any more, for `rows` training rows."""
    batch = rows if isinstance(settings.batch_size, str) else settings.batch_size
    return dataclasses.replace(settings, backend=chosen(settings.backend, network, batch, 3, settings.quiet))
