"""The vector micro-kernels: what instructions they become, at every vector width, and what they compute."""

import os
import platform
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numba import njit, types
from problems import DTYPES
from support import product

from mlpkernels.kernels.cpu import cache, simd, steps
from mlpkernels.kernels.cpu.simd import TILE_ROWS, UNROLL, UNROLLED, VECTOR_BYTES, VECTORS, lanes, pointer_to
from mlpkernels.kernels.cpu.transposes import transpose_block

X86 = re.match(r"x86|i[3-6]86|amd64", platform.machine().lower())
REGISTER = {64: "zmm", 32: "ymm", 16: "xmm"}[VECTOR_BYTES]

x86_with_fma = pytest.mark.skipif(
    not X86 or not simd.FUSED, reason="reads x86 assembly with fused multiply-adds, which this processor has not"
)


def compiled_gemm(dtype):
    """Compiled here and now: what comes from the cache has no assembly to show."""
    entry = steps.entry_points("assembly")["gemm"]
    dispatcher = njit(**cache.OPTIONS)(entry)
    dispatcher.compile(steps.signatures(getattr(types, dtype))["gemm"])
    return dispatcher


@pytest.fixture(scope="module", params=DTYPES)
def gemm_assembly(request):
    dispatcher = compiled_gemm(request.param)
    return request.param, dispatcher.inspect_asm(dispatcher.signatures[0])


def innermost_loops(assembly):
    """The instructions of every loop that is one block: from a label to the jump back to it."""
    label, block = None, []
    for line in map(str.strip, assembly.splitlines()):
        if match := re.match(r"(\.\w+):", line):
            label, block = match[1], []
        elif line and line[0] not in ".#":
            block.append(line)
            if label and re.fullmatch(rf"j\w+\s+{re.escape(label)}", line):
                yield list(block)


def sums(loop):
    """The registers that fused multiply-adds of a loop add to."""
    return {line.split(",")[-1].strip() for line in loop if line.startswith("vfmadd")}


@x86_with_fma
def test_the_product_is_full_vectors_of_fused_multiply_adds(gemm_assembly):
    dtype, assembly = gemm_assembly
    suffix = "ps" if dtype == "float32" else "pd"
    tile = [loop for loop in innermost_loops(assembly) if len(sums(loop)) == TILE_ROWS[0] * VECTORS]
    assert tile, f"no loop with {TILE_ROWS[0]} x {VECTORS} sums in registers"
    for loop in tile:
        for line in loop:
            if line.startswith("vfmadd"):
                assert line.split()[0].endswith(suffix) and f"%{REGISTER}" in line, line
        steps_a_turn = sum(line.startswith("vfmadd") for line in loop) / (TILE_ROWS[0] * VECTORS)
        assert steps_a_turn == int(steps_a_turn)


@x86_with_fma
@pytest.mark.skipif(UNROLLED is None, reason="with 32 registers no loop is written out")
def test_the_largest_tile_moves_its_pointers_seldom(gemm_assembly):
    """Written out, a step of 6 x 2 vectors has 8 loads, 12 multiply-adds and at most two instructions more."""
    _, assembly = gemm_assembly
    adds = TILE_ROWS[0] * VECTORS
    written_out = [
        loop for loop in innermost_loops(assembly) if sum(line.startswith("vfmadd") for line in loop) == UNROLL * adds
    ]
    assert len(written_out) >= 2, "one for a transposed a, one for rows"
    for loop in written_out:
        assert len(loop) <= UNROLL * (adds + TILE_ROWS[0] + VECTORS + 2)


@x86_with_fma
def test_a_product_takes_little_of_the_stack(gemm_assembly):
    """Threads of embedders may have 128 KB in all; what large products take besides, they alone take."""
    _, assembly = gemm_assembly
    frames = [int(size) for size in re.findall(r"subq\s+\$(\d+), %rsp", assembly)]
    assert 0 < max(frames) <= 2**15 and sum(frames) <= 2**16


@x86_with_fma
def test_no_vector_is_spilled_inside_the_loops_of_the_full_tiles(gemm_assembly):
    _, assembly = gemm_assembly
    found = 0
    for loop in innermost_loops(assembly):
        if len(sums(loop)) >= TILE_ROWS[0]:
            found += 1
            spilled = [line for line in loop if re.search(r"%[xyz]mm", line) and re.search(r"\(%r[sb]p", line)]
            assert not spilled, spilled
    assert found >= VECTORS


def test_the_width_follows_the_processors_features(monkeypatch):
    cases = [
        ({"avx512f": True, "avx512vl": True, "avx2": True, "fma": True}, "x86_64", (64, 32, True)),
        ({"avx512f": True, "avx2": True, "fma": True}, "x86_64", (32, 16, True)),
        ({"avx2": True, "fma": True}, "x86_64", (32, 16, True)),
        ({"avx2": True}, "x86_64", (16, 16, False)),
        ({"sse4.2": True}, "x86_64", (16, 16, False)),
        ({"neon": True}, "arm64-apple-darwin", (16, 32, True)),
        ({}, "aarch64-linux-gnu", (16, 32, True)),
        ({}, "riscv64-linux-gnu", (16, 16, False)),
    ]
    for features, triple, wanted in cases:
        monkeypatch.setattr(simd.llvm, "get_host_cpu_features", lambda features=features: features)
        monkeypatch.setattr(simd.llvm, "get_default_triple", lambda triple=triple: triple)
        assert simd._host() == wanted


