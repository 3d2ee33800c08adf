"""How much memory training takes at most, beside PyTorch where it is installed: `python benchmarks/footprint.py`.

Each figure comes from a process of its own.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any

# How PyTorch's process holds the images: as people do, and as little of them as it can.
PYTORCH = {"floats": "images as floats", "bytes": "images as bytes, scaled by batch"}


def measure() -> dict[str, Any]:
    """Peak memory of training on MNIST, of the imports alone and of PyTorch's training; seconds of our epochs."""
    _child("epoch")  # it may compile, which takes memory of its own
    trained, imports = _child("epoch"), _child("imports")
    peers = {} if importlib.util.find_spec("torch") is None else {what: _child(what) for what in PYTORCH}
    return {
        "imports_megabytes": imports["megabytes"],
        "epoch_megabytes": trained["megabytes"],
        "fit_seconds": trained["fit_seconds"],
        "data": trained["data"],
        "pytorch_megabytes": {what: child["megabytes"] for what, child in peers.items()},
    }


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| {name} | {value} |" for name, value in figures(found)]
    return "\n".join(["| memory | |", "|---|---|", *lines])


def figures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what was measured, the figure), of what `measure` found."""
    fit = ", ".join(f"{seconds:.3f}" for seconds in found["fit_seconds"])
    ours = found["epoch_megabytes"]
    rows = [
        (f"peak memory of fit(), {found['data']}, with evaluation", f"{ours:.0f} MB"),
        ("of that, importing click, rich and Numba and one cached call", f"{found['imports_megabytes']:.0f} MB"),
    ]
    for what, megabytes in found["pytorch_megabytes"].items():
        rows.append(
            (f"PyTorch's doing the same, {PYTORCH[what]}", f"{megabytes:.0f} MB, {megabytes / ours:.2f} times ours")
        )
    return [*rows, ("seconds of its epochs, 784-128-128-10 Adam 128, by fit()", fit)]


def _child(task: str) -> dict[str, Any]:
    """Run a task in a new process; its report."""
    done = subprocess.run([sys.executable, __file__, task], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0 or not done.stdout:
        raise RuntimeError(f"{task}: its process ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout))


# ---- the children


def _imports() -> dict[str, Any]:
    """What every command of the kind has to pay: its imports and one compiled function from the cache."""
    import click  # noqa: F401
    import rich.progress  # noqa: F401
    from numba import njit

    @njit(cache=True)
    def double(x):
        return x + x

    double(1.0)
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
        "imports": _imports, "epoch": _epoch, "floats": lambda: _pytorch(True),
        "bytes": lambda: _pytorch(False),
    }  # fmt: skip
    if len(sys.argv) > 1:
        report = tasks[sys.argv[1]]()
        print(json.dumps({**report, "megabytes": _megabytes()}), flush=True)
    else:
        print(table(measure()))
