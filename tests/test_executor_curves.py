"""The verbs of networks with tanh and logistic layers, and of losses of targets; what the optimiser's flags do."""

import itertools

import numpy as np
import pytest
from bounds import Rounded
from problems import (
    ACTIVATIONS,
    DTYPES,
    LOSSES,
    RULES,
    BoundedStep,
    Run,
    as_double,
    bounded_gradient,
    model,
    padding,
    source,
    unpadded,
)

from mlpkernels import kernels
from mlpkernels.kernels import cpu, plan, reference
from mlpkernels.kernels.cpu import steps, verbs
from mlpkernels.kernels.plan import make_workspace

CURVED = [name for name in ACTIVATIONS if name != "relu"]
OF_TARGETS = [name for name in LOSSES if name != "cross-entropy"]
SIZES = [(1, 1), (5, 1), (3, 2), (9, 17, 3), (2, 1, 2), (33, 16, 16, 4), (20, 31, 1, 33, 5)]
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_loss = pytest.mark.parametrize("loss", LOSSES)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def slots(monkeypatch):
    """slots(n): every call is cut into n, whatever its size; 1 is the serial loop."""
    return lambda n: monkeypatch.setattr(verbs, "_slots", lambda *_: n)


def made(sizes, dtype, activation, loss, rows=40, kind="rows", seed=0):
    """(network, its data)"""
    network = model(sizes, dtype, seed, ACTIVATIONS[activation], LOSSES[loss])
    return network, source(rows, sizes[0], sizes[-1], dtype, seed, kind, loss=LOSSES[loss])


def run_of(activation, loss, sizes, dtype, rule="sgd", **options):
    return Run(sizes, dtype, rule, activation=ACTIVATIONS[activation], loss=LOSSES[loss], **options)


# ---- loss and gradient


@each_activation
@each_loss
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_loss_and_gradient_are_the_references(activation, loss, sizes, dtype, slots):
    network, data = made(sizes, dtype, activation, loss, rows=150)
    for rows in (1, 2, 7, 33, 130):
        order, found = np.random.default_rng(0).permutation(150)[:rows], set()
        for n in (1, 2, 5):
            slots(n)
            work, grad = make_workspace(network.plan, 150, dtype), np.full_like(network.params, np.nan)
            value = cpu.loss_and_gradient(network, data, order, rows + 0.5, work, grad)
            found.add((value, grad.tobytes()))
        assert len(found) == 1, rows
        wanted = np.empty(len(grad))
        exact = reference.loss_and_gradient(as_double(network), as_double(data), order, rows + 0.5, None, wanted)
        losses, bound, _ = bounded_gradient(network.plan, Rounded(network.params, dtype), data, order, rows + 0.5)
        (losses.to("float64").sum() / (rows + 0.5)).check(value, exact, f"{rows} rows: loss")
        bound.check(grad, wanted, f"{rows} rows: gradient")
        assert not padding(network, grad).any()


def kinked(network, data):
    """Whether a ReLU of the network is so close to its corner that a central difference would see it."""
    x = data.rows
    for layer in range(len(network.plan) - 1):
        x = x @ plan.weight_view(network.plan, layer, network.params) + plan.bias_view(
            network.plan, layer, network.params
        )
        if np.abs(x).min() < 1e-3:
            return True
        x = np.maximum(x, 0)
    return False


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@each_activation
@each_loss
def test_gradients_are_central_differences(backend, activation, loss):
    """To 1e-7 of the gradient's length, in float64."""
    backend, rows, h = kernels.load(backend), 5, 1e-5
    for sizes in ((6, 3), (5, 4, 6, 2)):
        for seed in range(100):
            network, data = made(sizes, "float64", activation, loss, rows, seed=seed)
            if activation != "relu" or not kinked(network, data):
                break
        work, order, grad = (
            make_workspace(network.plan, rows, "float64"),
            np.arange(rows),
            np.zeros(len(network.params)),
        )
        backend.loss_and_gradient(network, data, order, float(rows), work, grad)
        differences, unused = np.zeros_like(grad), np.empty_like(grad)
        for i in range(len(grad)):
            kept, ends = network.params[i], []
            for value in (kept + h, kept - h):
                network.params[i] = value
                ends.append(backend.loss_and_gradient(network, data, order, float(rows), work, unused))
            network.params[i] = kept
            differences[i] = (ends[0] - ends[1]) / (2 * h)
        exact, got = unpadded(network, differences), unpadded(network, grad)
        assert np.linalg.norm(got) > 1e-3
        assert np.linalg.norm(exact - got) <= 1e-7 * np.linalg.norm(got)


