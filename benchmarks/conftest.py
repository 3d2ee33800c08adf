"""Settings of `pytest benchmarks`: files named bench_*.py, benchmarks on, an error only where one is ours."""

import time
from collections.abc import Iterator

import pytest

import worker
from worker import Worker


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.option.benchmark_enable = True  # the project's own settings turn benchmarks off for tests


@pytest.fixture(scope="session")
def machine() -> dict[str, object]:
    """What every result has to say: the processor, its cores, versions, and settings set aside."""
    import peers
    from mlpkernels.kernels.cpu import machine

    return {"cpu": machine.cpu_name(), "cores": len(worker.cpus()), "set_aside": worker.forced(), **peers.versions()}


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[tuple[str, int], Worker]]:
    """The workers that a file has started, by system and thread count; closed after it."""
    started: dict[tuple[str, int], Worker] = {}
    yield started
    for process in started.values():
        process.close()


@pytest.fixture
def settled() -> None:
    """Wait until the last benchmark's threads have stopped spinning for more work: OpenBLAS's do for a while."""
    time.sleep(0.05)
