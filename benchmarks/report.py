"""The comparison as Markdown: ratios, their spread, and the cases we lose as plainly as the others."""

import math
import textwrap
from collections.abc import Iterable
from statistics import median
from typing import Any

import peers
from cases import NAMES
from data import MNIST
from predictors import INSIDE, INSIDE_DENSE, OURS, READING
from products import FORWARD, INPUT, PARAMS

BLAS = "OpenBLAS"
_NONE = "\u2013"  # a dash, where something was not run


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
    lines = ["", "## Matrix products: OpenBLAS's time over ours", "", libraries(compared["libraries"]), ""]
    lines += ["Above 1 we are faster. Ratios of medians; in brackets of the best passes.", ""]
    batches = _unique(found, "batch")
    lines += product_means(found, batches)
    for count in sorted({entry["threads"] for entry in found}):
        lines += ["", *_shapes([entry for entry in found if entry["threads"] == count], batches, count)]
    return "\n".join(lines)


def product_means(found: list[dict[str, Any]], batches: Iterable[int] = ()) -> list[str]:
    """The table of geometric means over all shapes, those of a kind, and those of each of some batches."""
    counts = sorted({entry["threads"] for entry in found})
    lines = ["| | " + " | ".join(map(_threads, counts)) + " |", "|---" * (len(counts) + 1) + "|"]
    for name, chosen in (
        ("**all**", found),
        *((f"`{kind}`", [e for e in found if e["kind"] == kind]) for kind in _unique(found, "kind")),
        *((f"batch {batch}", [e for e in found if e["batch"] == batch]) for batch in batches),
    ):
        parts = [[entry for entry in chosen if entry["threads"] == count] for count in counts]
        lines.append(f"| {name} | " + " | ".join(map(_means, parts)) + " |")
    return lines


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


def libraries(pools: list[dict[str, Any]]) -> str:
    """NumPy's BLAS in words: the first that was loaded, which `products.find_sgemm` calls; SciPy may bring another."""
    blas = next(pool for pool in pools if pool["internal_api"] != "openmp")
    return f"NumPy's {blas['internal_api']} {blas['version']}, kernels for {blas['architecture']}"


def _unique(found: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(entry[key] for entry in found))


# ---- training


def training(found: list[dict[str, Any]]) -> str:
    """A table a case of all systems' seconds an epoch, and two of us against each peer."""
    lines = ["", "## Training: seconds an epoch", "", "Everything in memory."]
    for entry in found:
        lines += ["", *_epochs(entry)]
    lines += ["", "Medians; in brackets the least and most. An asterisk: much slower than the system's other settings,"]
    lines += ["so left out of further turns. Answers apart: the largest relative difference from our losses over the"]
    lines += ["first steps, from the same start in the same order.", ""]
    return "\n".join([*lines, *_versus(found)])


