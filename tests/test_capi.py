"""Networks called from C, by ctypes and by SciPy."""

import ctypes
import gc
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import stacks

from mlpkernels import Dense, Network, capi
from mlpkernels.scaling import Scaling

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

PROGRAM = """
#include "mlpkernels.h"
#include <stdlib.h>

/* Called by the test with the pointer that Python hands over; answers with the sum of what went wrong. */
int run(void *pointer, int64_t rows, const {number} *x, {number} *out, {number} *again, const double *doubles,
        double *double_out)
{{
    const mlpk_network_{suffix} *net = pointer;
    {number} *scratch = malloc((size_t)net->scratch * sizeof *scratch);
    int wrong = scratch == NULL;
    int64_t i;

    for (i = 0; i < rows; i++)
        wrong += net->predict_one(net, x + i * net->inputs, scratch, out + i * net->outputs) != MLPK_OK;
    wrong += net->predict_rows(net, rows, x, scratch, again) != MLPK_OK;
    wrong += net->predict_doubles(net, rows, doubles, scratch, double_out) != MLPK_OK;
    wrong += net->predict_one(NULL, x, scratch, out) != MLPK_NULL;
    wrong += net->predict_one(net, NULL, scratch, out) != MLPK_NULL;
    wrong += net->predict_rows(net, 1, x, NULL, again) != MLPK_NULL;
    wrong += net->predict_rows(net, 1, x, scratch, NULL) != MLPK_NULL;
    wrong += net->predict_rows(net, -1, x, scratch, again) != MLPK_NEGATIVE;
    wrong += net->predict_rows(net, 0, NULL, NULL, NULL) != MLPK_OK;
    free(scratch);
    return wrong;
}}
"""


def network(dtype="float32", outputs=3, **options):
    options = {"scaling": Scaling("symmetric", 2 / 255, -1.0), **options}
    return Network([Dense(6, "relu"), Dense(outputs)], 4, dtype=dtype, **options)


