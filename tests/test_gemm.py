"""The matrix product over flat arrays: strides, offsets, blocking, packing, edges, and nothing touched beside it."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bounds import Rounded
from problems import DTYPES
from support import product

from mlpkernels.kernels.cpu import gemm as source
from mlpkernels.kernels.cpu.simd import ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, STORE, TILE_ROWS, VECTOR_BYTES, VECTORS

EPILOGUES = {"store": STORE, "bias": ADD_BIAS, "bias-relu": ADD_BIAS_RELU, "slope": RELU_SLOPE}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def random():
    return np.random.default_rng(0)


class Matrix:
    """A (rows, columns) matrix somewhere in a flat array of NaN, contiguous along one axis, at a longer stride."""

    def __init__(self, values, dtype, random, transposed=False):
        values = np.asarray(values, dtype)
        stored = values.T if transposed else values
        self.at, stride = int(random.integers(0, 20)), stored.shape[1] + int(random.integers(1, 9))
        self.flat = np.full(self.at + stored.shape[0] * stride + 80, np.nan, dtype)
        block = self.flat[self.at : self.at + stored.shape[0] * stride].reshape(stored.shape[0], stride)
        self.stored = block[:, : stored.shape[1]]
        self.stored[...] = stored
        self.row, self.column = (1, stride) if transposed else (stride, 1)
        self.values = self.stored.T if transposed else self.stored

    @property
    def untouched(self):
        """Whether everything beside the matrix is still NaN."""
        kept = self.stored.copy()
        self.stored[...] = np.nan
        beside = np.isnan(self.flat).all()
        self.stored[...] = kept
        return beside


def multiply(a, b, c, k, epilogue, aux, aux_row, padded=False):
    m, n = c.values.shape
    product(c.flat.dtype)(
        a.flat, a.at, a.row, a.column, b.flat, b.at, b.row, b.column, c.flat, c.at, c.row, m, n, k, padded,
        EPILOGUES[epilogue], aux.flat, aux.at, aux_row,
    )  # fmt: skip


def check(dtype, random, m, n, k, epilogue, transposed_a=False, transposed_b=False):
    a = Matrix(random.normal(size=(m, k)), dtype, random, transposed_a)
    b = Matrix(random.normal(size=(k, n)), dtype, random, transposed_b)
    c = Matrix(np.full((m, n), np.nan), dtype, random)
    slope = epilogue == "slope"
    aux = Matrix(random.normal(size=(m if slope else 1, n)), dtype, random)
    multiply(a, b, c, k, epilogue, aux, aux.row if slope else 0)
    exact = Rounded(a.values, dtype) @ Rounded(b.values, dtype)
    if epilogue.startswith("bias"):
        exact = exact + Rounded(aux.values, dtype)
    if epilogue == "bias-relu":
        exact = exact.relu()
    if slope:
        exact = exact.where_positive(Rounded(aux.values, dtype))
    note = f"{m, n, k} {epilogue} {transposed_a} {transposed_b}"
    exact.check(c.values, note=note)
    assert c.untouched and a.untouched and b.untouched and aux.untouched, note


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("layout", ["row by row", "a transposed", "b transposed"])
def test_small_products_at_any_offset_and_stride(dtype, random, epilogue, layout):
    few = (0, 1, 3, 8, 17, 33)
    for n, i, j in itertools.product(range(34), few, few):
        m, columns, k = random.permutation((n, i, j))
        check(dtype, random, m, columns, k, epilogue, layout == "a transposed", layout == "b transposed")


def test_sizes_around_every_block(dtype, random):
    """One less and one more than a tile's rows, a panel's width and depth, and where rows of b start to be packed."""
    width = VECTORS * VECTOR_BYTES // np.dtype(dtype).itemsize
    rows = (TILE_ROWS[0] - 1, TILE_ROWS[0] + 1, 8, 23, 25)
    depths = (source.DEPTH - 1, source.DEPTH, source.DEPTH + 1, 2 * source.DEPTH + 3)
    for m, n, k in itertools.product(rows, (width - 1, width, width + 1, 3 * width + 5), depths):
        epilogue = list(EPILOGUES)[(m + n + k) % 4]
        check(dtype, random, m, n, k, epilogue, transposed_a=bool(m % 2), transposed_b=bool(n % 2))


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_more_of_a_than_a_cache_holds(dtype, random, epilogue):
    """Where there are 16 registers: groups of panels, slices of the depth and strips of a, whole and partial ones."""
    across = VECTORS * VECTOR_BYTES // np.dtype(dtype).itemsize
    group, deep, turned, least = source.GROUP * across, source.DEEP, source.TURNED, 3 * across
    strips = [
        (140, least, 500), (158, 2 * group + 1, turned), (24, group - 1, source.LARGE // 24 + 1), (70, group, 2 * deep),
        (133, group + least + 3, turned + 1), (69, least + 2, deep + 1), (71, least + across - 2, deep),
        (44, 2 * group + 1, 2 * deep + 5), (600, least + 1, source.SHALLOW),
    ]  # fmt: skip
    deeper = source.LEAVES_CACHE // 23 + 1
    flat = [(23, least + 1, deeper), (23, group + 8, deeper), (17, group + 3, 5000)]
    others = [(30, 3, 70_000 // 3), (600, least, source.SHALLOW - 1), (300, least - 1, 2 * source.DEPTH + 3)]
    for m, n, k in strips:
        assert source._goes_by_groups.py_func(m, n, k, across) == source.FEW and m >= source.FLAT
    for m, n, k in flat:
        assert source._goes_by_groups.py_func(m, n, k, across) == source.FEW and m < source.FLAT
    for m, n, k in others:
        assert not source._goes_by_groups.py_func(m, n, k, across)
    for m, n, k in (*strips, *flat, *others):
        for transposed_a, transposed_b in ((False, False), (True, False), (False, True)):
            check(dtype, random, m, n, k, epilogue, transposed_a, transposed_b)


def test_narrow_products_of_a_transposed_matrix(dtype, random):
    """Weight gradients of few outputs, around the widths and depths where they are computed the other way round."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for n, depth in itertools.product((1, 2, lanes - 1, lanes), (1, 50, source.DEPTH + 1, 2 * source.DEPTH + 3)):
        for m in (4 * n - 1, 4 * n, 4 * n + 1, 5 * VECTORS * lanes + 3):
            check(dtype, random, m, n, depth, list(EPILOGUES)[m % 4], transposed_a=True)


