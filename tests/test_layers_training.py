"""Running statistics and masks through training: resume, early stopping, divergence, copies, files, summaries."""

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import stacks
from stacks import STACKS
from support import BACKENDS, StopHere, stopper, timeless

from mlpkernels import (
    SGD,
    Adam,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    MaxPool2d,
    Network,
    TrainingState,
    files,
    fit,
    kernels,
    load_checkpoint,
    pace,
    save_checkpoint,
)
from mlpkernels.errors import DivergenceError, ModelFileError, ResumeError
from mlpkernels.kernels import plan as p

NORMS = ["batch norm", "batch norm of images", "all"]
DROPS = ["dropout", "dropout of images", "all"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def step_by_step(monkeypatch):
    """Calls into the kernel run one step each."""
    monkeypatch.setattr(pace, "CALL_SECONDS", 0)


def train(net, data, **options):
    return list(fit(net, data, **{"threads": 1, "batch_size": 8, **options}))


def everything(net, state):
    """Every array that a resume must bring back, as bytes."""
    arrays = [net.params, net.buffers, *state.optimizer, state.mark.best_params, state.mark.best_buffers,
              state.last_params, state.last_buffers]  # fmt: skip
    return [None if array is None else np.asarray(array).tobytes() for array in arrays]


def overfitting(net, **options):
    """Data and settings under which the validation loss turns up after some epochs."""
    x, y = stacks.rows(net, 40)
    held = stacks.rows(net, 30, seed=1)
    return (x, np.roll(y, 1) if options.pop("noise", False) else y), {
        "validation": held, "optimizer": Adam(0.02), "early_stopping": 3, "epochs": 40, **options,
    }  # fmt: skip


# ---- running statistics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics_move_as_documented(backend, dtype):
    stack = [BatchNorm(momentum=0.25), Dense(3)]
    net = Network(stack, 5, dtype=dtype)
    start = {name: view.copy() for name, view in net.statistics().items()}
    assert not start["0.running_mean"].any() and (start["0.running_var"] == 1).all()
    x, y = np.random.default_rng(0).normal(2, 3, (20, 5)).astype(dtype), np.arange(20) % 3
    train(net, (x, y), epochs=1, batch_size="full", backend=backend)
    train(net, (x, y), epochs=1, batch_size="full", backend=backend)
    wide, now = x.astype(float), net.statistics()
    close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}
    np.testing.assert_allclose(now["0.running_mean"], (1 - 0.75**2) * wide.mean(axis=0), **close)
    np.testing.assert_allclose(now["0.running_var"], 0.75**2 + (1 - 0.75**2) * wide.var(axis=0, ddof=1), **close)
    assert now["0.num_batches_tracked"] == 2
    for view in now.values():
        assert view.dtype == np.float64 and np.array_equal(view, view.astype(dtype))  # files hold them exactly


