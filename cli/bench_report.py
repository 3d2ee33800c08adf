"""What `mlpk bench` prints: the machine, a table of kernels, one of epochs, one of ratios, and its stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.bench import Watch

from . import tables

if TYPE_CHECKING:
    from mlpkernels.bench import Results
    from mlpkernels.bench.results import Entry, Ratio

_EPOCH = 60_000  # images


class Stages(Watch):
    """The stages on stderr, and on a terminal how far the turns have come."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._open = quiet, False
        self._live = not quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """A stage begins."""
        self.close()
        if not self._quiet:
            click.echo(f"{text} …", err=True)

    def turn(self, done: int, total: int) -> None:
        """A turn of that stage is done; there may be fewer than `total`."""
        if self._live:
            click.echo(f"\r  {100 * done // total:3d} %", err=True, nl=False)
            self._open = True

    def close(self) -> None:
        """End the line."""
        if self._open:
            click.echo("\r       \r", err=True, nl=False)
        self._open = False


def text(results: Results) -> str:
    """Everything that was measured."""
    parts = [_machine(results)]
    if results.section("kernels"):
        parts.append(_kernels(results))
    if results.section("epochs"):
        parts.append(_epochs(results))
    return "\n\n".join(parts)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def titled(entry: Entry) -> str:
    """The entry in words: `forward 784-64, batch 64 on 1 thread`."""
    return f"{entry.name} on {_threads(entry.threads)}"


# ---- the machine


