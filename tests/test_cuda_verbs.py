"""The verbs of the CUDA backend: against the reference, the same bits however they are launched."""

import itertools

import cuda_here
import numpy as np
import pytest
import stacks
from problems import (
    ACTIVATIONS,
    DTYPES,
    LOSSES,
    RULES,
    BoundedStep,
    Run,
    as_double,
    model,
    optimizer,
    padding,
    source,
    unpadded,
)

from mlpkernels import Dense, Network, fit
from mlpkernels.datasets import Part
from mlpkernels.kernels import cuda, reference
from mlpkernels.kernels import plan as p
from mlpkernels.kernels.cuda import driver, executor

pytestmark = cuda_here.quiet

SIZES = (13, 20, 17, 5)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=["phases", "one launch"])
def mode(request, monkeypatch):
    """How steps are launched."""
    monkeypatch.setattr(executor, "mode", request.param)
    return request.param


def on_gpu(run):
    """The same run with room on the GPU."""
    run.work = cuda.make_workspace(run.model.plan, run.batch, run.dtype)
    return run


# ---- training


@pytest.mark.parametrize("rule", RULES)
def test_each_training_step_is_the_references(rule):
    for dtype, clip, kind in (("float32", 0.0, "bytes"), ("float64", 0.5, "rows")):
        run = on_gpu(Run(SIZES, dtype, rule, rows=12, batch=8, kind=kind, clip=clip))
        for s in range(run.steps):
            bound, wanted = BoundedStep(run, s), run.in_double()
            assert wanted.train(reference, s, s + 1) == run.train(cuda, s, s + 1) == s + 1
            bound.check(run, wanted, f"{dtype, clip, kind}")
            assert run.corrects[s] == wanted.corrects[s]
        assert run.optimizer.step[0] == run.steps


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "cross-entropy"])
def test_losses_of_targets(loss):
    """Each step of each activation, the logits' loss and its gradient, against the reference."""
    for (dtype, activation), rule in zip(
        itertools.product(DTYPES, ACTIVATIONS.values()), ("adam-sklearn", "sgd", "momentum-penalty") * 2, strict=True
    ):
        run = on_gpu(Run((7, 6, 3), dtype, rule, rows=7, batch=4, activation=activation, loss=LOSSES[loss]))
        for s in range(run.steps):
            bound, wanted = BoundedStep(run, s), run.in_double()
            assert wanted.train(reference, s, s + 1) == run.train(cuda, s, s + 1) == s + 1
            bound.check(run, wanted, f"{dtype, activation, rule}")
            assert run.corrects[s] == wanted.corrects[s]
        wide, work = as_double(run.model), p.make_workspace(run.model.plan, 4, "float64")
        got, exact = (
            cuda.evaluate(run.model, run.source, 0, 7, run.work),
            reference.evaluate(wide, as_double(run.source), 0, 7, work),
        )
        np.testing.assert_allclose(got[0], exact[0], rtol=1e-5)
        assert got[1] == exact[1]
    run.source = run.source._replace(targets=run.source.targets[:, :2])
    with pytest.raises(ValueError, match=r"source.targets must have shape \(7, 3\)"):
        run.train(cuda, 0, 1)


def test_the_gradient_leaves_each_row_s_loss():
    network, data = model((5, 4, 3), "float64"), source(6, 5, 3, "float64")
    found = []
    for backend in (cuda, reference):
        work, grad = backend.make_workspace(network.plan, 6, "float64"), np.empty_like(network.params)
        loss = backend.loss_and_gradient(network, data, np.array([4, 0, 1]), 2.0, work, grad)
        assert loss == pytest.approx(work.losses[:3].sum() / 2)
        found.append(work.losses[:3].copy())
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
def test_five_steps_follow_the_references(rule, mode):
    run = on_gpu(Run(SIZES, "float64", rule, rows=40, batch=8, clip=1.0))
    wanted = run.in_double()
    assert run.train(cuda) == wanted.train(reference) == 5
    np.testing.assert_allclose(run.model.params, wanted.model.params, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.losses, wanted.losses, rtol=1e-12)
    assert np.array_equal(run.corrects, wanted.corrects)


# (sizes, rows, batch): one input, one unit, one row; one more than tiles, chunks and groups of threads are wide.
RAGGED = [((785, 1, 2), 1, 1), ((1, 1, 2), 3, 2), ((3, 33, 9, 2), 6, 5), ((2, 5, 17), 18, 17)]


