"""Networks of every loss: what they learn from, what they predict, what they refuse."""

import pickle

import numpy as np
import pytest

from mlpkernels import SGD, Adam, BatchNorm, Conv2d, Dense, Dropout, Network, fit
from mlpkernels.datasets import Part
from mlpkernels.errors import DataError, ModelFileError, ResumeError
from mlpkernels.kernels import cpu
from mlpkernels.training import TrainingState

ROWS, INPUTS = 60, 4
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 3))
X = np.random.default_rng(1).normal(size=(ROWS, INPUTS))
# Each loss with its number of outputs, classes and answers to learn from.
KINDS = {
    "cross-entropy": (3, ("a", "b", "c"), np.array(["a", "b", "c"])[NUMBERS.argmax(axis=1)]),
    "binary": (1, ("no", "yes"), np.where(NUMBERS[:, 0] > 0, "yes", "no")),
    "binary of three": (3, ("a", "b", "c"), (NUMBERS > 0).astype(int)),
    "squared-error": (3, None, NUMBERS),
    "squared-error of one": (1, None, NUMBERS[:, 0]),
    "poisson": (3, None, np.floor(np.exp(NUMBERS))),
}


def made(kind, dtype="float64", activation="tanh", **options):
    outputs, classes, y = KINDS[kind]
    stack = [Dense(7, activation), Dense(outputs)]
    return Network(stack, INPUTS, loss=kind.split()[0], classes=classes, dtype=dtype, seed=3, **options), y


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


# ---- against PyTorch


def torch_loss(torch, kind, logits, y, classes):
    functional = torch.nn.functional
    if kind == "cross-entropy":
        return functional.cross_entropy(logits, torch.tensor([classes.index(one) for one in y]))
    if kind == "binary":
        return functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor((y == "yes").astype(float)))
    wanted = torch.tensor(np.asarray(y, float)).reshape(logits.shape)
    if kind == "binary of three":
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(y)
    if kind == "poisson":
        least = wanted * torch.log(torch.where(wanted > 0, wanted, 1.0)) - wanted
        return functional.poisson_nll_loss(logits, wanted, log_input=True) + least.mean()
    return functional.mse_loss(logits, wanted)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
def test_training_is_that_of_torch(kind, activation):
    torch = pytest.importorskip("torch")
    net, y = made(kind, activation=activation)
    module = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "logistic": torch.nn.Sigmoid}[activation]()
    peer = torch.nn.Sequential(torch.nn.Linear(INPUTS, 7), module, torch.nn.Linear(7, net.outputs)).double()
    peer.load_state_dict({name: torch.tensor(tensor) for name, tensor in net.state_dict().items()})
    rule = torch.optim.Adam(peer.parameters(), lr=0.01)
    results = list(fit(net, (X, y), epochs=5, batch_size="full", optimizer=Adam(0.01)))
    for result in results:
        rule.zero_grad()
        loss = torch_loss(torch, kind, peer(torch.tensor(X)), y, KINDS[kind][1])
        loss.backward()
        rule.step()
        assert result.train_loss == pytest.approx(loss.item(), rel=1e-10)
    for name, tensor in peer.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], tensor.numpy(), rtol=1e-8, atol=1e-11)


# ---- what comes out


def test_it_learns_and_predicts_what_it_learnt_from(kind):
    net, y = made(kind)
    before, _ = net.evaluate(X, y)
    *_, result = fit(net, (X, y), validation=(X, y), epochs=600, batch_size=20, optimizer=Adam(0.02))
    loss, accuracy = net.evaluate(X, y)
    assert loss == pytest.approx(result.val_loss) and loss < 0.5 * before
    predicted = net.predict(X)
    if net.classes:
        wanted = np.asarray(y)
        right = (predicted == wanted).all(axis=1) if wanted.ndim == 2 else predicted == wanted
        assert accuracy == result.val_accuracy == right.mean() > 0.5
    else:
        assert np.isnan(accuracy) and np.isnan(result.train_accuracy)
        assert predicted.shape == (ROWS, net.outputs) and (net.loss != "poisson" or predicted.min() > 0)


