"""Running statistics and masks through training: how they move, resume, early stopping, divergence, refusals."""

import tracemalloc

import numpy as np
import pytest
import stacks
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
from mlpkernels.errors import DivergenceError, ResumeError
from mlpkernels.kernels import plan as p

NORMS = ["batch norm", "batch norm of images", "all"]


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
    with pytest.raises(DivergenceError, match="a running statistic is not finite in epoch 1, step 1"):
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
    # the last result comes with the best ones put back, too; the last epoch's own are kept beside
    assert np.array_equal(seen[-1][1], net.params) and np.array_equal(seen[-1][2], net.buffers)
    assert not np.array_equal(state.last_params, net.params) and not np.array_equal(state.last_buffers, net.buffers)
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
    with pytest.raises(ResumeError, match=r"layers was 1 x 4 x 6 inputs, .* and is now 1 x 6 x 4 inputs"):
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


# ---- whole trainings


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
    work = large._workspaces.take(kernels.load("reference"), large._workspaces.room(1))
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