@pytest.mark.parametrize(("sizes", "rows", "batch"), RAGGED)
def test_sizes_that_fill_no_tile(sizes, rows, batch, monkeypatch):
    """Steps, logits and loss against the reference, with a gradient that is clipped and with one that is not."""
    for way, clip in (("phases", 0.0), ("one launch", 1e-3)):
        monkeypatch.setattr(executor, "mode", way)
        run = on_gpu(Run(sizes, "float64", "adamw", rows=rows, batch=batch, clip=clip))
        wanted = run.in_double()
        assert run.train(cuda) == wanted.train(reference) == run.steps
        np.testing.assert_allclose(run.model.params, wanted.model.params, rtol=0, atol=1e-12)
        np.testing.assert_allclose(run.losses, wanted.losses, rtol=1e-11)
        assert np.array_equal(run.corrects, wanted.corrects) and not padding(run.model, run.model.params).any()
    out, exact = np.full((rows, sizes[-1]), np.nan), np.empty((rows, sizes[-1]))
    work = p.make_workspace(run.model.plan, batch, "float64")
    cuda.predict(run.model, run.source, 0, rows, run.work, out)
    reference.predict(run.model, run.source, 0, rows, work, exact)
    np.testing.assert_allclose(out, exact, rtol=1e-11, atol=1e-13)
    ours, theirs = (b.evaluate(run.model, run.source, 0, rows, w) for b, w in ((cuda, run.work), (reference, work)))
    assert ours[1] == theirs[1] and ours[0] == pytest.approx(theirs[0], rel=1e-11)


@pytest.mark.parametrize("name", stacks.STACKS | stacks.CURVED)
def test_every_kind_of_layer(name, monkeypatch):
    """Gradient, two steps, running statistics, logits and loss, against the reference; the same bits in one launch."""
    rows, found = 7, {}
    for way, backend in (("", reference), ("phases", cuda), ("one launch", cuda)):
        monkeypatch.setattr(executor, "mode", way)
        net = stacks.network(name)
        state, data = optimizer("momentum", net.params), net.source(*stacks.rows(net, rows), np.linspace(0.5, 2, rows))
        state.settings[p.SEED] = 7
        work = backend.make_workspace(net.plan, 4, net.dtype)
        grad, losses, corrects = np.full_like(net.params, np.nan), np.zeros(2), np.zeros(2, np.int64)
        loss = backend.loss_and_gradient(net.model, data, np.array([5, 0, 3]), 3.0, work, grad)
        order = np.array([6, 1, 0, 3, 5, 2, 4])
        backend.train_steps(net.model, state, data, order, 4, 0, 2, np.full(2, 0.01), work, losses, corrects)
        out = np.full((rows - 1, stacks.CLASSES), np.nan)
        backend.predict(net.model, data, 1, rows, work, out)
        evaluated = backend.evaluate(net.model, data, 0, rows, work)
        found[way] = loss, grad, losses, corrects, net.params, net.buffers, state.first, out, evaluated
    for got, again, wanted in zip(found["phases"], found["one launch"], found[""], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)
        assert np.array_equal(got, again)


def test_dropout_draws_the_masks_of_its_step_however_calls_are_cut(mode):
    results = []
    for cuts in ([0, 4], [0, 1, 3, 4]):
        net = stacks.network("dropout", "float32")
        state, data = optimizer("sgd", net.params), net.source(*stacks.rows(net, 8))
        state.settings[p.SEED] = 2**53 - 1
        work, losses, corrects = cuda.make_workspace(net.plan, 2, net.dtype), np.zeros(4), np.zeros(4, np.int64)
        for first, last in itertools.pairwise(cuts):
            cuda.train_steps(
                net.model, state, data, np.arange(8), 2, first, last, np.full(4, 0.1), work, losses, corrects
            )
        results.append((net.params.tobytes(), losses.tobytes()))
    assert results[0] == results[1]


def test_the_bits_are_the_same_however_steps_are_launched(dtype, monkeypatch):
    """A launch a phase with any number of blocks, or all steps in one."""
    results = {}
    for way, blocks in (("phases", 1), ("phases", 3), ("one launch", 1)):
        monkeypatch.setattr(executor, "mode", way)
        monkeypatch.setattr(executor, "_multiprocessors", lambda blocks=blocks: blocks)
        for clip in (0.0, 0.5):
            run = on_gpu(Run(SIZES, dtype, "adam", rows=12, batch=8, clip=clip))
            assert run.train(cuda) == 2
            results.setdefault(clip, []).append(run.state())
    assert all(len(set(states)) == 1 for states in results.values())


