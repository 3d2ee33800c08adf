"""Leaving zeros out of the first layer: the dense path's bits, or with an offset its numbers, for any data and cut."""

import numba
import numpy as np
import pytest
from numba import njit
from problems import DTYPES, RULES, Run, model, source

from mlpkernels import SGD, Dense, Network, Scaling, fit
from mlpkernels.arrays import mostly_zero
from mlpkernels.datasets import Part
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels.cpu import IDENTITY, LOGISTIC, RELU, TANH, dense_forward, shares, sparse_dense_forward, verbs

WIDTHS = [
    (1, 1), (3, 7), (6, 97, 4), (63, 16), (64, 17), (65, 33), (130, 64, 10), (135, 140, 3), (200, 130, 5),
    (330, 64, 3), (784, 100, 10),
]  # fmt: skip


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def slots(monkeypatch):
    """slots(n): every call is cut into n, whatever its size; 1 is the serial loop."""
    return lambda n: monkeypatch.setattr(verbs, "_slots", lambda *_: n)


def lit(rows, inputs, classes, dtype, density, offset=0.0, skip=True, seed=0):
    """Bytes of which a share is not zero, among them wholly dark and wholly lit rows and columns."""
    random = np.random.default_rng(seed)
    made = source(rows, inputs, classes, dtype, seed, kind="bytes")
    images = made.bytes * (random.random((rows, inputs)) < density).astype(np.uint8)
    images[::5], images[:, ::11] = 0, 0
    if rows > 3:
        images[3] = 200  # not 255, which "symmetric" makes zero: a unit's sum of it would be rounding alone
    T = np.dtype(dtype).type
    return made._replace(bytes=images, factor=T(1 / 255), offset=T(offset), skip_zeros=skip)


def prepared(sizes, dtype, rule, batch, rows, density, offset, skip, clip=0.0):
    run = Run(sizes, dtype, rule, rows=rows, batch=batch, kind="bytes", clip=clip)
    run.source = lit(rows, sizes[0], sizes[-1], dtype, density, offset, skip)
    run.work = cpu.make_workspace(run.model.plan, batch, dtype)
    return run


