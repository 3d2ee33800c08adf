"""Training on 12,000 images of MNIST, ours and every peer's: `pytest benchmarks/bench_training.py`.

Each system runs in a process of its own (see worker.py); a round is one request, whose pipe costs 0.1 ms.
"""

import peers
import pytest
from cases import CASES, agree, order, trial
from conftest import Worker
from worker import cpus, pause

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
    start = trial(case, ROWS)
    apart = agree(case, str(measured), ours.call("trial", case, start), measured.call("trial", case, start))
    benchmark.group = f"{case}, {ROWS:,} images"

    def place():
        measured.call("place", case, order(ROWS, 1))
        pause()

    benchmark.pedantic(measured.call, ("epoch", case), setup=place, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(
        machine,
        images=source,
        system=system,
        threads=threads,
        apart=apart,
        pools=measured.call("facts")["pools"],
    )
    if benchmark.stats is not None:  # None where benchmarks are disabled: then this has been a check only
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(images_a_second=ROWS / seconds, flops_a_second=case.flops * ROWS / seconds)