@pytest.fixture
def compiled(tmp_path):
    """What makes a shared library of C source beside the header."""
    if COMPILER is None:
        pytest.skip("no C compiler: cc, gcc or clang")

    def build(source):
        (tmp_path / "mlpkernels.h").write_text(capi.header())
        (tmp_path / "program.c").write_text(source)
        command = [COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-shared", "-fPIC"]
        subprocess.run([*command, "program.c", "-o", "program.so"], cwd=tmp_path, check=True, timeout=60)
        return ctypes.CDLL(str(tmp_path / "program.so"))

    return build


@pytest.mark.parametrize(("dtype", "number", "suffix"), [("float32", "float", "f32"), ("float64", "double", "f64")])
@pytest.mark.parametrize("name", [None, "all", "batch norm"])
def test_a_c_program_predicts(compiled, dtype, number, suffix, name):
    net = network(dtype) if name is None else stacks.network(name, dtype)
    x = np.random.default_rng(0).normal(size=(5, net.inputs)).astype(dtype)
    handle = capi.network(net)
    out, again, doubles = (
        np.zeros((5, net.outputs), dtype),
        np.zeros((5, net.outputs), dtype),
        np.zeros((5, net.outputs)),
    )
    library = compiled(PROGRAM.format(number=number, suffix=suffix))
    library.run.argtypes = [ctypes.c_void_p, ctypes.c_int64] + 5 * [ctypes.c_void_p]
    arrays = x, out, again, x.astype(np.float64), doubles
    assert library.run(handle.address, 5, *(array.ctypes.data for array in arrays)) == 0
    wanted = net.predict_logits(x)
    assert np.array_equal(out, wanted) and np.array_equal(again, wanted) and np.array_equal(doubles, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ctypes_predicts(dtype):
    net = network(dtype)
    handle = capi.network(net)
    number = ctypes.POINTER(ctypes.c_float if dtype == "float32" else ctypes.c_double)
    x, out = np.array([1, 2, 3, 4], dtype), np.zeros(3, dtype)
    struct = handle.pointer.contents
    assert (struct.inputs, struct.outputs) == (4, 3)
    scratch = np.zeros(struct.scratch, dtype)
    pointers = [array.ctypes.data_as(number) for array in (x, scratch, out)]
    assert struct.predict_one(handle.pointer, *pointers) == 0
    assert np.array_equal(out, net.predict_logits(x[None])[0])
    net.parameters()["2.bias"][...] += 1  # the pointer leads to the network itself
    before = out.copy()
    assert struct.predict_one(handle.pointer, *pointers) == 0
    assert np.array_equal(out, before + 1)


def test_a_network_of_another_type_is_refused():
    single, double = capi.network(network("float32")), capi.network(network("float64"))
    numbers = [np.zeros(1000).ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for _ in range(3)]
    other = ctypes.cast(double.address, type(single.pointer))
    assert single.pointer.contents.predict_one(other, *numbers) == 2


@pytest.mark.parametrize(("dtype", "other"), [("float32", "float64"), ("float64", "float32")])
def test_a_pointer_cast_to_the_other_type_is_refused_by_every_function(dtype, other):
    """The struct of the other type has its functions elsewhere, where the block has some that say so."""
    handle = capi.network(network(dtype))
    net = ctypes.cast(handle.address, ctypes.POINTER(capi.STRUCTURES[other]))
    number = ctypes.POINTER(ctypes.c_float if other == "float32" else ctypes.c_double)
    x, scratch, out, doubles = (np.full(1000, 7.0) for _ in range(4))
    pointers = [array.ctypes.data_as(number) for array in (x, scratch, out)]
    wide = [array.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for array in (x, doubles)]
    assert (net.contents.inputs, net.contents.outputs) == (4, 3)
    assert net.contents.predict_one(net, *pointers) == 2
    assert net.contents.predict_rows(net, 2, *pointers) == 2
    assert net.contents.predict_doubles(net, 2, wide[0], pointers[1], wide[1]) == 2
    assert all((array == 7).all() for array in (x, scratch, out, doubles))
    with pytest.raises(ctypes.ArgumentError):  # without the cast
        net.contents.predict_one(handle.pointer, *pointers)


def test_a_c_compiler_warns_of_the_other_type(compiled, tmp_path):
    source = """
        #include "mlpkernels.h"
        int ask(const mlpk_network_f32 *net, const double *x, double *scratch, double *out);
        int ask(const mlpk_network_f32 *net, const double *x, double *scratch, double *out)
        {
            const mlpk_network_f64 *other = net;
            return other->predict_one(other, x, scratch, out);
        }
    """
    with pytest.raises(subprocess.CalledProcessError):
        compiled(source)
    compiled(source.replace("= net;", "= (const mlpk_network_f64 *)(const void *)net;"))


def test_outputs_that_are_more_than_the_inputs_fit():
    """predict_doubles keeps its outputs where the inputs were."""
    net = Network([Dense(40), Dense(70)], 2)
    handle = capi.network(net)
    doubles, scratch = ctypes.POINTER(ctypes.c_double), np.zeros(handle.value.scratch_size, np.float32)
    x, out = np.array([0.5, -2.0]), np.zeros(70)
    pointers = (
        x.ctypes.data_as(doubles),
        scratch.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        out.ctypes.data_as(doubles),
    )
    assert handle.pointer.contents.predict_doubles(handle.pointer, 1, *pointers) == 0
    assert np.array_equal(out, net.predict_logits(x[None])[0])


def test_the_header_is_written_by_the_module():
    done = subprocess.run([sys.executable, "-m", "mlpkernels.capi"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == capi.header() and not done.stderr
    assert capi.header().startswith("/* mlpkernels.h") and "mlpk_network_f64" in capi.header()


def test_a_handle_says_what_it_is():
    handle = capi.network(network())
    assert repr(handle).startswith("Handle(0x") and "inputs=4" in repr(handle)
    with pytest.raises(TypeError, match="pickle the Network"):
        pickle.dumps(handle)


# ---- SciPy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scipy_integrates_a_network(dtype):
    integrate = pytest.importorskip("scipy.integrate")
    net = Network([Dense(8, "tanh"), Dense(1)], 1, loss="squared-error", dtype=dtype, seed=3)
    integrand = capi.low_level_callable(net, "integrand")
    gc.collect()  # what it points to is its own to keep
    made, _ = integrate.quad(integrand, -1, 2, epsabs=1e-4, epsrel=1e-4)
    points, weights = np.polynomial.legendre.leggauss(40)
    wanted = 1.5 * weights @ net.predict_logits(1.5 * points[:, None] + 0.5)[:, 0]
    assert made == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_scipy_filters_with_a_network():
    ndimage = pytest.importorskip("scipy.ndimage")
    net = Network([Dense(8, "relu"), Dense(1)], 9, loss="squared-error")
    image = np.random.default_rng(0).normal(size=(7, 8))
    made = ndimage.generic_filter(image, capi.low_level_callable(net, "filter"), size=3, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1, "symmetric"), (3, 3)).reshape(-1, 9)
    assert np.array_equal(made.ravel(), net.predict_logits(windows)[:, 0].astype(float))
    with pytest.raises(RuntimeError):
        ndimage.generic_filter(image, capi.low_level_callable(net, "filter"), size=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scipy_integrates_over_several_dimensions(dtype):
    integrate = pytest.importorskip("scipy.integrate")
    net = Network([Dense(4, "tanh"), Dense(1)], 3, loss="squared-error", dtype=dtype, seed=3)
    integrand = capi.low_level_callable(net, "integrand", dimensions=3)
    loose = {"epsabs": 1e-3, "epsrel": 1e-3}
    points, weights = np.polynomial.legendre.leggauss(12)
    places = np.stack(np.meshgrid(*[(points + 1) / 2] * 3, indexing="ij"), -1).reshape(-1, 3)
    many = np.einsum("i,j,k->ijk", *[weights / 2] * 3).ravel()
    wanted = many @ net.predict_logits(places)[:, 0]
    assert integrate.nquad(integrand, [(0, 1)] * 3, opts=loose)[0] == pytest.approx(wanted, abs=1e-3)
    wanted = weights / 2 @ net.predict_logits(np.c_[(points + 1) / 2, np.full((12, 2), (0.5, -2))])[:, 0]
    assert integrate.quad(integrand, 0, 1, args=(0.5, -2.0), **loose)[0] == pytest.approx(wanted, abs=1e-3)


def test_another_number_of_dimensions_is_named():
    integrate = pytest.importorskip("scipy.integrate")
    net = network(outputs=1)
    with pytest.raises(ValueError, match=r"has 4 inputs, the integral dimensions=1: say dimensions=4"):
        capi.low_level_callable(net, "integrand")
    with pytest.raises(ValueError, match="dimensions=3"):
        capi.low_level_callable(net, "integrand", 3)
    with pytest.warns(Warning):  # quad passes 1 of 4 numbers, and no one can raise there
        made, _ = integrate.quad(capi.low_level_callable(net, "integrand", 4), 0, 1)
    assert np.isnan(made)


def test_scipy_gets_no_other_functions():
    with pytest.raises(ValueError, match="'integrand', 'filter'"):
        capi.low_level_callable(network(outputs=1), "ufunc")
    with pytest.raises(ValueError, match="3 outputs"):
        capi.low_level_callable(network(), "integrand")


def test_without_scipy_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        capi.low_level_callable(network(outputs=1), "filter")
