"""States: training stopped at any step goes on to the same bits."""

import numpy as np
import pytest
from support import BACKENDS, StopHere, blobs, network, overfitting, stopper, timeless, train

from mlpkernels import (
    SGD,
    Adam,
    AdamW,
    Network,
    TrainingState,
    fit,
    load_checkpoint,
    pace,
    save_checkpoint,
)
from mlpkernels.errors import ResumeError
from mlpkernels.schedules import OneCycle, Step


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def step_by_step(monkeypatch):
    """Calls into the kernel run one step each."""
    monkeypatch.setattr(pace, "CALL_SECONDS", 0)


RESUMED = [
    {"optimizer": SGD(0.1, momentum=0.9, nesterov=True), "schedule": Step(1, 0.5)},
    {"optimizer": AdamW(0.01), "schedule": OneCycle(), "clip_norm": 0.5, "eval_train": True},
    {"optimizer": SGD(0.1), "class_weight": {0: 2.0}, "dtype": "float64", "batch_size": "full"},
]


def same(net, state, wanted, wanted_state):
    """Whether two trainings reached the same bits."""
    memories = [(s.optimizer.first, s.optimizer.second, s.optimizer.step) for s in (state, wanted_state)]
    return (
        np.array_equal(net.params, wanted.params)
        and all(np.array_equal(a, b) for a, b in zip(*memories, strict=True))
        and timeless(state.history) == timeless(wanted_state.history)
        and state.mark.generator == wanted_state.mark.generator
    )


@pytest.mark.parametrize("case", range(len(RESUMED)))
def test_resume_is_exact_from_every_step(case, tmp_path, backend, step_by_step):
    options = {"epochs": 3, "batch_size": 16, "backend": backend, "validation": blobs(20, 1), **RESUMED[case]}
    dtype = options.pop("dtype", "float32")
    wanted, wanted_state = network(dtype), TrainingState()
    train(wanted, state=wanted_state, **options)
    for stop in range(1, 3 * wanted_state.steps + 1):
        net, state = network(dtype), TrainingState()
        with pytest.raises(StopHere):
            train(net, state=state, on_progress=stopper(stop), **options)
        assert (state.epoch, state.step - 1) == divmod(stop - 1, state.steps)
        save_checkpoint(tmp_path / "c.safetensors", net, state)
        net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
        train(net, state=state, **options)
        assert same(net, state, wanted, wanted_state), stop


def test_resume_is_exact_from_between_epochs_and_within_evaluation(tmp_path, backend, monkeypatch):
    options = overfitting(epochs=12, early_stopping=3, backend=backend, test=blobs(9, 3))
    part, wanted, wanted_state = blobs(noise=100), network(), TrainingState()
    train(wanted, part, state=wanted_state, **options)
    evaluate = Network.evaluate_sources
    for stop in range(1, 2 * len(wanted_state.history) + 1, 3):
        calls = []

        def interrupted(self, *arguments, calls=calls, stop=stop):
            calls.append(None)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return evaluate(self, *arguments)

        net, state = network(), TrainingState()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Network, "evaluate_sources", interrupted)
            train(net, part, state=state, **options)
        save_checkpoint(tmp_path / "c.safetensors", net, state)
        net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
        train(net, part, state=state, **options)
        assert same(net, state, wanted, wanted_state), stop


def test_resume_in_memory_after_leaving_the_generator(backend):
    wanted, wanted_state, net, state = network(), TrainingState(), network(), TrainingState()
    train(wanted, epochs=4, state=wanted_state, backend=backend)
    for _ in fit(net, blobs(), epochs=4, batch_size=32, threads=1, state=state, backend=backend):
        if state.epoch == 2:
            break
    train(net, epochs=4, state=state, backend=backend)
    assert same(net, state, wanted, wanted_state)


def test_epochs_may_grow(tmp_path, backend):
    wanted, wanted_state, net, state = network(), TrainingState(), network(), TrainingState()
    options = {
        "validation": blobs(30, 1, noise=120),
        "early_stopping": 5,
        "optimizer": Adam(0.02),
        "backend": backend,
    }
    train(wanted, blobs(noise=100), epochs=9, batch_size=8, state=wanted_state, **options)
    train(net, blobs(noise=100), epochs=4, batch_size=8, state=state, **options)
    save_checkpoint(tmp_path / "c.safetensors", net, state)  # the network holds the best weights now
    net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
    train(net, blobs(noise=100), epochs=9, batch_size=8, state=state, **options)
    assert same(net, state, wanted, wanted_state)
    with pytest.raises(ResumeError, match="epochs was 9 and is now 4; it may grow, not shrink"):
        train(net, blobs(noise=100), epochs=4, batch_size=8, state=state, **options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({0: 1, 1: 2.0}, {1: 2, 0: 1.0}), ({0: 1.0, 1: 2.0}, {np.int64(1): np.float32(2), np.int64(0): np.int64(1)}),
        ("balanced", "balanced"),
    ],
)  # fmt: skip
def test_equal_class_weights_are_the_same_however_they_are_written(backend, before, after):
    net, state = network(), TrainingState()
    train(net, epochs=1, class_weight=before, state=state, backend=backend)
    if isinstance(before, dict):  # as states of before have what NumPy 2 shows
        state.settings["class_weight"] = "{np.int64(0): np.float64(1.0), np.int64(1): 2}"
    train(net, epochs=2, class_weight=after, state=state, backend=backend)
    with pytest.raises(ResumeError, match=r"class_weight was .* and is now"):
        train(net, epochs=3, class_weight={0: 1.0, 1: 2.5}, state=state, backend=backend)


def test_threads_may_change(backend):
    wanted, net, state = network(), network(), TrainingState()
    train(wanted, epochs=2, backend=backend, threads=1)
    with pytest.raises(StopHere):
        train(net, epochs=2, backend=backend, threads=2, state=state, on_progress=stopper(1))
    train(net, epochs=2, backend=backend, threads=1, state=state)
    assert np.array_equal(net.params, wanted.params)
