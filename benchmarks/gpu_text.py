"""The GPU report as Markdown, from its JSON: every figure beside what limits it, and the goals beside it."""

from statistics import median
from typing import Any

_NONE = "\u2013"  # where nothing was measured
CASE, SHAPE = "adam-128", (4096, 4096, 4096)  # what the goals are of, on an H200
EPOCH, EAGER, GRAPHS, BLAS_SHARE = 5e-3, 20, 2, 0.6


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    title = "simulated: nothing is timed" if report["simulated"] else "measured on the device"
    lines = [f"# The CUDA backend, {report['date']} ({title})", "", f"Python {report['python']}, {report['system']}."]
    lines.append(f"{', '.join(' '.join(pair) for pair in report['versions'].items())}.")
    if report["absent"]:
        lines.append(f"Not compared: {', '.join(report['absent'])}.")
    for package, found in report["packages"].items():
        lines += ["", f"## {package}", ""]
        lines += [f"Failed: {found['failed']}", ""] if "failed" in found else []
        lines += _package(found, report["peers"]) if "facts" in found else []
    lines += [
        f"{name}: not compared with our answers, which are missing: {', '.join(peer['unchecked'])}."
        for name, peer in report["peers"].items() if peer.get("unchecked")
    ]  # fmt: skip
    lines += [f"{name} failed: {peer['failed']}" for name, peer in report["peers"].items() if "failed" in peer]
    return "\n".join([*lines, ""])


def _package(found: dict[str, Any], peers: dict[str, Any]) -> list[str]:
    limits = found["limits"] or {"bandwidth": None, "flops": None}
    adam, parity = (found["adam"] or {}).get("bandwidth"), found["parity"] or {}
    lines = [f"- FAILED, {name}: {why}" for name, why in found["failures"].items()]
    for row in found["epochs"] or []:
        lines += [f"- FAILED, {row['case']}: {row[key]}" for key in row if key.endswith(" failed")]
    lines += [f"- {name}: {value}" for name, value in (found["facts"] or {}).items()]
    lines += [f"- test suite: {found['suite']}", f"- data: {found['data']}"]
    if parity:
        worst = max(parity, key=lambda name: parity[name])
        lines.append(f"- farthest from the reference in float64: {parity[worst]:.2e} ({worst})")
    same = {True: "yes", False: "NO", None: _NONE}[found["same bits twice"]]
    lines += [
        f"- the same bits from run to run: {same}",
        f"- copying on the GPU: {_per(limits['bandwidth'], 1e9)} GB/s read and written",
        f"- float32 multiply-adds: {_per(limits['flops'], 1e12)} TFLOP/s",
        f"- one grid barrier: {_per(found['barrier'], 1e-6)} µs",
        f"- adam_step: {_per(adam, 1e9)} GB/s, {_share(adam, limits['bandwidth'])} of the copy's",
    ]
    return lines + _products(found, limits["flops"], peers) + _epochs(found, peers) + _goals(found, peers)


def _products(found: dict[str, Any], peak: float | None, peers: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "| dense_forward (m, k, n) | µs | TFLOP/s | of the multiply-add peak | of cuBLAS |",
        "|---|---|---|---|---|",
    ]
    blas = _blas(peers)
    for row in found["products"] or []:
        cells = [
            str(tuple(row["shape"])), _per(row["seconds"], 1e-6), _per(row["flops"], 1e12), _share(row["flops"], peak),
            _share(row["flops"], blas.get(tuple(row["shape"]))),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _blas(peers: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """cuBLAS's operations a second, by shape."""
    return {tuple(row["shape"]): row["flops"] for row in peers.get("cuBLAS through CuPy", {}).get("products", [])}


def _goals(found: dict[str, Any], peers: dict[str, Any]) -> list[str]:
    """What an H200 is to reach beside what was found, and beside the epoch what its barriers alone take."""
    row = next((row for row in found["epochs"] or [] if row["case"] == CASE), None)
    ours = median(row["one launch"]) if row and row["one launch"] else None
    times = {}
    for name in ("PyTorch", "PyTorch, CUDA graphs"):
        theirs = peers.get(name, {}).get("epochs", {}).get(CASE)
        times[name] = f"{median(theirs) / ours:.1f}" if theirs and ours else _NONE
    large = next((row["flops"] for row in found["products"] or [] if tuple(row["shape"]) == SHAPE), None)
    share = _share(large, _blas(peers).get(SHAPE))
    return [
        "",
        "| goal, on an H200 | wanted | found |",
        "|---|---|---|",
        f"| an epoch of {CASE} | {_per(EPOCH, 1e-3)} ms or less | {_per(ours, 1e-3)} ms; its barriers alone "
        f"{_per(_floor(row, found['barrier']), 1e-3)} ms |",
        f"| times PyTorch eager | {EAGER} or more | {times['PyTorch']} |",
        f"| times PyTorch under CUDA graphs | {GRAPHS} or more | {times['PyTorch, CUDA graphs']} |",
        f"| a product {SHAPE} of cuBLAS's float32 | {BLAS_SHARE:.0%} or more | {share} |",
    ]


def _floor(row: dict[str, Any] | None, barrier: float | None) -> float | None:
    """Seconds of an epoch's phases if each cost its grid barrier and nothing else."""
    return barrier and row and barrier * row["phases of a step"] * row["steps"]


def _epochs(found: dict[str, Any], peers: dict[str, Any]) -> list[str]:
    systems = [name for name in peers if "epochs" in peers[name]]
    header = [
        "epoch",
        "ms, one launch",
        "ms, a launch a phase",
        "floor, ms",
        *(f"{name}, times ours" for name in systems),
    ]
    lines = ["", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in found["epochs"] or []:
        ours = row["one launch"] and median(row["one launch"])
        floor = _floor(row, found["barrier"])
        cells = [row["told"], _per(ours, 1e-3), _per(row["phases"] and median(row["phases"]), 1e-3), _per(floor, 1e-3)]
        for name in systems:
            theirs = peers[name]["epochs"].get(row["case"])
            cells.append(f"{median(theirs) / ours:.1f}" if theirs and ours else _NONE)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "The floor is the phases of all steps times one grid barrier."]


def _per(value: float | None, unit: float) -> str:
    return _NONE if value is None else f"{value / unit:.3g}"


def _share(value: float | None, whole: float | None) -> str:
    return _NONE if not value or not whole else f"{100 * value / whole:.0f} %"