def test_the_loss_is_the_mean_that_its_name_says():
    net, y = made("squared-error")
    assert net.evaluate(X, y)[0] == pytest.approx(((net.predict(X) - y) ** 2).mean())
    weights = np.linspace(1, 3, ROWS)
    weighted = np.average(((net.predict(X) - y) ** 2).mean(axis=1), weights=weights)
    assert net.evaluate(X, y, weights)[0] == pytest.approx(weighted)
    net, y = made("poisson")
    rate = net.predict(X)
    deviance = rate - y * np.log(rate) + np.where(y > 0, y * np.log(np.where(y > 0, y, 1)) - y, 0)
    assert net.evaluate(X, y)[0] == pytest.approx(deviance.mean())
    net, y = made("binary of three")
    p = net.predict_proba(X)
    assert net.evaluate(X, y)[0] == pytest.approx(-np.log(np.where(y > 0, p, 1 - p)).sum(axis=1).mean())


def test_probabilities(kind):
    net, _ = made(kind)
    if not net.classes:
        for method in (net.predict_proba, net.predict_log_proba):
            with pytest.raises(ValueError, match="predicts numbers"):
                method(X)
        return
    p, logits = net.predict_proba(X), net.predict_logits(X)
    assert p.shape == (ROWS, len(net.classes)) and logits.shape == (ROWS, net.outputs)
    np.testing.assert_allclose(np.exp(net.predict_log_proba(X)), p, rtol=1e-12)
    if kind != "binary of three":
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert np.array_equal(np.array(net.classes)[p.argmax(axis=1)], net.predict(X))
    else:
        assert np.array_equal(net.predict(X), p > 0.5)


def test_both_probabilities_of_two_classes_keep_their_digits():
    net = Network([Dense(1)], 1, loss="binary", dtype="float64")
    net.parameters()["0.weight"][...] = 1
    p = net.predict_proba([[-40.0], [40.0], [-800.0]])
    np.testing.assert_allclose(p[:2], [[1, np.exp(-40)], [np.exp(-40), 1]], rtol=1e-14)
    log = net.predict_log_proba([[-40.0], [800.0]])
    np.testing.assert_allclose(log, [[-np.exp(-40), -40], [-800, 0]], rtol=1e-14)


def test_files_and_copies_keep_the_loss(kind, tmp_path):
    net, _ = made(kind, "float32")
    net.save(tmp_path / "net.safetensors")
    for other in (Network.load(tmp_path / "net.safetensors"), net.copy(), pickle.loads(pickle.dumps(net))):
        assert (other.loss, other.outputs, other.classes) == (net.loss, net.outputs, net.classes)
        assert np.array_equal(other.predict(X), net.predict(X)) and repr(other) == repr(net)


def test_a_file_without_a_loss_is_of_classes():
    """Files of before there were others."""
    net, _ = made("cross-entropy")
    text = net.describe()
    assert Network.restore(net.state_dict(), {k: v for k, v in text.items() if k != "loss"}, "a").loss == net.loss
    with pytest.raises(ModelFileError, match="loss='mse'"):
        Network.restore(net.state_dict(), text | {"loss": "mse"}, "a")


def test_the_reference_backend_agrees(kind):
    nets = {backend: made(kind)[0] for backend in ("cpu", "reference")}
    y = KINDS[kind][2]
    for backend, net in nets.items():
        results = list(fit(net, (X, y), epochs=2, batch_size=16, optimizer=SGD(0.05, 0.9), backend=backend))
        net.figures = [results[-1].train_loss, *net.evaluate(X, y, backend=backend)]
    np.testing.assert_allclose(*(net.figures for net in nets.values()), rtol=1e-12)
    np.testing.assert_allclose(*(net.params for net in nets.values()), rtol=1e-9, atol=1e-12)


