"""Where a training step's time goes, by network and batch size: `python benchmarks/parts.py`, a Markdown table.

The executor's phases are run over a whole epoch on one thread, each time with one part more, and the differences are
the parts; "the rest" is what an epoch of training takes more. Beside them: the time that the step's multiply-adds would
take at the measured peak of a core, and an epoch on two threads with what each of them waits for the other.

Labels are asked for ahead where deltas are wanted: "loss" has what waiting for them costs without, "backward" lacks it.
And only there a wide first layer is summed in halves: what that costs one thread is in "backward", too.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import data
import numpy as np
from cases import NAMES, Case, order
from numba import njit, types
from peers import Kernels

from mlpkernels.kernels.cpu import machine, network, steps, team, verbs
from mlpkernels.kernels.cpu.addresses import phases_at
from mlpkernels.kernels.cpu.borrow import borrow
from mlpkernels.kernels.cpu.gather import gather
from mlpkernels.kernels.cpu.held import Call, hold
from mlpkernels.kernels.cpu.jit import OPTIONS
from mlpkernels.kernels.cpu.simd import pointer_to
from mlpkernels.kernels.plan import OptimizerState, odd_stride

PARTS = (
    "gather", "layer 1 forward", "others forward", "loss", "backward", "layer 1 gradient, update",
    "others gradient, update", "the rest",
)  # fmt: skip
_RATE = 1e-9  # of the updates that are timed again and again: they hardly move the parameters


def _gather(source, order, batch, count, stride, work):
    source, order, work = borrow(source), borrow(order), borrow(work)
    for at in range(0, order.shape[0], batch):
        rows = min(batch, order.shape[0] - at)
        gather(source, order, at, rows, 0, rows, 0, count, work.x, stride)


def _steps(functions, goal, model, updated, optimizer, source, order, batch, stride, work):
    """An epoch's rows as far as a goal, a batch's followed by an update of `updated`'s layers: all, one, none."""
    like = pointer_to(model.params, 0)
    rows_phase, params_phase, kinds = phases_at(pointer_to(functions, 1), like)
    model, updated, source, work, order = borrow(model), borrow(updated), borrow(source), borrow(work), borrow(order)
    step = order[:1].copy()
    own = borrow(OptimizerState(optimizer.settings, step, optimizer.first, optimizer.second))
    call, T = hold("Call", Call(kinds, model, source, order, work, stride), like), model.params.dtype.type
    fewer = hold("Call", Call(kinds, updated, source, order, work, stride), like)
    state = hold("OptimizerState", own, like)
    for at in range(0, order.shape[0], batch):
        rows = min(batch, order.shape[0] - at)
        rows_phase(call, goal, 0, 0, 0, 1, at, rows, T(rows), 0)
        if updated.plan.shape[0] > 0:
            params_phase(fewer, state, network.FUSED_UPDATE, 0, 1, at, rows, _RATE, 0.0, T(1))
        step[0] += 1


def loops() -> tuple[Any, Any]:
    """The two loops, compiled for float32, with the phases behind addresses as training has them."""
    made = steps.signatures(types.float32)
    functions, *_, model, source, taken, i, work, _, _, _ = made["infer"].args
    optimizer = made["train"].args[6]
    signatures = {
        _gather: types.void(source, taken, i, i, i, work),
        _steps: types.void(functions, i, model, model, optimizer, source, taken, i, i, work),
    }
    bring, run = (njit(signature, **OPTIONS)(function) for function, signature in signatures.items())
    return bring, run


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each call, medians of several interleaved, after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = perf_counter()
            call()
            if repeat > 0:
                found[name].append(perf_counter() - began)
    return {name: statistics.median(times) for name, times in found.items()}


