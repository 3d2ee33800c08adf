"""The loss and its gradient inside the reader's own @njit functions: the bits of the executor's, and plain descent."""

import numba
import numpy as np
import pytest
import stacks
from allocations import allocations
from numba import TypingError, njit

from mlpkernels import BatchNorm, Dense, Dropout, Network, kernels
from mlpkernels.compiled import loss_and_gradient, workspace_type
from mlpkernels.scaling import Scaling

ROWS = 5


@njit
def weighed(net, x, y, work, grad, weights):
    return loss_and_gradient(net, x, y, work, grad, weights)


@njit
def plain(net, x, y, work, grad):
    return loss_and_gradient(net, x, y, work, grad)


def answers(loss, outputs):
    """y as `Network.source` and as compiled code take it: with the classes 0, 1, … there is no difference."""
    random = np.random.default_rng(4)
    if loss == "cross-entropy":
        return random.integers(0, outputs, ROWS)
    if loss == "binary":
        return random.integers(0, 2, (ROWS, outputs) if outputs > 1 else ROWS)
    return np.abs(random.normal(size=(ROWS, outputs)))


LOSSES = [
    ("cross-entropy", 3),
    ("binary", 1),
    ("binary", 3),
    ("squared-error", 1),
    ("squared-error", 2),
    ("poisson", 2),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "outputs"), LOSSES)
@pytest.mark.parametrize("weighs", [False, True])
def test_every_loss_has_the_bits_of_the_executor(loss, outputs, weighs, dtype):
    net = Network(
        [Dense(6, "tanh"), Dense(7, "relu"), Dense(outputs)], 4, loss=loss, dtype=dtype,
        scaling=Scaling("symmetric", 2 / 255, -1.0),
    )  # fmt: skip
    x, y = np.random.default_rng(0).random((ROWS, 4)) * 255, answers(loss, outputs)
    weights = np.linspace(0.5, 2, ROWS) if weighs else None
    value = net.compiled()
    grad = value.gradient()
    grad[...] = np.nan
    made = weighed(value, x, y, value.workspace(8), grad, weights)
    wanted, there = executor(net, net.source(x, y, weights))
    assert made == wanted and grad.tobytes() == there.tobytes()
    if not weighs:
        assert made == plain(value, x, y, value.workspace(ROWS), grad)
        assert made == pytest.approx(net.evaluate(x, y)[0], rel=1e-5)


def executor(net, source):
    cpu = kernels.load("cpu")
    work, there = cpu.make_workspace(net.plan, 8, net.dtype), np.zeros_like(net.params)
    rows = len(source.labels)
    return cpu.loss_and_gradient(net.model, source, np.arange(rows), float(rows), work, there), there


DRAWING = [name for name, (stack, _) in stacks.STACKS.items() if any(isinstance(layer, Dropout) for layer in stack)]


@pytest.mark.parametrize("name", sorted(set(stacks.STACKS) - set(DRAWING)))
def test_every_kind_of_layer_has_the_bits_of_the_executor(name):
    """Without dropout, which draws as the workspace's seed says."""
    net = stacks.network(name, "float32")
    x, y = stacks.rows(net, ROWS)
    value = net.compiled()
    grad = value.gradient()
    loss = plain(value, x, y, value.workspace(8), grad)
    wanted, there = executor(net, net.source(x, y))
    assert loss == wanted and grad.tobytes() == there.tobytes()


def test_a_batch_norm_moves_its_statistics_as_in_training():
    net = Network([Dense(6), BatchNorm("relu"), Dense(3)], 4)
    x, y = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32), answers("cross-entropy", 3)
    value = net.compiled()
    grad = value.gradient()
    loss = plain(value, x, y, value.workspace(8), grad)
    hidden = x @ net.parameters()["0.weight"] + net.parameters()["0.bias"]
    assert net.statistics()["1.running_mean"] == pytest.approx(0.1 * hidden.mean(axis=0), abs=1e-6)
    assert net.statistics()["1.num_batches_tracked"] == 1
    wanted, there = executor(net, net.source(x, y))
    assert loss == wanted and grad.tobytes() == there.tobytes()


def test_dropout_draws_anew_and_by_the_seed():
    net = Network([Dense(64, "relu"), Dropout(0.5), Dense(3)], 4)
    x, y = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32), answers("cross-entropy", 3)
    value = net.compiled()
    grad = value.gradient()

    def losses(seed):
        work = value.workspace(ROWS, seed)
        return [plain(value, x, y, work, grad) for _ in range(3)]

    assert len(set(losses(0))) == 3 and losses(0) == losses(0) and losses(0)[0] != losses(1)[0]


@njit
def descend(net, params, x, y, work, grad, steps, rate):
    losses = np.empty(steps)
    for step in range(steps):
        losses[step] = loss_and_gradient(net, x, y, work, grad)
        params -= rate * grad
    return losses


def sine():
    net = Network([Dense(16, "tanh"), Dense(1)], 1, loss="squared-error", seed=1)
    x = np.linspace(-2, 2, 64, dtype=np.float32)[:, None]
    return net, x, np.sin(x)


def test_plain_descent_learns():
    net, x, y = sine()
    value = net.compiled()
    losses = descend(value, net.params, x, y, value.workspace(64), value.gradient(), 1000, np.float32(0.1))
    assert losses[0] > 0.1 and losses[-1] < 0.002
    assert np.abs(net.predict(x) - y).max() < 0.15


