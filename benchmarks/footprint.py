"""What training costs beside its steps: seconds from a process's start to its first step, and peak memory.

`python benchmarks/footprint.py` prints both, and PyTorch's memory where it is installed. Each figure comes from
processes of their own.
"""

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

WARM_STARTS = 5
# How PyTorch's process holds the images: as people do, and as little of them as it can.
PYTORCH = {"floats": "images as floats", "bytes": "images as bytes, scaled by batch"}


def measure() -> dict[str, Any]:
    """Seconds to the first step, cold (empty compile cache), warm, and of bare imports; memory of training on MNIST."""
    with tempfile.TemporaryDirectory() as folder:
        cold = _child("first-step", folder)["seconds"]
        warm, bare = [], []
        _child("imports", folder)  # fills the cache with its one function
        for _ in range(WARM_STARTS):
            bare.append(_child("imports", folder)["seconds"])
            warm.append(_child("first-step", folder)["seconds"])
        trained = _child("epoch", folder)
        imports = _child("imports", folder)
        peers = {} if importlib.util.find_spec("torch") is None else {what: _child(what, folder) for what in PYTORCH}
    return {
        "cold_seconds": cold,
        "warm_seconds": warm,
        "imports_seconds": bare,
        "imports_megabytes": imports["megabytes"],
        "epoch_megabytes": trained["megabytes"],
        "fit_seconds": trained["fit_seconds"],
        "data": trained["data"],
        "pytorch_megabytes": {what: child["megabytes"] for what, child in peers.items()},
    }


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| {name} | {value} |" for name, value in figures(found)]
    return "\n".join(["| start and memory | |", "|---|---|", *lines])


def figures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what was measured, the figure), of what `measure` found."""
    warm, bare = statistics.median(found["warm_seconds"]), statistics.median(found["imports_seconds"])
    fit = ", ".join(f"{seconds:.3f}" for seconds in found["fit_seconds"])
    ours = found["epoch_megabytes"]
    rows = [
        (
            "from a process's start to its first step (digits, 64-128-128-10, all cores), compile cache empty",
            f"{found['cold_seconds']:.1f} s",
        ),
        (f"the same, cache filled, median of {WARM_STARTS}", f"{warm:.2f} s"),
        (
            "importing click, rich and Numba and one cached call",
            f"{bare:.2f} s; the warm start is {warm - bare:.2f} s above",
        ),
        (f"peak memory of fit(), {found['data']}, with evaluation", f"{ours:.0f} MB"),
        ("of that, the same imports alone", f"{found['imports_megabytes']:.0f} MB"),
    ]
    for what, megabytes in found["pytorch_megabytes"].items():
        rows.append(
            (f"PyTorch's doing the same, {PYTORCH[what]}", f"{megabytes:.0f} MB, {megabytes / ours:.2f} times ours")
        )
    return [*rows, ("seconds of its epochs, 784-128-128-10 Adam 128, by fit()", fit)]


def _child(task: str, folder: str) -> dict[str, Any]:
    """Run a task in a new process with that compile cache; its report, and the seconds until it came."""
    environment = os.environ | {"NUMBA_CACHE_DIR": folder, "MLPK_CACHE": "1"}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, __file__, task], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
    if process.returncode != 0 or not line:
        raise RuntimeError(f"{task}: its process ended with exit code {process.returncode}")
    return {"seconds": seconds, **json.loads(line)}


# ---- the children


def _command_line() -> None:
    """What a command imports before it does anything."""
    import click  # noqa: F401
    import rich.progress  # noqa: F401


def _imports() -> dict[str, Any]:
    """What every command of the kind has to pay: its imports and one compiled function from the cache."""
    _command_line()
    from numba import njit

    @njit(cache=True)
    def double(x):
        return x + x

    double(1.0)
    return {}


def _first_step() -> dict[str, Any]:
    """Load the digits and train until the first step is done."""
    _command_line()
    from mlpkernels import Adam, Dense, Network, Scaling, fit
    from mlpkernels.datasets import load

    class Done(Exception):
        pass

    def stop(progress: Any) -> None:
        raise Done

    digits = load("digits")
    network = Network([Dense(128, "relu"), Dense(128, "relu"), Dense(len(digits.classes))], digits.shape)
    network.scaling = Scaling.fit("unit", digits.train.x, digits.full_scale, digits.images)
    with contextlib.suppress(Done):
        list(fit(network, digits.train, optimizer=Adam(), on_progress=stop))
    return {}


def _epoch() -> dict[str, Any]:
    """Two epochs on MNIST, or images of its shape, with an evaluation after each."""
    import data

    from mlpkernels import Adam, Dense, Network, Scaling, fit
    from mlpkernels.datasets import Part

    images = data.load()
    part = Part(images.x, images.y)
    layers = [Dense(128, "relu"), Dense(128, "relu"), Dense(data.CLASSES)]
    network = Network(layers, data.WIDTH, scaling=Scaling("unit", 1 / 255, 0.0))
    test = Part(images.x[:10_000], images.y[:10_000])
    results = fit(network, part, test=test, epochs=2, batch_size=128, optimizer=Adam())
    return {"fit_seconds": [result.seconds for result in results], "data": images.source}


def _pytorch(floats: bool) -> dict[str, Any]:
    """The same two epochs and evaluations by PyTorch eager."""
    import data
    import torch

    images = data.load()
    y = torch.from_numpy(images.y).long()
    x = torch.from_numpy(images.floats()) if floats else torch.from_numpy(images.x)

    def rows(chosen: Any) -> Any:
        return x[chosen] if floats else x[chosen].float().div_(255)

    nn = torch.nn
    network = nn.Sequential(
        nn.Linear(data.WIDTH, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, data.CLASSES)
    )
    optimizer, right = torch.optim.Adam(network.parameters(), fused=True), []
    for _ in range(2):
        for chosen in torch.randperm(len(y)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(rows(chosen)), y[chosen]).backward()
            optimizer.step()
        with torch.inference_mode():
            chunks = torch.arange(10_000).split(1000)
            right.append(sum(int((network(rows(chunk)).argmax(1) == y[chunk]).sum()) for chunk in chunks))
    if right[-1] < 9000:
        raise RuntimeError(f"PyTorch had {right[-1]} of 10,000 images right: it did not train")
    return {}


def _megabytes() -> float:
    """The most memory this process has had."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    tasks = {
        "imports": _imports, "first-step": _first_step, "epoch": _epoch, "floats": lambda: _pytorch(True),
        "bytes": lambda: _pytorch(False),
    }  # fmt: skip
    if len(sys.argv) > 1:
        report = tasks[sys.argv[1]]()
        print(json.dumps({**report, "megabytes": _megabytes()}), flush=True)
    else:
        print(table(measure()))
