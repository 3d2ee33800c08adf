"""The GPU report as Markdown, from its JSON: every figure beside what limits it, and the goals that were missed."""

from statistics import median
from typing import Any

_NONE = "\u2013"  # where nothing was measured
GOALS = (  # of the case adam-128, on an H200
    "an epoch of MNIST in 5 ms or less; at least 20 times PyTorch eager and 2 times PyTorch under CUDA graphs; a "
    "4096 x 4096 x 4096 product at 60 % of cuBLAS's float32"
)


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    title = "simulated: nothing is timed" if report["simulated"] else "measured on the device"
    lines = [f"# The CUDA backend, {report['date']} ({title})", "", f"Python {report['python']}, {report['system']}."]
    if report["absent"]:
        lines.append(f"Not compared: {', '.join(report['absent'])}.")
    for package, found in report["packages"].items():
        lines += ["", f"## {package}", ""]
        lines += [f"Failed: {found['failed']}"] if "failed" in found else _package(found, report["peers"])
    lines += ["", f"Goals: {GOALS}.", ""]
    return "\n".join(lines)


def _package(found: dict[str, Any], peers: dict[str, Any]) -> list[str]:
    limits, barrier, adam = found["limits"], found["barrier"], found["adam"]["bandwidth"]
    worst = max(found["parity"], key=lambda name: found["parity"][name])
    lines = [f"- {name}: {value}" for name, value in found["facts"].items()]
    lines += [
        f"- test suite: {found['suite']}",
        f"- data: {found['data']}",
        f"- farthest from the reference in float64: {found['parity'][worst]:.2e} ({worst})",
        f"- the same bits from run to run: {'yes' if found['same bits twice'] else 'NO'}",
        f"- copying on the GPU: {_per(limits['bandwidth'], 1e9)} GB/s read and written",
        f"- float32 multiply-adds: {_per(limits['flops'], 1e12)} TFLOP/s",
        f"- one grid barrier: {_per(barrier, 1e-6)} µs",
        f"- adam_step: {_per(adam, 1e9)} GB/s, {_share(adam, limits['bandwidth'])} of the copy's",
        "",
        "| dense_forward (m, k, n) | µs | TFLOP/s | of the multiply-add peak | of cuBLAS |",
        "|---|---|---|---|---|",
    ]
    blas = {tuple(row["shape"]): row["flops"] for row in peers.get("cuBLAS through CuPy", {}).get("products", [])}
    for row in found["products"]:
        cells = [
            str(tuple(row["shape"])), _per(row["seconds"], 1e-6), _per(row["flops"], 1e12),
            _share(row["flops"], limits["flops"]), _share(row["flops"], blas.get(tuple(row["shape"]))),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines + _epochs(found, peers)


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
    for row in found["epochs"]:
        barriers = row["phases of a step"] * row["steps"]
        ours = row["one launch"] and median(row["one launch"])
        floor = found["barrier"] and found["barrier"] * barriers
        cells = [row["told"], _per(ours, 1e-3), _per(row["phases"] and median(row["phases"]), 1e-3), _per(floor, 1e-3)]
        for name in systems:
            theirs = peers[name]["epochs"].get(row["case"])
            cells.append(f"{median(theirs) / ours:.1f}" if theirs and ours else _NONE)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The floor is the phases of all steps times one grid barrier."]
    lines += [f"{name} failed: {peer['failed']}" for name, peer in peers.items() if "failed" in peer]
    return lines


def _per(value: float | None, unit: float) -> str:
    return _NONE if value is None else f"{value / unit:.3g}"


def _share(value: float | None, whole: float | None) -> str:
    return _NONE if not value or not whole else f"{100 * value / whole:.0f} %"
