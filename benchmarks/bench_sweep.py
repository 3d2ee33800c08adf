"""A study of many networks, side by side and one after another: `python benchmarks/bench_sweep.py [--quick]`.

The study: 784-64-64-10 on MNIST scaled to [-1, 1], SGD 0.1, eight batch sizes, tested after every epoch. Ours is
`mlpkernels.sweep` on one core and on all; PyTorch eager trains the same networks one after another, data in memory, at
every thread count. Each turn of each system is a process of its own, in another succession each time; all train from
the same weights in the same orders, and their answers are compared before they are timed. Prints Markdown; the JSON
has every measurement. Where "cores busy" is well below the cores, other programs had them: measure again.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from worker import bind, cpus, pause, set_aside

from mlpkernels import SGD, Dense, Network, Scaling, datasets, fit, seeds
from mlpkernels.datasets import Part
from mlpkernels.sweep import grid, sweep

BATCHES = (8, 16, 32, 48, 64, 90, 128, 150)
HIDDEN, CLASSES, RATE = 64, 10, 0.1
OURS, TORCH = "mlpkernels", "PyTorch"
_CHECKED_ROWS = 1600  # of the comparison of answers: 25 to 200 steps
# Both sum in float32, in another order: parameters drift apart by a share of the way they have moved.
_APART = 2e-2

Parts = tuple[Part, Part]


def load(rows: int | None) -> Parts:
    """The first `rows` training images of MNIST (None: all of them), and its test images."""
    data = datasets.load("mnist", offline=True)
    assert data.test is not None
    return Part(data.train.x[:rows], data.train.y[:rows]), data.test


def network(seed: int = 0) -> Network:
    """The study's network with its first weights."""
    layers = [Dense(HIDDEN, "relu"), Dense(HIDDEN, "relu"), Dense(CLASSES)]
    scaling = Scaling("symmetric", 2 / 255, -1.0)
    return Network(layers, (1, 28, 28), init="glorot-uniform", seed=seed, scaling=scaling)


# ---- the systems: each trains all batch sizes, yields nothing, returns {batch size: (test accuracies, parameters)}


class Ours:
    """`sweep`, so many networks side by side."""

    def __init__(self, parts: Parts, threads: int) -> None:
        self.parts, self.threads = parts, threads
        few = Part(parts[0].x[:64], parts[0].y[:64])
        list(fit(network(), few, test=few, epochs=1, batch_size=8, threads=1))  # the kernels are loaded

    def study(self, epochs: int) -> dict[int, tuple[list[float], dict[str, np.ndarray]]]:
        def make(batch_size: int) -> tuple[Network, dict[str, Any]]:
            train, test = self.parts
            return network(), {
                "train": train, "test": test, "epochs": epochs, "batch_size": batch_size, "optimizer": SGD(RATE),
            }  # fmt: skip

        found: dict[int, tuple[list[float], dict[str, np.ndarray]]] = {}
        for row in sweep(make, grid(batch_size=BATCHES), workers=self.threads):
            assert row.result is not None and row.result.test_accuracy is not None
            accuracies = found.setdefault(row.settings["batch_size"], ([], {}))[0]
            accuracies.append(row.result.test_accuracy)
            if row.status == "finished":
                found[row.settings["batch_size"]] = accuracies, row.network.state_dict()
        return found


class Torch:
    """PyTorch eager: images as floats in memory, a batch by index_select, its fused SGD."""

    def __init__(self, parts: Parts, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.rows = torch, len(parts[0])
        scaled = [torch.from_numpy(part.x.astype(np.float32) * np.float32(2 / 255) - 1) for part in parts]
        self.x, self.test_x = scaled
        self.y, self.test_y = (torch.from_numpy(part.y.astype(np.int64)) for part in parts)
        self._train(64, 1, steps=20)  # its threads are started

    def study(self, epochs: int) -> dict[int, tuple[list[float], dict[str, np.ndarray]]]:
        return {batch: self._train(batch, epochs) for batch in BATCHES}

    def _train(self, batch: int, epochs: int, steps: int | None = None) -> tuple[list[float], dict[str, np.ndarray]]:
        torch, nn = self.torch, self.torch.nn
        model = nn.Sequential(
            nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
        )
        model.load_state_dict({name: torch.from_numpy(value) for name, value in network().state_dict().items()})
        optimizer = torch.optim.SGD(model.parameters(), RATE, fused=True)
        accuracies = []
        for order in self._orders(epochs):
            for start in range(0, self.rows if steps is None else min(steps * batch, self.rows), batch):
                rows = order[start : start + batch]
                logits = model(self.x.index_select(0, rows))
                loss = nn.functional.cross_entropy(logits, self.y.index_select(0, rows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                right = (model(self.test_x).argmax(1) == self.test_y).sum()
            accuracies.append(float(right) / len(self.test_y))
        return accuracies, {name: value.numpy() for name, value in model.state_dict().items()}

    def _orders(self, epochs: int) -> Iterator[Any]:
        """The orders in which `fit` takes the rows with seed 0."""
        generator = seeds.generator(0, seeds.ORDER)
        for _ in range(epochs):
            yield self.torch.from_numpy(generator.permutation(self.rows))


SYSTEMS = {OURS: Ours, TORCH: Torch}


# ---- the child: one system at one thread count, one turn


def child(system: str, threads: int, epochs: int, rows: int | None, answers: str | None) -> None:
    """Run the study once, and print its seconds and accuracies as JSON; `answers`: a file for the parameters."""
    bind(threads)
    trainer: Any = SYSTEMS[system](load(rows), threads)
    pause()
    began, busy = time.perf_counter(), time.process_time()
    found = trainer.study(epochs)
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    if answers is not None:
        arrays = {f"{batch}:{name}": value for batch, (_, state) in found.items() for name, value in state.items()}
        np.savez(answers, **arrays)
    accuracies = {str(batch): accuracy for batch, (accuracy, _) in sorted(found.items())}
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "accuracies": accuracies}))


