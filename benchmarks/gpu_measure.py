"""What the GPU report measures of the CUDA backend, in the process of one package: run by gpu_report.py.

Times are medians of CUDA events behind a warm-up, on a GPU that is still at work when they are asked for: else they
would count how long Python takes to launch. Under the simulator nothing is timed, and sizes are tiny.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cases import NAMES, Case, order, trial
from data import Images
from gpu_peers import HELD, SHAPES
from peers import Kernels

from mlpkernels import kernels
from mlpkernels.errors import MlpkError
from mlpkernels.kernels import reference
from mlpkernels.kernels.cuda.driver import cuda  # the package; kernels look for it by this name
from mlpkernels.kernels.plan import RELU

_TURNS, _WARM = 15, 3

TINY_SHAPES = [(9, 17, 6), (5, 3, 2)]
STEPS = 5  # compared with the reference

CASES = [NAMES[name] for name in ("adam-128", "sgd-8", "sgd-64", "adam-1024")]
TINY = [Case("tiny", (5,), "adam", 8)]


class Gpu:
    """The backend, its package and its events."""

    def __init__(self, simulated: bool) -> None:
        self.backend: Any = kernels.load("cuda")
        self.driver, self.simulated = self.backend.driver, simulated
        self.driver.require_device()
        self._out = cuda.to_device(np.zeros(1, np.float32))

    @cached_property
    def _chain(self) -> Any:
        @cuda.jit
        def chain(out, n, factor):
            value = factor
            for _ in range(n):
                value = value * factor + factor
            out[0] = value

        return chain

    def seconds(self, call: Callable[[], Any], turns: int = _TURNS) -> float | None:
        """The median time of call() on the GPU; None under the simulator, where it is only called."""
        if self.simulated:
            call()
            return None
        times = []
        for turn in range(_WARM + turns):
            begin, end = cuda.event(timing=True), cuda.event(timing=True)
            self._chain[1, 1](self._out, HELD, np.float32(0.999))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= _WARM:
                times.append(begin.elapsed_time(end) / 1e3)
        return median(times)

    def wall(self, call: Callable[[], Any], turns: int = 7) -> list[float] | None:
        """Seconds that a call takes its caller, which waits for the GPU in it."""
        if self.simulated:
            call()
            return None
        times = []
        for _ in range(_WARM + turns):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return times[_WARM:]


def facts(gpu: Gpu) -> dict[str, Any]:
    """The GPU, the package and the driver."""
    found = dict(gpu.driver.facts())
    if not gpu.simulated:
        device = cuda.get_current_device()
        found |= {
            "capability": ".".join(map(str, device.compute_capability)),
            "multiprocessors": int(device.MULTIPROCESSOR_COUNT),
            "memory": list(map(int, cuda.current_context().get_memory_info())),
        }
    return found


# ---- agreement with the reference


def _far(got: np.ndarray, wanted: np.ndarray) -> float:
    """‖got - wanted‖ / ‖wanted‖; NaN stays."""
    return float(np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-300))


def parity(gpu: Gpu, images: Images) -> dict[str, float]:
    """How far ops and five training steps are from the reference in float64, by name. AssertionError beyond 1e-5."""
    random, found = np.random.default_rng(int(time.time())), {}
    for shape in TINY_SHAPES if gpu.simulated else SHAPES[:-1]:
        rows, inputs, outputs = shape
        x, w, b = (random.normal(size=s).astype(np.float32) for s in ((rows, inputs), (inputs, outputs), (outputs,)))
        out, wanted = np.full((rows, outputs), np.nan, np.float32), np.empty((rows, outputs))
        gpu.backend.dense_forward(x, w, b, RELU, out)
        reference.dense_forward(*(a.astype(float) for a in (x, w, b)), RELU, wanted)
        found[f"dense_forward {shape}"] = _far(out, wanted)
        dw, db, dx = np.full_like(w, np.nan), np.full_like(b, np.nan), np.full_like(x, np.nan)
        exact = [np.empty(a.shape) for a in (dw, db, dx)]
        gpu.backend.dense_backward_params(x, out, dw, db)
        gpu.backend.dense_backward_input(out, w, x, RELU, dx)
        reference.dense_backward_params(x.astype(float), out.astype(float), *exact[:2])
        reference.dense_backward_input(*(a.astype(float) for a in (out, w, x)), RELU, exact[2])
        for name, got, best in zip(("weights", "biases", "inputs"), (dw, db, dx), exact, strict=True):
            found[f"dense_backward {name} {shape}"] = _far(got, best)
    for case in TINY if gpu.simulated else CASES:
        found |= _training_parity(gpu, case, images)
    wrong = {name: far for name, far in found.items() if not far <= 1e-5}
    assert not wrong, f"beyond 1e-5 of the reference: {wrong}"
    return found


def _training_parity(gpu: Gpu, case: Case, images: Images) -> dict[str, float]:
    ours, again, wanted = (Training(gpu, case, images, way) for way in ("one launch", "phases", "reference"))
    rows = order(len(images.y), 3)
    found = [run.steps(rows, STEPS) for run in (ours, again, wanted)]
    assert ours.params.tobytes() == again.params.tobytes(), f"{case}: one launch and a launch a phase differ in bits"
    return {f"{case.name}: losses of {STEPS} steps": _far(found[0], found[2]),
            f"{case.name}: parameters after them": _far(ours.params, wanted.params)}  # fmt: skip


class Training:
    """A case from its start: on the GPU in "one launch" or "phases", or by the "reference" in float64."""

    def __init__(self, gpu: Gpu, case: Case, images: Images, way: str) -> None:
        from mlpkernels import SGD, Adam, Dense, Network, Scaling
        from mlpkernels.losses import Answers

        self.case, self.way = case, way
        self.backend = reference if way == "reference" else gpu.backend
        layers: list[Any] = [*(Dense(width, "relu") for width in case.hidden), Dense(case.kind.classes)]
        dtype = "float64" if way == "reference" else "float32"
        inputs, rate = images.x.shape[1], case.learning_rate
        self.network = Network(layers, inputs, dtype=dtype, scaling=Scaling("unit", 1 / 255, 0.0), seed=1)
        self.source = self.network.rows_source(images.x, Answers(images.y), None)
        self.state = (SGD(rate) if case.optimizer == "sgd" else Adam(rate)).state(self.network.params)
        self.work = self.backend.make_workspace(self.network.plan, case.batch, dtype)

    @property
    def params(self) -> np.ndarray:
        return self.network.params

    def steps(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Train on the first `count` mini-batches of an order; the loss of each."""
        batch = self.case.batch
        count = min(count, -(-len(rows) // batch))
        losses, corrects, rates = np.zeros(count), np.zeros(count, np.int64), np.full(count, self.case.learning_rate)
        launched(self.way)
        reached = self.backend.train_steps(
            self.network.model, self.state, self.source, rows, batch, 0, count, rates, self.work, losses, corrects
        )
        assert reached == count, f"{self.case}: the loss of step {reached + 1} is not finite"
        return losses


def launched(way: str) -> None:
    """Have train_steps launch its steps this way."""
    from mlpkernels.kernels.cuda import executor

    executor.mode = way if way in executor.MODES else executor.mode


# ---- the machine's limits


def limits(gpu: Gpu) -> dict[str, float | None]:
    """Bytes a second of a copy on the GPU, counted read and written, and float32 operations a second of its units."""
    size = 1 << (6 if gpu.simulated else 28)
    source, target = (cuda.to_device(np.ones(size, np.float32)) for _ in range(2))

    @cuda.jit
    def copy(a, b, n):
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            b[i] = a[i]

    rounds, chains = (2 if gpu.simulated else 4096), 8
    one = np.float32(0.999)

    @cuda.jit
    def multiply_add(out, n, factor):
        a, b, c, d = factor, factor + factor, factor * factor, np.float32(1)
        e, f, g, h = a + d, b + d, c + d, d + d
        for _ in range(n):
            a, b, c, d = a * factor + factor, b * factor + factor, c * factor + factor, d * factor + factor
            e, f, g, h = e * factor + factor, f * factor + factor, g * factor + factor, h * factor + factor
        out[cuda.grid(1)] = a + b + c + d + e + f + g + h

    blocks, threads = (1, 2) if gpu.simulated else (132 * 16, 256)
    out = cuda.to_device(np.zeros(blocks * threads, np.float32))
    copied = gpu.seconds(lambda: copy[blocks, threads](source, target, size))
    computed = gpu.seconds(lambda: multiply_add[blocks, threads](out, rounds, one))
    return {
        "bandwidth": copied and 2 * source.nbytes / copied,
        "flops": computed and 2 * chains * rounds * blocks * threads / computed,
    }


def barrier(gpu: Gpu) -> float | None:
    """Seconds of one grid barrier, a block of 256 threads a multiprocessor."""
    count = 2 if gpu.simulated else 2000

    @cuda.jit
    def barriers(out, n):
        grid = cuda.cg.this_grid()
        for i in range(n):
            grid.sync()
            if cuda.grid(1) == 0:
                out[0] = i

    out = cuda.to_device(np.zeros(1, np.int64))
    blocks = 1 if gpu.simulated else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
    threads = 2 if gpu.simulated else 256
    many, few = (gpu.seconds(lambda n=n: barriers[blocks, threads](out, n)) for n in (count, 1))
    return None if many is None or few is None else (many - few) / (count - 1)


# ---- kernels and epochs


def products(gpu: Gpu) -> Iterator[dict[str, Any]]:
    """dense_forward on arrays that lie on the GPU; poisoned, checked, then timed."""
    for m, k, n in TINY_SHAPES if gpu.simulated else SHAPES:
        random = np.random.default_rng(0)
        host = [random.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n), (n,))]
        there = [cuda.to_device(a) for a in host]
        out = cuda.to_device(np.full((m, n), np.nan, np.float32))
        gpu.backend.dense_forward(*there, 0, out)
        wanted = host[0].astype(float) @ host[1].astype(float) + host[2]
        far = _far(out.copy_to_host(), wanted)
        assert far < 1e-5, (m, k, n, far)
        seconds = gpu.seconds(lambda there=there, out=out: gpu.backend.dense_forward(*there, 0, out))
        yield {"shape": (m, k, n), "seconds": seconds, "flops": seconds and 2 * m * k * n / seconds, "far": far}