def test_images_have_a_statistic_a_channel(backend):
    net = Network([Conv2d(4, 2), BatchNorm(momentum=1), Dense(3)], (2, 5, 6), dtype="float64")
    x, y = stacks.rows(net, 7)
    images = np.empty((7, 4, 4, 5))
    weights, biases = (net.parameters()[name].copy() for name in ("0.weight", "0.bias"))
    kernels.load("reference").conv2d_forward(x, weights, biases, p.IDENTITY, (1, 1), (0, 0), images)
    train(net, (x, y), epochs=1, batch_size="full", backend=backend)
    np.testing.assert_allclose(net.statistics()["1.running_mean"], images.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(net.statistics()["1.running_var"], images.var(axis=(0, 2, 3), ddof=1), rtol=1e-12)


@pytest.mark.parametrize("name", NORMS)
def test_evaluating_and_predicting_change_nothing(name, backend):
    net = stacks.network(name)
    x, y = stacks.rows(net, 30)
    before = net.params.copy(), net.buffers.copy()
    logits = net.predict_logits(x, backend=backend)
    net.evaluate(x, y, backend=backend)
    assert np.array_equal(net.params, before[0]) and np.array_equal(net.buffers, before[1])
    alone = np.concatenate([net.predict_logits(row[None], backend=backend) for row in x])  # no row knows its neighbours
    np.testing.assert_allclose(logits, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_step_that_diverges_leaves_the_statistics(backend, step_by_step):
    net, state = Network([Dense(4), BatchNorm(), Dense(3)], 5), TrainingState()
    x, y = np.random.default_rng(0).normal(size=(32, 5)), np.arange(32) % 3
    seen = []

    def watch(progress):
        seen.append((net.params.copy(), net.buffers.copy()))
        if len(seen) == 2:
            net.parameters()["2.bias"][0] = np.inf  # the next loss is not finite
            seen[-1] = (net.params.copy(), net.buffers.copy())

    with pytest.raises(DivergenceError, match="the loss is not finite in epoch 1, step 3"):
        train(net, (x, y), epochs=1, backend=backend, state=state, on_progress=watch)
    assert np.array_equal(net.buffers, seen[-1][1]) and np.array_equal(net.params, seen[-1][0])
    assert net.statistics()["1.num_batches_tracked"] == state.step == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_statistics_that_overflow_are_noticed(backend):
    net = Network([BatchNorm(), Dense(3)], 2)
    x, y = np.array([[3e38, 1], [-3e38, 2], [1, 3]], np.float32), [0, 1, 2]
    with pytest.raises(DivergenceError, match="a running statistic is not finite in epoch 1, step 1|the loss is not"):
        train(net, (x, y), epochs=1, batch_size="full", backend=backend)


# ---- resume, early stopping


@pytest.mark.parametrize("name", ["all", "batch norm", "dropout"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_exact_from_every_step(name, dtype, tmp_path, backend, step_by_step):
    data, options = overfitting(stacks.network(name), epochs=3, early_stopping=2, backend=backend, seed=5)
    wanted, wanted_state = stacks.network(name, dtype), TrainingState()
    results = train(wanted, data, state=wanted_state, batch_size=16, **options)
    for stop in range(1, 3 * len(results) + 1):
        net, state = stacks.network(name, dtype), TrainingState()
        with pytest.raises(StopHere):
            train(net, data, state=state, on_progress=stopper(stop), batch_size=16, **options)
        save_checkpoint(tmp_path / "c.safetensors", net, state)
        net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
        train(net, data, state=state, batch_size=16, **options)
        assert everything(net, state) == everything(wanted, wanted_state), stop
        assert timeless(state.history) == timeless(wanted_state.history), stop


@pytest.mark.parametrize("name", NORMS)
def test_early_stopping_restores_statistics_with_the_weights(name, tmp_path, backend):
    net, state, seen = stacks.network(name), TrainingState(), []
    data, options = overfitting(net, noise=True, backend=backend)
    for result in fit(net, data, state=state, threads=1, batch_size=8, **options):
        seen.append((result.val_loss, net.params.copy(), net.buffers.copy()))
    best = int(np.argmin([loss for loss, *_ in seen]))
    assert best + 1 < len(seen)
    assert np.array_equal(net.params, seen[best][1]) and np.array_equal(net.buffers, seen[best][2])
    assert not np.array_equal(seen[best][2], seen[-1][2]) and np.array_equal(state.last_buffers, seen[-1][2])
    loss, _ = net.evaluate(*options["validation"], backend=backend)
    assert loss == seen[best][0]

    save_checkpoint(tmp_path / "c.safetensors", net, state)  # more patience is another run, more epochs are not
    net2, state2, _ = load_checkpoint(tmp_path / "c.safetensors")
    assert everything(net2, state2) == everything(net, state)
    tensors, _ = files.read_tensors(tmp_path / "c.safetensors", "checkpoint")
    counts = [key for key in tensors if key.endswith("num_batches_tracked")]
    assert len(counts) == 3 * sum(isinstance(layer, BatchNorm) for layer in net.layers)
    assert not any(key.startswith("optimizer.") and "running" in key for key in tensors)


@pytest.mark.parametrize("name", NORMS)
def test_epochs_may_grow_from_the_last_statistics(name, tmp_path, backend):
    data, options = overfitting(stacks.network(name), early_stopping=30, backend=backend)
    wanted, wanted_state, net, state = stacks.network(name), TrainingState(), stacks.network(name), TrainingState()
    train(wanted, data, state=wanted_state, **{**options, "epochs": 7})
    train(net, data, state=state, **{**options, "epochs": 3})
    save_checkpoint(tmp_path / "c.safetensors", net, state)
    net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
    train(net, data, state=state, **{**options, "epochs": 7})
    assert everything(net, state) == everything(wanted, wanted_state)


def test_checkpoints_from_before_dropout_are_read(tmp_path, backend):
    def build():
        return Network([Dense(5, "relu"), Dense(stacks.CLASSES)], 7)

    data = stacks.rows(build(), 40)
    wanted, net, state = build(), build(), TrainingState()
    train(wanted, data, epochs=3, seed=4, backend=backend)
    train(net, data, epochs=2, seed=4, backend=backend, state=state)
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, net, state)
    tensors, metadata = files.read_tensors(path, "checkpoint")
    tensors["optimizer.settings"] = tensors["optimizer.settings"][: p.SEED]
    files.write_tensors(path, tensors, metadata)
    net, state, _ = load_checkpoint(path)
    train(net, data, epochs=3, seed=4, backend=backend, state=state)
    assert np.array_equal(net.params, wanted.params)


def test_another_shape_of_the_same_images_is_another_network(backend):
    """As many inputs, the same layers: the resume is refused all the same."""
    nets = [Network([Conv2d(2, 2), Dense(3)], shape) for shape in ((1, 4, 6), (1, 6, 4))]
    x, y = np.random.default_rng(0).normal(size=(20, 24)), np.arange(20) % 3
    state = TrainingState()
    train(nets[0], (x, y), epochs=1, state=state, backend=backend)
    with pytest.raises(ResumeError, match="layers was 1 x 4 x 6 inputs, .* and is now 1 x 6 x 4 inputs"):
        train(nets[1], (x, y), epochs=2, state=state, backend=backend)


@pytest.mark.parametrize("name", ["all", "dropout of images"])
def test_threads_do_not_change_the_result(name, backend):
    nets = [stacks.network(name, "float32") for _ in range(2)]
    data = stacks.rows(nets[0], 70)
    for net, threads in zip(nets, (1, 2), strict=True):
        train(net, data, epochs=2, batch_size=33, threads=threads, backend=backend)
    assert np.array_equal(nets[0].params, nets[1].params) and np.array_equal(nets[0].buffers, nets[1].buffers)


@pytest.mark.parametrize(
    ("rows", "batch", "words"),
    [
        (
            20,
            1,
            r"batch_size=1: a mini-batch is one row, of which BatchNorm\(\) can take no variance: take batch_size=2",
        ),
        (21, 1, "take batch_size=3$"),
        (21, 4, "batch_size=4: the last mini-batch of 21 training rows is one row, .* take batch_size=6"),
        (2, 1, "take batch_size=2"),
        (1, "full", "batch_size=1: a mini-batch is one row, .* train on more rows"),
    ],
)
def test_a_batch_of_one_row_is_refused(rows, batch, words):
    x, y = np.random.default_rng(0).normal(size=(rows, 4)), np.arange(rows) % 2
    for stack in ([Dense(3), BatchNorm(), Dense(2)], [Conv2d(3, 2), BatchNorm(), Dense(2)]):
        net = Network(stack, (1, 2, 2))
        before = net.params.copy()
        with pytest.raises(ValueError, match=words):
            fit(net, (x, y), batch_size=batch, backend="reference")
        assert np.array_equal(net.params, before)
    train(Network([Conv2d(3, (1, 2)), BatchNorm(), Dense(2)], (1, 2, 2)), (x, y), batch_size=batch, epochs=1,
          backend="reference")  # fmt: skip


# ---- copies, files, words


@pytest.mark.parametrize("duplicate", [
    Network.copy, copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network)),
])  # fmt: skip
@pytest.mark.parametrize("name", STACKS)
def test_copies_are_whole_and_independent(name, duplicate):
    net = stacks.network(name, "float32")
    x, y = stacks.rows(net, 10)
    train(net, (x, y), epochs=1, backend="reference")
    other = duplicate(net)
    assert np.array_equal(other.params, net.params) and np.array_equal(other.buffers, net.buffers)
    assert other.layers == net.layers and not np.shares_memory(other.buffers, net.buffers)
    wanted = net.predict_logits(x, backend="reference")
    assert np.array_equal(other.predict_logits(x, backend="reference"), wanted)
    other.params[...], other.buffers[...] = 0, 1
    assert np.array_equal(net.predict_logits(x, backend="reference"), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STACKS)
def test_save_and_load(name, dtype, tmp_path):
    net = stacks.network(name, dtype)
    train(net, stacks.rows(net, 10), epochs=1, backend="reference")
    net.save(tmp_path / "m.safetensors")
    loaded = Network.load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.params, net.params) and np.array_equal(loaded.buffers, net.buffers)
    assert loaded.layers == net.layers and loaded.shape == net.shape and repr(loaded) == repr(net)
    assert loaded.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"4.running_mean": None}, "4.running_mean is missing"),
        ({"4.running_var": np.full(5, -1, np.float32)}, "4.running_var holds a negative value"),
        ({"4.running_var": np.full(5, np.inf, np.float32)}, "4.running_var holds a value that is not finite"),
        ({"4.num_batches_tracked": np.array(-1)}, "4.num_batches_tracked holds a negative value"),
        ({"4.num_batches_tracked": np.array([1])}, r"4.num_batches_tracked has shape \(1,\); \(\) was wanted"),
        (
            {"4.num_batches_tracked": np.array(1.5)},
            "4.num_batches_tracked is of float64 in a network of float32; int64",
        ),
        ({"0.weight": np.zeros((4, 1, 9), np.float32)}, r"0.weight has shape \(4, 1, 9\); \(4, 1, 3, 3\) was wanted"),
        ({"4.weight": np.zeros(5)}, "4.weight is of float64 in a network of float32"),
    ],
)
def test_wrong_tensors_are_named(change, words, tmp_path):
    net = Network([Conv2d(4, 3, activation="relu"), MaxPool2d(2), Conv2d(5, 1), BatchNorm(), Dense(3)], (1, 6, 6))
    state = {name: tensor for name, tensor in (net.state_dict() | change).items() if tensor is not None}
    files.write_tensors(tmp_path / "m.safetensors", state, {"kind": "model", **net.describe()})
    with pytest.raises(ModelFileError, match=words):
        Network.load(tmp_path / "m.safetensors")
    if " is of " not in words:  # from memory any dtype will do
        before = net.params.copy(), net.buffers.copy()
        with pytest.raises(ValueError, match=words):
            net.load_state_dict(state)
        assert np.array_equal(net.params, before[0]) and np.array_equal(net.buffers, before[1])