def test_phases_are_launched_where_the_one_launch_is_refused(monkeypatch):
    """With a warning, once, and the same bits; asked for by its name the one launch is an error."""
    monkeypatch.setattr(executor, "_refusals", [])
    wanted = on_gpu(Run((7, 3), "float32", "adam", rows=12, batch=6))
    wanted.train(cuda)
    plain = driver.launch

    def launch(kernel, *rest):
        if kernel.__name__.startswith("steps"):
            raise driver.DeviceError("launching steps failed on the GPU: too many blocks")
        plain(kernel, *rest)

    monkeypatch.setattr(driver, "launch", launch)
    run = on_gpu(Run((7, 3), "float32", "adam", rows=12, batch=6))
    with pytest.warns(RuntimeWarning, match=r"^each phase is a launch of its own, since launching steps failed"):
        run.train(cuda, 0, 1)
    run.train(cuda, 1, 2)
    assert run.state() == wanted.state()
    monkeypatch.setattr(executor, "mode", "one launch")
    with pytest.raises(driver.DeviceError, match="too many blocks"):
        run.train(cuda, 0, 1)


def test_cutting_the_steps_anywhere_changes_no_bit(mode, dtype="float32"):
    whole = on_gpu(Run(SIZES, dtype, "adamw", rows=33, batch=8, clip=1.0))
    whole.train(cuda)
    for edges in ([0, 1, 5], [0, 2, 2, 4, 5]):
        run = on_gpu(Run(SIZES, dtype, "adamw", rows=33, batch=8, clip=1.0))
        for first, last in itertools.pairwise(edges):
            assert run.train(cuda, first, last) == last and run.optimizer.step[0] == last
        assert run.state() == whole.state(), edges


def test_a_call_ends_after_the_seconds_it_was_given(mode):
    """After at least one step; going on from there gives the bits of one call."""
    whole = on_gpu(Run((6, 4), "float32", "adam", rows=40, batch=4))
    assert whole.train(cuda) == whole.steps
    run = on_gpu(Run((6, 4), "float32", "adam", rows=40, batch=4))
    assert run.train(cuda, 0, 3, seconds=0.0) == 1
    assert run.train(cuda, 1, 1, seconds=0.0) == 1
    first, calls = 1, 0
    while first < run.steps:
        reached = run.train(cuda, first, seconds=0.0 if first < 3 else 1e-4)
        assert reached > first and run.optimizer.step[0] == reached
        first, calls = reached, calls + 1
    assert calls >= 3 and run.state() == whole.state()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_step_whose_loss_is_not_finite_changes_nothing(mode, clip):
    for value, dtype in ((np.nan, "float32"), (np.inf, "float64")):
        good = on_gpu(Run((9, 14, 4), dtype, "adam", rows=24, batch=8, clip=clip))
        bad = on_gpu(Run((9, 14, 4), dtype, "adam", rows=24, batch=8, clip=clip))
        bad.source.rows[bad.order[1 * 8 + 3], 2] = value
        assert good.train(cuda, 0, 1) == 1
        assert bad.train(cuda, 0, 3) == 1
        assert bad.optimizer.step[0] == 1 and not np.isfinite(bad.losses[1])
        assert np.isnan(bad.losses[2:]).all() and (bad.corrects[2:] == -1).all()
        bad.losses[1:], bad.corrects[1:] = good.losses[1:], good.corrects[1:]
        assert bad.state() == good.state()


def test_padding_stays_zero_and_data_are_never_written(dtype):
    for rule in ("nesterov", "adamw"):
        run = on_gpu(Run((9, 14, 3, 4), dtype, rule, rows=16, batch=8, clip=0.5, kind="bytes"))
        read = [*run.source, run.order, run.rates, run.model.plan, run.optimizer.settings]
        before = [np.asarray(array).tobytes() for array in read]
        run.train(cuda)
        assert [np.asarray(array).tobytes() for array in read] == before
        for flat in (run.model.params, run.optimizer.first, run.optimizer.second):
            assert not flat.size or not padding(run.model, flat).any(), rule


def test_biases_decay_only_where_they_are_asked_to(dtype):
    for decays in (0.0, 1.0):
        run = on_gpu(Run((6, 5, 3), dtype, "sgd-decay", rows=8, batch=8))
        run.source.weights[:] = 0  # no gradient: decay alone
        run.optimizer.settings[p.DECAY_BIAS] = decays
        before = run.model.params.copy()
        run.train(cuda)
        get = p.bias_view(run.model.plan, 0, run.model.params), p.bias_view(run.model.plan, 0, before)
        assert np.array_equal(*get) == (not decays)
        smaller = np.abs(p.weight_view(run.model.plan, 0, run.model.params))
        assert (smaller < np.abs(p.weight_view(run.model.plan, 0, before))).all()


