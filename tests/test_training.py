"""fit: what it yields, weights, early stopping, divergence, and PyTorch's figures."""

import math
import threading
import tracemalloc

import numpy as np
import pytest
from support import BACKENDS, CLASSES, ROWS, WIDTH, blobs, network, overfitting, timeless, train

from mlpkernels import SGD, Adam, AdamW, Dense, Network, TrainingState, fit, pace
from mlpkernels.datasets import Part
from mlpkernels.errors import DivergenceError
from mlpkernels.scaling import Scaling
from mlpkernels.schedules import Cosine, Step


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def step_by_step(monkeypatch):
    """Calls into the kernel run one step each."""
    monkeypatch.setattr(pace, "CALL_SECONDS", 0)


# ---- what an epoch yields


def test_it_learns_and_reports(backend):
    net = network()
    results = train(net, validation=blobs(30, 1), test=blobs(31, 2), epochs=12, batch_size=16,
                    optimizer=Adam(0.03), backend=backend)  # fmt: skip
    assert [result.epoch for result in results] == list(range(1, 13))
    last = results[-1]
    assert last.train_accuracy > 0.9 and last.val_accuracy > 0.9 and last.test_accuracy > 0.8
    assert last.train_loss < results[0].train_loss / 2
    assert last.seconds > 0 and last.samples_per_second == ROWS / last.seconds and last.learning_rate == 0.03
    assert net.evaluate(blobs(31, 2).x, blobs(31, 2).y, backend=backend) == (
        last.test_loss,
        last.test_accuracy,
    )
    lowest = math.inf
    for result in results:
        assert result.best == (result.val_loss < lowest)
        lowest = min(lowest, result.val_loss)


def test_what_does_not_apply_is_none(backend):
    (result,) = train(network(), epochs=1, backend=backend)
    assert (result.val_loss, result.val_accuracy, result.test_loss, result.test_accuracy) == (None,) * 4
    assert result.best is False


def test_figures_are_sums_over_the_batches(backend):
    net = network("float64")
    part = blobs()
    losses = []
    start = net.copy()
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(5).spawn(2)[1])).permutation(ROWS)
    for first in range(0, ROWS, 32):  # 32, 32, 26 rows
        rows = order[first : first + 32]
        losses.append(start.evaluate(part.x[rows], part.y[rows], backend=backend)[0] * len(rows))
        train(
            start,
            (part.x[rows], part.y[rows]),
            epochs=1,
            batch_size="full",
            optimizer=SGD(0.2),
            backend=backend,
        )
    (result,) = train(net, part, epochs=1, batch_size=32, seed=5, optimizer=SGD(0.2), backend=backend)
    assert result.train_loss == pytest.approx(sum(losses) / ROWS, rel=1e-12)
    np.testing.assert_allclose(net.params, start.params, rtol=1e-9, atol=1e-12)


def test_eval_train_looks_again_after_the_epoch(backend):
    net = network("float64")
    part = blobs()
    (result,) = train(net, part, epochs=1, batch_size=8, eval_train=True, backend=backend)
    assert (result.train_loss, result.train_accuracy) == pytest.approx(
        net.evaluate(part.x, part.y, backend=backend), rel=1e-12
    )


def test_progress_within_epochs(backend, step_by_step):
    seen = []
    train(network(), epochs=2, batch_size=32, schedule=Cosine(), optimizer=SGD(0.5), on_progress=seen.append,
          backend=backend)  # fmt: skip
    assert [(p.epoch, p.step, p.samples) for p in seen] == [
        (1, 1, 32), (1, 2, 64), (1, 3, 90), (2, 1, 32), (2, 2, 64), (2, 3, 90),
    ]  # fmt: skip
    assert all(p.epochs == 2 and p.steps == 3 and p.seconds > 0 and 0 <= p.accuracy <= 1 for p in seen)
    assert [p.learning_rate for p in seen] == pytest.approx([(1 + math.cos(math.pi * t / 6)) / 4 for t in range(6)])
    results = train(network(), epochs=1, batch_size=32, schedule=Step(1), optimizer=SGD(0.5), backend=backend)
    assert math.isfinite(seen[2].loss) and results[0].learning_rate == 0.5


def test_the_cut_into_calls_changes_nothing(backend, monkeypatch):
    def run(seconds):
        monkeypatch.setattr(pace, "CALL_SECONDS", seconds)
        net = network()
        return net, timeless(train(net, epochs=3, batch_size=4, backend=backend))

    (one, some), (other, all_) = run(0), run(100)
    assert np.array_equal(one.params, other.params) and some == all_


