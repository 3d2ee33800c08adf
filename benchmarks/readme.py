"""Writes the README's measured figures from a comparison's JSON: `python benchmarks/readme.py RESULTS.json`.

What stands between the markers `<!-- measured -->` and `<!-- end measured -->` is replaced by the figures of that file,
and by nothing else: sections that were not run are not there. With --block NAME it is what stands between
`<!-- measured NAME -->` and `<!-- end measured NAME -->`: figures of another machine.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import footprint
import peers
import report
import start_up

README = Path(__file__).parent.parent / "README.md"
_WIDTH = 120


def block(found: dict[str, Any]) -> str:
    """The figures of a comparison as Markdown, without the markers."""
    parts = [_where(found)]
    if "training" in found:
        parts += [_training(found), "\n".join(report.ratios(found["training"], "network, optimiser, batch"))]
        parts += [_parts(found["training"])] * bool(_parts(found["training"]))
    if "inference" in found:
        parts += ["Prediction with 784-128-128-10, each system at its better number of threads:"]
        parts += ["\n".join(report.predictions(found["inference"]))]
    if "products" in found:
        compared = found["products"]
        shapes = {(e["kind"], e["batch"], e["inputs"], e["outputs"]) for e in compared["shapes"]}
        text = (
            f"Products alone: how many times faster than {report.libraries(compared['libraries'])}, in the geometric "
        )
        parts += [_fill(f"{text}mean of {len(shapes)} training shapes, medians (best passes):")]
        parts += ["\n".join(report.product_means(compared["shapes"]))]
        ratios = report.over_products(found) if "training" in found else {}
        if ratios:
            told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            parts += [_fill(f"A whole epoch with a dense first layer, as a multiple of {report.BLAS}'s time for its "
                            f"products alone, one thread: {told}.")]  # fmt: skip
    if "start" in found:
        rows = [*start_up.figures(found["start"]), *footprint.figures(found["memory"])]
        parts += ["\n".join(_fill(f"- {name}: {value}", "  ") for name, value in rows)]
    return "\n\n".join([*parts, _fill(report.load(found).strip())])


def replace(text: str, measured: str, name: str = "") -> str:
    """The text with `measured` between the block's markers; ValueError unless each is there once, in this order."""
    begin, end = (f"<!-- {' '.join(filter(None, (word, name)))} -->" for word in ("measured", "end measured"))
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"one line {begin} and behind it one line {end} were wanted")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{measured}\n\n{end}{rest.split(end)[1]}"


def _where(found: dict[str, Any]) -> str:
    cpu = found["machine"]
    versions = [f"{name} {version}" for name, version in found["versions"].items() if version != "not installed"]
    quick = " with --quick, a look and no measurement" if found["quick"] else ""
    return _fill(
        f"Measured by `python benchmarks/compare.py`{quick} on {found['date'].split()[0]}: {cpu['cpu']} "
        f"({', '.join(cpu['features'])}), {cpu['cores']} cores, one core's FMA peak {cpu['fma_gflops_float32']:.0f} "
        f"GFLOP/s; Python {found['python']}, {', '.join(versions)}."
    )


def _training(found: dict[str, Any]) -> str:
    counts = " or ".join(map(str, found["threads"]))
    return _fill(
        "How many times as long as ours an epoch takes: data in memory, every answer compared before it is timed, each "
        f"system at its better number of threads ({counts}) and setting, just after a quarter of another epoch that is "
        f"not timed; medians by the clock of {found['turns']} interleaved turns in one run, in brackets the least and "
        "most of the turns. GFLOP/s count zeros, too."
    )


def _parts(training: list[dict[str, Any]]) -> str:
    """Which systems trained on a part of an epoch's rows; empty where none did."""
    found = {
        f"{peers.family(run['system'])} on {run['rows']:,} of {entry['rows']:,} rows of {entry['case']}": None
        for entry in training
        for run in entry["runs"]
        if run["rows"] < entry["rows"]
    }
    return _fill(f"Times scaled up from a part of an epoch: {'; '.join(found)}.") if found else ""


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def main(arguments: list[str] | None = None) -> None:
    """Read, replace, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what compare.py --out wrote")
    parser.add_argument("--readme", type=Path, default=README, help="the file to change [default: the README]")
    parser.add_argument("--block", default="", metavar="NAME", help="the markers' name [default: none]")
    chosen = parser.parse_args(arguments)
    try:
        measured = block(json.loads(chosen.results.read_text(encoding="utf-8")))
        text = replace(chosen.readme.read_text(encoding="utf-8"), measured, chosen.block)
    except KeyError as error:
        parser.error(f"{chosen.results}: {error.args[0]!r} is missing; a file that compare.py --out wrote was wanted")
    except json.JSONDecodeError as error:
        parser.error(f"{chosen.results}: no JSON: {error}")
    except ValueError as error:
        parser.error(f"{chosen.readme}: {error}")
    except OSError as error:
        parser.error(str(error))
    chosen.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
