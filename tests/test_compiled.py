"""A network as a value inside the reader's own @njit functions."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest
import stacks
from allocations import allocations
from numba import TypingError, njit, prange

from mlpkernels import Dense, Network
from mlpkernels.compiled import network_type, predict_one, predict_rows
from mlpkernels.scaling import Scaling


@njit
def one(net, x, scratch, out):
    predict_one(net, x, scratch, out)


@njit
def rows(net, x, scratch, out):
    predict_rows(net, x, scratch, out)


@njit(parallel=True)
def shared_out(net, x, scratch, out):
    for i in prange(x.shape[0]):
        predict_one(net, x[i], scratch[numba.get_thread_id()], out[i])


def network(dtype="float32", **options):
    options = {"scaling": Scaling("symmetric", 2 / 255, -1.0), **options}
    return Network([Dense(6, "relu"), Dense(3)], 4, dtype=dtype, **options)


def made(net):
    """(value, scratch, out)"""
    value = net.compiled()
    return value, value.scratch(), np.zeros(net.outputs, net.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("call", [one, one.py_func], ids=["njit", "Python"])
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int8, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_raw_inputs_of_any_type_give_the_bits_of_predict_logits(kind, call, dtype):
    net = network(dtype)
    value, scratch, out = made(net)
    x = np.array([0, 1, 100, 17]).astype(kind)
    call(value, x, scratch, out)
    assert out.tobytes() == net.predict_logits(x[None]).tobytes()


@pytest.mark.parametrize("name", ["all", "pools", "batch norm", "dropout"])
def test_every_kind_of_layer(name):
    net = stacks.network(name, "float32")
    value, scratch, out = made(net)
    x = stacks.rows(net, 3)[0].astype(np.float32)
    for image in x:  # an image as it is, or flat
        one(value, image, scratch, out)
        assert out.tobytes() == net.predict_logits(image[None]).tobytes()
        out[...] = 0
        one(value, image.ravel(), scratch, out)
        assert out.tobytes() == net.predict_logits(image[None]).tobytes()


def test_strides_of_inputs_are_followed():
    net = network()
    value, scratch, out = made(net)
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    for row in (x[:, 1], x[2, ::-1]):
        one(value, row, scratch, out)
        assert np.array_equal(out, net.predict_logits(np.array(row)[None])[0])
    table = np.zeros((4, 3), np.float32)
    rows(value, x.T, scratch, table)
    assert np.array_equal(table, net.predict_logits(np.ascontiguousarray(x.T)))


def test_it_runs_in_a_parallel_loop():
    net = network()
    value = net.compiled()
    x = np.random.default_rng(0).random((500, 4)).astype(np.float32)
    out = np.full((500, 3), np.nan, np.float32)
    shared_out(value, x, value.scratch(numba.get_num_threads()), out)
    assert np.array_equal(out, net.predict_logits(x))


@njit
def many(times, net, x, scratch, out):
    for _ in range(times):
        predict_one(net, x, scratch, out)
        predict_rows(net, x.reshape(1, x.size), scratch, out.reshape(1, out.size))


@njit
def wasteful(times, net, x, scratch, out):
    for _ in range(times):
        predict_one(net, x, scratch, np.empty(out.size, out.dtype))


@pytest.mark.parametrize("name", ["all", "batch norm", "strided"])
def test_nothing_is_allocated(name):
    net = stacks.network(name, "float32")
    value, scratch, out = made(net)
    arguments = value, stacks.rows(net, 1)[0].astype(np.float32).ravel(), scratch, out
    many(1, *arguments)
    wasteful(1, *arguments)
    assert allocations(many, 1, *arguments) == allocations(many, 1000, *arguments)
    assert allocations(wasteful, 1000, *arguments)[0] == allocations(wasteful, 1, *arguments)[0] + 999


def test_changes_of_parameters_are_seen():
    net = network()
    value, scratch, out = made(net)
    x = np.ones(4, np.float32)
    one(value, x, scratch, out)
    before = out.copy()
    net.parameters()["2.bias"][...] += 1
    one(value, x, scratch, out)
    assert np.array_equal(out, before + 1)


def test_attributes():
    @njit
    def sizes(net):
        return net.inputs, net.outputs, net.scratch_size

    value = network().compiled()
    assert sizes(value) == (value.inputs, value.outputs, value.scratch_size) == (4, 3, value.scratch().size)
    assert value.scratch(3).shape == (3, value.scratch_size)
    assert repr(value) == "CompiledNetwork(inputs=4, outputs=3, dtype='float32')"
    assert network().compiled() is not value and numba.typeof(value) == network_type("float32")
    with pytest.raises(TypeError, match="pickle the Network"):
        pickle.dumps(value)


def test_a_value_is_made_once_and_anew_with_another_scaling():
    net = network()
    value = net.compiled()
    assert net.compiled() is value
    net.scaling = None
    assert net.compiled() is not value


WRONG_TYPES = {
    "net": lambda net, x, scratch, out: (1, x, scratch, out),
    "x": lambda net, x, scratch, out: (net, x.astype(np.complex64), scratch, out),
    "x ": lambda net, x, scratch, out: (net, 1.0, scratch, out),
    "scratch": lambda net, x, scratch, out: (net, x, scratch.astype(np.float64), out),
    "scratch ": lambda net, x, scratch, out: (net, x, np.repeat(scratch, 2)[::2], out),
    "out": lambda net, x, scratch, out: (net, x, scratch, out.astype(np.float64)),
    "out ": lambda net, x, scratch, out: (net, x, scratch, np.zeros((1, 3), np.float32)),
    "out  ": lambda net, x, scratch, out: (net, x, scratch, read_only(out)),
}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_wrong_types_are_refused(name):
    arguments = WRONG_TYPES[name](*wrong_start())
    before = arguments[3].copy()
    with pytest.raises(TypingError, match=f"{name.strip()} must be"):
        one(*arguments)
    with pytest.raises((TypeError, ValueError), match=f"{name.strip()} must"):
        predict_one(*arguments)
    assert np.array_equal(arguments[3], before)


def wrong_start():
    value, scratch, out = made(network())
    return value, np.ones(4, np.float32), scratch, out


@pytest.mark.parametrize("call", [one, rows])
def test_half_precision_is_refused_where_it_is_compiled_and_converted_from_python(call):
    """Numba knows the type and computes nothing with it."""
    value, x, scratch, out = wrong_start()
    if call is rows:
        x, out = x[None], out[None]
    message = r"x must be an array of real numbers \(inside compiled code .* float32 or float64\), got array\(float16"
    with pytest.raises(TypingError, match=message):
        call(value, x.astype(np.float16), scratch, out)
    call.py_func(value, x.astype(np.float16), scratch, out)
    half = out.copy()
    call(value, x, scratch, out)
    assert np.array_equal(out, half) and out.any()


def test_an_image_that_is_not_contiguous_is_refused():
    value, scratch, out = made(network())
    with pytest.raises(TypingError, match="x must be a vector, or C-contiguous"):
        one(value, np.ones((2, 4), np.float32)[:, ::2], scratch, out)
    with pytest.raises(TypingError, match="x must have 2 dimensions"):
        rows(value, np.ones(4, np.float32), scratch, out.reshape(1, 3))


def test_wrong_lengths_are_refused():
    value, x, scratch, out = wrong_start()
    for wrong, message in (
        ((value, x[:3], scratch, out), "inputs"),
        ((value, x, scratch[:-1], out), "scratch"),
        ((value, x, scratch, np.zeros(4, np.float32)), "outputs"),
    ):
        for call in (one, predict_one):
            with pytest.raises(ValueError, match=message):
                call(*wrong)
    table = np.ones((2, 4), np.float32)
    for wrong in (
        (value, table[:, :3].copy(), scratch, np.zeros((2, 3), np.float32)),
        (value, table, scratch, np.zeros((3, 3), np.float32)),
        (value, table, scratch, np.zeros((2, 4), np.float32)),
        (value, table, scratch[:5], np.zeros((2, 3), np.float32)),
    ):
        for call in (rows, predict_rows):
            with pytest.raises(ValueError):
                call(*wrong)


def test_a_network_among_the_globals_works_uncached():
    value, x, scratch, out = wrong_start()

    @njit
    def bound(x, scratch, out):
        predict_one(value, x, scratch, out)

    bound(x, scratch, out)
    wanted = out.copy()
    one(value, x, scratch, out)
    assert np.array_equal(out, wanted)


CACHED = """
import numpy as np
from numba import njit, prange
from mlpkernels import Dense, Network
from mlpkernels.compiled import predict_one

