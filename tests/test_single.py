"""One sample at a time: the bits of a batch's row, for every kind of layer, and the short way from Python."""

import copy
import pickle
import threading

import numpy as np
import pytest
import stacks
from numba import njit, types
from test_simd import REGISTER, innermost_loops, sums, x86_with_fma

from mlpkernels import BatchNorm, Dense, Network
from mlpkernels.errors import DataError
from mlpkernels.kernels import plan as p
from mlpkernels.kernels.cpu import cache, single_table, steps
from mlpkernels.kernels.cpu.single_tiles import AHEAD, ROW_VECTORS
from mlpkernels.scaling import Scaling

MANY = 40  # more rows than the short way takes


def few(net, x):
    """The logits of each row by itself."""
    taken = net._few_rows()
    answers = [taken(np.ascontiguousarray(x[i : i + 1])) for i in range(len(x))]
    assert all(answer is not None for answer in answers), "the short way was not taken"
    return np.concatenate(answers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", stacks.STACKS)
def test_every_kind_of_layer_has_the_bits_of_a_batch(name, dtype):
    net = stacks.network(name, dtype)
    x = stacks.rows(net, MANY)[0].astype(dtype)
    assert few(net, x).tobytes() == net.predict_logits(x).tobytes()


# Widths around those of tiles, vectors and their rests.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(1, 1), (3, 17, 2), (5, 129, 16), (784, 128, 128, 10), (7, 300, 65), (2, 33, 1)])
def test_every_width_has_the_bits_of_a_batch(widths, dtype):
    net = Network([*(Dense(n, "relu") for n in widths[1:-1]), Dense(widths[-1])], widths[0], dtype=dtype)
    for view in net.parameters().values():
        view += np.random.default_rng(1).normal(0, 0.1, view.shape)
    x = np.random.default_rng(2).normal(size=(MANY, widths[0])).astype(dtype)
    assert few(net, x).tobytes() == net.predict_logits(x).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lit", [0.0, 0.1, 0.4, 0.6])
def test_zeros_that_are_skipped_change_no_bit(lit, dtype):
    random = np.random.default_rng(3)
    net = Network([Dense(130, "relu"), Dense(70, "relu"), Dense(7)], 200, dtype=dtype)
    x = (random.normal(size=(MANY, 200)) * (random.random((MANY, 200)) < lit)).astype(dtype)
    assert few(net, x).tobytes() == net.predict_logits(x).tobytes()


SCALINGS = {
    "none": None,
    "kind none": Scaling("none", 1.0, 0.0),
    "unit": Scaling("unit", 1 / 255, 0.0),
    "symmetric": Scaling("symmetric", 2 / 255, -1.0),
    "columns": Scaling("standard", np.linspace(0.01, 3, 12), np.linspace(-1, 1, 12)),
}


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_scaled_as_a_batch(scaling, kind, dtype):
    net = Network([Dense(5, "relu"), Dense(3)], 12, dtype=dtype, scaling=SCALINGS[scaling])
    x = np.random.default_rng(0).integers(0, 256, (MANY, 12)).astype(kind)
    if kind != np.uint8:
        x += np.random.default_rng(1).random(x.shape).astype(kind)
    assert few(net, x).tobytes() == net.predict_logits(x).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_activation_has_the_bits_of_a_batch(dtype):
    stack = [Dense(17, "tanh"), BatchNorm("logistic"), Dense(9, "logistic"), Dense(33, "tanh"), BatchNorm("tanh")]
    net = Network([*stack, Dense(2)], 5, dtype=dtype, loss="squared-error")
    x = np.random.default_rng(2).normal(0, 3, (MANY, 5)).astype(dtype)
    assert few(net, x).tobytes() == net.predict_logits(x).tobytes()


def network(**options):
    return Network([Dense(6, "relu"), Dense(3)], 4, **options)


def test_what_needs_converting_or_is_many_goes_the_long_way():
    net, taken = network(), network()._few_rows()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    read_only = x.copy()
    read_only.flags.writeable = False
    strange = {
        "list": x.tolist(), "strided": np.repeat(x, 2, axis=1)[:, ::2], "Fortran": np.asfortranarray(x),
        "half": x.astype(np.float16), "integers": x.astype(np.int64), "swapped": x.astype(">f4"),
        "read-only": read_only, "many": np.tile(x, (5, 1)), "matrix": x.view(np.matrix),
    }  # fmt: skip
    for name, values in strange.items():
        assert taken(values) is None, name
        assert len(net.predict_logits(values)) == len(values), name


def test_no_rows_and_a_few_rows():
    net = network()
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    for count in (0, 1, 2, 32):
        assert np.array_equal(
            few(net, x[:count]) if count else net.predict_logits(x[:0]), net.predict_logits(x)[:count]
        )
        assert net._few_rows()(x[:count]).shape == (count, 3)


def test_images_may_have_their_shape():
    net = stacks.network("conv", "float32")
    x = stacks.rows(net, 3)[0].astype(np.float32)
    flat = net._few_rows()(x.reshape(3, -1))
    assert np.array_equal(net._few_rows()(x), flat) and np.array_equal(net.predict_logits(x[:, 0]), flat)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value):
    net = network()
    x = np.ones((3, 4), np.float32)
    x[2, 1] = value
    with pytest.raises(DataError, match=f"row 3, column 2 is {value:g}"):
        net.predict_logits(x)
    with pytest.raises(DataError, match=r"row 1, column 1 .* too large for float32"):
        net.predict_logits(np.full((1, 4), 1e300))