def test_python_works_per_call_not_per_step(backend, monkeypatch):
    monkeypatch.setattr(pace, "CALL_SECONDS", 100)
    calls = []
    train(network(), blobs(3000), epochs=2, batch_size=1, on_progress=calls.append, backend=backend)
    assert [call.step for call in calls] == [3000, 3000]


def test_images_are_not_copied(backend):
    x, y = np.zeros((20_000, WIDTH * 50), np.uint8), np.zeros(20_000, np.int32)
    net = Network([Dense(4, "relu"), Dense(CLASSES)], WIDTH * 50, scaling=Scaling("unit", 1 / 255, 0.0))
    part = Part(x, y)
    train(net, Part(x[:100], y[:100]), epochs=1, backend=backend)  # what is made once
    tracemalloc.start()
    train(net, part, test=part, epochs=1, batch_size=1000, backend=backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6 == x.nbytes  # 4.2 of them are 1,000 rows gathered, 2.5 as many evaluated


def test_seeds(backend):
    nets = [network() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, epochs=2, batch_size=16, seed=seed, backend=backend)
    assert np.array_equal(nets[0].params, nets[1].params)
    assert not np.array_equal(nets[0].params, nets[2].params)


def test_the_last_smaller_batch_and_full_batches(backend):
    state = TrainingState()
    train(network(), epochs=2, batch_size=89, state=state, backend=backend)
    assert state.steps == 2 and state.optimizer.step[0] == 4
    nets = [network(), network()]
    for net, size in zip(nets, ("full", ROWS), strict=True):
        train(net, epochs=3, batch_size=size, backend=backend)
    assert np.array_equal(nets[0].params, nets[1].params)
    train(network(), epochs=1, batch_size=1, backend=backend)


def test_networks_train_at_once_in_threads(backend):
    alone, together = [network(seed=k) for k in range(4)], [network(seed=k) for k in range(4)]
    for net in alone:
        train(net, epochs=3, batch_size=8, backend=backend)
    threads = [
        threading.Thread(target=train, args=(net,), kwargs={"epochs": 3, "batch_size": 8, "backend": backend})
        for net in together
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a.params, b.params) for a, b in zip(alone, together, strict=True))


# ---- weights


def test_weights_are_scaled_to_mean_one(backend):
    part = blobs()
    weight = np.random.default_rng(0).random(ROWS) + 0.5
    nets = [network("float64") for _ in range(2)]
    results = [
        train(
            net,
            part,
            epochs=2,
            sample_weight=scale * weight,
            batch_size=32,
            optimizer=SGD(0.3),
            backend=backend,
        )
        for net, scale in zip(nets, (1, 1000), strict=True)
    ]
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-9, atol=1e-12)
    assert results[0][1].train_loss == pytest.approx(results[1][1].train_loss)


def test_a_weight_of_two_is_a_row_twice(backend):
    part = blobs()
    twice = Part(np.concatenate([part.x, part.x[part.y == 1]]), np.concatenate([part.y, part.y[part.y == 1]]))
    doubled, weighted, by_class = (network("float64") for _ in range(3))
    options = {"epochs": 3, "batch_size": "full", "optimizer": SGD(0.3), "backend": backend}
    train(doubled, twice, **options)
    train(weighted, part, sample_weight=np.where(part.y == 1, 2, 1), **options)
    train(by_class, part, class_weight={1: 2.0}, **options)
    np.testing.assert_allclose(doubled.params, weighted.params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_class.params, weighted.params, rtol=1e-12, atol=1e-14)


def test_balanced_classes(backend):
    part = blobs()
    keep = (part.y == 0) | (np.arange(ROWS) < 30)  # 50 of class 0, 10 of each other
    few = Part(part.x[keep], part.y[keep])
    counts = np.bincount(few.y)
    balanced, by_hand = network("float64"), network("float64")
    train(balanced, few, epochs=2, class_weight="balanced", batch_size=16, backend=backend)
    weights = {k: len(few) / (3 * count) for k, count in enumerate(counts)}
    train(by_hand, few, epochs=2, class_weight=weights, batch_size=16, backend=backend)
    np.testing.assert_allclose(balanced.params, by_hand.params, rtol=1e-12, atol=1e-14)


# ---- early stopping


