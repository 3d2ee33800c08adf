"""The comparison as Markdown: ratios, their spread, and the cases we lose as plainly as the others."""

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

import peers

OURS, BLAS = "mlpkernels", "OpenBLAS"


def machine(found: dict[str, Any]) -> str:
    """The machine, the versions, and what was not there or was set aside."""
    cpu = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"# Comparison of {found['date']}" + (" (quick: a look, not a measurement)" if found["quick"] else ""),
        "",
        f"- {cpu['cpu']} ({cpu['llvm_cpu']}: {', '.join(cpu['features'])}), {cpu['cores']} cores, threading layer "
        f"{cpu['threading_layer']}; one core's FMA peak {cpu['fma_gflops_float32']:.0f} GFLOP/s in float32, "
        f"copying {cpu['bandwidth_gbs']:.0f} GB/s",
        f"- {found['system']}, Python {found['python']}; {versions}; our kernels' source {found['kernels'][0]}",
        f"- thread counts {', '.join(map(str, found['threads']))}, each process bound to as many cores; medians of "
        f"{found['turns']} turns; load average before {_averages(found['load'][0])}",
    ]
    if found["set_aside"]:
        lines.append(f"- set aside, so that every library chooses its own kernels: {', '.join(found['set_aside'])}")
    if found["absent"]:
        lines.append(f"- not installed, so not compared: {', '.join(found['absent'])}")
    return "\n".join(lines)


def load(found: dict[str, Any]) -> str:
    """How busy the machine was, and what that did to what needs one core only."""
    text = f"\nLoad average before {_averages(found['load'][0])}, after {_averages(found['load'][-1])}."
    waits = [
        clock / processor
        for entry in found.get("training", [])
        for run in entry["runs"]
        if run["system"] == OURS and run["threads"] == 1
        for clock, processor in zip(run["seconds"], run["processor_seconds"], strict=True)
    ]
    if len(set(found["kernels"])) > 1:
        text += " **Our kernels' source changed while this ran: run it again.**"
    if waits:
        text += (
            f" Our epochs on one thread took {median(waits):.2f} times their processor time in the median"
            f" (worst {max(waits):.2f}): 1.00 is an undisturbed machine."
        )
    return text


# ---- products