def test_architectures_that_cannot_be_are_model_file_errors(tmp_path):
    net = Network([Conv2d(4, 3), Dense(3)], (1, 6, 6))
    first, last = (layer.to_json() for layer in net.layers)
    for layer, shape, words in (
        ({**first, "kernel": [7, 7]}, [1, 6, 6], "its kernel, 7 x 7, is larger than what reaches it, 6 x 6"),
        (first, [36], "an image .* was wanted, and 36 flat values reach it"),
        ({**first, "kernel": "3"}, [1, 6, 6], "kernel='3'"),
        ({**first, "dilation": 2}, [1, 6, 6], "dilation"),
        ({"kind": "conv2d"}, [1, 6, 6], "channels"),
        ({**first, "channels": 10**15}, [1, 6, 6], r"0.weight has shape \(4, 1, 3, 3\)"),
    ):
        described = {**net.describe(), "architecture": json.dumps([layer, last]), "shape": json.dumps(shape)}
        files.write_tensors(tmp_path / "m.safetensors", net.state_dict(), {"kind": "model", **described})
        with pytest.raises(ModelFileError, match=words):
            Network.load(tmp_path / "m.safetensors")


def test_a_network_whose_statistics_diverged_is_not_saved(tmp_path):
    net = Network([BatchNorm(), Dense(3)], 5)
    net.statistics()["0.running_var"][1] = np.inf
    with pytest.raises(ValueError, match="0.running_var holds a value that is not finite"):
        net.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir()) and np.isinf(net.copy().buffers).any()


