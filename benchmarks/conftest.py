"""Settings of `pytest benchmarks`: files named bench_*.py are collected, benchmarks are on."""

from collections.abc import Iterator

import pytest
import worker
from worker import Pool

SET_ASIDE = worker.set_aside()  # here, before NumPy is imported and its OpenBLAS has chosen its kernels


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    if "--benchmark-disable" not in config.invocation_params.args:
        config.option.benchmark_enable = True  # the project's own settings turn them off, for its tests


@pytest.fixture(scope="session")
def machine() -> dict[str, object]:
    """What every result has to say: the processor, its cores, versions, and settings set aside."""
    import peers

    from mlpkernels.kernels.cpu import machine

    facts = {"cpu": machine.cpu_name(), "cores": len(worker.cpus()), "set_aside": SET_ASIDE}
    return {**facts, **peers.versions()}


@pytest.fixture(scope="module")
def workers() -> Iterator[Pool]:
    """The workers that a file starts; closed after it."""
    with Pool() as pool:
        yield pool


@pytest.fixture
def settled() -> None:
    """Wait until the last benchmark's threads have come to rest: OpenBLAS's spin for more work for a while."""
    worker.pause()
