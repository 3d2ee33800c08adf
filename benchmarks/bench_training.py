"""Training on a fifth of an epoch's rows, ours and every peer's: `pytest benchmarks/bench_training.py`.

Each system runs in a process of its own (see worker.py); a round is one request, whose pipe costs 0.1 ms.
"""

import peers
import pytest
from cases import CASES, agree, order, trial
from worker import cpus, pause

THREADS = [count for count in (1, 2) if count <= max(1, len(cpus()))]
RUNS = [(case, system) for case in CASES for system in peers.trainers(case)]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("case", "system"), RUNS, ids=[f"{case.name}-{system}" for case, system in RUNS])
def test_epoch(benchmark, machine, workers, case, system, threads):
    whole = case.kind.rows // 5
    rows = case.rows(whole, peers.family(system))
    ours, measured = workers.hire(peers.OURS, 1), workers.hire(system, threads)
    for process in (ours, measured):
        source = process.call("prepare", case, whole)
    start = trial(case, whole)
    apart = agree(case, str(measured), ours.call("trial", start), measured.call("trial", start))
    benchmark.group = f"{case}, {whole:,} rows"

    def place():
        measured.call("place", order(whole, 1)[:rows], order(whole, 2)[:rows])
        pause()
        measured.call("approach")

    benchmark.pedantic(measured.call, ("epoch",), setup=place, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(
        machine,
        data=source,
        system=system,
        threads=threads,
        rows=rows,
        apart=apart,
        pools=measured.call("facts")["pools"],
    )
    if benchmark.stats is not None:  # None where benchmarks are disabled: then this has been a check only
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(images_a_second=rows / seconds, flops_a_second=case.flops * rows / seconds)
