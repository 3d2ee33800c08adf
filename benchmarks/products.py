"""A dense layer's three matrix products at the shapes of training: ours and OpenBLAS's, both without Python's cost.

Both are called in a compiled loop: ours as training calls it (padded rows, shares of the rows for each thread),
OpenBLAS through the pointer to its cblas_sgemm, found in the library that NumPy brought.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[int], None]  # runs the product so many times

FORWARD, PARAMS, INPUT = "x @ w", "x.T @ delta", "delta @ w.T"
BATCHES = (8, 32, 64, 128, 256, 1024)
_LAYERS = [
    (784, 10),
    (784, 64),
    (784, 128),
    (784, 256),
    (64, 64),
    (128, 128),
    (256, 256),
    (64, 10),
    (128, 10),
    (256, 10),
]
_FEW = [(784, 64), (784, 128), (128, 128), (128, 10)]


@dataclass(frozen=True)
class Product:
    """One of a layer's three products: FORWARD (B, I) @ (I, O), PARAMS (I, B) @ (B, O), INPUT (B, O) @ (O, I)."""

    kind: str
    batch: int
    inputs: int
    outputs: int

    @property
    def mnk(self) -> tuple[int, int, int]:
        """Rows, columns and the length of the sums."""
        b, i, o = self.batch, self.inputs, self.outputs
        return {FORWARD: (b, o, i), PARAMS: (i, o, b), INPUT: (b, i, o)}[self.kind]

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each term."""
        m, n, k = self.mnk
        return 2 * m * n * k

    def operands(self) -> tuple[np.ndarray, np.ndarray, bool, bool]:
        """(a, b, whether a is to be transposed, whether b is): float32, C-contiguous, from a fixed seed."""
        random = np.random.default_rng((self.batch, self.inputs, self.outputs))
        x, delta, w = (
            random.standard_normal(shape, np.float32)
            for shape in ((self.batch, self.inputs), (self.batch, self.outputs), (self.inputs, self.outputs))
        )
        return {
            FORWARD: (x, w, False, False),
            PARAMS: (x, delta, True, False),
            INPUT: (delta, w, False, True),
        }[self.kind]

    def check(self, result: np.ndarray) -> None:
        """Raise AssertionError unless result (m, n) is the product within the bound on float32's rounding."""
        a, b, a_t, b_t = self.operands()
        left, right = (a.T if a_t else a).astype(np.float64), (b.T if b_t else b).astype(np.float64)
        bound = (self.mnk[2] + 1) * np.finfo(np.float32).eps * (abs(left) @ abs(right))
        if not (abs(result - left @ right) <= bound).all():
            raise AssertionError(f"{self}: wrong product")


def products(quick: bool = False) -> list[Product]:
    """Every product of training: the first layer's input has no gradient, so there is none of depth 784."""
    batches, layers = ((8, 128, 1024), _FEW) if quick else (BATCHES, _LAYERS)
    return [
        Product(kind, batch, inputs, outputs)
        for kind in (FORWARD, PARAMS, INPUT)
        for inputs, outputs in layers
        if kind != INPUT or inputs != 784
        for batch in batches
    ]


class Loops:
    """The compiled loops, made once a process: compiling them takes seconds."""

    def __init__(self, system: str, threads: int) -> None:
        self.threads = threads
        self.make = self._ours if system == "mlpkernels" else self._openblas
        if system == "mlpkernels":
            self.serial, self.parallel = _loops()
        else:
            self.sgemm, self.integer = find_sgemm()
            self.loop = _blas_loop(self.sgemm)

    def _ours(self, product: Product) -> tuple[Call, np.ndarray]:
        from mlpkernels.kernels import plan
        from mlpkernels.kernels.cpu import simd, steps
        from mlpkernels.kernels.cpu import threads as pool

        a, b, a_t, b_t = product.operands()
        m, n, k = product.mnk
        # Rows as long as in training: a multiple of PAD in parameters (w and its gradient), an odd one elsewhere.
        a, a_row = _padded(a, plan.odd_stride)
        b, b_row = _padded(b, plan.odd_stride if product.kind == PARAMS else plan.pad)
        c_row = (plan.pad if product.kind == PARAMS else plan.odd_stride)(n)
        c = plan.zeros(m * c_row, np.float32)
        a_row, a_k = (1, a_row) if a_t else (a_row, 1)
        b_k, b_j = (1, b_row) if b_t else (b_row, 1)
        gemm, slots = steps.pointer("gemm", "float32"), pool.slots(self.threads, float(product.flops))
        arguments = (gemm, slots, a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, simd.STORE)

        def call(times: int) -> None:
            if slots == 1:
                self.serial(times, *arguments)
            else:
                with pool.launch(slots):
                    self.parallel(times, *arguments)

        return call, c.reshape(m, c_row)[:, :n]

    def _openblas(self, product: Product) -> tuple[Call, np.ndarray]:
        a, b, a_t, b_t = product.operands()
        m, n, k = product.mnk
        c = np.zeros((m, n), np.float32)
        if self.sgemm is None:
            left, right = a.T if a_t else a, b.T if b_t else b

            def in_python(times: int) -> None:
                for _ in range(times):
                    np.matmul(left, right, out=c)

            return in_python, c
        number = self.integer
        sizes = [number(value) for value in (m, n, k, a.shape[1], b.shape[1], c.shape[1])]

        def call(times: int) -> None:
            self.loop(times, 112 if a_t else 111, 112 if b_t else 111, *sizes, a, b, c)

        return call, c