def test_rows_of_b_a_power_of_two_apart_are_packed_without_a_difference(dtype, random):
    a = Matrix(random.normal(size=(40, 50)), dtype, random)
    values = random.normal(size=(50, 256))
    aux = Matrix(np.zeros((1, 256)), dtype, random)
    results = []
    for stride in (256, 272):
        b = Matrix(values, dtype, random)
        b.flat, b.at, b.row = np.zeros(50 * stride, dtype), 0, stride
        b.flat.reshape(50, stride)[:, :256] = values
        c = Matrix(np.zeros((40, 256)), dtype, random)
        multiply(a, b, c, 50, "bias", aux, 0)
        results.append(c.values.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "k"), [(29, source.DEPTH + 11), (400, source.DEPTH + 11), (300, source.DEEP + 11)])
def test_an_element_has_the_same_bits_wherever_it_lies(dtype, random, transposed, m, k):
    """However rows are shared out and columns cut: the sum over k is one chain. Some parts of the larger ones are so
    large that a goes by in strips, in slices that are not another part's.
    """
    n = 75
    a = Matrix(random.normal(size=(m, k)), dtype, random, transposed)
    b = Matrix(random.normal(size=(k, n)), dtype, random)
    aux = Matrix(random.normal(size=(1, n)), dtype, random)
    for epilogue in ("store", "bias", "bias-relu"):
        whole = Matrix(np.zeros((m, n)), dtype, random)
        multiply(a, b, whole, k, epilogue, aux, 0)
        for _ in range(40):
            top, bottom = np.sort(random.choice(m + 1, 2, replace=False))
            left, right = np.sort(random.choice(n + 1, 2, replace=False))
            right = min(right, left + int(random.choice([3, 75])))
            part = Matrix(np.zeros((bottom - top, right - left)), dtype, random)
            product(dtype)(
                a.flat, a.at + top * a.row, a.row, a.column, b.flat, b.at + left, b.row, 1, part.flat, part.at,
                part.row, bottom - top, right - left, k, False, EPILOGUES[epilogue], aux.flat, aux.at + left, 0,
            )  # fmt: skip
            assert part.values.tobytes() == whole.values[top:bottom, left:right].tobytes(), (epilogue, top, left)


def test_padded_rows_are_used_to_the_next_full_vector(dtype, random):
    """With padded=True the edge is computed, not copied: the same numbers, and c's pads get the products of b's."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    sizes = [*itertools.product((1, 6, 13), range(1, 70, 3), (1, 20)), (27, 47, 650), (85, 133, 200), (40, 16, 500)]
    for m, n, k in sizes:
        room = -(-n // lanes) * lanes
        left, right = random.normal(size=(m, k)).astype(dtype), np.zeros((k, room), dtype)
        right[:, :n] = random.normal(size=(k, n))
        a, b, c = Matrix(left, dtype, random), Matrix(right, dtype, random), Matrix(np.zeros((m, room)), dtype, random)
        aux = Matrix(np.zeros((1, room)), dtype, random)
        product(dtype)(
            a.flat, a.at, a.row, 1, b.flat, b.at, b.row, 1, c.flat, c.at, c.row, m, n, k, True, ADD_BIAS, aux.flat,
            aux.at, 0,
        )  # fmt: skip
        (Rounded(left, dtype) @ Rounded(right, dtype)).check(c.values, note=f"{m, n, k}")
        assert c.untouched


def test_it_takes_what_the_epilogue_reads_from_where_it_writes(dtype, random):
    """The executor's slopes lie beside the deltas they shape: aux may even be c itself, read before it is written."""
    x = random.normal(size=(9, 21))
    a = Matrix(random.normal(size=(9, 5)), dtype, random)
    b, c = Matrix(random.normal(size=(5, 21)), dtype, random), Matrix(x, dtype, random)
    multiply(a, b, c, 5, "slope", c, c.row)
    exact = Rounded(a.values, dtype) @ Rounded(b.values, dtype)
    exact.where_positive(Rounded(x.astype(dtype), dtype)).check(c.values)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is walled off with POSIX mprotect")
def test_nothing_is_read_or_written_beside_its_arrays():
    """Every array ends, then starts, at a page that may not be touched; in a process of its own: it would crash."""
    script = Path(__file__).parent / "guarded_memory.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.stdout == "inside\n", (done.returncode, done.stderr)
