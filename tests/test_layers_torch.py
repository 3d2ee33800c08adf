"""Networks of every layer beside the equal torch.nn.Sequential: whole trainings, predictions, files both ways."""

import numpy as np
import pytest
import stacks
from stacks import STACKS
from support import BACKENDS

from mlpkernels import SGD, Adam, AdamW, BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network, fit, layers, seeds

torch = pytest.importorskip("torch")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


OPTIMIZERS = {
    "sgd": (SGD(0.1), lambda params: torch.optim.SGD(params, 0.1)),
    "nesterov": (SGD(0.05, 0.9, True, 0.01), lambda params: torch.optim.SGD(params, 0.05, 0.9, 0, 0.01, True)),
    "adam": (Adam(0.01), lambda params: torch.optim.Adam(params, 0.01)),
    "adamw": (AdamW(0.01, weight_decay=0.1), lambda params: torch.optim.AdamW(params, 0.01, weight_decay=0.1)),
}


def torch_losses(net, modules, make, x, y, batches):
    """The loss of a step with each batch of rows."""
    peer, losses = make(modules.parameters()), []
    inputs, labels = stacks.for_torch(torch, net, x), torch.from_numpy(y)
    modules.train()
    for batch in batches:
        loss = torch.nn.functional.cross_entropy(modules(inputs[batch]), labels[batch])
        peer.zero_grad()
        loss.backward()
        peer.step()
        stacks.next_step(modules)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", STACKS)
def test_steps_are_those_of_torch(name, optimizer, backend):
    net = stacks.network(name, seed=4)
    x, y = stacks.rows(net, 20)
    modules = stacks.sequential(torch, net, seed=7)
    ours, make = OPTIMIZERS[optimizer]
    losses = torch_losses(net, modules, make, x, y, [slice(None)] * 6)
    results = list(fit(net, (x, y), epochs=6, batch_size="full", optimizer=ours, seed=7, backend=backend, threads=1))
    assert [result.train_loss for result in results] == pytest.approx(losses, rel=1e-8)
    state = net.state_dict()
    for key, value in modules.state_dict().items():
        if not shifts_nothing(net, key):
            np.testing.assert_allclose(state[key], value.numpy(), rtol=1e-6, atol=1e-8, err_msg=key)
    modules.eval()
    with torch.no_grad():
        logits = modules(stacks.for_torch(torch, net, x)).numpy()
    np.testing.assert_allclose(net.predict_logits(x, backend=backend), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["all", "batch norm of images", "pools"])
def test_mini_batches_are_those_of_torch(name, backend):
    """Three epochs in batches of 8, 8 and 4 rows, in the order that `fit` draws."""
    net = stacks.network(name, seed=4)
    x, y = stacks.rows(net, 20)
    modules, generator = stacks.sequential(torch, net, seed=7), seeds.generator(7, seeds.ORDER)
    batches = [batch for _ in range(3) for batch in np.split(generator.permutation(20), (8, 16))]
    losses = torch_losses(net, modules, lambda params: torch.optim.SGD(params, 0.05), x, y, batches)
    results = list(fit(net, (x, y), epochs=3, batch_size=8, optimizer=SGD(0.05), seed=7, backend=backend))
    means = np.reshape(losses, (3, 3)) @ (0.4, 0.4, 0.2)
    assert [result.train_loss for result in results] == pytest.approx(means.tolist(), rel=1e-9)
    state = net.state_dict()
    for key, value in modules.state_dict().items():
        np.testing.assert_allclose(state[key], value.numpy(), rtol=1e-7, atol=1e-9, err_msg=key)


def shifts_nothing(net, key):
    """Whether this is a bias or running mean before a batch norm: it takes away what the bias adds.

    Its gradient is rounding alone, of which Adam makes steps as large as any.
    """
    names = [name.partition(".")[0] for name in net.parameters() if name.endswith(".weight")]
    kinds = [kind for kind in net.layers if not isinstance(kind, (MaxPool2d, Dropout))]
    module, _, what = key.partition(".")
    number = names.index(module)
    norms = [isinstance(kind, BatchNorm) for kind in kinds]
    if what == "running_mean":
        return number > 0 and not norms[number - 1]
    return what == "bias" and number + 1 < len(norms) and norms[number + 1]


