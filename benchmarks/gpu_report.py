"""The CUDA backend on a GPU in one command: `python benchmarks/gpu_report.py --out DIR`.

For every CUDA package that is installed, in a process of its own: agreement with the reference at the training shapes
on random data and on MNIST where it is found, the same bits from run to run, this GPU's own limits, one grid barrier,
products, updates and epochs. Then PyTorch eager and under CUDA graphs, JAX in one scan, and cuBLAS through CuPy, where
they are installed; last the backend's test suite on the device, for each package, where pytest is installed.

report.json and report.md are written after each of these, and DIR/part.json and DIR/suite-PACKAGE.txt grow meanwhile,
so that a run that is cut short is not lost; what fails says how, and the rest goes on. Nothing is downloaded:
MLPK_DATA_DIR names the folder with MNIST. Ours needs Python, NumPy, Numba (the tree need not be installed) and a CUDA
package: numba-cuda-mlir, or numba-cuda, which needs NumPy below 2.5. Where a package's own wheels of the CUDA toolkit
are not there, CUDA_HOME has to name an installed toolkit, for its libnvvm, libdevice and libcudadevrt.
A first run with both and all peers compiles for several minutes; where a command may not take that long, start it with
`setsid nohup python benchmarks/gpu_report.py --out DIR > DIR.log 2>&1 &` and read DIR/report.md as it grows.
--simulate runs all but the peers in tiny under Numba's simulator. A run to be kept goes to benchmarks/results/.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data
import gpu_text

HERE = Path(__file__).resolve().parent
PACKAGES = {"numba-cuda-mlir": "numba_cuda_mlir", "numba-cuda": "numba_cuda"}
PEERS = {"PyTorch": "torch", "PyTorch, CUDA graphs": "torch", "JAX jit + scan": "jax"}
BLAS = "cuBLAS through CuPy"
_SUITE = tuple(f"test_cuda_{name}.py" for name in ("ops", "verbs", "arrays", "device"))
_VERSIONS = ("mlpkernels", "numpy", "numba", *PACKAGES, "cuda-bindings", "cuda-toolkit", "torch", "jax", "cupy-cuda13x")
_LONGEST = 3600  # seconds of a process
_LOG = 6000  # characters of what a process that failed said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="DIR", required=True, help="where report.json and report.md go")
    parser.add_argument("--simulate", action="store_true", help="tiny sizes under Numba's simulator, without a GPU")
    parser.add_argument("--no-suite", action="store_true", help="leave the test suite out")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of a process of ours: which system it measures
    options = parser.parse_args()
    if options.part is not None:
        measure(options.part, options.simulate, Path(options.out))
        return
    problem = refusal(options.simulate)
    if problem:
        sys.exit(f"error: {problem}")
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    collect(folder, options.simulate, not options.no_suite)
    print(f"{folder / 'report.json'}\n{folder / 'report.md'}")


def refusal(simulate: bool) -> str | None:
    """Why there is nothing to measure here, with what to do; None where there is."""
    if simulate:
        return None
    if not installed():
        return f"no CUDA package is installed: pip install '{next(iter(PACKAGES))}[cu13]', or take --simulate"
    code = "from mlpkernels.kernels.cuda import driver; print(driver.lack() or '')"
    reasons = []
    for package in installed():
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(package))
        said = done.stdout.strip() if done.returncode == 0 else _last_line(done.stderr, done.returncode)
        if not said:
            return None
        reasons.append(f"{package}: {said}")
    return f"{'; '.join(reasons)}; --simulate tries this report without a GPU"


def _last_line(said: str, status: int) -> str:
    """What a process said last, or how it ended."""
    return (said.strip().splitlines() or [f"exit status {status}"])[-1]


def installed() -> list[str]:
    """The CUDA packages that are there, the preferred one first."""
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is not None]


def environment(package: str) -> dict[str, str]:
    """For a process that takes this package, or the simulator."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_ENABLE_CUDA", "MLPK_CUDA"))}
    path = os.pathsep.join([str(HERE.parent), *filter(None, [kept.get("PYTHONPATH")])])
    chosen = {"NUMBA_ENABLE_CUDASIM": "1"} if package == "simulator" else {"MLPK_CUDA_PACKAGE": package}
    return {**kept, "PYTHONPATH": path, **chosen}


def collect(folder: Path, simulate: bool, suite: bool) -> None:
    """Everything, each system in a process of its own, into the folder's report as it comes."""
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"), "simulated": simulate, "python": platform.python_version(),
        "system": platform.platform(), "versions": _versions(), "packages": {}, "peers": {}, "absent": [],
    }  # fmt: skip
    for package in ["simulator"] if simulate else installed():
        report["packages"][package] = {**run(package, folder, simulate), "suite": "not run"}
        write(report, folder)
    (folder / "answers.json").write_text(json.dumps(_answers(report["packages"])), encoding="utf-8")
    for system, module in {**PEERS, BLAS: "cupy"}.items():
        if simulate or importlib.util.find_spec(module) is None:
            report["absent"].append(system)
        else:
            report["peers"][system] = run(system, folder, simulate)
        write(report, folder)
    (folder / "answers.json").unlink()
    for package, found in report["packages"].items():
        if suite and "facts" in found:
            found["suite"] = run_suite(package, folder)
            write(report, folder)


