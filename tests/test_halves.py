"""A wide first layer's sums in two halves: every row of both once, whoever takes it, and the reference's results."""

import numpy as np
import pytest
from numba import njit
from problems import DTYPES, padding

from mlpkernels import BatchNorm, Dense, Network
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels.cpu import halves, shares, verbs


@njit(nogil=True)
def _half(inputs, number):
    return halves.half(inputs, number)


@njit(nogil=True)
def _half_share(number, rows, slot, slots, kept):
    return halves.half_share(number, rows, slot, slots, kept)


@njit(nogil=True)
def _divided(plan, rows):
    return halves.divided(plan, rows)


def kept(slots, *cuts):
    """Shares of so many slots, in halves cut at these fractions; without cuts those of a fresh workspace."""
    made = shares.make()
    if cuts:
        first = 1 + shares.HALVES_PHASE * (shares.MOST + 1)
        made[first : first + slots + 1] = [int(cut * shares.WHOLE) for cut in (0, *cuts, 1)]
        made[0], made[-1] = slots, 1  # two do not keep to a half each
    return made


def test_two_halves_are_all_inputs():
    for inputs in range(halves.LEAST_INPUTS, 3000, 7):
        (start, cut), (again, end) = _half(inputs, 0), _half(inputs, 1)
        assert start == 0 and cut == again and end == inputs and (inputs - cut) % 64 == 0
        assert abs(2 * cut - inputs) <= 64
        assert min(cut, end - cut) >= halves.MOST_ROWS  # half_sums keeps a row's sums where an input's gradient will be


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 63, 64, 256])
def test_every_row_of_both_halves_is_taken_once(rows):
    cases = [(slots, kept(slots)) for slots in (1, 2, 3, 4, 7, 16)]
    cases += [(2, kept(2, cut)) for cut in (0.1, 0.49, 0.6, 0.97)] + [(3, kept(3, 0.2, 0.9)), (3, kept(3, 0.5, 0.55))]
    for slots, there in cases:
        taken = np.zeros((2, rows), int)
        for slot in range(slots):
            for number in range(2):
                start, stop = _half_share(number, rows, slot, slots, there)
                taken[number, start:stop] += 1
        assert (taken == 1).all(), (slots, there[:4])


def test_two_slots_take_a_half_each():
    ignored = kept(2, 0.1)
    ignored[-1] = 0
    for there in (kept(2), kept(2, 0.5), kept(2, 0.45), ignored):
        for slot in range(2):
            assert _half_share(slot, 33, slot, 2, there) == (0, 33)
            start, stop = _half_share(1 - slot, 33, slot, 2, there)
            assert start == stop


def test_wide_layers_and_middling_batches_are_divided():
    def plan(*layers, inputs):
        return Network([*layers, Dense(2)], inputs).plan

    wide, narrow = plan(inputs=halves.LEAST_INPUTS), plan(inputs=halves.LEAST_INPUTS - 1)
    least, most = halves.LEAST_ROWS, halves.MOST_ROWS
    assert [_divided(wide, rows) for rows in (least - 1, least, most, most + 1)] == [False, True, True, False]
    assert not _divided(narrow, most) and not _divided(plan(BatchNorm(), inputs=halves.LEAST_INPUTS), most)


LAYERS = {
    "one layer": [],
    "relu": [Dense(33, "relu")],
    "identity": [Dense(17), Dense(9, "relu")],
    "tanh": [Dense(20, "tanh")],
    "batch norm": [Dense(20), BatchNorm("relu"), Dense(9, "logistic"), BatchNorm()],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", ["rows", "bytes", "zeros"])
@pytest.mark.parametrize(("inputs", "counts"), [(700, (7, 8, 61, 257)), (halves.LEAST_INPUTS, (halves.MOST_ROWS,))])
def test_gradients_are_the_references(layers, dtype, kind, inputs, counts, monkeypatch):
    """The same bits for any number of slots; fewer and more rows than are divided, too."""
    random, classes = np.random.default_rng(0), 4
    x = random.integers(0, 256, (300, inputs)) * (random.random((300, inputs)) < (0.2 if kind == "zeros" else 1))
    x = (x - 128.0) / 64 if kind == "rows" else x.astype(np.uint8)
    network = Network([*LAYERS[layers], Dense(classes)], inputs, dtype=dtype, seed=1)
    wide = Network([*LAYERS[layers], Dense(classes)], inputs, dtype="float64", seed=1)
    wide.params[:], wide.buffers[:] = network.params, network.buffers
    y = random.integers(0, classes, 300)
    for rows in counts:
        order, found = random.permutation(300)[:rows], []
        for net, backend, slots in ((wide, reference, 1), *((network, cpu, n) for n in (1, 2, 3, 5))):
            monkeypatch.setattr(verbs, "_slots", lambda *_, n=slots: n)
            source = net.source(x.astype(net.dtype) if kind == "rows" else x, y)
            if kind != "rows":
                T = net.dtype.type
                source = source._replace(factor=T(1 / 128), offset=T(-0.25), skip_zeros=kind == "zeros")
            grad, work = np.full_like(net.params, np.nan), backend.make_workspace(net.plan, rows, net.dtype)
            loss = backend.loss_and_gradient(net.model, source, order, float(rows), work, grad)
            found.append((loss, grad))
        (wanted, exact), *ours = found
        tolerance = {"float32": 2e-4, "float64": 1e-11}[dtype]
        assert len({(loss, grad.tobytes()) for loss, grad in ours}) == 1
        assert ours[0][0] == pytest.approx(wanted, rel=tolerance)
        np.testing.assert_allclose(ours[0][1], exact, rtol=0, atol=tolerance * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("between", [[], [BatchNorm()]], ids=["dense", "batch norm"])
def test_what_is_not_finite_stays_in_its_call(between, slots, monkeypatch):
    """A NaN in either half comes through ReLU, in its row alone; the padding of later gradients stays zero."""
    monkeypatch.setattr(verbs, "_slots", lambda *_: slots)
    network = Network([Dense(20, "relu"), *between, Dense(3)], 600, seed=1)
    random, rows = np.random.default_rng(0), halves.MOST_ROWS + 1
    work, grad = cpu.make_workspace(network.plan, rows, network.dtype), np.empty_like(network.params)
    for column in (5, 599):
        for count in (17, rows):
            source = network.source(random.normal(size=(count, 600)), np.zeros(count, int))
            if count == 17:
                source.rows[4, column] = np.nan
            loss = cpu.loss_and_gradient(network.model, source, np.arange(count), float(count), work, grad)
            if count == 17 and not between:
                assert np.isnan(loss) and np.isnan(work.losses[:17]).tolist() == [i == 4 for i in range(17)]
        assert np.isfinite(loss) and not padding(network, grad).any()