def test_views_write_what_counts():
    net = Network([Conv2d(4, (3, 2)), BatchNorm(), Dense(3)], (2, 6, 6))
    named = net.parameters()
    assert {name: view.shape for name, view in named.items()} == {
        "0.weight": (4, 2, 3, 2), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "3.weight": (80, 3), "3.bias": (3,),
    }  # fmt: skip
    assert all(np.shares_memory(view, net.params) for view in named.values())
    assert all(np.shares_memory(view, net.buffers) for view in net.statistics().values())
    for number, view in enumerate([*named.values(), *net.statistics().values()]):
        view[...] = number + 1
    assert [float(np.unique(tensor)[0]) for tensor in net.state_dict().values()] == [1, 2, 3, 4, 7, 8, 9, 5, 6]
    assert np.array_equal(net.params[net.params != 0], net.copy().params[net.params != 0])
    assert (net.params != 0).sum() == net.parameter_count == 4 * 12 + 4 + 8 + 240 + 3


def test_flops_and_summary():
    stack = [
        Conv2d(10, 5), MaxPool2d(2), Conv2d(20, 5, activation="relu"), BatchNorm("relu"), Dropout(0.5), MaxPool2d(2),
        Dense(50, "relu"), Dense(10),
    ]  # fmt: skip
    net = Network(stack, (1, 28, 28))
    assert net.flops == 2 * (25 * 10 * 24 * 24 + 250 * 20 * 8 * 8 + 320 * 50 + 500)
    assert net.parameter_count == 260 + 5020 + 40 + 16050 + 510
    lines = net.summary().splitlines()
    assert lines[1].split() == "Conv2d 1 x 28 x 28 → 10 x 24 x 24 260".split()
    assert lines[4].split() == "BatchNorm + relu 20 x 8 x 8 → 20 x 8 x 8 40".split()
    assert lines[6].split() == "MaxPool2d 20 x 8 x 8 → 20 x 4 x 4 0".split()
    assert lines[7].split() == "Dense + relu 320 → 50 16,050".split()
    assert lines[-2].split() == ["total", "21,880"] and lines[-1] == "87,520 bytes of float32, 961,000 FLOPs a sample"
    assert len({len(line) for line in lines[:-1]}) == 1


