"""Checkpoints: everything comes back, nothing shows the padding, every damage is named."""

import json

import numpy as np
import pytest

from mlpkernels import SGD, Adam, BatchNorm, Dense, Network, TrainingState, files, fit, load_checkpoint, save_checkpoint
from mlpkernels.errors import ModelFileError


def trained(optimizer, **options):
    """A network and its state within the second epoch, by early stopping with best weights kept."""
    random = np.random.default_rng(0)
    data = (random.normal(size=(50, 7)), random.integers(0, 3, 50))
    net, state = Network([Dense(5, "relu"), Dense(3)], 7), TrainingState()
    list(fit(net, data, validation=data, epochs=2, batch_size=8, optimizer=optimizer, early_stopping=2,
             state=state, backend="reference", **options))  # fmt: skip
    return net, state


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()])
def test_everything_comes_back(tmp_path, optimizer):
    net, state = trained(optimizer)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, net, state, {"note": "ä", "numbers": [1, 2.5, None]})
    net2, state2, extra = load_checkpoint(path)
    assert extra == {"note": "ä", "numbers": [1, 2.5, None]}
    assert np.array_equal(net2.params, net.params)
    for a, b in zip(state.optimizer, state2.optimizer, strict=True):
        assert np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape
    assert state2.settings == state.settings and state2.history == state.history
    assert (state2.epoch, state2.step, state2.steps) == (state.epoch, state.step, state.steps)
    assert np.array_equal(state2.last_params, state.last_params)
    for a, b in zip(state.mark, state2.mark, strict=True):
        assert np.array_equal(a, b)
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_are_unpadded_and_named(tmp_path):
    net, state = trained(Adam())
    save_checkpoint(tmp_path / "c.safetensors", net, state)
    tensors, _ = files.read_tensors(tmp_path / "c.safetensors", "checkpoint")
    for prefix in ("", "optimizer.first.", "optimizer.second.", "best.", "last."):
        assert tensors[f"{prefix}0.weight"].shape == (5, 7) and tensors[f"{prefix}2.bias"].shape == (3,)
    assert np.array_equal(tensors["optimizer.second.0.weight"], net.tensors(state.optimizer.second)["0.weight"])


def test_an_empty_state_is_refused(tmp_path):
    with pytest.raises(ValueError, match="state: it is empty; pass it to fit"):
        save_checkpoint(tmp_path / "c.safetensors", trained(SGD())[0], TrainingState())
    assert not list(tmp_path.iterdir())


def test_a_model_is_no_checkpoint_and_the_reverse(tmp_path):
    net, state = trained(SGD())
    net.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=r"holds a model; a checkpoint was wanted: read it with Network.load"):
        load_checkpoint(tmp_path / "m.safetensors")
    save_checkpoint(tmp_path / "c.safetensors", net, state)
    with pytest.raises(ModelFileError, match="holds a checkpoint; a model was wanted: read it with load_checkpoint"):
        Network.load(tmp_path / "c.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_checkpoint(tmp_path / "missing.safetensors")


def without(tensors, training, name):
    del tensors[name]


def cut_epoch(tensors, training):
    training["history"].pop()


def bad_generator(tensors, training):
    training["generator"]["bit_generator"] = "MT19937"


def no_generator(tensors, training):
    del training["generator"]


def more_steps(tensors, training):
    tensors["optimizer.step"] = tensors["optimizer.step"] + 100


def float_step(tensors, training):
    tensors["optimizer.step"] = tensors["optimizer.step"].astype(np.float64)


def other_rule(tensors, training):
    tensors["optimizer.settings"] = SGD().settings()


def strange_group(tensors, training):
    tensors["worst.0.weight"] = tensors["0.weight"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: without(t, m, "0.weight"), "0.weight is missing"),
        (lambda t, m: without(t, m, "optimizer.step"), "'optimizer.step' is missing"),
        (lambda t, m: without(t, m, "best.2.bias"), "2.bias is missing"),
        (lambda t, m: without(t, m, "losses"), "'losses' is missing"),
        (cut_epoch, "1 results of 2 epochs"),
        (bad_generator, "does not describe a training"),
        (no_generator, "'generator' is missing"),
        (more_steps, "step 100 of 7"),
        (float_step, "optimizer.step is float64"),
        (other_rule, "memory does not fit its settings"),
        (strange_group, "was not expected|is missing"),
        (lambda t, m: t.update({"best.0.bias": np.full(5, np.inf, np.float32)}), "0.bias holds a value that is not"),
    ],
)
def test_damage_is_named(tmp_path, change, words):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, *trained(Adam()))
    tensors, metadata = files.read_tensors(path, "checkpoint")
    described = json.loads(metadata["training"])
    change(tensors, described)
    files.write_tensors(path, tensors, {**metadata, "training": json.dumps(described)})
    with pytest.raises(ModelFileError, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradients_too_large_to_square_can_be_resumed(tmp_path, backend):
    """Adam's mean of their squares is infinite, the weights are not: training goes on, and so it must from a file."""
    data = (np.full((12, 7), 1e22), np.arange(12) % 3)
    options = {"optimizer": Adam(1e-30), "batch_size": 4, "backend": backend}
    nets = [Network([Dense(3)], 7, seed=0) for _ in range(2)]
    state = TrainingState()
    with np.errstate(over="ignore"):
        straight = list(fit(nets[0], data, epochs=3, **options))
        list(fit(nets[1], data, epochs=2, state=state, **options))
    assert np.isinf(state.optimizer.second).any() and nets[1].finite
    save_checkpoint(tmp_path / "c.safetensors", nets[1], state)
    net, state, _ = load_checkpoint(tmp_path / "c.safetensors")
    with np.errstate(over="ignore"):
        (last,) = fit(net, data, epochs=3, state=state, **options)
    assert net.params.tobytes() == nets[0].params.tobytes() and last.train_loss == straight[-1].train_loss


@pytest.mark.parametrize("where", ["params", "buffers"])
def test_a_network_that_diverged_is_not_saved(tmp_path, where):
    path = tmp_path / "c.safetensors"
    net, state = Network([Dense(5), BatchNorm("relu"), Dense(3)], 7), TrainingState()
    list(fit(net, (np.eye(7), np.arange(7) % 3), epochs=1, batch_size=4, state=state, backend="reference"))
    save_checkpoint(path, net, state)
    assert net.finite
    before = path.read_bytes()
    getattr(net, where)[0] = np.inf
    assert not net.finite
    for save in (lambda: save_checkpoint(path, net, state), lambda: net.save(path)):
        with pytest.raises(ValueError, match=r"holds a value that is not finite: a network that diverged is not saved"):
            save()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    net, state = trained(Adam())
    save_checkpoint(path, net, state)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device; nothing was changed"):
        save_checkpoint(path, net, state, {"more": 1})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
