"""What a user waits for: `mlpk --help`, and `mlpk train` from its start to its summary, cold and warm.

`python benchmarks/start_up.py` prints the figures. Commands are processes of their own, in turns: `--help` beside an
empty Click program, a training on the bundled digits beside what any such program pays, importing click, rich and Numba
and one cached call. All write their bytecode and their compiled kernels into a folder that is made for it. The cold
start is measured on all cores, which compile together, and on one, in turns.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TURNS, COLD_TURNS = 9, 3
_SUMMARY = "  run folder"  # begins the summary's last line that figures have no part in
_NOTICE = "compiling the kernels"
# As installers write console scripts: the module is imported, so that its bytecode is kept.
_SCRIPT = "import sys\nfrom {module} import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
_EMPTY = '''import click


@click.command()
def main():
    """An empty program."""
'''
_BARE = """import click
import rich.progress
from numba import njit


@njit(cache=True)
def double(x):
    return x + x


def main():
    double(1.0)
"""
_HELP = {"empty": ["empty", "--help"], "help": ["mlpk", "--help"], "train_help": ["mlpk", "train", "--help"]}


def measure(turns: int = TURNS) -> dict[str, Any]:
    """Seconds of each command in every turn; of the cold start's middle turn also until its line, and that line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module, text in (("empty_program", _EMPTY), ("bare_program", _BARE)):
            (folder / f"{module}.py").write_text(text)
        modules = {"empty": "empty_program", "bare": "bare_program", "mlpk": "mlpkernels_cli.main"}
        for script, module in modules.items():
            (folder / f"{script}.py").write_text(_SCRIPT.format(module=module))
        for words in (*_HELP.values(), ["bare"]):
            _seconds(folder, words)  # bytecode, and the bare program's one function
        colds = _cold_turns(folder)
        seconds: dict[str, list[float]] = {what: [] for what in (*_HELP, "bare", "warm")}
        _seconds(folder, ["bare"])
        for _ in range(turns):
            for what, words in _HELP.items():
                seconds[what].append(_seconds(folder, words))
            seconds["bare"].append(_seconds(folder, ["bare"]))
            seconds["warm"].append(_train(folder)["seconds"])
    return {
        "cold": sorted(colds[max(colds)], key=lambda turn: turn["seconds"])[COLD_TURNS // 2],
        "colds": {str(count): [turn["seconds"] for turn in each] for count, each in colds.items()},
        "seconds": seconds,
    }


def _cold_turns(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """What `_train` gives with no compiled kernels, by the number of cores: all, and one where a process can be held.

    They are compiled again every time.
    """
    held = hasattr(os, "sched_setaffinity")
    cores = sorted(os.sched_getaffinity(0)) if held else list(range(os.cpu_count() or 1))
    turns: dict[int, list[dict[str, Any]]] = {count: [] for count in sorted({1, len(cores)} if held else {len(cores)})}
    for _ in range(COLD_TURNS):
        for count, each in turns.items():
            shutil.rmtree(folder / "kernels")
            if held:
                os.sched_setaffinity(0, cores[:count])  # of the processes that are started from here, too
            try:
                each.append(_train(folder))
            finally:
                if held:
                    os.sched_setaffinity(0, cores)
    return turns


def figures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what was measured, the figure), of what `measure` found."""
    seconds, cold = found["seconds"], found["cold"]
    middle = {what: statistics.median(each) for what, each in seconds.items()}
    above = [warm - bare for warm, bare in zip(seconds["warm"], seconds["bare"], strict=True)]
    rows = [
        (
            f"`mlpk {words}`, median of {len(seconds[what])}",
            f"{1e3 * middle[what]:.0f} ms, {middle[what] / middle['empty']:.2f} times an empty Click program's",
        )
        for what, words in (("help", "--help"), ("train_help", "train --help"))
    ]
    said = "it says nothing" if cold["notice"] is None else f"after {cold['noticed']:.1f} s it says: {cold['notice']}"
    return [
        *rows,
        (
            "`mlpk train` on the bundled digits from its start to its summary, compile cache empty",
            f"{cold['seconds']:.1f} s; {said}",
        ),
        (f"the same, cache filled, median of {len(seconds['warm'])}", f"{middle['warm']:.2f} s"),
        (
            "importing click, rich and Numba and one cached call",
            f"{middle['bare']:.2f} s; the warm training is {statistics.median(above):.2f} s above "
            f"({min(above):.2f}…{max(above):.2f})",
        ),
        *[
            (
                f"cache empty, on {count} core{'s' * (count != '1')}, in turns, median of {len(each)}",
                f"{statistics.median(each):.1f} s ({min(each):.1f}…{max(each):.1f})",
            )
            for count, each in found.get("colds", {}).items()
        ],
    ]


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| {name} | {value} |" for name, value in figures(found)]
    return "\n".join(["| start-up | |", "|---|---|", *lines])


def _environment(folder: Path) -> dict[str, str]:
    """This process's, with bytecode and kernels in the folder; bytecode is kept whatever this process does."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    places = {"PYTHONPYCACHEPREFIX": folder / "bytecode", "NUMBA_CACHE_DIR": folder / "kernels"}
    return {**kept, "MLPK_CACHE": "1", **{name: str(path) for name, path in places.items()}}


def _seconds(folder: Path, words: list[str]) -> float:
    """How long a command takes; CalledProcessError where it fails."""
    command = [sys.executable, str(folder / f"{words[0]}.py"), *words[1:]]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=_environment(folder), check=True)
    return time.perf_counter() - began


def _train(folder: Path) -> dict[str, Any]:
    """Train on the digits until the summary is printed; the seconds to it and to the line about compiling, if any.

    Drawing, which comes after it, is cut short.
    """
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, str(folder / "mlpk.py"), "train", "--out", f"{out}/run"]
        began, noticed, notice = time.perf_counter(), None, None
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment(folder), text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_NOTICE):
                    noticed, notice = time.perf_counter() - began, line.strip()
                if line.startswith(_SUMMARY):
                    seconds = time.perf_counter() - began
                    process.kill()
                    return {"seconds": seconds, "noticed": noticed, "notice": notice}
        raise RuntimeError(f"mlpk train ended with exit code {process.returncode} and without a summary")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    found = measure()
    print(table(found))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