def test_resume_is_exact_and_refuses_another_loss():
    y = KINDS["squared-error"][2]
    (whole, _), (parts, _) = made("squared-error"), made("squared-error")
    list(fit(whole, (X, y), epochs=4, batch_size=16))
    state = TrainingState()
    list(fit(parts, (X, y), epochs=2, batch_size=16, state=state))
    list(fit(parts, (X, y), epochs=4, batch_size=16, state=state))
    assert np.array_equal(whole.params, parts.params)
    other = Network([Dense(7, "tanh"), Dense(3)], INPUTS, loss="poisson", dtype="float64")
    with pytest.raises(ResumeError, match="loss was squared-error and is now poisson"):
        list(fit(other, (X, np.abs(y)), epochs=5, batch_size=16, state=state))
    with pytest.raises(ResumeError, match="training data"):
        list(fit(parts, (X, y + 1), epochs=5, batch_size=16, state=state))


def test_other_layers_between():
    """Curves that dropout or a batch norm follows, and that follow one."""
    y = KINDS["squared-error"][2]
    stacks = [Dense(9, "tanh"), BatchNorm("logistic"), Dropout(0.2), Dense(5, "logistic"), Dropout(0.1), Dense(3)]
    nets = [Network(stacks, INPUTS, loss="squared-error", dtype="float64", seed=1) for _ in range(2)]
    for net, backend in zip(nets, ("cpu", "reference"), strict=True):
        list(fit(net, (X, y), epochs=3, batch_size=15, backend=backend))
    np.testing.assert_allclose(*(net.params for net in nets), rtol=1e-9, atol=1e-12)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"loss": "mse"}, "loss='mse': one of 'cross-entropy', 'binary', 'squared-error', 'poisson' was wanted"),
        ({"loss": "poisson", "classes": [0, 1]}, "classes: none were wanted, since loss='poisson' predicts numbers"),
        ({"loss": "binary", "classes": ["a", "b", "c"]}, "classes: 2 were wanted"),
    ],
)
def test_losses_and_classes_that_do_not_fit(options, error):
    with pytest.raises(ValueError, match=error):
        Network([Dense(2 if options.get("classes") == [0, 1] else 1)], 3, **options)


@pytest.mark.parametrize(
    ("kind", "y", "error", "text"),
    [
        ("squared-error", NUMBERS[:, :2], DataError, r"shape \(60, 3\) was wanted, not \(60, 2\)"),
        ("squared-error of one", NUMBERS, DataError, r"shape \(60, 1\) or \(60,\) was wanted"),
        ("squared-error", NUMBERS.astype(str), TypeError, "numbers were wanted"),
        ("squared-error", np.ma.masked_array(NUMBERS), DataError, "masked"),
        ("squared-error", np.where(NUMBERS > 2, np.nan, NUMBERS), DataError, "is nan; a finite number was wanted"),
        ("squared-error", np.full((ROWS, 3), np.inf), DataError, "is inf; a finite number was wanted"),
        ("poisson", np.full((ROWS, 3), -1), DataError, "row 1, column 1 is -1; a finite number from 0 was wanted"),
        ("binary of three", np.full((ROWS, 3), 0.5), DataError, "row 1, column 1 is 0.5; 0 or 1 was wanted"),
        ("binary", np.full(ROWS, "maybe"), DataError, "none of the model's classes no, yes"),
        ("binary", np.zeros(ROWS), TypeError, "strings were wanted"),
    ],
)
def test_answers_that_do_not_fit(kind, y, error, text):
    net, right = made(kind)
    with pytest.raises(error, match=text):
        net.evaluate(X, y)
    with pytest.raises(error, match="validation: y: .*" + text):
        fit(net, (X, right), batch_size=10, validation=(X, y))


def test_a_choice_among_one_class_is_not_trained():
    net = Network([Dense(1)], INPUTS)
    before = net.params.copy()
    with pytest.raises(ValueError, match=r"'cross-entropy' of one output is 0 whatever it is: Network\(…, loss='bin"):
        fit(net, (X, np.zeros(ROWS, np.int64)), batch_size=10)
    np.testing.assert_array_equal(net.params, before)