OTHER_WIDTH = """
import llvmlite.binding as llvm
llvm.get_host_cpu_features = lambda: dict.fromkeys({features!r}, True)
import itertools, re
import numpy as np
from numba import njit, types
from mlpkernels.kernels.cpu import cache, simd, steps
assert (simd.VECTOR_BYTES, simd.FUSED) == {wanted!r}, (simd.VECTOR_BYTES, simd.FUSED)
gemm = njit(**cache.OPTIONS)(steps.entry_points("width")["gemm"])
gemm.compile(steps.signatures(types.{dtype})["gemm"])
address = steps.Pointer(gemm, gemm.nopython_signatures[0]).__wrapper_address__()
product = njit(**cache.OPTIONS)(steps.entry_points("width")["product"])
random = np.random.default_rng(0)
for m, n, k in itertools.product((1, 5, 6, 8, 13, 30), (1, 3, 8, 16, 17, 31, 70), (0, 1, 9, 800)):
    a, b = random.integers(-8, 9, (m, k)).astype("{dtype}"), random.integers(-8, 9, (k, n)).astype("{dtype}")
    bias, c = np.arange(n, dtype="{dtype}"), np.full((m, n), np.nan, "{dtype}")
    for left, right, strides in ((a, b, (k, 1, n, 1)), (a.T, b.T, (1, m, 1, k))):
        a_row, a_k, b_k, b_j = strides
        flat = np.ascontiguousarray(left).reshape(-1), np.ascontiguousarray(right).reshape(-1)
        product(
            address, flat[0], 0, a_row, a_k, flat[1], 0, b_k, b_j, c.reshape(-1), 0, n, m, n, k, False, 1, bias, 0, 0
        )
        assert np.array_equal(c, a @ b + bias), (m, n, k)  # small integers: exact in any order
assembly = gemm.inspect_asm(gemm.signatures[0])
print(len(re.findall(r"vfmadd.*%zmm", assembly)), len(re.findall(r"vfmadd.*%ymm", assembly)))
"""


@pytest.mark.skipif(not X86 or not simd.FUSED, reason="the narrower x86 widths run only on an x86 processor with FMA")
@pytest.mark.parametrize(
    ("features", "wanted", "dtype", "cpu"),
    [
        (("avx2", "fma"), (32, True), "float32", "haswell"),
        (("sse4.2",), (16, False), "float64", "nehalem"),
    ],
    ids=["AVX2", "SSE"],
)
def test_a_narrower_processor_gets_the_same_product(features, wanted, dtype, cpu):
    """This processor told to be an older one, in a process of its own."""
    script = textwrap.dedent(OTHER_WIDTH).format(features=features, wanted=wanted, dtype=dtype)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
        env={**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wide, middle = map(int, done.stdout.split())
    assert wide == 0 and (middle > 50) == (wanted[0] == 32)


@pytest.mark.skipif(not simd.FUSED, reason="this processor has no fused multiply-add")
def test_multiply_adds_round_once():
    """-1 + (1 + e)(1 - e) is -e² fused, and 0 where the product is rounded first."""
    for dtype in DTYPES:
        e = np.finfo(dtype).eps
        for outputs in (1, 3, 16, 50):
            a, b = np.array([1, 1 + e], dtype), np.repeat(np.array([[-1], [1 - e]], dtype), outputs, axis=1)
            c = np.zeros(outputs, dtype)
            product(dtype)(a, 0, 2, 1, b.reshape(-1), 0, outputs, 1, c, 0, outputs, 1, outputs, 2, False, 0, c, 0, 0)
            assert (c == -(e**2)).all()


@njit
def _transpose(source, source_row, target, target_row):
    transpose_block(pointer_to(source, 0), source_row, pointer_to(target, 0), target_row)
    return lanes(source)


def test_a_block_is_transposed_in_registers():
    for dtype in DTYPES:
        n = VECTOR_BYTES // np.dtype(dtype).itemsize
        source, target = np.arange(n * (n + 3), dtype=dtype), np.full(n * (n + 5), -1, dtype)
        assert _transpose(source, n + 3, target, n + 5) == n
        square = target.reshape(n, n + 5)
        assert np.array_equal(square[:, :n], source.reshape(n, n + 3)[:, :n].T)
        assert (square[:, n:] == -1).all()


def test_the_peak_measurement_does_the_work_it_counts():
    for dtype in DTYPES:
        a, b, c = np.ones(1024, dtype), np.ones(1024, dtype), np.zeros(1024, dtype)
        steps.get("fma_peak", dtype)(a, b, c, 1234)
        used = TILE_ROWS[0] * VECTORS * VECTOR_BYTES // np.dtype(dtype).itemsize
        assert (c[:used] == 1234).all() and (c[used:] == 0).all()