def test_nothing_is_allocated():
    @njit
    def many(times, net, x, y, work, grad):
        for _ in range(times):
            loss_and_gradient(net, x, y, work, grad)

    for name in ("all", "batch norm"):
        net = stacks.network(name, "float32")
        x, y = stacks.rows(net, ROWS)
        value = net.compiled()
        arguments = value, x, y, value.workspace(ROWS), value.gradient()
        many(1, *arguments)
        assert allocations(many, 1, *arguments) == allocations(many, 100, *arguments)


def test_the_gradients_parts_have_names():
    net = Network([Dense(3, "relu"), Dense(2)], 4)
    value = net.compiled()
    grad = value.gradient()
    plain(value, np.ones((1, 4)), np.array([1]), value.workspace(1), grad)
    views = net.views(grad)
    assert views["2.bias"].sum() == pytest.approx(0, abs=1e-6) and views["2.bias"][1] < 0


def test_attributes():
    @njit
    def rows(work):
        return work.rows

    value = Network([Dense(2)], 4).compiled()
    work = value.workspace(7)
    assert rows(work) == work.rows == 7 and numba.typeof(work) == workspace_type("float32")
    assert repr(work) == "GradientWorkspace(rows=7, CompiledNetwork(inputs=4, outputs=2, dtype='float32'))"
    for rows_ in (0, -1):
        with pytest.raises(ValueError, match="rows"):
            value.workspace(rows_)
    with pytest.raises(TypeError):
        value.workspace(1.5)


def given(loss="cross-entropy", outputs=3):
    net = Network([Dense(outputs)], 4, loss=loss)
    value = net.compiled()
    return value, np.ones((ROWS, 4)), answers(loss, outputs), value.workspace(ROWS), value.gradient()


def test_wrong_lengths_and_labels_are_refused():
    value, x, y, work, grad = given()
    other = given()[3]
    for wrong, message in (
        ((value, x[:, :3].copy(), y, work, grad), "inputs"),
        ((value, np.ones((6, 4)), np.zeros(6, int), work, grad), "room"),
        ((value, x[:0], y[:0], work, grad), "no rows"),
        ((value, x, y[:4], work, grad), "as many rows"),
        ((value, x, y, work, grad[:-1]), "grad"),
        ((value, x, y, other, grad), "another network's"),
        ((value, x, y + 3, work, grad), "label"),
        ((value, x, y - 3, work, grad), "label"),
        ((value, x, y.astype(float), work, grad), "integers"),
        ((value, x, y[:, None], work, grad), "integers"),
    ):
        for call in (plain, loss_and_gradient):
            with pytest.raises(ValueError, match=f"loss_and_gradient: .*{message}"):
                call(*wrong)
    with pytest.raises(ValueError, match="weights"):
        weighed(value, x, y, work, grad, np.ones(4))
    value, x, y, work, grad = given("squared-error", 2)
    for wrong in (y[:, :1], y[:, 0], y[:, 0].astype(int)):
        with pytest.raises(ValueError, match="y must be"):
            plain(value, x, wrong, work, grad)


def test_wrong_types_are_refused():
    value, x, y, work, grad = given()
    for wrong, name in (
        ((1, x, y, work, grad), "net"),
        ((value, x[0], y, work, grad), "x"),
        ((value, x.astype(complex), y, work, grad), "x"),
        ((value, np.ones((5, 2, 4))[:, :, ::2], y, work, grad), "x"),
        ((value, x, 1, work, grad), "y"),
        ((value, x, np.ones((5, 1, 1)), work, grad), "y"),
        ((value, x, y, value, grad), "work"),
        ((value, x, y, work, grad.astype(np.float64)), "grad"),
        ((value, x, y, work, grad[::2]), "grad"),
    ):
        with pytest.raises(TypingError, match=f"{name} must"):
            plain(*wrong)
    with pytest.raises(TypingError, match="weights must"):
        weighed(value, x, y, work, grad, np.ones((5, 1)))


@pytest.mark.parametrize(("loss", "y", "text"), [("binary", 7, "outside 0 … 1"), ("poisson", -1, "below 0")])
def test_answers_that_are_none_are_refused(loss, y, text):
    net = Network([Dense(1)], 2, loss=loss)
    value = net.compiled()
    for wrong in (y, np.nan):
        with pytest.raises(ValueError, match=text):
            loss_and_gradient(value, np.ones((1, 2)), np.array([float(wrong)]), value.workspace(1), value.gradient())


def test_from_python_wrong_types_are_a_type_error_of_one_line():
    net = Network([Dense(3)], 4)
    value = net.compiled()
    work, grad = value.workspace(2), value.gradient()
    loss = loss_and_gradient(value, [[1, 2, 3, 4.0]], [1], work, grad)  # lists are converted
    for dtype in ("float16", "longdouble", ">f4"):  # and what Numba does not compute with
        assert loss_and_gradient(value, np.array([[1, 2, 3, 4]], dtype), [1], work, grad) == loss > 0
    for text, given in (
        ("net must be what Network.compiled", (net, np.ones((1, 4)), [1], work, grad)),
        ("x must be an array of real numbers", (value, [["a"] * 4], [1], work, grad)),
        ("x must have 2 dimensions", (value, np.ones(4), [1], work, grad)),
        ("grad must be float32", (value, np.ones((1, 4)), [1], work, grad.astype("float64"))),
    ):
        with pytest.raises(TypeError, match=f"^{text}") as error:
            loss_and_gradient(*given)
        assert "\n" not in str(error.value)
