"""Networks: parameters by name, predictions on whatever is passed, copies, threads."""

import copy
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from support import BACKENDS

from mlpkernels import BatchNorm, Conv2d, Dense, Network, fit
from mlpkernels.errors import DataError
from mlpkernels.kernels import plan
from mlpkernels.scaling import Scaling

UNIT = Scaling("unit", 1 / 255, 0.0)


def small(**options):
    return Network([Dense(5, "relu"), Dense(4), Dense(3)], 7, seed=1, **options)


def images(**options):
    return Network([Dense(6, "relu"), Dense(3)], (1, 4, 5), seed=2, scaling=UNIT, **options)


def by_hand(network, x):
    """Logits in float64 from the named parameters."""
    values = np.asarray(x, np.float64).reshape(len(x), -1)
    if network.scaling is not None:
        values = values * network.scaling.factor + network.scaling.offset
    named = [view.astype(np.float64) for view in network.parameters().values()]
    for layer, w, b in zip(network.layers, named[::2], named[1::2], strict=True):
        values = values @ w + b
        if layer.activation == "relu":
            values = np.maximum(values, 0)
    return values


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


# ---- parameters


def test_parameters_are_named_views():
    network = small()
    named = network.parameters()
    assert list(named) == ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert named["0.weight"].shape == (7, 5) and named["3.bias"].shape == (3,)
    assert all(np.shares_memory(view, network.params) for view in named.values())
    assert network.parameter_count == 7 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3
    assert network.flops == 2 * (35 + 20 + 12)
    used = np.zeros_like(network.params)
    for view in network.views(used).values():
        view[...] = 1
    assert used.sum() == network.parameter_count and not network.params[used == 0].any()


def test_seed_decides_the_initial_values():
    assert np.array_equal(small().params, small().params)
    other = Network([Dense(5, "relu"), Dense(4), Dense(3)], 7, seed=3)
    assert not np.array_equal(small().params, other.params)
    double = small(dtype="float64")
    assert np.array_equal(double.params.astype(np.float32), small().params)
    own = Network([Dense(5, "relu", init="pytorch"), Dense(3)], 7)
    assert own.parameters()["0.bias"].all() and not own.parameters()["2.bias"].any()


def test_state_dict_round_trip():
    network, other = small(), small(init="pytorch")
    state = network.state_dict()
    assert state["0.weight"].shape == (5, 7) and state["0.weight"].flags.c_contiguous
    assert not any(np.shares_memory(tensor, network.params) for tensor in state.values())
    other.load_state_dict(state)
    assert np.array_equal(other.params, network.params)
    other.load_state_dict({name: tensor.tolist() for name, tensor in state.items()})
    assert np.array_equal(other.params, network.params)


def test_a_wrong_state_dict_changes_nothing():
    network = small()
    before = network.params.copy()
    good = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    for change, words in (
        ({"3.bias": None}, "3.bias is missing; 0.weight, "),
        ({"0.weight": np.zeros((7, 5))}, r"0.weight has shape \(7, 5\); \(5, 7\) was wanted"),
        ({"4.bias": np.zeros(3)}, "4.bias was not expected"),
        ({"3.bias": np.array([1, np.nan, 1])}, "3.bias holds a value that is not finite in float32"),
        ({"3.bias": np.array([1, 1e39, 1])}, "3.bias holds a value that is not finite in float32"),
        ({"3.bias": np.array(["a", "b", "c"])}, "could not convert"),
    ):
        state = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        with pytest.raises(ValueError, match=words):
            network.load_state_dict(state)
        assert np.array_equal(network.params, before)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layers": []}, ValueError, "at least one layer"),
        ({"layers": [Dense(3, "relu")]}, ValueError, "logits"),
        ({"inputs": 0}, ValueError, "inputs=0"),
        ({"classes": ["a"]}, ValueError, "3 were wanted"),
        ({"dtype": "float16"}, ValueError, "dtype='float16'"),
        ({"init": "zeros"}, ValueError, "init='zeros'"),
        ({"seed": -1}, ValueError, "seed=-1"),
        (
            {"scaling": Scaling("standard", [1.0] * 6, [0.0] * 6)},
            ValueError,
            "fitted to 6 columns, inputs are 7",
        ),
    ],
)
def test_wrong_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        Network(**{"layers": [Dense(3)], "inputs": 7, **options})


# ---- predictions


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_are_those_by_hand(backend, dtype):
    network = small(dtype=dtype, init="pytorch")
    x = np.random.default_rng(0).normal(size=(50, 7))
    logits = network.predict_logits(x, backend=backend)
    wanted = by_hand(network, x)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, wanted, **close)
    proba = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.predict_proba(x, backend=backend), proba, **close)
    np.testing.assert_allclose(network.predict_log_proba(x, backend=backend), np.log(proba), **close)
    assert np.array_equal(network.predict(x, backend=backend), wanted.argmax(axis=1))