@pytest.mark.parametrize(("kind", "part"), [("cross-entropy", True), *((kind, False) for kind in KINDS)])
def test_answers_are_those_that_were_checked(kind, part):
    """What is written to them while training goes on reaches no kernel, which indexes by classes."""
    changed, plain = made(kind), made(kind)
    y = np.unique(changed[1], return_inverse=True)[1].astype(np.int32) if part else changed[1]
    if y.dtype.kind == "f":
        y = y.astype(changed[0].dtype)
    mine = y.copy()
    given = Part(X, mine) if part else (X, mine)
    for _ in fit(changed[0], given, test=given, epochs=3, batch_size=16, threads=1):
        mine[:] = "c" if mine.dtype.kind == "U" else 10**8
    list(fit(plain[0], Part(X, y) if part else (X, y), epochs=3, batch_size=16, threads=1))
    np.testing.assert_array_equal(changed[0].params, plain[0].params)


def test_what_needs_one_class_a_row_says_so():
    for kind in ("squared-error", "binary of three"):
        net, y = made(kind)
        with pytest.raises(ValueError, match="has no one class; weight rows by sample_weight"):
            fit(net, (X, y), batch_size=10, class_weight="balanced")
        with pytest.raises(TypeError, match=r"\(x, y\) was wanted for a network of loss"):
            fit(net, Part(X, np.zeros(ROWS, np.int32)), batch_size=10)
    net, y = made("binary")
    other = net.copy()
    list(fit(net, (X, y), batch_size=10, class_weight={"yes": 3.0}, epochs=2))
    list(fit(other, (X, y), batch_size=10, sample_weight=np.where(y == "yes", 3.0, 1.0), epochs=2))
    plain, _ = made("binary")
    list(fit(plain, (X, y), batch_size=10, epochs=2))
    assert np.array_equal(net.params, other.params) and not np.array_equal(net.params, plain.params)


def test_images_have_no_curves():
    with pytest.raises(ValueError, match=r"Conv2d: activation='tanh': 'relu' or None was wanted"):
        Conv2d(3, 3, activation="tanh")
    with pytest.raises(ValueError, match="activation='logistic': 'relu' or None was wanted behind an image"):
        Network([Conv2d(3, 3), BatchNorm("logistic"), Dense(2)], (1, 5, 5))
    Network([Conv2d(3, 3), Dense(4), BatchNorm("logistic"), Dense(2)], (1, 5, 5))


def test_targets_that_are_not_there_are_not_read():
    """Compiled code would read past the array."""
    net, y = made("squared-error")
    source = net.source(X, y)._replace(targets=np.zeros((ROWS, 2)))
    work, grad = cpu.make_workspace(net.plan, 8, "float64"), np.zeros_like(net.params)
    with pytest.raises(ValueError, match=r"source.targets must have shape \(60, 3\).*got \(60, 2\)"):
        cpu.loss_and_gradient(net.model, source, np.arange(8), 8.0, work, grad)
    with pytest.raises(ValueError, match=r"source.targets must have shape"):
        cpu.evaluate(net.model, source._replace(targets=np.zeros((0, 0))), 0, ROWS, work)
    cpu.predict(net.model, source, 0, ROWS, work, np.zeros((ROWS, 3)))  # they are not needed


def test_room_for_another_network_is_refused():
    """Compiled code would write past the arrays."""
    net, y = made("squared-error")
    source, order = net.source(X, y), np.arange(8)
    other = cpu.make_workspace(Network([Dense(1)], 2).plan, 8, "float64")
    with pytest.raises(ValueError, match="made for another network"):
        cpu.loss_and_gradient(net.model, source, order, 8.0, other, np.zeros_like(net.params))
    with pytest.raises(ValueError, match=r"grad is \(P,\) like params"):
        cpu.loss_and_gradient(net.model, source, order, 8.0, cpu.make_workspace(net.plan, 8, "float64"), np.zeros(10))
    with pytest.raises(ValueError, match="made for another network"):
        cpu.evaluate(net.model, source, 0, 8, other)