def products(compared: dict[str, Any]) -> str:
    """Geometric means of ours against OpenBLAS, then every shape's ratio."""
    found = compared["shapes"]
    counts = sorted({entry["threads"] for entry in found})
    lines = ["", "## Matrix products: OpenBLAS's time over ours", "", _libraries(compared["libraries"]), ""]
    lines += ["Above 1 we are faster. Ratios of medians; in brackets of the best passes.", ""]
    lines += [
        "| | " + " | ".join(_threads(count) for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    kinds, batches = _unique(found, "kind"), _unique(found, "batch")
    for name, chosen in (
        ("**all**", found),
        *((f"`{kind}`", [entry for entry in found if entry["kind"] == kind]) for kind in kinds),
        *((f"batch {batch}", [entry for entry in found if entry["batch"] == batch]) for batch in batches),
    ):
        parts = [[entry for entry in chosen if entry["threads"] == count] for count in counts]
        lines.append(f"| {name} | " + " | ".join(map(_means, parts)) + " |")
    for count in counts:
        lines += ["", *_shapes([entry for entry in found if entry["threads"] == count], batches, count)]
    return "\n".join(lines)


def _shapes(found: list[dict[str, Any]], batches: list[int], count: int) -> list[str]:
    """A row a product, a column a batch: the ratio and our GFLOP/s; below them how many we lose."""
    lines = [
        f"| {_threads(count)}: ratio (our GFLOP/s) | " + " | ".join(f"batch {batch}" for batch in batches) + " |",
        "|---" * (len(batches) + 1) + "|",
    ]
    rows: dict[str, dict[int, str]] = {}
    for entry in found:
        name = f"`{entry['kind']}` {entry['inputs']}-{entry['outputs']}"
        ours = median(entry["seconds"][OURS])
        cell = f"{_ratio(entry):.2f} ({entry['flops'] / ours / 1e9:.0f})"
        rows.setdefault(name, {})[entry["batch"]] = cell if _ratio(entry) >= 1 else f"**{cell}**"
    lines += [f"| {name} | " + " | ".join(row[batch] for batch in batches) + " |" for name, row in rows.items()]
    lost = [entry for entry in found if _ratio(entry) < 1]
    worst = min(found, key=_ratio)
    lines += [
        "",
        f"{_threads(count)}: we lose {len(lost)} of {len(found)} (bold), {sum(_ratio(e) < 0.9 for e in lost)} by more "
        f"than a tenth; the worst is {_ratio(worst):.2f}, `{worst['kind']}` "
        f"{worst['inputs']}-{worst['outputs']} at batch {worst['batch']}.",
    ]
    return lines


def _ratio(entry: dict[str, Any], middle: Any = median) -> float:
    return middle(entry["seconds"][BLAS]) / middle(entry["seconds"][OURS])


def _means(entries: list[dict[str, Any]]) -> str:
    by_median, by_best = (_geometric(_ratio(entry, middle) for entry in entries) for middle in (median, min))
    return f"{by_median:.2f} ({by_best:.2f})"


def _geometric(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def _libraries(pools: list[dict[str, Any]]) -> str:
    blas = [pool for pool in pools if pool["internal_api"] != "openmp"]
    return "; ".join(
        f"NumPy's {pool['internal_api']} {pool['version']}, kernels for {pool['architecture']}" for pool in blas
    )


def _unique(found: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(entry[key] for entry in found))


# ---- training


def training(found: list[dict[str, Any]]) -> str:
    """A table a case of all systems' seconds an epoch, and two of us against each peer."""
    lines = ["", "## Training: seconds an epoch", "", f"{found[0]['images']}; everything in memory."]
    for entry in found:
        lines += ["", *_epochs(entry)]
    lines += ["", "Medians; in brackets the least and most. An asterisk: much slower than the system's other settings,"]
    lines += ["so left out of further turns. Answers apart: the largest relative difference from our losses over the"]
    lines += ["first steps, from the same start in the same order.", ""]
    return "\n".join([*lines, *_versus(found)])


def _epochs(entry: dict[str, Any]) -> list[str]:
    """A row a system or variant, a column a thread count."""
    counts = sorted({run["threads"] for run in entry["runs"]})
    columns = [*(f"{_threads(count)}: s" for count in counts), "best: images/s", "answers apart"]
    lines = [f"| {entry['case']} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    turns = max(len(run["seconds"]) for run in entry["runs"])
    for system in dict.fromkeys(run["system"] for run in entry["runs"]):
        runs = [run for run in entry["runs"] if run["system"] == system]
        cells = [_seconds(run["seconds"], turns) for run in runs]
        speed = entry["rows"] / min(median(run["seconds"]) for run in runs)
        apart = max(run["apart"]["loss"] for run in runs)
        lines.append(f"| {system} | " + " | ".join(cells) + f" | {speed:,.0f} | {apart:.0e} |")
    return lines


def _seconds(seconds: list[float], turns: int) -> str:
    text = f"{median(seconds):.3f}" + (f" ({min(seconds):.3f}…{max(seconds):.3f})" if len(seconds) > 1 else "")
    return text + ("" if len(seconds) == turns else "*")


def _versus(found: list[dict[str, Any]]) -> list[str]:
    """Us against each peer: by the clock at the better settings, and on one thread each by processor time."""
    names = list(dict.fromkeys(peers.family(run["system"]) for run in found[0]["runs"]))[1:]
    head, rule = " | ".join(["", *names, "our GFLOP/s |"]), "|---" * (len(names) + 2) + "|"
    lines = ["How many times faster we are; in brackets the least and most of the turns.", ""]
    lines += [f"| medians by the clock, each at its better setting{head}", rule]
    lines += [_row(entry, names, "seconds", entry["runs"], median) for entry in found]
    lines += ["", f"| each system's fastest turn by the clock{head}", rule]
    lines += [_row(entry, names, "seconds", entry["runs"], min) for entry in found]
    lines += ["", f"| medians of processor time, one thread each (a busy machine disturbs it least){head}", rule]
    for entry in found:
        serial = [run for run in entry["runs"] if run["threads"] == 1]
        lines.append(_row(entry, names, "processor_seconds", serial, median))
    return lines


def _row(entry: dict[str, Any], names: list[str], clock: str, runs: list[dict[str, Any]], middle: Any) -> str:
    """The ratio of each peer's time to ours, both at their best, and the least and most ratio of a turn."""
    ours = _best(runs, OURS, clock, middle)
    cells = []
    for name in names:
        theirs = _best(runs, name, clock, middle)
        ratio = middle(theirs) / middle(ours)
        turns = [a / b for a, b in zip(theirs, ours, strict=False)]
        cell = f"{ratio:.2f} ({min(turns):.2f}…{max(turns):.2f})"
        cells.append(cell if ratio >= 1 else f"**{cell}: slower**")
    speed = entry["flops"] * entry["rows"] / middle(ours) / 1e9
    return f"| {entry['case']} | " + " | ".join(cells) + f" | {speed:.0f} |"


def _best(runs: list[dict[str, Any]], name: str, clock: str, middle: Any) -> list[float]:
    """The times of a system's variant and thread count with the least median (or minimum), if run in every turn."""
    times = [run[clock] for run in runs if peers.family(run["system"]) == name]
    turns = max(map(len, times))
    return min((each for each in times if len(each) == turns), key=middle)


# ---- words


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _averages(values: list[float]) -> str:
    return " ".join(map(str, values)) or "unknown"
