"""Ours against the peers in one sitting: `python benchmarks/compare.py [--quick] [--out FILE.json]`.

Matrix products against NumPy's OpenBLAS; training and prediction against PyTorch, JAX, scikit-learn and ONNX Runtime
where they are installed; start and memory. Every system runs at every thread count in a process of its own, one at a
time, in turns; every answer is checked before it is timed. Prints Markdown; the JSON has every single measurement, and
`python benchmarks/readme.py FILE.json` writes the README's tables from it.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

import footprint
import peers
import report
import start_up
from cases import CASES, NAMES, Case, agree, order, trial
from predictors import ONE_THREAD, PREDICTORS, installed
from products import products
from worker import Pool, Worker, crew, pause, set_aside

OURS, BLAS = "mlpkernels", "OpenBLAS"
SECTIONS = ("products", "training", "cnn", "inference", "start")
# A setting whose fastest turn takes so many seconds, and so many times what the same system's fastest one takes, is
# left out of the turns after the second.
_SLOW, _SLOWER = 2.0, 4.0
_OTHERS = 1000  # where the orders of the epochs begin that come before those that are timed
_PASS = 2e-3  # seconds of calls in a pass over a product
_PASSES = 3  # in a turn
_PREDICTING = {"one": 0.01, "many": 0.05}  # seconds of calls in a pass over a prediction


def compare_products(threads: list[int], turns: int, quick: bool) -> dict[str, Any]:
    """Seconds a call of every product, ours and OpenBLAS's, all passes of all turns; and the BLAS libraries in use."""
    shapes, libraries, chosen = [], [], products(quick)
    for count in threads:
        with crew([OURS, BLAS], [count]) as workers:
            for product in chosen:
                seconds: dict[str, list[float]] = {worker.system: [] for worker in workers}
                for worker in workers:
                    worker.call("prepare_product", product)
                for turn in range(turns):
                    for worker in workers if turn % 2 else workers[::-1]:
                        if count > 1:
                            pause()
                        seconds[worker.system] += worker.call("time_product", product, _PASS, _PASSES)
                shapes.append({**vars(product), "threads": count, "flops": product.flops, "seconds": seconds})
            libraries = workers[1].call("facts")["pools"]
        _say(f"products on {count} thread{'s' if count > 1 else ''}: {len(chosen)} shapes")
    return {"libraries": libraries, "shapes": shapes}


def compare_training(
    cases: list[Case], threads: list[int], turns: int, fraction: int, compiled: bool, rounds: int = 1
) -> list[dict[str, Any]]:
    """For every case, each system's epochs at every thread count, in turns, on a fraction of the rows.

    All cases come once in every round: what disturbs a machine for a minute touches one round's turns of a case.
    """
    found: dict[Case, dict[str, Any]] = {}
    with Pool() as pool:
        for number in range(rounds):
            first, end = turns * number // rounds, turns * (number + 1) // rounds
            for case in cases if end > first else []:
                rows = case.kind.rows // fraction
                workers = [pool.hire(system, count) for system in peers.trainers(case, compiled) for count in threads]
                source = {worker.call("prepare", case, rows) for worker in workers}.pop()
                apart = _check(case, workers, rows)
                _say(f"round {number + 1}, {case}: all answers agree")
                entry = found.setdefault(
                    case,
                    {
                        "name": case.name, "case": str(case), "flops": case.flops, "rows": rows, "images": source,
                        "runs": _empty(case, workers, rows),
                    },
                )  # fmt: skip
                runs = dict(zip(workers, entry["runs"], strict=True))
                _take_turns(runs, range(first, end), rows)
                for worker, run in runs.items():
                    run["apart"] = apart[worker.system, worker.threads]
    return list(found.values())


def _check(case: Case, workers: list[Worker], rows: int) -> dict[tuple[str, int], dict[str, float]]:
    """Train every worker a few steps from the same start in the same order: AssertionError if one differs."""
    taken, apart = trial(case, rows), {}
    ours = workers[0].call("trial", taken)
    for worker in workers:
        answer = worker.call("trial", taken)
        apart[worker.system, worker.threads] = agree(case, str(worker), ours, answer)
    return apart


def _empty(case: Case, workers: list[Worker], rows: int) -> list[dict[str, Any]]:
    """What is kept of each worker, before its first turn."""
    return [
        {
            "system": worker.system, "threads": worker.threads, "rows": case.rows(rows, peers.family(worker.system)),
            "seconds": [], "processor_seconds": [], "losses": [],
        }
        for worker in workers
    ]  # fmt: skip


def _take_turns(runs: dict[Worker, dict[str, Any]], turns: range, rows: int) -> None:
    """An epoch of each worker in every turn, in another succession each time, after one that is not counted.

    A quarter of another epoch comes just before each. Where a system trains on a part of the rows, its times are
    scaled up to all.
    """
    most = max(len(run["seconds"]) for run in runs.values())
    going = [worker for worker, run in runs.items() if len(run["seconds"]) == most]  # but who was found slow before
    for turn in (turns.start - 1, *turns):
        random.Random(turn).shuffle(going)
        taken, before = order(rows, turn + 1), order(rows, _OTHERS + turn)
        for worker in going:
            run = runs[worker]
            worker.call("place", taken[: run["rows"]], before[: run["rows"]])
            pause()
            worker.call("approach")
            result = worker.call("epoch")
            if turn >= turns.start:  # the one before compiles for the epoch's length, and fills caches
                for clock in ("seconds", "processor_seconds"):
                    run[clock].append(result[clock] * rows / run["rows"])
                run["losses"].append(result["loss"])
        if turn >= turns.start and min(len(runs[worker]["seconds"]) for worker in going) >= 2:
            going = _without_slow(going, {worker: min(runs[worker]["seconds"]) for worker in going})