@pytest.mark.parametrize("name", STACKS)
def test_predictions_in_float32(name, backend):
    net = stacks.network(name, "float32")
    x, _ = stacks.rows(net, 50)
    modules = stacks.sequential(torch, net).eval()
    with torch.no_grad():
        wanted = modules(stacks.for_torch(torch, net, x)).numpy()
    np.testing.assert_allclose(net.predict_logits(x, backend=backend), wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", STACKS)
def test_names_shapes_and_dtypes_are_those_of_torch(name):
    net = stacks.network(name, "float32")
    wanted = stacks.sequential(torch, net).state_dict()
    ours = net.state_dict()
    assert list(ours) == list(wanted)
    for key, tensor in wanted.items():
        assert ours[key].shape == tuple(tensor.shape) and str(ours[key].dtype) == str(tensor.dtype).split(".")[1], key
    assert layers.tensor_shapes(net.layers, net.shape) == {key: tuple(t.shape) for key, t in wanted.items()}


@pytest.mark.parametrize("name", ["all", "batch norm", "pools"])
def test_files_go_both_ways(name, tmp_path, backend):
    from safetensors.torch import load_file

    net = stacks.network(name, "float32")
    x, y = stacks.rows(net, 30)
    list(fit(net, (x, y), epochs=2, batch_size=7, backend=backend))
    net.save(tmp_path / "m.safetensors")
    modules = stacks.sequential(torch, stacks.network(name, "float32", seed=9))
    modules.load_state_dict(load_file(tmp_path / "m.safetensors"))
    with torch.no_grad():
        wanted = modules.eval()(stacks.for_torch(torch, net, x)).numpy()
    for same in (net, Network.load(tmp_path / "m.safetensors")):
        np.testing.assert_allclose(same.predict_logits(x, backend=backend), wanted, rtol=2e-4, atol=2e-5)

    modules.train()(stacks.for_torch(torch, net, x))  # its running statistics move
    other = stacks.network(name, "float32", seed=9)
    other.load_state_dict(modules.state_dict())
    with torch.no_grad():
        wanted = modules.eval()(stacks.for_torch(torch, net, x)).numpy()
    np.testing.assert_allclose(other.predict_logits(x, backend=backend), wanted, rtol=2e-4, atol=2e-5)


def test_relu_may_stand_before_or_behind_a_pool(backend):
    """Conv2d(…, "relu"), MaxPool2d is torch's Conv2d, MaxPool2d, ReLU as well: outputs and gradients."""
    net = Network([Conv2d(4, 3, activation="relu"), MaxPool2d(2), Dense(3)], (1, 8, 8), dtype="float64", init="pytorch")
    x, y = stacks.rows(net, 12)
    swapped = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)
    ).double()
    swapped.load_state_dict({key: torch.from_numpy(value) for key, value in net.state_dict().items()})
    losses = torch_losses(net, swapped, OPTIMIZERS["adam"][1], x, y, [slice(None)] * 5)
    results = list(fit(net, (x, y), epochs=5, batch_size="full", optimizer=Adam(0.01), backend=backend))
    assert [result.train_loss for result in results] == pytest.approx(losses, rel=1e-9)


def test_initial_values_of_a_convolution_spread_as_those_of_torch():
    ours = Network([Conv2d(64, (3, 5)), Dense(2)], (8, 6, 6), init="pytorch").state_dict()
    theirs = torch.nn.Conv2d(8, 64, (3, 5))
    for key, tensor in (("0.weight", theirs.weight), ("0.bias", theirs.bias)):
        bound = (8 * 15) ** -0.5
        assert abs(ours[key]).max() <= bound and ours[key].std() == pytest.approx(tensor.std().item(), rel=0.2)
    for init, make in (("glorot-uniform", torch.nn.init.xavier_uniform_), ("he-normal", torch.nn.init.kaiming_normal_)):
        weight = Network([Conv2d(64, (3, 5), init=init), Dense(2)], (8, 6, 6)).state_dict()["0.weight"]
        assert weight.std() == pytest.approx(make(theirs.weight.detach().clone()).std().item(), rel=0.05)
