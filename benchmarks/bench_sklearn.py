"""scikit-learn's MLPs and ours at the same work: `python benchmarks/bench_sklearn.py [--quick] [--out FILE]`.

A fit of both starts from one random_state and so takes the same steps; the coefficients, or predictions, are compared
before anything is timed. The systems take turns, in another succession each time, with BLAS once on one thread and once
on all cores, of which each one's better is compared; ours chooses its own threads. Prints Markdown: medians, and the
ratios turn by turn with the least and the most. The JSON has every measurement.
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import sklearn.neural_network
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController
from worker import cpus, pause, set_aside

import mlpkernels.sklearn

THEIRS, OURS = "scikit-learn", "mlpkernels"
LIBRARIES: dict[str, Any] = {THEIRS: sklearn.neural_network, OURS: mlpkernels.sklearn}
_APART = {
    "float64": 1e-6,
    "float32": 0.05,
}  # of coefficients, or in float32, whose roundings grow, of losses' logarithms


@dataclass(frozen=True)
class Case:
    """Work for an estimator: data() gives x and y; call is "fit" or a method that takes rows, `calls` times a turn."""

    name: str
    kind: str
    settings: dict[str, Any]
    data: Callable[[], tuple[Any, np.ndarray]]
    call: str = "fit"
    rows: int | None = None
    calls: int = 1

    def make(self, library: str) -> Any:
        """An estimator, not fitted."""
        return getattr(LIBRARIES[library], self.kind)(random_state=0, **self.settings)


def binary(rows: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 8 normal columns."""
    x = np.random.default_rng(0).standard_normal((rows, 8))
    return x.astype(dtype), (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype(np.int64)


def words() -> tuple[Any, np.ndarray]:
    """2,000 sparse rows of 30,000 columns, 3 in 1,000 not zero, as counts of words are."""
    x = scipy.sparse.random_array((2000, 30_000), density=0.003, format="csr", rng=0)
    return x, np.arange(2000) % 2


def cases(quick: bool) -> Iterator[Case]:
    """What is compared; the last ones we lose, or nearly."""
    rows = 20_000 if quick else 200_000
    few = {"hidden_layer_sizes": (128, 32), "batch_size": 70, "max_iter": 3}
    for dtype in ("float64", "float32"):
        name = f"fit, {rows:,} x 8, two classes, (128, 32), Adam, batch 70, 3 epochs, {dtype}"
        yield Case(name, "MLPClassifier", few, lambda dtype=dtype: binary(rows, dtype))
    digits = lambda: load_digits(return_X_y=True)  # noqa: E731
    diabetes = lambda: load_diabetes(return_X_y=True)  # noqa: E731
    yield Case("fit, load_digits, the defaults", "MLPClassifier", {"max_iter": 20} if quick else {}, digits)
    lbfgs = {"solver": "lbfgs", "max_iter": 30}
    yield Case("fit, load_digits, L-BFGS, 30 iterations", "MLPClassifier", lbfgs, digits)
    yield Case("fit, load_diabetes, 50 epochs", "MLPRegressor", {"max_iter": 50}, diabetes)
    for call in ("predict", "predict_proba"):
        yield Case(f"{call}, one row of load_digits", "MLPClassifier", {"max_iter": 2}, digits, call, 1, 500)
    yield Case("predict, one row of load_diabetes", "MLPRegressor", {"max_iter": 2}, diabetes, "predict", 1, 500)
    yield Case("predict, 1,797 rows of load_digits", "MLPClassifier", {"max_iter": 2}, digits, "predict", None, 10)
    yield Case(
        "fit, 2,000 x 30,000 sparse, (50,), 2 epochs", "MLPClassifier", {"hidden_layer_sizes": 50, "max_iter": 2}, words
    )


def check(case: Case, x: Any, y: np.ndarray) -> tuple[dict[str, Any], float]:
    """Both estimators fitted, and by how much they differ: AssertionError where that is more than rounding explains."""
    fitted = {library: case.make(library).fit(x, y) for library in LIBRARIES}
    if case.call == "fit" and x.dtype == np.float32:
        pairs = [tuple(np.log(f.loss_curve_) for f in fitted.values())]
    elif case.call == "fit":
        arrays = [(f.coefs_, f.intercepts_) for f in fitted.values()]
        pairs = [(a, b) for mine, other in zip(*arrays, strict=True) for a, b in zip(mine, other, strict=True)]
    else:
        pairs = [tuple(getattr(f, case.call)(x[: case.rows]) for f in fitted.values())]
    apart = max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs)
    if not apart <= _APART[str(x.dtype)] or fitted[THEIRS].n_iter_ != fitted[OURS].n_iter_:
        raise AssertionError(f"{case.name}: the results differ by {apart:.3g}")
    return fitted, apart