def test_predictions_for_whatever_is_passed(backend):
    network = images()
    x = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 5), np.uint8)
    wanted = by_hand(network, x)
    read_only = x.copy()
    read_only.flags.writeable = False
    versions = [x, x.reshape(9, 20), x[:, 0], np.asfortranarray(x), read_only, x.astype(np.int64), x.tolist()]
    versions += [x.astype(dtype) for dtype in ("f2", "f4", "f8", ">f8", ">i4")]
    for version in versions:
        before = np.array(version, copy=True)
        np.testing.assert_allclose(network.predict_logits(version, backend=backend), wanted, rtol=1e-4, atol=1e-6)
        assert np.array_equal(version, before)
    assert np.array_equal(read_only, x) and not read_only.flags.writeable


def test_one_row_no_row_and_many_rows(backend):
    network = images()
    x = np.random.default_rng(0).integers(0, 256, (20_000, 20), np.uint8)
    every = network.predict_logits(x, backend=backend)
    np.testing.assert_allclose(every, by_hand(network, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.predict_logits(x[:1], backend=backend), every[:1], rtol=1e-5)
    assert network.predict_proba(x[:0], backend=backend).shape == (0, 3)
    assert network.predict(x[:0], backend=backend).shape == (0,)


def test_bytes_go_through_in_one_call_unless_that_would_be_long(monkeypatch, backend):
    net, calls = images(), []
    x = np.random.default_rng(0).integers(0, 256, (5000, 20), np.uint8)
    y = np.arange(5000) % 3
    wanted, loss = by_hand(net, x), net.evaluate(x, y, threads=1, backend=backend)
    whole = Network._calls
    monkeypatch.setattr(Network, "_calls", lambda *words: [calls.append(call) or call for call in whole(*words)])
    once = net.predict_logits(x, threads=1, backend=backend)
    assert calls == [(0, 5000)] and np.allclose(once, wanted, atol=1e-5)
    monkeypatch.setattr("mlpkernels.network._CALL_FLOPS", 2100 * net.flops)
    calls.clear()
    assert np.array_equal(net.predict_logits(x, threads=1, backend=backend), once)
    assert net.evaluate(x, y, threads=1, backend=backend) == pytest.approx(loss, rel=1e-12)
    assert calls == 2 * [(0, 2100), (2100, 4200), (4200, 5000)]


def test_classes_are_predicted(backend):
    x = np.random.default_rng(0).normal(size=(30, 7))
    index = by_hand(small(), x).argmax(axis=1)
    for classes in (("cat", "dog", "emu"), (-5, 7, 10**12)):
        predicted = small(classes=classes).predict(x, backend=backend)
        assert predicted.tolist() == [classes[k] for k in index]


def test_tables_are_scaled_by_column(backend):
    scaling = Scaling("standard", np.arange(1.0, 8.0), np.arange(7.0))
    network = small(scaling=scaling, dtype="float64")
    for x in (np.random.default_rng(0).normal(size=(5, 7)), np.ones((5, 7), np.uint8)):
        np.testing.assert_allclose(network.predict_logits(x, backend=backend), by_hand(network, x), rtol=1e-12)


def test_what_cannot_be_predicted_is_named(backend):
    x = np.zeros((9000, 7))
    x[8500, 3] = np.nan
    with pytest.raises(DataError, match="x: row 8501, column 4 is nan"):
        small().predict(x, backend=backend)
    with pytest.raises(DataError, match=r"\(N, 20\) or \(N, 4, 5\) or \(N, 1, 4, 5\) was wanted, not \(2, 28, 28\)"):
        images().predict(np.zeros((2, 28, 28)), backend=backend)
    with pytest.raises(TypeError, match="numbers"):
        small().predict(np.full((2, 7), "a"), backend=backend)
    with pytest.raises(ValueError, match="threads=0"):
        small().predict(np.zeros((2, 7)), threads=0, backend=backend)
    with pytest.raises(ValueError, match="backend 'gpu'"):
        small().predict(np.zeros((2, 7)), backend="gpu")


def test_evaluate(backend):
    network = small(classes=["a", "b", "c"], dtype="float64")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3000, 7)), random.integers(0, 3, 3000)
    labels = np.array(["a", "b", "c"])[y]
    losses = -network.predict_log_proba(x, backend=backend)[np.arange(3000), y]
    loss, accuracy = network.evaluate(x, labels, backend=backend)
    assert loss == pytest.approx(losses.mean(), rel=1e-12)
    assert accuracy == (network.predict(x, backend=backend) == labels).mean()
    weights = random.random(3000)
    weighted = network.evaluate(x, labels, weights, backend=backend)
    assert weighted == (pytest.approx(np.average(losses, weights=weights), rel=1e-12), accuracy)
    with pytest.raises(ValueError, match="x has no rows"):
        network.evaluate(x[:0], labels[:0], backend=backend)
    with pytest.raises(DataError, match="y: row 1 is d"):
        network.evaluate(x[:1], ["d"], backend=backend)