@pytest.mark.parametrize("sizes", WIDTHS, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 64, 65, 129])
def test_gradients_and_logits_have_the_dense_paths_bits(sizes, rows, dtype):
    network = model(sizes, dtype)
    order = np.random.default_rng(1).permutation(150)[:rows]
    results = []
    for skip in (False, True):
        data = lit(150, sizes[0], sizes[-1], dtype, 0.2, skip=skip)
        work, grad = cpu.make_workspace(network.plan, 150, dtype), np.full_like(network.params, np.nan)
        loss = cpu.loss_and_gradient(network, data, order, float(rows), work, grad)
        logits = np.full((150, sizes[-1]), np.nan, dtype)
        cpu.predict(network, data, 0, 150, work, logits)
        results.append((loss, grad.tobytes(), logits.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize(
    ("sizes", "batch"), [*(((77, 33, 4), n) for n in (5, 40, 80, 100)), ((330, 140, 4), 64), ((590, 33, 4), 40)]
)
def test_training_has_the_dense_paths_bits_for_any_number_of_slots(rule, clip, sizes, batch, dtype, slots):
    results = set()
    for n, skip in ((1, False), (1, True), (2, True), (5, True)):
        slots(n)
        run = prepared(sizes, dtype, rule, batch, 130, 0.3, 0.0, skip, clip)
        assert run.train(cpu, threads=n) == run.steps
        results.add(run.state())
    assert len(results) == 1


@pytest.mark.parametrize("offset", [-1.0, 0.3])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("sizes", [(130, 40, 5), (330, 64, 5)], ids=str)
def test_an_offset_is_folded_in(offset, rule, sizes, dtype, slots):
    """Gradients against the reference in float64; bits for any number of slots."""
    rows = 70
    network = model(sizes, dtype)
    data = lit(rows, sizes[0], sizes[-1], dtype, 0.2, offset)
    grad = np.full_like(network.params, np.nan)
    loss = cpu.loss_and_gradient(
        network, data, np.arange(rows), float(rows), cpu.make_workspace(network.plan, rows, dtype), grad
    )
    wide = model(sizes, "float64")._replace(params=network.params.astype(np.float64))
    exact = np.zeros_like(wide.params)
    plain = lit(rows, sizes[0], sizes[-1], "float64", 0.2, float(data.offset))
    plain = plain._replace(factor=np.float64(data.factor), weights=data.weights.astype(np.float64))
    wanted = reference.loss_and_gradient(
        wide, plain, np.arange(rows), float(rows), cpu.make_workspace(network.plan, rows, "float64"), exact
    )
    # Sums of the inputs and of the rows, their terms no larger than these: a bound like that of dense networks.
    bound = 4 * (sizes[0] + rows) * np.finfo(dtype).eps * max(1.0, np.abs(exact).max())
    assert abs(loss - wanted) <= bound
    assert np.abs(grad - exact).max() <= bound
    results = set()
    for n in (1, 2, 3):
        slots(n)
        run = prepared(sizes, dtype, rule, 70, 140, 0.2, offset, True)
        run.train(cpu, threads=n)
        results.add(run.state())
    assert len(results) == 1


def test_what_lies_behind_the_last_row_is_not_read(dtype):
    """The bytes end where the memory does: numpy's own bounds would not show it, a guard of other values does."""
    network = model((70, 16, 3), dtype)
    block = np.full((9, 70), 255, np.uint8)
    block[:8] = lit(8, 70, 3, dtype, 0.3).bytes
    results = []
    for behind in (0, 255):
        block[8] = behind
        data = lit(8, 70, 3, dtype, 0.3)._replace(bytes=block[:8])
        grad, work = np.zeros_like(network.params), cpu.make_workspace(network.plan, 8, dtype)
        results.append((cpu.loss_and_gradient(network, data, np.arange(8), 8.0, work, grad), grad.tobytes()))
    assert results[0] == results[1]


def test_rows_too_wide_for_it_take_the_dense_path(dtype):
    network = model((65_537, 2), dtype)
    data = lit(3, 65_537, 2, dtype, 0.1)
    logits, work = np.zeros((3, 2), dtype), cpu.make_workspace(network.plan, 3, dtype)
    cpu.predict(network, data, 0, 3, work, logits)
    dense = np.zeros_like(logits)
    cpu.predict(network, data._replace(skip_zeros=False), 0, 3, work, dense)
    assert np.array_equal(logits, dense)


def test_data_are_looked_at():
    dark = np.zeros((100, 784), np.uint8)
    assert mostly_zero(dark)
    assert not mostly_zero(dark[:31])  # too few to be worth it
    assert not mostly_zero(dark[:, :3])
    assert not mostly_zero(dark[:0])
    random = np.random.default_rng(0)
    assert mostly_zero(dark + (random.random(dark.shape) < 0.1).astype(np.uint8))
    assert not mostly_zero(dark + (random.random(dark.shape) < 0.4).astype(np.uint8))


@pytest.mark.parametrize(("offset", "same"), [(0.0, True), (-1.0, False)])
def test_fit_takes_the_option(offset, same):
    data = lit(200, 64, 3, "float32", 0.1)
    results = []
    for skip in (False, None, True):
        scaling = Scaling("symmetric" if offset else "unit", 1 / 255, offset)
        network = Network([Dense(20, "relu"), Dense(3)], 64, scaling=scaling)
        part = Part(data.bytes, data.labels)
        history = list(fit(network, part, test=part, epochs=3, batch_size=16, optimizer=SGD(0.1), skip_zeros=skip))
        results.append((network.params, history[-1].test_loss))
    dense, chosen, skipped = results
    assert np.array_equal(chosen[0], skipped[0])  # None found that these data are mostly zero
    assert chosen[1] == skipped[1]
    assert np.array_equal(dense[0], skipped[0]) == same
    assert np.allclose(dense[0], skipped[0], atol=1e-4)


# ---- the op


@njit
def inside(pixels, factor, offset, w, b, activation, out):
    sparse_dense_forward(pixels, factor, offset, w, b, activation, out)


SHAPES = [
    (1, 784, 128), (7, 100, 10), (33, 64, 17), (5, 70, 1), (67, 330, 128), (66, 64, 64), (3, 300, 128),
    (0, 5, 3), (5, 0, 4),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_op_has_the_bits_of_the_dense_one(shape, dtype):
    rows, inputs, outputs = shape
    random, T = np.random.default_rng(0), np.dtype(dtype).type
    pixels = (random.integers(0, 256, (rows, inputs)) * (random.random((rows, inputs)) < 0.3)).astype(np.uint8)
    w, b = random.normal(size=(inputs, outputs)).astype(dtype), random.normal(size=outputs).astype(dtype)
    for activation in (IDENTITY, RELU, TANH, LOGISTIC):
        found = [np.full((rows, outputs), np.nan, dtype) for _ in range(3)]
        sparse_dense_forward(pixels, 1 / 255, 0.0, w, b, activation, found[0])
        inside(pixels, 1 / 255, 0.0, w, b, activation, found[1])
        dense_forward(pixels.astype(dtype) * T(1 / 255), w, b, activation, found[2])
        assert len({out.tobytes() for out in found}) == 1
        sparse_dense_forward(pixels, 1 / 255, -0.5, w, b, activation, found[0])
        inside(pixels, 1 / 255, -0.5, w, b, activation, found[1])
        reference.sparse_dense_forward(pixels, 1 / 255, -0.5, *(a.astype(float) for a in (w, b)), activation,
                                       wanted := np.empty((rows, outputs)))  # fmt: skip
        bound = (inputs + 4) * 4 * np.finfo(dtype).eps * (np.abs(w).astype(float).sum(axis=0) + np.abs(b))
        assert found[0].tobytes() == found[1].tobytes() and (np.abs(found[0] - wanted) <= bound).all()


def test_a_zero_skips_its_row_of_weights():
    pixels, w = np.array([[0, 3]], np.uint8), np.array([[np.inf] * 2, [2.0] * 2])
    out = np.empty((1, 2))
    sparse_dense_forward(pixels, 1.0, 0.0, w, np.ones(2), IDENTITY, out)
    assert out.tolist() == [[7, 7]]


def test_the_op_refuses_by_name():
    pixels, w, b, out = np.zeros((2, 3), np.uint8), np.ones((3, 4)), np.ones(4), np.empty((2, 4))
    for error, text, given in (
        (TypeError, "^pixels must be uint8, got float64: dense_forward", (pixels.astype(float), 1, 0, w, b, RELU)),
        (ValueError, r"^pixels must have shape \(2, 3\)|^pixels must have", (pixels[:1], 1, 0, w, b, RELU)),
        (ValueError, "^factor must be finite, got nan", (pixels, np.nan, 0, w, b, RELU)),
        (TypeError, "^offset must be a number, got 'a'", (pixels, 1, "a", w, b, RELU)),
        (ValueError, r"^w must have shape \(3, 4\)", (pixels, 1, 0, w[:2], b, RELU)),
        (ValueError, "^activation must be IDENTITY", (pixels, 1, 0, w, b, 4)),
    ):
        with pytest.raises(error, match=text):
            sparse_dense_forward(*given, out)
    wide = np.zeros((2, 65537), np.uint8)
    with pytest.raises(ValueError, match=r"^pixels must have at most 65536 columns, got 65537: dense_forward"):
        sparse_dense_forward(wide, 1, 0, np.ones((65537, 4)), b, RELU, out)
    for text, given in (
        ("disagree on I", (pixels, 1.0, 0.0, w[:2].copy(), b, RELU)),
        ("disagree on O", (pixels, 1.0, 0.0, w, b[:3], RELU)),
        ("disagree on B", (pixels[:1], 1.0, 0.0, w, b, RELU)),
        ("must be finite", (pixels, np.inf, 0.0, w, b, RELU)),
        ("activation must be", (pixels, 1.0, 0.0, w, b, 7)),
        ("65,536", (wide, 1.0, 0.0, np.ones((65537, 4)), b, RELU)),
    ):
        with pytest.raises(ValueError, match=text):
            inside(*given, out)
    with pytest.raises(numba.TypingError, match="pixels must be uint8"):
        inside(pixels.astype(np.int8), 1.0, 0.0, w, b, RELU, out)


@pytest.mark.parametrize(("inputs", "apart"), [(330, 0), (590, 0), (590, 1)])  # the first layer whole, and in halves
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_shares_of_any_size_have_the_same_bits(rule, inputs, apart, dtype, slots, monkeypatch):
    """Cuts at any group of inputs, as where one thread is slower than the other."""
    results = set()
    for cut in (None, 1 / 3, 0.51, 0.97):
        slots(1 if cut is None else 2)
        run = prepared((inputs, 140, 4), dtype, rule, 64, 130, 0.3, 0.0, True)
        if cut is not None:
            for phase in range(shares.NO_PHASE):
                first = 1 + phase * (shares.MOST + 1)
                run.work.shares[first : first + 3] = 0, int(cut * shares.WHOLE), shares.WHOLE
            run.work.shares[0], run.work.shares[-1] = 2, apart
        run.train(cpu, threads=1 if cut is None else 2)
        results.add(run.state())
    assert len(results) == 1