# ---- training


@each_activation
@each_loss
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_each_training_step_is_the_references(activation, loss, dtype, clip):
    """By every rule, from the same point: what one step may round is bounded, a chain of steps is not."""
    for rule, (sizes, rows, batch) in itertools.product(RULES, (((13, 20, 17, 5), 75, 32), ((7, 3), 4, 1))):
        run = run_of(activation, loss, sizes, dtype, rule, rows=rows, batch=batch, clip=clip)
        run.rates /= 10  # Poisson losses and He's weights do not go together for long
        for s in range(run.steps):
            bound, wanted = BoundedStep(run, s), run.in_double()
            assert wanted.train(reference, s, s + 1) == run.train(cpu, s, s + 1) == s + 1, (rule, s)
            bound.check(run, wanted, f"{rule} {sizes}")
            assert run.corrects[s] == wanted.corrects[s]


@each_activation
@each_loss
def test_the_bits_are_the_same_for_any_number_of_slots(activation, loss, dtype, slots):
    for rule, (sizes, rows, batch) in itertools.product(
        ("sgd-weights", "nesterov", "momentum-penalty", "adam-sklearn"),
        (((13, 20, 17, 5), 95, 17), ((30, 21, 3), 64, 30), ((4, 1, 2), 5, 1)),
    ):
        results = {}
        for n in (1, 2, 3, 5, 8):
            slots(n)
            run = run_of(activation, loss, sizes, dtype, rule, rows=rows, batch=batch, kind="bytes", clip=0.3)
            assert run.train(cpu, threads=n) == run.steps
            results[n] = run.state()
        assert len(set(results.values())) == 1, (rule, sizes, [n for n in results if results[n] != results[1]])


@pytest.mark.parametrize("activation", CURVED)
@each_loss
def test_a_first_layer_that_skips_zeros_has_the_dense_paths_bits(activation, loss, dtype, slots):
    for batch in (5, 40, 100):
        results = set()
        for n, skip in ((1, False), (1, True), (2, True), (5, True)):
            slots(n)
            run = run_of(activation, loss, (77, 33, 4), dtype, "momentum", rows=130, batch=batch, kind="bytes")
            dark = np.random.default_rng(0).random((130, 77)) < 0.7
            run.source.bytes[dark] = 0
            run.source = run.source._replace(offset=run.model.params.dtype.type(0), skip_zeros=skip)
            run.work = cpu.make_workspace(run.model.plan, batch, dtype)
            assert run.train(cpu, threads=n) == run.steps
            out = np.empty((130, 4), dtype)
            cpu.predict(run.model, run.source, 0, 130, run.work, out)
            results.add((*run.state(), out.tobytes()))
        assert len(results) == 1, batch


@pytest.mark.parametrize("activation", CURVED)
@each_loss
def test_padding_stays_zero(activation, loss, dtype):
    """Also behind the outputs of a logistic layer, whose value at zero is 1/2."""
    for rule in RULES:
        run = run_of(activation, loss, (9, 14, 3, 4), dtype, rule, rows=65, batch=8, clip=0.5)
        run.rates /= 10
        assert run.train(cpu) == run.steps
        for flat in (run.model.params, run.optimizer.first, run.optimizer.second):
            if flat.size:
                assert not padding(run.model, flat).any(), rule
        for row in run.model.plan:
            lanes = slice(row[plan.OUT] * run.batch, (row[plan.OUT] + row[plan.OUT_STRIDE]) * run.batch)
            for flat in (run.work.outputs, run.work.deltas):
                assert not flat[lanes].reshape(run.batch, -1)[:, row[plan.OUTPUTS] :].any(), rule


def test_saturated_layers_have_no_gradient_and_no_nan(dtype):
    """Where tanh is ±1 and the logistic function 0 or 1, at preactivations of any size."""
    for activation, size in itertools.product(CURVED, (1e9, 1e30)):
        network, data = made((6, 5, 3), dtype, activation, "binary")
        plan.weight_view(network.plan, 0, network.params)[...] *= size
        work, grad = make_workspace(network.plan, 40, dtype), np.full_like(network.params, np.nan)
        assert np.isfinite(cpu.loss_and_gradient(network, data, np.arange(40), 40.0, work, grad))
        assert not plan.weight_view(network.plan, 0, grad).any() and np.isfinite(grad).all()
        assert plan.weight_view(network.plan, 1, grad).any()