def test_early_stopping_restores_the_best_weights(backend):
    part, options = blobs(noise=100), overfitting(early_stopping=4, backend=backend)
    net, state, seen = network(), TrainingState(), []
    for result in fit(net, part, state=state, threads=1, **options):
        given = net.params.copy()
        seen.append((result.val_loss, given if state.last_params is None else state.last_params))
    losses = [loss for loss, _ in seen]
    best = int(np.argmin(losses))
    assert len(seen) == best + 1 + 4 < 60
    assert np.array_equal(net.params, seen[best][1])
    assert np.array_equal(given, net.params)  # who saves at the last result saves the best
    assert state.best_epoch == best + 1 and state.epochs_since_best == 4
    assert [result.best for result in state.history] == [
        loss < min(losses[:k], default=math.inf) for k, loss in enumerate(losses)
    ]
    assert not np.array_equal(state.last_params, net.params)
    assert list(fit(net, part, state=state, threads=1, **options)) == []  # it has ended
    assert np.array_equal(net.params, seen[best][1])


def test_the_best_weights_are_back_when_the_last_epoch_is_given(backend):
    part, options = blobs(noise=100), overfitting(epochs=8, early_stopping=8, backend=backend)
    net, wanted, losses = network(), [], []
    for result in fit(net, part, threads=1, **options):
        wanted.append(net.params.copy())
        losses.append(result.val_loss)
        if result.epoch == 8:
            break  # nothing more is asked for
    assert int(np.argmin(losses)) < 7 and np.array_equal(net.params, wanted[int(np.argmin(losses))])


def test_without_early_stopping_the_last_weights_stay(backend):
    part, net, options = blobs(noise=100), network(), overfitting(epochs=20, backend=backend)
    for result in fit(net, part, threads=1, **options):  # noqa: B007
        last = net.params.copy()
    assert np.array_equal(net.params, last) and not result.best


def test_a_test_set_is_never_watched(backend):
    part = blobs(noise=100)
    nets = [network(), network()]
    options = overfitting(early_stopping=3, backend=backend)
    train(nets[0], part, **options)
    train(nets[1], part, test=blobs(30, 7), **options)
    assert np.array_equal(nets[0].params, nets[1].params)


# ---- divergence


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of the overflow
def test_divergence_names_epoch_and_step(backend, step_by_step):
    net, state = Network([Dense(CLASSES)], WIDTH), TrainingState()
    with pytest.raises(
        DivergenceError, match=r"the loss is not finite in epoch \d+, step \d+: try a smaller"
    ) as caught:
        train(net, epochs=50, batch_size=16, optimizer=SGD(1e37), state=state, backend=backend)
    assert (caught.value.epoch, caught.value.step) == (state.epoch + 1, state.step + 1)
    assert len(state.history) == state.epoch


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_overflow_in_the_last_step_are_noticed(backend):
    net, state = network(), TrainingState()
    with pytest.raises(DivergenceError, match="a weight is not finite in epoch 1, step 1") as caught:
        train(net, epochs=1, batch_size="full", optimizer=SGD(1e300), state=state, backend=backend)
    assert (caught.value.epoch, caught.value.step) == (1, 1)
    assert not state.history


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of 0 / 0
def test_what_pads_the_weights_does_not_diverge(backend):
    """There an epsilon that is 0 in float32 makes 0 / 0; no weight of a layer without ReLU has a gradient of 0."""
    net = Network([Dense(CLASSES)], WIDTH)
    list(fit(net, blobs(), epochs=2, batch_size=16, optimizer=Adam(0.01, epsilon=1e-46), backend=backend))
    assert net.finite and np.isfinite(net.predict_logits(blobs().x)).all()
    net.parameters()["0.bias"][0] = np.nan
    assert not net.finite


# ---- against PyTorch


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "clipped"])
def test_steps_are_those_of_torch(name, backend):
    torch = pytest.importorskip("torch")
    optimizer, make = {
        "sgd": (SGD(0.2, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.2, weight_decay=0.01)),
        "nesterov": (SGD(0.1, 0.9, True), lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True)),
        "adam": (Adam(0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        "adamw": (AdamW(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        "clipped": (SGD(0.2), lambda p: torch.optim.SGD(p, 0.2)),
    }[name]
    net, part = network("float64", init="pytorch"), blobs()
    modules = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES)).double()
    modules.load_state_dict({key: torch.from_numpy(value) for key, value in net.state_dict().items()})
    peer = make(modules.parameters())
    x, y = torch.from_numpy(part.x / 255.0), torch.from_numpy(part.y.astype(np.int64))
    clip = 0.1 if name == "clipped" else None
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(modules(x), y)
        peer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(modules.parameters(), clip)
        peer.step()
        losses.append(loss.item())
    results = train(net, part, epochs=8, batch_size="full", optimizer=optimizer, clip_norm=clip, backend=backend)
    assert [result.train_loss for result in results] == pytest.approx(losses, rel=1e-9)
    for key, value in modules.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[key], value.numpy(), rtol=1e-7, atol=1e-9)
