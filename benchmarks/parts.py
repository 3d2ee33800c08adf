"""Where an epoch's time goes, on one thread: `python benchmarks/parts.py`, a Markdown table.

The executor's phases are run over a whole epoch as far as each goes, and the differences are the parts. Alone a phase
finds other things in the caches than within a step, so small parts, and what is left over, may come out negative.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import data
import numpy as np
import worker
from cases import NAMES, Case, order
from numba import njit, types
from peers import Kernels

from mlpkernels.kernels.cpu import machine, network, sparse, steps
from mlpkernels.kernels.cpu.borrow import borrow
from mlpkernels.kernels.plan import odd_stride

PARTS = ("gather", "forward", "loss", "input gradients", "weight gradients, update", "the rest")
CASES = ("sgd-8", "sgd-64", "adam-128", "adam-1024", "table")
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


# borrow, as in training: counting references to the arrays would cost 5 µs a step


def _gather(source, order, batch, stride, work):
    source, order, work = borrow(source), borrow(order), borrow(work)
    for at in range(0, order.shape[0], batch):
        network._gather(source, order, at, 0, min(batch, order.shape[0] - at), work.x, stride)


def _rows(phase, kinds, goal, model, source, order, batch, stride, work):
    model, source, order, work = borrow(model), borrow(source), borrow(order), borrow(work)
    T = model.params.dtype.type
    for at in range(0, order.shape[0], batch):
        rows = min(batch, order.shape[0] - at)
        phase(kinds, goal, 0, 0, 0, 1, model, source, order, at, rows, T(rows), stride, 0, work)


def _params(phase, kinds, what, model, optimizer, source, order, batch, stride, work, rate):
    model, optimizer, work = borrow(model), borrow(optimizer), borrow(work)
    source, order = borrow(source), borrow(order)
    T = model.params.dtype.type
    for at in range(0, order.shape[0], batch):
        rows = min(batch, order.shape[0] - at)
        phase(kinds, what, 0, 1, model, optimizer, source, order, at, rows, stride, work, rate, 0.0, T(1))


def loops() -> tuple[Any, Any, Any]:
    """The three loops, compiled for float32 with the phases as function pointers, as training has them."""
    signatures = steps.signatures(types.float32)
    rows, params = signatures["rows_phase"], signatures["params_phase"]
    kinds, i, *_, model, source, taken, _, _, _, _, _, work = rows.args
    optimizer = params.args[5]
    made = {
        _gather: types.void(source, taken, i, i, work),
        _rows: types.void(types.FunctionType(rows), kinds, i, model, source, taken, i, i, work),
        _params: types.void(
            types.FunctionType(params), kinds, i, model, optimizer, source, taken, i, i, work, types.float64
        ),
    }
    gather, forward, update = (njit(signature, **_OPTIONS)(function) for function, signature in made.items())
    return gather, forward, update


def best(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Processor seconds of each call, the least of several interleaved: a busy machine does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            found[name].append(time.process_time() - began)
    return {name: min(times) for name, times in found.items()}


def measure(
    case: Case, images: data.Images, compiled: tuple[Any, Any, Any], repeats: int, skip_zeros: bool
) -> dict[str, float]:
    """Seconds an epoch of each of PARTS, and of "all" as training runs it."""
    gather, rows, params = compiled
    trainer = Kernels(case, images, 1, skip_zeros=skip_zeros)
    model, optimizer, source, work = trainer.model, trainer.optimizer, trainer.source, trainer.work
    rows_phase, params_phase, kinds = steps.phases(np.float32, steps.Uses(sparse=skip_zeros))
    stride, taken = odd_stride(trainer.network.inputs), order(len(images.y), 0)
    sparse.scaled_bytes(source.factor, work.scaled)

    def run_rows(goal: int) -> Callable[[], Any]:
        return lambda: rows(rows_phase, kinds, goal, model, source, taken, case.batch, stride, work)

    def run_params(what: int, rate: float) -> Callable[[], Any]:
        arguments = (model, optimizer, source, taken, case.batch, stride, work, rate)
        return lambda: params(params_phase, kinds, what, *arguments)

    trainer.run(trainer.place(taken))  # compiled, and past the first steps' zero second moments
    seconds = best(
        {
            "gather": lambda: None if skip_zeros else gather(source, taken, case.batch, stride, work),
            "logits": run_rows(network.LOGITS),
            "losses": run_rows(network.LOSSES),
            "deltas": run_rows(network.DELTAS),
            "update": run_params(network.FUSED_UPDATE, 1e-9),
            "all": lambda: trainer.run(trainer.place(taken)),
        },
        repeats,
    )
    parts = {
        "gather": seconds["gather"],
        "forward": seconds["logits"] - seconds["gather"],
        "loss": seconds["losses"] - seconds["logits"],
        "input gradients": seconds["deltas"] - seconds["losses"],
        "weight gradients, update": seconds["update"],
    }
    return parts | {"the rest": seconds["all"] - sum(parts.values()), "all": seconds["all"]}


def rates(case: Case, seconds: dict[str, float], rows: int) -> dict[str, float]:
    """GFLOP/s of the three products."""
    products = [2.0 * rows * inputs * outputs for inputs, outputs in case.pairs]
    flops = {
        "forward": sum(products),
        "input gradients": sum(products[1:]),
        "weight gradients, update": sum(products),
    }
    return {part: count / seconds[part] / 1e9 for part, count in flops.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats, of which the best counts")
    parser.add_argument("--cases", default=",".join(CASES), help="which, by comma: " + ", ".join(NAMES))
    parser.add_argument("--skip-zeros", action="store_true", help="leave out the zeros of uint8 data")
    arguments = parser.parse_args()
    worker.bind(1)
    compiled = loops()
    peaks = [machine.fma_peak() / 1e9]
    first = "zeros left out" if arguments.skip_zeros else "dense first layer"
    print(f"| processor s an epoch, {first} | {' | '.join(PARTS)} | all | GFLOP/s |")
    print("|---" * (len(PARTS) + 3) + "|")
    for name in arguments.cases.split(","):
        case = NAMES[name]
        images = data.load(kind=case.data)
        skips = arguments.skip_zeros and images.x.dtype == np.uint8
        seconds = measure(case, images, compiled, arguments.repeats, skips)
        speed = rates(case, seconds, len(images.y))
        cells = [f"{seconds[part]:.4f}" + (f" ({speed[part]:.0f} GFLOP/s)" if part in speed else "") for part in PARTS]
        total = case.flops * len(images.y) / seconds["all"] / 1e9
        print(f"| {case} | {' | '.join(cells)} | {seconds['all']:.4f} | {total:.0f} |", flush=True)
        peaks.append(machine.fma_peak() / 1e9)
    print(f"\n{machine.cpu_name()}, FMA peak of a core in this run {statistics.median(peaks):.0f} GFLOP/s")


if __name__ == "__main__":
    main()