def _epochs(entry: dict[str, Any]) -> list[str]:
    """A row a system or variant, a column a thread count; where the images come from."""
    counts = sorted({run["threads"] for run in entry["runs"]})
    columns = [*(f"{_threads(count)}: s" for count in counts), "best: rows/s", "answers apart"]
    lines = [f"| {entry['case']} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    turns = max(len(run["seconds"]) for run in entry["runs"])
    for system in dict.fromkeys(run["system"] for run in entry["runs"]):
        runs = [run for run in entry["runs"] if run["system"] == system]
        cells = [_seconds(run["seconds"], turns) for run in runs]
        speed = entry["rows"] / min(median(run["seconds"]) for run in runs)
        apart = max(run["apart"]["loss"] for run in runs)
        part = "" if runs[0]["rows"] == entry["rows"] else f", scaled up from {runs[0]['rows']:,} rows"
        lines.append(f"| {system}{part} | " + " | ".join(cells) + f" | {speed:,.0f} | {apart:.0e} |")
    return [*lines, "", f"{entry['images']}."]


def _seconds(seconds: list[float], turns: int) -> str:
    text = f"{median(seconds):.3f}" + (f" ({min(seconds):.3f}…{max(seconds):.3f})" if len(seconds) > 1 else "")
    return text + ("" if len(seconds) == turns else "*")


def _versus(found: list[dict[str, Any]]) -> list[str]:
    """Us against each peer: by the clock at the better settings, and on one thread each by processor time."""
    lines = ["How many times faster we are; in brackets the least and most of the turns. GFLOP/s count zeros, too.", ""]
    lines += ratios(found, "medians by the clock, each at its better setting")
    lines += ["", *ratios(found, "each system's fastest turn by the clock", middle=min)]
    words = "medians of processor time, one thread each (a busy machine disturbs it least)"
    return [*lines, "", *ratios(found, words, "processor_seconds", threads=1)]


def ratios(
    found: list[dict[str, Any]], words: str, clock: str = "seconds", threads: int | None = None, middle: Any = median
) -> list[str]:
    """The table of each peer's time over ours, a row a case and variant of ours, `words` its first head."""
    found = [{**entry, "runs": [run for run in entry["runs"] if threads in (None, run["threads"])]} for entry in found]
    families = dict.fromkeys(peers.family(run["system"]) for entry in found for run in entry["runs"])
    names = [name for name in families if name != OURS]
    dense = any(_variants(entry)[1:] for entry in found)
    columns = [*names, *(["our dense layer 1"] if dense else []), "our GFLOP/s"]
    lines = [f"| {words} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for entry in found:
        variants = _variants(entry)
        for variant in variants:
            ours = _best(entry["runs"], [variant], clock, middle)
            cells = [_cell(ours, _best(entry["runs"], _settings(entry, name), clock, middle), middle) for name in names]
            if dense:
                other = variants[1:] if variant == OURS else []
                cells.append(_cell(ours, _best(entry["runs"], other, clock, middle), middle))
            label = "" if len(variants) == 1 else ", zeros skipped" if variant == OURS else ", layer 1 dense"
            speed = entry["flops"] * entry["rows"] / middle(ours) / 1e9
            lines.append(f"| {entry['case']}{label} | " + " | ".join(cells) + f" | {speed:.0f} |")
    return lines


def _variants(entry: dict[str, Any]) -> list[str]:
    """Ours: as `fit` chooses, and where that skips zeros, with a dense first layer."""
    return _settings(entry, OURS)


def _settings(entry: dict[str, Any], family: str) -> list[str]:
    """The systems of one name that were run."""
    return list(dict.fromkeys(run["system"] for run in entry["runs"] if peers.family(run["system"]) == family))


def _cell(ours: list[float], theirs: list[float], middle: Any) -> str:
    """The ratio of a peer's time to ours, and the least and most ratio of a turn; a dash where it was not run."""
    if not theirs:
        return _NONE
    ratio = middle(theirs) / middle(ours)
    turns = [a / b for a, b in zip(theirs, ours, strict=True)]
    cell = f"{ratio:.2f} ({min(turns):.2f}…{max(turns):.2f})"
    return cell if ratio >= 1 else f"**{cell}: slower**"


def _best(runs: list[dict[str, Any]], systems: list[str], clock: str, middle: Any) -> list[float]:
    """The times of the system and thread count with the least median (or minimum), of those run in every turn."""
    turns = max(len(run[clock]) for run in runs if clock in run)
    times = [run[clock] for run in runs if run["system"] in systems and clock in run]
    return min((each for each in times if len(each) == turns), key=middle, default=[])


def over_products(found: dict[str, Any]) -> dict[str, float]:
    """Our whole epoch over the time that OpenBLAS takes for its products alone, on one thread: of the cases whose
    first layer is dense and whose products were all timed.
    """
    shapes = {
        (e["kind"], e["batch"], e["inputs"], e["outputs"]): median(e["seconds"]["OpenBLAS"])
        for e in found["products"]["shapes"]
        if e["threads"] == 1
    }
    ratios = {}
    for entry in found["training"]:
        case = NAMES[entry["name"]]
        wanted = [(kind, case.batch, *pair) for pair in case.pairs for kind in (FORWARD, PARAMS, INPUT)]
        wanted.remove((INPUT, case.batch, *case.pairs[0]))  # nobody wants the gradient of the network's inputs
        dense = peers.DENSE if case.data == MNIST else OURS
        runs = [run for run in entry["runs"] if (run["system"], run["threads"]) == (dense, 1)]
        if runs and not case.convolutions and all(shape in shapes for shape in wanted):
            alone = sum(shapes[shape] for shape in wanted) * entry["rows"] / case.batch
            ratios[entry["case"]] = median(runs[0]["seconds"]) / alone
    return ratios


# ---- inference


_UNITS = {"one": ("one sample", "µs", 1e6), "many": ("10,000 images", "ms", 1e3)}


def inference(runs: list[dict[str, Any]]) -> str:
    """Times of one sample and of 10,000 images by system and threads, and us against each peer."""
    counts = sorted({run["threads"] for run in runs})
    columns = [f"{words}, {_threads(count)}: {unit}" for words, unit, _ in _UNITS.values() for count in counts]
    lines = ["", "## Prediction with 784-128-128-10", ""]
    lines += ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for system in dict.fromkeys(run["system"] for run in runs):
        cells = [
            _times(run[what], scale) if (run := _run(runs, system, count)) and what in run else _NONE
            for what, (_, _, scale) in _UNITS.items()
            for count in counts
        ]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    lines += ["", "Medians; in brackets the least and most of the turns.", ""]
    return "\n".join([*lines, *predictions(runs)])


def predictions(runs: list[dict[str, Any]]) -> list[str]:
    """The table of each peer's time over ours from Python, both at their better setting."""
    entry = {"runs": runs}
    names = [name for name in dict.fromkeys(peers.family(run["system"]) for run in runs) if name not in (OURS, READING)]
    lines = ["| how many times faster we are, from Python | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for what, (words, _, _) in _UNITS.items():
        ours = _best(runs, [OURS], what, median)
        cells = [_cell(ours, _best(runs, _settings(entry, name), what, median), median) for name in names]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    reading = _best(runs, [READING], "one", median)
    for system, words in ((INSIDE, "an image, whose zeros skip weights"), (INSIDE_DENSE, "one without zeros")):
        inside = _best(runs, [system], "one", median)
        if inside and reading:
            over = [a / b for a, b in zip(inside, reading, strict=True)]
            text = f"Inside `@njit`, {words}: {_times(inside, 1e6)} µs, {median(inside) / median(reading):.2f} "
            text += f"({min(over):.2f}…{max(over):.2f}) times what reading the weights once takes."
            lines += ["", textwrap.fill(text, 120)]
    return lines


def _run(runs: list[dict[str, Any]], system: str, threads: int) -> dict[str, Any]:
    return next((run for run in runs if (run["system"], run["threads"]) == (system, threads)), {})


def _times(seconds: list[float], scale: float) -> str:
    low, middle, high = (f"{scale * value:.3g}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} ({low}…{high})"


# ---- words


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _averages(values: list[float]) -> str:
    return " ".join(map(str, values)) or "unknown"