def _machine(results: Results) -> str:
    machine, versions = results.machine, results.versions
    rows = [
        ("processor", f"{machine['cpu']} ({machine['llvm cpu']}), {machine['cores']} cores, "
         f"{' '.join(machine['vector extensions'])}"),
        *(
            (f"at best, {_threads(count)}", f"{best['flops'] / 1e9:,.0f} GFLOP/s of multiply-adds in float32, "
             f"{best['bytes'] / 1e9:,.0f} GB/s of memory")
            for count, best in ((count, results.ceilings[str(count)]) for count in results.counts)
        ),
        ("images", _images(results.settings)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("load", _load(results)),
    ]  # fmt: skip
    if results.peers:
        rows += [("peers", "; ".join(_peers(results.peers)))]
    return tables.table(rows, align="<<")


def _images(settings: Any) -> str:
    from mlpkernels.bench.images import MADE_UP

    text = str(settings["images"])
    if text == MADE_UP:
        text += " of MNIST's shape and share of zeros: no MNIST found, --data-dir names its folder"
    return text + "; quick: a look, not a measurement" * settings["quick"]


def _load(results: Results) -> str:
    load = results.load
    words = []
    for when in ("before", "after"):
        averages = " ".join(f"{value:.2f}" for value in load[when])
        words.append(f"{when} {averages or 'unknown'}")
    line = f"average {', '.join(words)}"
    if load["others"] is not None:
        line += f"; other programs took {load['others']:.2f} cores meanwhile"
    if load["waits"] is not None:
        line += f"; one thread's turns took {load['waits']:.2f} times their processor time"
    return line


def _peers(peers: Any) -> list[str]:
    words = list(peers["libraries"])
    words += [f"not installed: {', '.join(peers['absent'])}"] * bool(peers["absent"])
    words += [f"set aside, so that libraries choose their own kernels: {', '.join(peers['set aside'])}"] * bool(
        peers["set aside"]
    )
    return words + [f"held back by {', '.join(peers['forced'])}"] * bool(peers["forced"])


def warnings(results: Results) -> list[str]:
    """What makes the figures doubtful."""
    from mlpkernels.bench.running import BUSY

    found, others = [], results.load["others"]
    if others is not None and others >= BUSY:
        found.append(f"other programs took {others:.1f} cores while this ran: measure again on a quiet machine")
    elif others is None and results.load["before"] and results.load["before"][0] > 0.5:
        found.append(f"the load average was {results.load['before'][0]} before: measure again on a quiet machine")
    cut = [titled(entry) for entry in results.entries if entry.cut]
    if cut:
        found.append(f"too slow for a whole epoch, extrapolated from a part: {', '.join(cut)}")
    return found


# ---- kernels


def _kernels(results: Results) -> str:
    """A row a kernel and number of threads: time, speed and shares; NumPy's time over ours where measured."""
    from mlpkernels.bench.kernels import OURS

    entries = results.section("kernels")
    ours = [entry for entry in entries if entry.system == OURS]
    names = list(dict.fromkeys(entry.name for entry in ours))
    others = {(entry.name, entry.threads): entry for entry in entries if entry.system != OURS}
    header = ["kernel, float32", "threads", "µs", "GFLOP/s", "of peak", "GB/s", "of memory"]
    header += ["NumPy's time"] * bool(others)
    rows, last = [], ""
    for entry in sorted(ours, key=lambda entry: (names.index(entry.name), entry.threads)):
        row = [entry.name if entry.name != last else "", entry.threads, *_speeds(results, entry)]
        if others:
            other = others.get((entry.name, entry.threads))
            row.append(f"{other.middle / entry.middle:.2f} x" if other else "")
        rows.append(row)
        last = entry.name
    note = "Of zeros left out only the other pixels' operations count. Over 100 % of the memory: from the caches."
    return f"{tables.table(rows, header)}\n{note}"


def _speeds(results: Results, entry: Entry) -> list[str]:
    flops, bytes = entry.flops / entry.middle / 1e9, entry.bytes / entry.middle / 1e9
    return [
        f"{1e6 * entry.middle:,.1f}",
        f"{flops:,.0f}" if entry.flops else "",
        f"{100 * results.share(entry, 'flops'):.0f} %" if entry.flops else "",
        f"{bytes:,.1f}",
        f"{100 * results.share(entry, 'bytes'):.0f} %",
    ]


# ---- epochs


def _epochs(results: Results) -> str:
    """A row a network, system and number of threads, and how many times as long as ours at its best each takes."""
    from mlpkernels.bench.kernels import OURS

    entries = results.section("epochs")
    several = any(entry.system != OURS for entry in entries)
    header = ["network, optimiser, batch", "system", "threads", f"s for {_EPOCH:,} images", "least … most", "images/s"]
    header += ["GFLOP/s", "of peak", *["ours is faster"] * several]
    rows, last = [], ""
    for entry in entries:
        scale = _EPOCH / entry.images
        best = min(one.middle / one.images for one in entries if one.name == entry.name and one.system == OURS)
        row = [
            entry.name if entry.name != last else "", entry.system, entry.threads, f"{entry.middle * scale:.3f}",
            f"{min(entry.seconds) * scale:.3f} … {max(entry.seconds) * scale:.3f}",
            tables.count(entry.images / entry.middle), f"{entry.flops / entry.middle / 1e9:,.0f}",
            f"{100 * results.share(entry, 'flops'):.0f} %",
        ]  # fmt: skip
        if several:
            row.append("" if entry.system == OURS else f"{entry.middle / entry.images / best:.1f} x")
        rows.append(row)
        last = entry.name
    note = "GFLOP/s count the dense network: leaving out zeros does fewer, and may pass 100 %."
    if any(entry.images != _EPOCH for entry in entries):
        smallest = min(entry.images for entry in entries)
        note += f" Epochs of as few as {smallest:,.0f} images are scaled."
    return f"{tables.table(rows, header, align='<<')}\n{note}"


# ---- two measurements


def comparison(before: Results, now: Results, ratios: Sequence[Ratio], name: str) -> str:
    """Times before and now, their ratio and its spread, and what has changed."""
    from mlpkernels.bench.results import mean

    several = len({each.entry.system for each in ratios}) > 1
    header = ["", *["system"] * several, "threads", "before", "now", "now / before", "95 % interval", ""]
    rows = []
    for each in ratios:
        scale = each.entry.images or 1
        verdict = "slower" if each.low > 1 else "faster" if each.high < 1 else ""
        rows.append([
            each.entry.name, *[each.entry.system] * several, each.entry.threads, _time(each.before * scale),
            _time(each.now * scale), f"{each.ratio:.2f}", f"{each.low:.2f} … {each.high:.2f}", verdict,
        ])  # fmt: skip
    lines = [f"compared with {name} of {before.date}", tables.table(rows, header, align="<<" if several else "<")]
    lines.append(f"geometric mean {mean(ratios):.3f}; above 1 it takes longer now")
    changed = [
        f"{package} {before.versions.get(package, 'none')} then, {now.versions.get(package, 'none')} now"
        for package in dict.fromkeys([*before.versions, *now.versions])
        if before.versions.get(package) != now.versions.get(package)
    ]
    return "\n".join([*lines, *[f"changed: {'; '.join(changed)}"] * bool(changed)])


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:,.1f} µs"
    return f"{1e3 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