def ask(system: str, threads: int, epochs: int, rows: int | None, answers: Path | None = None) -> dict[str, Any]:
    """What a child printed. RuntimeError where it failed."""
    words = [sys.executable, __file__, "--child", system, "--threads", str(threads), "--epochs", str(epochs)]
    words += ["--rows", str(rows)] if rows is not None else []
    words += ["--answers", str(answers)] if answers is not None else []
    count = str(threads)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), count)
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{system} on {threads} threads failed\n{done.stderr}")
    reply: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reply


# ---- the comparison


def check(runs: list[tuple[str, int]], folder: Path) -> dict[str, float]:
    """Train every system on a few rows: AssertionError where parameters differ from ours by more than rounding."""
    apart = {}
    start = network().state_dict()
    files = {run: folder / f"{run[0]}-{run[1]}.npz" for run in runs}
    for (system, threads), file in files.items():
        ask(system, threads, 1, _CHECKED_ROWS, file)
    ours = np.load(files[runs[0]])
    for (system, threads), file in files.items():
        theirs, worst = np.load(file), 0.0
        for batch in BATCHES:
            moved = _norm({name: ours[f"{batch}:{name}"] - value for name, value in start.items()})
            between = _norm({name: ours[f"{batch}:{name}"] - theirs[f"{batch}:{name}"] for name in start})
            worst = max(worst, between / moved)
        apart[f"{system} {threads}"] = worst
        if not worst <= (_APART if system != OURS else 0.0):
            raise AssertionError(f"{system} on {threads} threads trains otherwise than we do: {worst:.3g} of the way")
    return apart


def _norm(arrays: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(array.astype(np.float64)).sum() for array in arrays.values())))


def measure(runs: list[tuple[str, int]], turns: int, epochs: int, rows: int | None) -> dict[str, list[Any]]:
    """Every turn of every system."""
    taken: dict[str, list[Any]] = {f"{system} {threads}": [] for system, threads in runs}
    for turn in range(turns):
        order = list(runs)
        random.Random(turn).shuffle(order)
        for system, threads in order:
            pause()
            taken[f"{system} {threads}"].append(ask(system, threads, epochs, rows))
        print(f"… turn {turn + 1} of {turns}", file=sys.stderr, flush=True)
    return taken


def report(taken: dict[str, list[Any]], epochs: int) -> str:
    """The table, and the two ratios that matter, each with its least and most of the turns."""
    lines = [f"{len(BATCHES)} networks, {epochs} epochs each:", "", "| system | seconds | cores busy | accuracy % |"]
    lines.append("|---|---|---|---|")
    seconds = {name: [turn["seconds"] for turn in turns] for name, turns in taken.items()}
    for name, turns in taken.items():
        busy = statistics.median(turn["processor_seconds"] / turn["seconds"] for turn in turns)
        accuracy = statistics.fmean(accuracies[-1] for accuracies in turns[0]["accuracies"].values())
        system, threads = name.rsplit(" ", 1)
        label = f"{system}, {threads} {'side by side' if system == OURS else 'thread' + 's' * (threads != '1')}"
        lines.append(f"| {label} | {_spread(seconds[name])} | {busy:.2f} | {100 * accuracy:.2f} |")
    ours = sorted((name for name in seconds if name.startswith(OURS)), key=lambda name: int(name.split()[-1]))
    theirs = [name for name in seconds if name.startswith(TORCH)]
    if len(ours) > 1:
        lines += ["", f"{ours[-1].split()[-1]} cores against one: {_ratio(seconds[ours[0]], seconds[ours[-1]])}"]
    if ours and theirs:
        best = min(theirs, key=lambda name: statistics.median(seconds[name]))
        names = f"PyTorch on {best.split()[-1]}, its better number of threads, against ours on {ours[-1].split()[-1]}"
        lines += ["", f"{names}: {_ratio(seconds[best], seconds[ours[-1]])}"]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}…{max(values):.2f})"


def _ratio(above: list[float], below: list[float]) -> str:
    """How many times as long, turn by turn."""
    return _spread([a / b for a, b in zip(above, below, strict=True)])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, 2 turns: a look, no measurement")
    parser.add_argument("--epochs", type=int, default=2, help="of each network [default: 2]")
    parser.add_argument("--turns", type=int, help="[default: 5, quick: 2]")
    parser.add_argument("--only", choices=(OURS, TORCH), help="measure one system alone")
    parser.add_argument("--out", type=Path, help="write every measurement to this JSON file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--answers", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Check, measure, print, write."""
    import importlib.util
    import tempfile

    chosen = parse()
    if chosen.child:
        child(chosen.child, chosen.threads, chosen.epochs, chosen.rows, chosen.answers)
        return
    aside = set_aside()
    counts = sorted({1, len(cpus()) or os.cpu_count() or 1})
    systems = [OURS, *([TORCH] if importlib.util.find_spec("torch") else [])]
    systems = [chosen.only] if chosen.only else systems
    runs = [(system, count) for system in systems for count in counts]
    with tempfile.TemporaryDirectory() as folder:
        apart = check(runs, Path(folder))
    print(f"… all answers agree: {apart}", file=sys.stderr, flush=True)
    rows = 6000 if chosen.quick else None
    taken = measure(runs, chosen.turns or (2 if chosen.quick else 5), chosen.epochs, rows)
    print(report(taken, chosen.epochs))
    if chosen.out:
        found = {"set_aside": aside, "apart": apart, "epochs": chosen.epochs, "turns": taken}
        chosen.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