def updates(gpu: Gpu) -> dict[str, Any]:
    """adam_step over many parameters: bytes a second of what it reads and writes."""
    size = 64 if gpu.simulated else 1 << 26
    params, grad, m, v = (cuda.to_device(np.full(size, 0.5, np.float32)) for _ in range(4))
    arguments = (params, grad, m, v, 1e-3, 0.9, 0.999, 1e-8, 0.0, False, 3)
    seconds = gpu.seconds(lambda: gpu.backend.adam_step(*arguments))
    return {"size": size, "seconds": seconds, "bandwidth": seconds and 7 * params.nbytes / seconds}


def epochs(gpu: Gpu, images: Images) -> Iterator[dict[str, Any]]:
    """Seconds of an epoch as train_steps takes them, copies of the parameters and all, in both ways to launch.

    answer: (losses, parameters) of the trial that every system takes.
    """
    for case in TINY if gpu.simulated else CASES:
        ours = Kernels(case, images, 1, backend="cuda")
        losses = ours.run(ours.place(trial(case, len(images.y))))
        row: dict[str, Any] = {
            "case": case.name, "told": str(case), "rows": len(images.y), "steps": -(-len(images.y) // case.batch),
            "phases of a step": ours.work.program("training", False, True, False).count,
            "answer": (losses.tolist(), [a.tolist() for a in ours.parameters()]),
        }  # fmt: skip
        placed = ours.place(order(len(images.y), 1))
        for way in ("one launch", "phases"):
            launched(way)
            try:
                row[way] = gpu.wall(lambda ours=ours, placed=placed: ours.run(placed))
            except (MlpkError, RuntimeError, MemoryError) as error:  # the other way may do
                row |= {way: None, f"{way} failed": str(error)}
        launched("auto")
        yield row


def same_bits(gpu: Gpu, images: Images) -> bool:
    """Whether two trainings give the same bits."""
    case = (TINY if gpu.simulated else CASES)[0]
    runs = [Training(gpu, case, images, "one launch") for _ in range(2)]
    for run in runs:
        run.steps(np.arange(len(images.y)), 50)
    return runs[0].params.tobytes() == runs[1].params.tobytes()


def everything(simulated: bool, images: Images, tell: Callable[[dict[str, Any]], None]) -> None:
    """Tell all of it, by name, as it grows: a part that fails says how under "failures", and the others go on."""
    gpu = Gpu(simulated)
    parts: dict[str, Callable[[], Any]] = {
        "facts": lambda: facts(gpu),
        "barrier": lambda: barrier(gpu),
        "limits": lambda: limits(gpu),
        "parity": lambda: parity(gpu, images),
        "same bits twice": lambda: same_bits(gpu, images),
        "epochs": lambda: epochs(gpu, images),
        "products": lambda: products(gpu),
        "adam": lambda: updates(gpu),
    }
    found: dict[str, Any] = {**dict.fromkeys(parts), "failures": {}, "data": images.source}
    for name, part in parts.items():
        try:
            found[name] = part()
            if isinstance(found[name], Iterator):
                rows, found[name] = found[name], []
                for row in rows:
                    found[name].append(row)
                    tell(found)
        except Exception as error:  # whatever it is, the report is of this machine's faults, too
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            found["failures"][name] = f"{type(error).__name__}: {error} ({where})"
        tell(found)