# ---- losses that are no number


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_a_poisson_loss_that_overflows_is_not_applied(backend, dtype, slots):
    for n in (1, 3):
        slots(n)
        run = run_of("tanh", "poisson", (6, 5, 3), dtype, "adam", rows=60, batch=8)
        plan.bias_view(run.model.plan, 1, run.model.params)[1] = 1e4
        before = run.model.params.tobytes()
        with np.errstate(invalid="ignore"):
            assert run.train(kernels.load(backend)) == 0
        assert run.losses[0] == np.inf and run.model.params.tobytes() == before and run.optimizer.step[0] == 0


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("loss", OF_TARGETS)
@np.errstate(invalid="ignore")
def test_a_step_whose_loss_is_no_number_changes_nothing(backend, loss, dtype, slots):
    for n, what in itertools.product((1, 3), ("rows", "targets")):
        slots(n)
        good, bad = (run_of("logistic", loss, (9, 14, 4), dtype, "adam", rows=60, batch=8) for _ in range(2))
        getattr(bad.source, what)[bad.order[5 * 8 + 3], 2] = np.nan
        assert good.train(kernels.load(backend), 0, 5) == 5
        assert bad.train(kernels.load(backend), 0, 8) == 5
        assert np.isnan(bad.losses[5])
        bad.losses[5:], bad.corrects[5:] = good.losses[5:], good.corrects[5:]
        assert bad.state() == good.state()


# ---- evaluating and predicting


@each_activation
@each_loss
def test_evaluate_and_predict_any_rows_with_any_room(activation, loss, dtype, slots):
    network, data = made((9, 14, 4), dtype, activation, loss, rows=70, kind="bytes")
    double, double_data = as_double(network), as_double(data)
    losses, _, logits = bounded_gradient(network.plan, Rounded(network.params, dtype), data, np.arange(70), 1.0)
    whole, wanted = np.empty((70, 4), dtype), np.empty((70, 4))
    cpu.predict(network, data, 0, 70, make_workspace(network.plan, 70, dtype), whole)
    reference.predict(double, double_data, 0, 70, make_workspace(network.plan, 70, "float64"), wanted)
    logits.check(whole, wanted)
    for n, room, (start, stop) in itertools.product((1, 3), (1, 7, 64), ((0, 70), (0, 0), (3, 4), (5, 69))):
        slots(n)
        work, out = make_workspace(network.plan, room, dtype), np.full((stop - start, 4), np.nan, dtype)
        cpu.predict(network, data, start, stop, work, out, threads=n)
        assert out.tobytes() == whole[start:stop].tobytes(), (n, room, start, stop)
        value, correct = cpu.evaluate(network, data, start, stop, work, threads=n)
        exact = reference.evaluate(double, double_data, start, stop, make_workspace(network.plan, room, "float64"))
        losses[start:stop].to("float64").sum().check(value, exact[0], f"{n, room, start, stop}")
        sides = {
            "cross-entropy": out.argmax(axis=1) == data.labels[start:stop],
            "binary": ((out > 0) == (data.targets[start:stop] > 0.5)).all(axis=1) if loss == "binary" else None,
        }.get(loss, np.zeros(0))
        assert correct == exact[1] == sides.sum()


# ---- the optimiser's flags


def trained(rule, dtype, backend=cpu, loss="squared-error", sizes=(7, 12, 3), weight=1.0, **settings):
    run = run_of("tanh", loss, sizes, dtype, rule, rows=48, batch=16)
    run.source.weights[:] *= weight
    for name, value in settings.items():
        run.optimizer.settings[getattr(plan, name)] = value
    assert run.train(backend) == run.steps
    return run