def measure(
    case: Case, images: data.Images, compiled: tuple[Any, Any], repeats: int, skip_zeros: bool
) -> dict[str, float]:
    """Seconds an epoch of each of PARTS on one thread, of "all" as training runs it, and of "two" threads."""
    bring, steps_of = compiled
    trainer, pair = (Kernels(case, images, threads, skip_zeros=skip_zeros) for threads in (1, 2))
    model, source, work, optimizer = trainer.model, trainer.source, trainer.work, trainer.optimizer
    functions = steps.functions(model.params.dtype, steps.Uses(sparse=skip_zeros), "train")
    none, first = (model._replace(plan=model.plan[:count]) for count in (0, 1))  # layers, in the same workspace
    inputs, taken = trainer.network.inputs, order(len(images.y), 0)
    stride = odd_stride(inputs)
    np.multiply(np.arange(256), source.factor, out=work.scaled, dtype=work.scaled.dtype)

    def run(goal: int, layers: Any, updated: Any = none) -> Callable[[], Any]:
        return lambda: steps_of(functions, goal, layers, updated, optimizer, source, taken, case.batch, stride, work)

    seconds = medians(
        {
            "all": lambda: trainer.run(trainer.place(taken)),
            "gather": lambda: None if skip_zeros else bring(source, taken, case.batch, inputs, stride, work),
            "first": run(network.LOGITS, first),
            "logits": run(network.LOGITS, model),
            "losses": run(network.LOSSES, model),
            "deltas": run(network.DELTAS, model),
            "first update": run(network.DELTAS, model, first),
            "update": run(network.DELTAS, model, model),
            "two": lambda: pair.run(pair.place(taken)),
        },
        repeats,
    )
    ends = ("gather", "first", "logits", "losses", "deltas", "first update", "update", "all")
    values = [seconds["gather"], *(seconds[b] - seconds[a] for a, b in itertools.pairwise(ends))]
    return dict(zip(PARTS, values, strict=True)) | {"all": seconds["all"], "two": seconds["two"]}


def waits(case: Case, images: data.Images, skip_zeros: bool, repeats: int) -> float:
    """Seconds of an epoch on two threads in which a thread waits for the other, mean of both; median of several.

    nan where the machine let the call have no second thread. The threads have equal shares: who moves them counts anew.
    """
    trainer, crews, make, found = Kernels(case, images, 2, skip_zeros=skip_zeros), [], team.make, []
    trainer.work = trainer.work._replace(shares=np.zeros(0, np.int64))
    verbs.team.make = lambda members: crews.append(make(members)) or crews[-1]
    try:
        for _ in range(repeats + 1):
            trainer.run(trainer.place(order(len(images.y), 0)))
    finally:
        verbs.team.make = make
    for crew in crews[1:]:
        if crew[team.SIZE] == 2:
            members = crew[team.STEPS :].reshape(2, team.LINE)
            found.append(members[:, team.WAITED - team.STEPS :].sum() / 2 / 1e9)
    return statistics.median(found) if found else float("nan")


def multiply_adds(case: Case, images: data.Images, skip_zeros: bool) -> float:
    """Of an epoch's products: of the first layer's those with a zero left out, where zeros are skipped."""
    zeros = images.x.size - np.count_nonzero(images.x) if skip_zeros else 0
    return case.flops * len(images.y) / 2 - 2.0 * zeros * case.pairs[0][1]  # forward, and in the gradient


def main() -> None:
    """Measure and print."""
    dense = [name for name, case in NAMES.items() if not case.convolutions]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats, whose medians count [default: 7]")
    parser.add_argument("--cases", default=",".join(dense), help="which, by comma [default: all dense networks]")
    parser.add_argument("--dense", action="store_true", help="leave no zeros out")
    arguments = parser.parse_args()
    names = arguments.cases.split(",")
    unknown = [name for name in names if name not in dense]
    if unknown:
        parser.error(f"--cases: {', '.join(map(repr, unknown))} is none of {', '.join(dense)}")
    compiled, peaks = loops(), [machine.fma_peak()]
    print(f"| µs a step | {' | '.join(PARTS)} | a step | its multiply-adds at the peak | on two threads | waiting |")
    print("|---" * (len(PARTS) + 5) + "|")
    for name in names:
        case = NAMES[name]
        images = data.load(case.kind.rows, case.data)
        skips = images.x.dtype == np.uint8 and not arguments.dense and Kernels(case, images, 1).source.skip_zeros
        seconds = measure(case, images, compiled, arguments.repeats, skips)
        peaks.append(machine.fma_peak())
        seconds["least"] = 2 * multiply_adds(case, images, skips) / statistics.median(peaks)
        seconds["waits"] = waits(case, images, skips, arguments.repeats)
        steps_there, shown = -(-len(images.y) // case.batch), (*PARTS, "all", "least", "two", "waits")
        cells = [f"{1e6 * seconds[part] / steps_there:.3g}" for part in shown]
        print(f"| {case}{', zeros left out' if skips else ''} | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine.cpu_name()}, FMA peak of a core in this run {statistics.median(peaks) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
