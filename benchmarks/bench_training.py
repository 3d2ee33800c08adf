"""Training on 12,000 images of MNIST, ours and every peer's, one and two threads: `pytest benchmarks/bench_training.py`.

Each system runs in a process of its own (see worker.py); a round is one request, whose pipe costs 0.1 ms.
"""

import pytest

import peers
from cases import CASES, TRIAL_STEPS, agree, order
from conftest import Worker
from worker import PAUSE, cpus

ROWS = 12_000
THREADS = [count for count in (1, 2) if count <= max(1, len(cpus()))]


def _worker(started: dict[tuple[str, int], Worker], system: str, threads: int) -> Worker:
    if (system, threads) not in started:
        started[system, threads] = Worker(system, threads)
    return started[system, threads]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("system", peers.TRAINERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_epoch(benchmark, machine, workers, case, system, threads):
    missing = peers.PACKAGES.get(peers.family(system))
    if peers.family(system) in peers.absent():
        pytest.skip(f"{missing} is not installed")
    ours, measured = _worker(workers, "mlpkernels", 1), _worker(workers, system, threads)
    for process in (ours, measured):
        source = process.call("prepare", case, ROWS)
    start = order(ROWS, 0)[: case.batch * TRIAL_STEPS]
    apart = agree(case, ours.call("trial", case, start), measured.call("trial", case, start))
    benchmark.group = f"{case}, {ROWS:,} images"
    benchmark.pedantic(measured.call, ("epoch", case, order(ROWS, 1)), rounds=5, warmup_rounds=1)
    seconds = benchmark.stats.stats.median - PAUSE
    benchmark.extra_info.update(
        machine, images=source, system=system, threads=threads, images_a_second=ROWS / seconds,
        gflops=case.flops * ROWS / seconds / 1e9, apart=apart, pools=measured.call("facts")["pools"],
    )  # fmt: skip