@pytest.mark.parametrize("threads", [0, -1, "two", 1.5])
def test_threads_are_checked(threads):
    with pytest.raises((ValueError, TypeError), match="threads"):
        network().predict_logits(np.ones((1, 4), np.float32), threads=threads)


def test_shapes_are_checked():
    for shape in ((4,), (1, 5), (1, 4, 1)):
        with pytest.raises(DataError, match="shape"):
            network().predict_logits(np.ones(shape, np.float32))


def test_changes_of_parameters_and_scaling_are_seen():
    net, x = network(), np.ones((1, 4), np.float32)
    before = net.predict_logits(x)
    for view in net.parameters().values():
        view *= 2
    after = net.predict_logits(x)
    assert not np.array_equal(after, before)
    net.scaling = Scaling("unit", 0.5, 0.0)
    scaled = net.predict_logits(x)
    assert not np.array_equal(scaled, after) and np.array_equal(net.predict_logits(2 * x), after)
    other = network(seed=5)
    net.load_state_dict(other.state_dict())
    assert np.array_equal(net.predict_logits(2 * x), other.predict_logits(x))


def test_running_statistics_that_change_are_seen():
    net = stacks.network("batch norm", "float64")
    x = stacks.rows(net, 1)[0]
    before = net.predict_logits(x)
    next(view for name, view in net.statistics().items() if name.endswith("running_mean"))[...] += 1
    assert not np.array_equal(net.predict_logits(x), before)


def test_copies_and_pickles_are_their_own():
    net, x = network(), np.ones((1, 4), np.float32)
    before = net.predict_logits(x)
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert np.array_equal(other.predict_logits(x), before)
        other.params[...] = 0
    assert np.array_equal(net.predict_logits(x), before)


def test_probabilities_and_classes_agree_with_a_batch():
    net = network(classes=["a", "b", "c"])
    x = np.random.default_rng(0).normal(size=(MANY, 4)).astype(np.float32)
    for predict in (net.predict, net.predict_proba, net.predict_log_proba):
        assert np.array_equal(np.concatenate([predict(x[i : i + 1]) for i in range(MANY)]), predict(x))


def test_threads_may_predict_at_once():
    net = Network([Dense(64, "relu"), Dense(64, "relu"), Dense(3)], 50)
    x = np.random.default_rng(0).normal(size=(MANY, 50)).astype(np.float32)
    wanted, wrong = net.predict_logits(x), []

    def work(first):
        for _ in range(50):
            for i in range(first, MANY, 4):
                if not np.array_equal(net.predict_logits(x[i : i + 1])[0], wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_scratch_holds_every_step():
    """Each step's places lie between the inputs and the room at the end, and never where it reads."""
    for name in stacks.STACKS:
        net = stacks.network(name)
        program = single_table.build(net.plan)
        for number, step in enumerate(program.steps):
            assert p.pad(net.inputs) <= step[single_table.TARGET] < program.lit
            assert number == 0 or step[single_table.SOURCE] == program.steps[number - 1][single_table.TARGET]
            assert step[single_table.SOURCE] != step[single_table.TARGET]
        assert program.lit + net.plan[:, p.INPUTS].max() + AHEAD <= program.scratch


# ---- what the kernels become


def assembly(name, dtype):
    """Of an entry point compiled here and now: what comes from the cache has none to show."""
    dispatcher = njit(**cache.OPTIONS)(steps.entry_points("assembly")[name])
    signature = steps.signatures(getattr(types, dtype))[name]
    dispatcher.compile(signature)
    return dispatcher.inspect_asm(signature.args)


@x86_with_fma
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "most"), [("predict_row", ROW_VECTORS), ("single_layers", 8)])
def test_the_kernels_are_full_vectors_of_fused_multiply_adds(name, most, dtype):
    suffix = "ps" if dtype == "float32" else "pd"
    counts = set()
    for loop in innermost_loops(assembly(name, dtype)):
        added = [line for line in loop if line.startswith("vfmadd")]
        if not added or suffix not in added[0] or REGISTER not in added[0]:
            continue
        assert all(REGISTER in line for line in added), loop
        stack = [line for line in loop if "(%rsp" in line and REGISTER in line]
        if any(line.startswith("vdiv") for line in loop):  # a curve: 16 registers cannot hold its constants, too
            stack = [line for line in stack if line.endswith("(%rsp)")]  # what is written there
        assert not stack, f"spilled to the stack: {loop}"
        counts.add(len(sums(loop)))
    assert max(counts) >= most