def write(report: dict[str, Any], folder: Path) -> None:
    """report.json and report.md of what is known by now; the answers are for the peers alone."""
    packages = {
        name: {**found, "epochs": [{k: v for k, v in row.items() if k != "answer"} for row in found["epochs"]]}
        if found.get("epochs") else found
        for name, found in report["packages"].items()
    }  # fmt: skip
    told = {**report, "packages": packages}
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(gpu_text.markdown(told), encoding="utf-8")


def _versions() -> dict[str, str]:
    """Of what is installed, by name."""
    found = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _answers(packages: dict[str, Any]) -> dict[str, Any]:
    """{case: (losses, parameters)} of the first package that came through."""
    answers: dict[str, Any] = {}
    for found in packages.values():
        for row in found.get("epochs") or []:
            answers.setdefault(row["case"], row["answer"])
    return answers


def run(system: str, folder: Path, simulate: bool) -> dict[str, Any]:
    """What a process of its own measured; where it did not come to its end, that and {"failed": why}."""
    target = folder / "part.json"
    _clear(folder)
    command = [sys.executable, __file__, "--out", str(folder), "--part", system, *(["--simulate"] * simulate)]
    failed: dict[str, Any] = {}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(system), timeout=_LONGEST, cwd=HERE.parent
        )
        if done.returncode or not target.exists():
            failed = {"failed": _last_line(done.stderr, done.returncode), "log": done.stderr.strip()[-_LOG:]}
    except subprocess.TimeoutExpired:
        failed = {"failed": f"took more than {_LONGEST} s"}
    found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    _clear(folder)
    return {**found, **failed}


def _clear(folder: Path) -> None:
    for name in ("part.json", "part.new"):
        (folder / name).unlink(missing_ok=True)


def run_suite(package: str, folder: Path) -> str:
    """What failed of the backend's tests on the device, at the sizes of the other backends, and how many passed.

    All that they say is in the folder's suite-PACKAGE.txt. They run side by side where pytest-xdist is there: most of
    their time is compiling. A warning of a package that these tests were not written with ends none of them.
    """
    if importlib.util.find_spec("pytest") is None:
        return "not run: pytest is not installed; the agreement with the reference below was checked"
    chosen = environment(package) | ({} if package == "simulator" else {"MLPK_TEST_CUDA": "gpu"})
    files = _SUITE if package != "simulator" else ("test_cuda_ops.py::test_activations_and_their_slopes",)
    options = ["-q", "-W", "default", "--maxfail=20", "--tb=short", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        options += ["-n", "auto", "--maxprocesses", "8"]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{name}" for name in files)]
    path = folder / f"suite-{package}.txt"
    try:
        with path.open("w", encoding="utf-8") as said:
            done = subprocess.run(command, stdout=said, stderr=said, env=chosen, cwd=HERE.parent, timeout=_LONGEST)
    except subprocess.TimeoutExpired:
        return f"took more than {_LONGEST} s: {path.name}"
    lines = path.read_text(encoding="utf-8").splitlines()
    counts = [line for line in lines if re.search(r"\d+ (passed|failed|error|skipped)", line)]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    ended = f"exit status {done.returncode}: {path.name}"  # the contexts of a GPU may speak behind pytest's last line
    return "; ".join([counts[-1] if counts else ended, *failed])


def measure(system: str, simulate: bool, folder: Path) -> None:
    """One system's part, in its process, into part.json."""
    images = data.load(40 if simulate else data.ROWS)

    def tell(found: dict[str, Any]) -> None:
        (folder / "part.new").write_text(json.dumps(found), encoding="utf-8")
        (folder / "part.new").replace(folder / "part.json")  # whole, whenever this process is ended

    if system in (*PACKAGES, "simulator"):
        import gpu_measure

        gpu_measure.everything(simulate, images, tell)
        return
    import gpu_peers
    from cases import NAMES

    if system == BLAS:
        tell({"products": gpu_peers.blas(gpu_peers.SHAPES)})
        return
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"epochs": {}, "unchecked": []}
    for name in ("adam-128", "sgd-8", "sgd-64", "adam-1024"):
        found["epochs"][name] = gpu_peers.epochs(system, NAMES[name], images, answers)
        found["unchecked"] += [name] * (name not in answers)
        tell(found)


if __name__ == "__main__":
    main()