@njit(cache=True)
def one(net, x, scratch, out):
    predict_one(net, x, scratch, out)

@njit(cache=True, parallel=True)
def many(net, x, scratch, out):
    for i in prange(x.shape[0]):
        predict_one(net, x[i], scratch[i], out[i])

for width in (3, 5):
    net = Network([Dense(6, "relu"), Dense(2)], width, seed=width)
    value, out = net.compiled(), np.zeros((4, 2), np.float32)
    x = np.ones((4, width), np.float32)
    one(value, x[0], value.scratch(), out[0])
    assert np.array_equal(out[:1], net.predict_logits(x[:1]))
    many(value, x, value.scratch(4), out)
    assert np.array_equal(out, net.predict_logits(x))
print(*(sum(getattr(f.stats, name).values()) for f in (one, many) for name in ("cache_hits", "cache_misses")))
"""


def test_callers_are_cached_across_processes(tmp_path):
    """In another process, where the network lies elsewhere, and for other networks: one compilation a dtype."""
    script = tmp_path / "simulation.py"
    script.write_text(textwrap.dedent(CACHED))
    counts = []
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        counts.append(done.stdout.split())
    assert counts == [["0", "1", "0", "1"], ["1", "0", "1", "0"]]


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_is_touched_outside_of_the_arrays():
    """Nor does a result depend on what is in the scratch."""
    script = Path(__file__).parent / "guarded_compiled.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_compiled_code_points_to_is_never_replaced():
    """Addresses of the arrays are held: other arrays in their place would be predicted with by many rows alone."""
    net = Network([Dense(2)], 4)
    for name in ("params", "buffers", "plan"):
        with pytest.raises(AttributeError):
            setattr(net, name, getattr(net, name).copy())
    with pytest.raises(ValueError, match="fitted to 2 columns, inputs are 4"):
        net.scaling = Scaling("standard", np.ones(2), np.zeros(2))
    before = net.predict_logits(np.ones((1, 4)))
    net.scaling = Scaling("standard", np.full(4, 2.0), np.zeros(4))
    bias = net.parameters()["0.bias"]
    assert np.allclose(net.predict_logits(np.ones((1, 4))) - bias, 2 * (before - bias))
    net.params[...] = 0
    assert not net.predict_logits(np.ones((1, 4))).any() and not net.predict_logits(np.ones((40, 4))).any()