@pytest.mark.parametrize("rule", ["sgd", "nesterov", "adam"])
def test_divided_by_their_sum_weights_twice_as_large_are_the_same(rule, dtype):
    """To the bit: the sum doubles with them. Divided by the rows they are another step."""
    by_sum = [trained(rule, dtype, weight=weight, WEIGHT_SUM=1) for weight in (1.0, 2.0)]
    assert by_sum[0].model.params.tobytes() == by_sum[1].model.params.tobytes()
    assert np.array_equal(2 * by_sum[0].losses, by_sum[1].losses)
    by_rows = trained(rule, dtype)
    assert by_rows.model.params.tobytes() != by_sum[0].model.params.tobytes()


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_a_batch_without_weight_has_no_gradient_and_its_penalty_is_by_its_rows(backend, dtype):
    runs = [run_of("tanh", "binary", (4, 5, 1), dtype, "momentum-penalty", rows=32, batch=16) for _ in range(2)]
    for run, by_sum in zip(runs, (0, 1), strict=True):
        run.source.weights[run.order[:16]] = 0
        run.optimizer.settings[plan.WEIGHT_SUM] = by_sum
        assert run.train(kernels.load(backend), 0, 1) == 1 and np.isfinite(run.model.params).all()
    assert runs[0].state() == runs[1].state()


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "adam", "adamw"])
@pytest.mark.parametrize("biases", [0, 1])
@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_a_penalty_is_a_decay_by_the_batch_and_counts_in_the_loss(backend, rule, biases, dtype):
    """The bits of weight decay 0.5 / 16 in mini-batches of 16; each loss more by 0.5 · Σ w² / 2 before its step."""
    backend = kernels.load(backend)
    plain = trained(rule, dtype, backend, WEIGHT_DECAY=0.5 / 16, DECAY_BIAS=biases)
    run = trained(rule, dtype, backend, WEIGHT_DECAY=0.5, DECAY_BIAS=biases, PENALTY=1)
    assert run.model.params.tobytes() == plain.model.params.tobytes()
    again = run_of("tanh", "squared-error", (7, 12, 3), dtype, rule, rows=48, batch=16)
    again.optimizer.settings[[plan.WEIGHT_DECAY, plan.DECAY_BIAS]] = 0.5 / 16, biases
    for s in range(run.steps):
        flat = again.model.params
        decayed = [plan.weight_view(again.model.plan, layer, flat) for layer in range(2)]
        decayed += [plan.bias_view(again.model.plan, layer, flat) for layer in range(2 * biases)]
        squares = sum((part.astype(np.float64) ** 2).sum() for part in decayed)
        assert run.losses[s] - plain.losses[s] == pytest.approx(0.5 * squares / 2, rel=1e-12)
        again.train(backend, s, s + 1)
    assert np.array_equal(run.corrects, plain.corrects)


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_epsilon_before_the_correction_is_the_papers_efficient_form(backend):
    """rate · √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε), end of section 2 of Kingma & Ba 2015; with an ε that shows."""
    backend, epsilon = kernels.load(backend), 0.05
    run = run_of("tanh", "squared-error", (7, 12, 3), "float64", "adam", rows=48, batch=16)
    run.optimizer.settings[[plan.EPSILON, plan.EPSILON_HAT]] = epsilon, 1
    params = run.model.params.copy()
    m, v, grad = np.zeros_like(params), np.zeros_like(params), np.zeros_like(params)
    for s in range(run.steps):
        rows = run.order[s * 16 : (s + 1) * 16]
        reference.loss_and_gradient(run.model._replace(params=params), run.source, rows, 16.0, None, grad)
        m, v, t = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2, s + 1
        params = params - run.rates[s] * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + epsilon)
    assert run.train(backend) == 3
    np.testing.assert_allclose(run.model.params, params, rtol=1e-12, atol=1e-14)
    other = trained("adam", "float64", backend, EPSILON=epsilon)
    assert np.abs(other.model.params - params).max() > 1e-4


# ---- what is compiled


@each_activation
@each_loss
def test_a_network_asks_for_the_kernels_that_it_needs(activation, loss, monkeypatch):
    """One with ReLU and classes for neither the curves nor the losses of targets."""
    asked, get = set(), steps.pointer
    steps.functions.cache_clear()
    monkeypatch.setattr(steps, "pointer", lambda name, dtype: asked.add(name) or get(name, dtype))
    run_of(activation, loss, (5, 4, 3), "float32").train(cpu)
    assert {"curved_layer", "no_curves"} & asked == {"curved_layer" if activation in CURVED else "no_curves"}
    assert {"target_losses", "no_targets"} & asked == {"target_losses" if loss in OF_TARGETS else "no_targets"}