def measure(case: Case, turns: int, blas: ThreadpoolController) -> dict[str, Any]:
    """Every turn's seconds of each system: {"apart": …, "seconds": {"scikit-learn 1": […], …, …}}."""
    x, y = case.data()
    fitted, apart = check(case, x, y)
    counts = sorted({1, len(cpus()) or 1})
    runs = [(library, count) for library in LIBRARIES for count in counts]
    seconds: dict[str, list[float]] = {_label(*run): [] for run in runs}
    part = x[: case.rows]
    for turn in range(turns):
        order = list(runs)
        random.Random(turn).shuffle(order)
        for library, count in order:
            made = [case.make(library) for _ in range(case.calls)] if case.call == "fit" else [fitted[library]]
            pause()
            with blas.limit(limits=count, user_api="blas"):
                began = time.perf_counter()
                if case.call == "fit":
                    for estimator in made:
                        estimator.fit(x, y)
                else:
                    call = getattr(made[0], case.call)
                    for _ in range(case.calls):
                        call(part)
                seconds[_label(library, count)].append((time.perf_counter() - began) / case.calls)
    return {"apart": apart, "seconds": seconds}


def _label(library: str, threads: int) -> str:
    return f"{library} {threads}"


def report(found: dict[str, dict[str, Any]]) -> str:
    """The table."""
    lines = ["| | scikit-learn | mlpkernels | faster |", "|---|---|---|---|"]
    for name, result in found.items():
        theirs, ours = (_better(result["seconds"], library) for library in LIBRARIES)
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        faster = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}…{max(ratios):.1f})"
        lines.append(f"| {name} | {_time(theirs)} | {_time(ours)} | {faster} |")
    return "\n".join(lines)


def _better(seconds: dict[str, list[float]], library: str) -> list[float]:
    """A library's turns at its better number of BLAS threads."""
    return min((turns for label, turns in seconds.items() if label.startswith(library)), key=statistics.median)


def _time(seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return (
        f"{median:.2f} s" if median >= 1 else f"{1e3 * median:.1f} ms" if median >= 1e-3 else f"{1e6 * median:.0f} µs"
    )


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, 3 turns: a look, no measurement")
    parser.add_argument("--turns", type=int, help="[default: 7, quick: 3]")
    parser.add_argument("--only", default="", help="the cases whose names hold this text")
    parser.add_argument("--out", type=Path, help="write every measurement to this JSON file")
    chosen = parser.parse_args()
    aside, blas, found = set_aside(), ThreadpoolController(), {}
    warnings.simplefilter("ignore", ConvergenceWarning)
    for case in cases(chosen.quick):
        if chosen.only in case.name:
            found[case.name] = measure(case, chosen.turns or (3 if chosen.quick else 7), blas)
            print(f"… {case.name}", file=sys.stderr, flush=True)
    print(report(found))
    if chosen.out:
        facts = {"set_aside": aside, "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__}}
        chosen.out.write_text(json.dumps({**facts, "cases": found}, indent=1))


if __name__ == "__main__":
    main()