def _without_slow(workers: list[Worker], seconds: dict[Worker, float]) -> list[Worker]:
    """The workers but those that take long, and far longer than their own system's best."""
    best: dict[str, float] = {}
    for worker in workers:
        name = peers.family(worker.system)
        best[name] = min(best.get(name, seconds[worker]), seconds[worker])
    limits = {name: max(_SLOW, _SLOWER * least) for name, least in best.items()}
    return [worker for worker in workers if seconds[worker] <= limits[peers.family(worker.system)]]


def compare_inference(threads: list[int], turns: int, compiled: bool) -> list[dict[str, Any]]:
    """Each system's seconds for one sample, "one", and for 10,000 images, "many", at every thread count, in turns."""
    runs = []
    with Pool() as pool:
        for system in installed(compiled):
            for count in threads if system not in ONE_THREAD else threads[:1]:
                worker = pool.hire(system, count)
                has = worker.call("prepare_predictor")
                runs.append((worker, {"system": system, "threads": count, **{what: [] for what in has}}))
        _say("prediction: all answers agree")
        for turn in range(turns):
            random.Random(turn).shuffle(runs)
            for worker, run in runs:
                for what, seconds in _PREDICTING.items():
                    if what in run:
                        pause()
                        run[what].append(worker.call("time_predictor", what, seconds, _PASSES))
    ranks = {system: rank for rank, system in enumerate(PREDICTORS)}
    found = [run for _, run in runs]
    return sorted(found, key=lambda run: (ranks[run["system"]], run["threads"]))


def describe() -> dict[str, Any]:
    """The machine and the versions."""
    with crew([OURS], [1]) as (worker,):
        machine = worker.call("machine")
    machine["cores"] = os.cpu_count()
    return {
        "machine": machine,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": peers.versions(),
        "absent": peers.absent(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def digest() -> str:
    """Of the source that our kernels are compiled from; asked of a worker, so that this process stays small."""
    with crew([OURS], [1]) as (worker,):
        return worker.call("digest")


def load() -> list[float]:
    """The machine's load averages over 1, 5 and 15 minutes; empty where there are none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="fewer shapes, images and turns: a look, not a measurement"
    )
    parser.add_argument("--out", type=Path, help="write every measurement to this JSON file")
    parser.add_argument("--turns", type=int, help="interleaved turns [default: 7, quick: 3]")
    parser.add_argument("--rounds", type=int, default=3, help="go so often through all cases [default: 3]")
    parser.add_argument("--threads", default="1,2", help="thread counts [default: 1,2, as far as there are cores]")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section only; may be repeated")
    parser.add_argument("--cases", help=f"train these only, and do nothing else, of: {','.join(NAMES)}")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes more")
    chosen = parser.parse_args(arguments)
    if chosen.cases is not None and chosen.only:
        parser.error("--cases and --only: one of the two")
    chosen.cases, chosen.only = _cases(parser, chosen.cases, chosen.only)
    chosen.turns = chosen.turns or (3 if chosen.quick else 7)
    if min(chosen.turns, chosen.rounds) < 1:
        parser.error(f"--turns {chosen.turns}, --rounds {chosen.rounds}: both must be 1 or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen.threads = [count for count in map(int, chosen.threads.split(",")) if count <= cores]
    return chosen


def _cases(
    parser: argparse.ArgumentParser, names: str | None, sections: list[str] | None
) -> tuple[list[Case], list[str]]:
    """The cases to train, and the sections to run."""
    if names is None:
        only = sections or list(SECTIONS)
        return [case for case in CASES if ("cnn" if case.convolutions else "training") in only], only
    unknown = [name for name in names.split(",") if name not in NAMES]
    if unknown:
        parser.error(f"--cases: there is no {', '.join(map(repr, unknown))}; there are {', '.join(NAMES)}")
    return [NAMES[name] for name in dict.fromkeys(names.split(","))], []


def main() -> None:
    """Measure, print, write: where a section fails, those before it, too."""
    chosen = parse()
    aside = {"set_aside": set_aside(), "kernels": [digest()]}
    found = (
        aside | describe() | {"threads": chosen.threads, "turns": chosen.turns, "quick": chosen.quick, "load": [load()]}
    )
    print(report.machine(found), flush=True)
    before = set(found)
    try:
        measure(chosen, found)
    except BaseException as error:
        if set(found) > before:  # else what an earlier run wrote there is worth more
            found["load"].append(load())
            _write(chosen.out, found | {"failed": repr(error)})
        raise
    found["load"].append(load())
    found["kernels"].append(digest())
    _write(chosen.out, found)
    print(report.load(found))


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1))


def measure(chosen: argparse.Namespace, found: dict[str, Any]) -> None:
    """Run the sections that were chosen, printing each, and put what they measured into `found`."""
    if "products" in chosen.only:
        found["products"] = compare_products(chosen.threads, chosen.turns, chosen.quick)
        print(report.products(found["products"]), flush=True)
    if chosen.cases:
        fraction = 5 if chosen.quick else 1
        found["training"] = compare_training(
            chosen.cases, chosen.threads, chosen.turns, fraction, chosen.compile, min(chosen.rounds, chosen.turns)
        )
        print(report.training(found["training"]), flush=True)
    if "inference" in chosen.only:
        found["inference"] = compare_inference(chosen.threads, chosen.turns, chosen.compile)
        print(report.inference(found["inference"]), flush=True)
    if "start" in chosen.only:
        found["start"], found["memory"] = start_up.measure(), footprint.measure()
        print("\n" + start_up.table(found["start"]) + "\n\n" + footprint.table(found["memory"]))


if __name__ == "__main__":
    main()