# ---- predicting


def test_predictions_of_any_rows_with_any_room(dtype):
    network, data = model((9, 14, 4), dtype), source(11, 9, 4, dtype, kind="bytes")
    wide, wide_data = as_double(network), as_double(data)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    for room, (start, stop) in itertools.product((3, 16), ((0, 11), (0, 0), (4, 5), (11, 11))):
        work, wanted = cuda.make_workspace(network.plan, room, dtype), np.empty((stop - start, 4))
        out = np.full(wanted.shape, np.nan, dtype)
        plain = p.make_workspace(network.plan, room, "float64")
        reference.predict(wide, wide_data, start, stop, plain, wanted)
        assert cuda.predict(network, data, start, stop, work, out) is None
        np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance)
        loss, correct = cuda.evaluate(network, data, start, stop, work)
        exact = reference.evaluate(wide, wide_data, start, stop, plain)
        assert type(loss) is float and type(correct) is int and correct == exact[1]
        np.testing.assert_allclose(loss, exact[0], rtol=tolerance)


def test_predictions_may_stay_on_the_gpu(dtype):
    network, data = model((9, 4), dtype), source(5, 9, 4, dtype)
    work, out = cuda.make_workspace(network.plan, 3, dtype), np.zeros((5, 4), dtype)
    cuda.predict(network, data, 0, 5, work, out)
    there = driver.cuda.to_device(np.zeros((5, 4), dtype))
    cuda.predict(network, data, 0, 5, work, there)
    assert np.array_equal(there.copy_to_host(), out)


def test_no_rows_have_no_loss_and_no_gradient(dtype):
    network, data = model((5, 4, 3), dtype), source(6, 5, 3, dtype)
    work, grad = cuda.make_workspace(network.plan, 4, dtype), np.full_like(network.params, np.nan)
    assert cuda.loss_and_gradient(network, data, np.empty(0, np.int64), 1.0, work, grad) == 0.0
    assert not grad.any()


# ---- wrong input, and the library on top


def test_a_workspace_of_another_backend_or_network_is_refused():
    run = Run((7, 3), "float32", rows=12, batch=6)
    for work in (run.work, cuda.make_workspace(model((8, 3), "float32").plan, 6, "float32"),
                 cuda.make_workspace(run.model.plan, 6, "float64")):  # fmt: skip
        run.work = work
        with pytest.raises(ValueError, match="make_workspace"):
            run.train(cuda)
    run.work = cuda.make_workspace(run.model.plan, 5, "float32")
    with pytest.raises(ValueError, match="work has room for 5 rows, 6 are asked for"):
        run.train(cuda)
    on_gpu(run)
    with pytest.raises(ValueError, match="3 is asked for where the arrays end at 2"):
        run.train(cuda, 0, 3)
    with pytest.raises(ValueError, match=r"out must have shape \(12, 3\), got \(11, 3\)"):
        cuda.predict(run.model, run.source, 0, 12, run.work, np.zeros((11, 3), np.float32))


def test_the_library_trains_and_predicts_with_it():
    random = np.random.default_rng(0)
    centres = random.integers(60, 196, (3, 6))
    y = np.arange(30, dtype=np.int32) % 3
    part = Part(np.clip(centres[y] + random.normal(0, 10, (30, 6)), 0, 255).astype(np.uint8), y)
    nets = {}
    for name in ("reference", "cuda"):
        net = nets[name] = Network([Dense(5, "relu"), Dense(3)], 6, dtype="float64", seed=1)
        results = list(fit(net, part, test=part, epochs=2, batch_size=8, backend=name))
        nets[name, "loss"] = [result.test_loss for result in results]
        nets[name, "logits"] = net.predict_logits(part.x, backend=name)
        nets[name, "proba"] = net.predict_proba(part.x[:5], backend=name)
        nets[name, "evaluated"] = net.evaluate(part.x, y, backend=name)
    for what in ("loss", "logits", "proba", "evaluated"):
        np.testing.assert_allclose(nets["cuda", what], nets["reference", what], rtol=1e-9)
    np.testing.assert_allclose(unpadded(nets["cuda"], nets["cuda"].params),
                               unpadded(nets["reference"], nets["reference"].params), rtol=1e-9)  # fmt: skip
