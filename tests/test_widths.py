"""The kernels of narrower processors, run on this one: 32-byte vectors (AVX2), and 16-byte ones that do not fuse."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import llvmlite.binding as llvm

features = llvm.get_host_cpu_features()
features.update(dict.fromkeys(sys.argv[1].split(), False))
llvm.get_host_cpu_features = lambda: features

import numpy as np
from numba import njit
from mlpkernels.kernels.cpu import gemm, simd
from mlpkernels.kernels.cpu.jit import OPTIONS

@njit(**OPTIONS)
def multiply(*arguments):
    gemm.multiply(*arguments)

assert simd.VECTOR_BYTES == int(sys.argv[2])
rng = np.random.default_rng(0)
for dtype, tolerance in (("float32", 2e-4), ("float64", 1e-12)):
    few = [(0, 3, 4), (1, 1, 1), (6, 16, 0), (7, 17, 33), (13, 9, 500), (31, 65, 17), (2, 8, 800)]
    for m, n, k in [*few, (140, 40, 500)]:
        for a_t, b_t in ((False, False), (True, False), (False, True)):
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
            c, bias = np.full((m, n), np.nan, dtype), rng.standard_normal(n).astype(dtype)
            flat_a = (a.T if a_t else a).copy().reshape(-1)
            flat_b = (b.T if b_t else b).copy().reshape(-1)
            multiply(
                flat_a, 1 if a_t else k, m if a_t else 1, flat_b, 1 if b_t else n, k if b_t else 1, c, k,
                simd.ADD_BIAS_RELU, bias, 0,
            )
            np.testing.assert_allclose(c, np.maximum(a @ b + bias, 0), rtol=tolerance, atol=tolerance)
"""

# Chunks of as many samples as a vector has lanes, and bits of what is not zero: both depend on the width.
LAYERS = """
from mlpkernels import BatchNorm, Conv2d, Dense, MaxPool2d, Network, kernels

cpu, reference = kernels.load("cpu"), kernels.load("reference")
images = rng.integers(1, 256, (21, 2 * 9 * 8)) * (rng.random((21, 144)) < 0.3)
labels = rng.integers(0, 3, 21)
convolutions = [Conv2d(5, 3, padding=1, activation="relu"), MaxPool2d(2), Conv2d(7, 2), BatchNorm("relu"), Dense(3)]
dense = [[Dense(width, "relu"), Dense(3)] for width in (10, 20)]
for layers in (convolutions, *dense, [Dense(20, "tanh"), Dense(9, "logistic"), Dense(3)]):
    network = Network(layers, (2, 9, 8), seed=1)
    found = {}
    for name, backend, skips in (("wanted", reference, False), ("dense", cpu, False), ("skipping", cpu, True)):
        source = network.source(images.astype(np.uint8), labels)
        source = source._replace(factor=np.float32(1 / 255), skip_zeros=skips)
        grad, work = np.zeros_like(network.params), backend.make_workspace(network.plan, 21, "float32")
        loss = backend.loss_and_gradient(network.model, source, np.arange(21), 21.0, work, grad)
        found[name] = loss, grad
    np.testing.assert_allclose(found["dense"][0], found["wanted"][0], rtol=1e-5)
    np.testing.assert_allclose(found["dense"][1], found["wanted"][1], atol=2e-5)
    assert found["skipping"][0] == found["dense"][0] and np.array_equal(found["skipping"][1], found["dense"][1])
    source, wanted = network.source(images), np.zeros((21, 3), np.float32)
    cpu.predict(network.model, source, 0, 21, cpu.make_workspace(network.plan, 21, "float32"), wanted)
    for i in range(21):  # one sample at a time, the way of a few rows
        assert np.array_equal(network.predict_logits(images[i : i + 1]), wanted[i : i + 1])

# Blocks of 8 or 16 times 64 inputs, and what two threads do for each other.
from mlpkernels import SGD, Adam, fit
from mlpkernels.datasets import Part

images = (rng.integers(1, 256, (70, 1100)) * (rng.random((70, 1100)) < 0.2)).astype(np.uint8)
part = Part(images, rng.integers(0, 3, 70).astype(np.int32))
for rule in (SGD(0.01), Adam(1e-3)):
    trained = []
    for skips, threads in ((False, 1), (True, 1), (True, 2)):
        network = Network([Dense(40, "relu"), Dense(3)], 1100, seed=1)
        list(fit(network, part, epochs=2, batch_size=32, optimizer=rule, skip_zeros=skips, threads=threads))
        trained.append(network.params.tobytes())
    assert len(set(trained)) == 1
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the processors named are x86 ones")
@pytest.mark.parametrize(
    ("cpu", "without", "vector_bytes"),
    [("haswell", "avx512f", 32), ("nehalem", "avx512f avx avx2 fma", 16)],
)
def test_a_narrower_processor(cpu, without, vector_bytes):
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "MLPK_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + LAYERS, without, str(vector_bytes)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