def test_source_checks_and_does_not_copy_images():
    network = images()
    x = np.zeros((4, 1, 4, 5), np.uint8)
    source = network.source(x, [0, 1, 2, 0], [1, 2, 3, 4])
    assert np.shares_memory(source.bytes, x) and source.rows.shape == (0, 20)
    assert source.labels.tolist() == [0, 1, 2, 0] and source.weights.tolist() == [1, 2, 3, 4]
    assert source.factor.dtype == source.weights.dtype == np.float32
    floats = network.source(x.astype(np.float32))
    assert floats.bytes.shape == (0, 20) and floats.rows.shape == (4, 20)
    with pytest.raises(ValueError, match=r"weights: shape \(4,\) was wanted"):
        network.source(x, None, [1])


def test_predicting_needs_little_memory(backend):
    network = Network([Dense(16, "relu"), Dense(3)], 400, scaling=UNIT)
    network.predict_proba(np.zeros((2000, 400), np.uint8), threads=1, backend=backend)  # compiled, or loaded
    for dtype in (np.uint8, np.float64):
        x = np.zeros((40_000, 400), dtype)
        tracemalloc.start()
        network.predict_proba(x, threads=1, backend=backend)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6  # a scaled copy alone would be 64 MB


def test_threads_predict_at_once(backend):
    network = small()
    x = np.random.default_rng(0).normal(size=(500, 7))
    wanted = network.predict_logits(x, backend=backend)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(network.predict_logits(x, backend=backend), wanted):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    kept = [work for free in network._workspaces.values() for work in free]
    assert 1 <= len(kept) <= 9 and len({work.x.ctypes.data for work in kept}) == len(kept)


# ---- copies and words


@pytest.mark.parametrize("duplicate", [
    Network.copy, copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network)),
])  # fmt: skip
def test_copies_are_independent(duplicate, backend):
    network = images(classes=["a", "b", "c"], dtype="float64")
    x = np.ones((3, 20), np.uint8)
    wanted = network.predict_logits(x, backend=backend)
    other = duplicate(network)
    assert type(other) is Network and not np.shares_memory(other.params, network.params)
    assert other.params.ctypes.data % 64 == 0
    assert np.array_equal(other.predict_logits(x, backend=backend), wanted)
    assert other.classes == network.classes and other.scaling == network.scaling
    other.params[...] = 0
    assert np.array_equal(network.predict_logits(x, backend=backend), wanted)


def test_pickles_hold_no_workspace():
    network = small()
    before = len(pickle.dumps(network))
    network.predict(np.zeros((2000, 7)), backend="reference")
    assert len(pickle.dumps(network)) == before < 5000


def test_words():
    assert repr(small()) == ("Network([Dense(5, activation='relu'), Dense(4), Dense(3)], inputs=7, dtype='float32')")
    assert "inputs=(1, 4, 5)" in repr(images())
    lines = small().summary().splitlines()
    assert lines[1].split() == ["Dense", "+", "relu", "7", "→", "5", "40"]
    assert lines[-2].split() == ["total", "79"]
    assert lines[-1] == "316 bytes of float32, 134 FLOPs a sample"
    assert len({len(line) for line in lines[:-1]}) == 1
    assert small().plan.shape == (3, plan.COLUMNS)


def test_untrained_until_any_parameter_changes_or_all_are_set(tmp_path):
    def fresh():
        return Network([Conv2d(2, 3), BatchNorm("relu"), Dense(3)], (1, 5, 5), init="pytorch", seed=4)

    def moved(network):
        network.parameters()["4.bias"][1] += 1e-3

    def saved(network):
        network.save(tmp_path / "net.safetensors")
        return Network.load(tmp_path / "net.safetensors")

    copies = (fresh, lambda: fresh().copy(), lambda: pickle.loads(pickle.dumps(fresh())), lambda: saved(fresh()))
    for make in copies:
        network = make()
        assert network.untrained
        moved(network)
        assert not network.untrained and not network.copy().untrained and not saved(network).untrained
    network = fresh()
    network.load_state_dict(network.state_dict())
    assert not network.untrained and not saved(network).untrained
    trained = Network([Dense(3)], 4)
    list(fit(trained, (np.ones((6, 4)), [0, 1, 2] * 2), batch_size=3, epochs=1, backend="reference"))
    assert not trained.untrained