def test_predicting_images_needs_little_memory(backend):
    """A workspace of 1024 rows would take 500 MB here."""
    net = Network([Conv2d(8, 3, padding=1, activation="relu"), MaxPool2d(2), Dense(3)], (1, 80, 80))
    x = np.zeros((1500, 1, 80, 80), np.uint8)
    net.predict(x[:2], backend=backend)
    tracemalloc.start()
    net.predict(x, backend=backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6
    large = Network([Conv2d(64, 3, padding=1), MaxPool2d(8), Dense(3)], (3, 256, 256))
    work = large.take_workspace(kernels.load("reference"), 1)
    assert len(work.losses) == 1  # 34 MB a row


def test_convolutions_learn(backend):
    """Which of three places is bright, wherever the image is noisy."""
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = random.normal(0, 0.5, (300, 1, 9, 9))
    for row, label in zip(x, y, strict=True):
        row[0, 3 * label : 3 * label + 2, random.integers(0, 8)] += 3
    net = Network(
        [Conv2d(6, 3, padding=1), BatchNorm("relu"), MaxPool2d(2), Dropout(0.1), Dense(12, "relu"), Dense(3)], (1, 9, 9)
    )
    results = train(net, (x[:200], y[:200]), test=(x[200:], y[200:]), epochs=8, batch_size=20, optimizer=Adam(0.01),
                    backend=backend)  # fmt: skip
    assert results[-1].test_accuracy > 0.9 and results[-1].train_loss < results[0].train_loss / 3


def test_bytes_and_floats_train_alike(backend):
    from mlpkernels import Scaling

    x = np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6)).astype(np.uint8)
    y, stack = np.arange(30) % 3, [Conv2d(3, 3, activation="relu"), MaxPool2d(2), Dense(3)]
    nets = [Network(stack, (1, 6, 6), scaling=Scaling("unit", 1 / 255, 0.0)), Network(stack, (1, 6, 6))]
    for net, rows in zip(nets, (x, (x * np.float32(1 / 255)).astype(np.float32)), strict=True):
        train(net, (rows, y), epochs=2, optimizer=SGD(0.1), backend=backend)
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-4, atol=1e-6)