def _padded(matrix: np.ndarray, stride: Callable[[int], int]) -> tuple[np.ndarray, int]:
    """A matrix's rows in a flat array, each `stride` long and padded with zeros; and that length."""
    from mlpkernels.kernels import plan

    rows, columns = matrix.shape
    flat = plan.zeros(rows * stride(columns), matrix.dtype)
    flat.reshape(rows, -1)[:, :columns] = matrix
    return flat, stride(columns)


def _loops() -> tuple[Any, Any]:
    """Loops over our product, through a function pointer as training calls it: on one thread, on several."""
    from numba import njit, prange, types

    from mlpkernels.kernels.cpu import steps
    from mlpkernels.kernels.cpu.shares import equal_share
    from mlpkernels.kernels.cpu.simd import pointer_to

    def serial(times, gemm, slots, a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, store):
        for _ in range(times):
            out = pointer_to(c, 0)
            gemm(
                pointer_to(a, 0), a_row, a_k, pointer_to(b, 0), b_k, b_j, out, c_row, m, n, k, True, store, out, 0
            )  # fmt: skip

    def parallel(times, gemm, slots, a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, store):
        for _ in range(times):
            for slot in prange(slots):
                start, stop = equal_share(m, np.int64(slot), slots)
                if start < stop:
                    out = pointer_to(c, start * c_row)
                    gemm(
                        pointer_to(a, start * a_row), a_row, a_k, pointer_to(b, 0), b_k, b_j, out, c_row, stop - start,
                        n, k, True, store, out, 0,
                    )  # fmt: skip

    pointer = types.FunctionType(steps.signatures(types.float32)["gemm"])
    i, flat = types.int64, types.Array(types.float32, 1, "C")
    signature = types.void(i, pointer, i, flat, i, i, flat, i, i, flat, i, i, i, i, i)
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    return njit(signature, **options)(serial), njit(signature, parallel=True, **options)(parallel)


def find_sgemm() -> tuple[Any, Callable[[int], Any]]:
    """(cblas_sgemm of NumPy's OpenBLAS as a ctypes function, its integer); (None, int) where there is none."""
    from threadpoolctl import threadpool_info

    for library in threadpool_info():
        if library["user_api"] != "blas" or library["internal_api"] != "openblas":
            continue
        handle = ctypes.CDLL(library["filepath"])
        for name in ("scipy_cblas_sgemm64_", "cblas_sgemm64_", "scipy_cblas_sgemm", "cblas_sgemm"):
            if hasattr(handle, name):
                wide = name.endswith("64_")
                i, p, f = ctypes.c_int64 if wide else ctypes.c_int32, ctypes.c_size_t, ctypes.c_float
                function = getattr(handle, name)
                function.argtypes = [ctypes.c_int32] * 3 + [i, i, i, f, p, i, p, i, f, p, i]
                function.restype = None
                return function, np.int64 if wide else np.int32
    return None, int


def _blas_loop(sgemm: Any) -> Any:
    """A compiled loop over cblas_sgemm: row-major, alpha 1, beta 0."""
    from numba import njit

    if sgemm is None:
        return None
    one, zero, row_major = np.float32(1), np.float32(0), np.int32(101)

    @njit
    def loop(times, a_t, b_t, m, n, k, lda, ldb, ldc, a, b, c):
        a_at, b_at, c_at = a.ctypes.data, b.ctypes.data, c.ctypes.data
        for _ in range(times):
            sgemm(
                row_major, np.int32(a_t), np.int32(b_t), m, n, k, one, a_at, lda, b_at, ldb, zero, c_at, ldc
            )  # fmt: skip

    return loop


def calls(product: Product, seconds: float) -> int:
    """How many calls take roughly that long at 100 GFLOP/s a core, at least one; the same for every system."""
    return max(1, round(seconds * 1e11 / (product.flops + 2e4)))


def passes(call: Call, times: int, count: int) -> list[float]:
    """Seconds a call in each of `count` passes of so many calls, without what entering the compiled loop takes."""
    entering = min(_seconds(call, 0) for _ in range(5))
    return [(_seconds(call, times) - entering) / times for _ in range(count)]


def _seconds(call: Call, times: int) -> float:
    began = time.perf_counter()
    call(times)
    return time.perf_counter() - began
