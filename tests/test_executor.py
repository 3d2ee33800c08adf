"""The verbs of the compiled backend: any network, batch and cut, against the reference, differences and PyTorch."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from bounds import Rounded
from numba.core import event
from numba.core.runtime import _nrt_python, rtsys
from problems import (
    DTYPES,
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
from mlpkernels.affinity import cpu_count
from mlpkernels.kernels import cpu, plan, reference
from mlpkernels.kernels.cpu import shares, steps, team, verbs
from mlpkernels.kernels.cpu.gemm import DEPTH
from mlpkernels.kernels.plan import bias_view, make_workspace, weight_view

SIZES = [
    (1, 1), (5, 1), (3, 2), (7, 10), (64, 10), (2, 1, 2), (9, 17, 3), (33, 16, 16, 4), (20, 31, 1, 33, 5),
    (16, 16, 16, 16), (3, 2, 3, 2, 3, 2), (130, 96, 97, 10), (530, 20, 3), (512, 4),
]  # fmt: skip


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=["bytes", "rows"])
def kind(request):
    return request.param


@pytest.fixture
def slots(monkeypatch):
    """slots(n): every call is cut into n, whatever its size; 1 is the serial loop."""
    return lambda n: monkeypatch.setattr(verbs, "_slots", lambda *_: n)


@pytest.fixture
def late_members(dtype, monkeypatch):
    """late_members(n): a call on several threads is begun by one of n, the others come as soon as it has; returns a
    list, to which every such call adds how many have taken part.
    """
    if cpu_count() == 1:
        pytest.skip("on one core nobody asks to be let in")
    get, sizes = steps.get, []

    def lately(members):
        def one_by_one(*arguments):
            loop, crew = get("train", dtype), arguments[2]
            launched = [threading.Thread(target=loop, args=arguments) for _ in range(members)]
            for thread in launched:
                thread.start()
                while crew[team.SIZE] == 0 and thread.is_alive():
                    time.sleep(0)
            for thread in launched:
                thread.join()
            sizes.append(int(crew[team.SIZE]))

        monkeypatch.setattr(
            steps, "get", lambda name, kind: one_by_one if name == "train_parallel" else get(name, kind)
        )
        monkeypatch.setattr(verbs, "_launch", contextlib.nullcontext)
        monkeypatch.setattr(verbs, "_slots", lambda threads, *_: members if threads > 1 else 1)
        return sizes

    return lately


# ---- loss and gradient


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_loss_and_gradient_are_the_references(dtype, kind, sizes):
    network = model(sizes, dtype)
    for rows in (1, 2, 7, 33):
        data, order = source(40, sizes[0], sizes[-1], dtype, kind=kind), np.random.default_rng(0).permutation(40)[:rows]
        work, grad = make_workspace(network.plan, 40, dtype), np.full_like(network.params, np.nan)
        loss = cpu.loss_and_gradient(network, data, order, rows + 0.5, work, grad)
        wanted = np.empty(len(grad))
        double, double_data = as_double(network), as_double(data)
        exact = reference.loss_and_gradient(double, double_data, order, rows + 0.5, None, wanted)
        losses, bound, _ = bounded_gradient(network.plan, Rounded(network.params, dtype), data, order, rows + 0.5)
        (losses.to("float64").sum() / (rows + 0.5)).check(loss, exact, f"{rows} rows: loss")
        bound.check(grad, wanted, f"{rows} rows: gradient")
        assert type(loss) is float and not padding(network, grad).any()


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("sizes", [(6, 3), (5, 4, 3), (4, 6, 5, 3), (5, 4, 6, 4, 3, 2), (20, 33, 17, 10)], ids=str)
def test_gradients_are_central_differences(backend, sizes):
    """To 1e-7 of the gradient's length, in float64; the problem keeps clear of ReLU's corners."""
    backend = kernels.load(backend)
    rows, h = 5, 1e-5
    for seed in range(100):
        network, data = model(sizes, "float64", seed), source(rows, sizes[0], sizes[-1], "float64", seed)
        before = data.rows
        for layer in range(len(network.plan) - 1):
            before = before @ weight_view(network.plan, layer, network.params) + bias_view(
                network.plan, layer, network.params
            )
            if np.abs(before).min() < 1e-3:
                break
            before = np.maximum(before, 0)
        else:
            break
    work, order, grad = make_workspace(network.plan, rows, "float64"), np.arange(rows), np.zeros_like(network.params)
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


def test_no_rows_have_no_loss_and_no_gradient(dtype):
    network, data = model((5, 4, 3), dtype), source(6, 5, 3, dtype)
    work, grad = make_workspace(network.plan, 4, dtype), np.full_like(network.params, np.nan)
    assert cpu.loss_and_gradient(network, data, np.empty(0, np.int64), 1.0, work, grad) == 0.0
    assert not grad.any()


# ---- training


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_each_training_step_is_the_references(dtype, kind, rule, clip):
    """From the same point: what one step may round is bounded, a chain of steps is not."""
    for sizes, rows, batch in (((13, 20, 17, 5), 150, 32), ((7, 3), 20, 1), ((33, 16, 10), 60, 59)):
        run = Run(sizes, dtype, rule, rows=rows, batch=batch, steps=min(6, -(-rows // batch)), kind=kind, clip=clip)
        for s in range(run.steps):
            bound, wanted = BoundedStep(run, s), run.in_double()
            assert wanted.train(reference, s, s + 1) == run.train(cpu, s, s + 1) == s + 1
            bound.check(run, wanted, f"{sizes}")
            assert run.corrects[s] == wanted.corrects[s]
        assert run.optimizer.step[0] == run.steps


@pytest.mark.parametrize("rule", RULES)
def test_a_short_training_run_follows_the_references(rule):
    """In float64 over 30 steps: to 1e-9, six orders above what it takes a step to round."""
    run = Run((13, 20, 17, 5), "float64", rule, rows=300, batch=10, clip=1.0)
    wanted = run.in_double()
    assert run.train(cpu) == wanted.train(reference) == 30
    np.testing.assert_allclose(run.model.params, wanted.model.params, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.losses, wanted.losses, rtol=1e-9)
    assert np.array_equal(run.corrects, wanted.corrects)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_the_bits_are_the_same_for_any_number_of_slots(dtype, kind, slots, rule, clip):
    cases = ((13, 20, 17, 5), 95, 17), ((300, 210, 3), 64, 30), ((4, 1, 2), 5, 1), ((590, 70, 3), 64, 30)
    for sizes, rows, batch in cases:
        results = {}
        for n in (1, 2, 3, 5, 8):
            slots(n)
            run = Run(sizes, dtype, rule, rows=rows, batch=batch, kind=kind, clip=clip)
            assert run.train(cpu, threads=n) == run.steps
            results[n] = run.state()
        assert len(set(results.values())) == 1, (sizes, [n for n in results if results[n] != results[1]])


def test_the_bits_are_the_same_for_any_number_of_threads(dtype):
    """Without forcing anything: a network that is worth two threads."""
    results = []
    for threads in (1, 2, 3, 64):
        run = Run((784, 128, 10), dtype, "adam", rows=500, batch=128, kind="bytes")
        assert run.train(cpu, threads=threads) == 4
        results.append(run.state())
    assert len(set(results)) == 1


@pytest.mark.parametrize("sizes", [(64, 60, 4), (520, 30, 4)], ids=str)
def test_the_bits_are_the_same_while_the_shares_of_two_threads_move(dtype, sizes, slots, monkeypatch):
    """They measure one another, and no phase stays cut in the middle. A busy machine leaves calls to one."""
    crews, make = [], team.make
    monkeypatch.setattr(team, "make", lambda members: crews.append(make(members)) or crews[-1])
    alone = Run(sizes, dtype, "adam", rows=1600, batch=16, clip=1.0)
    alone.train(cpu)
    work, together = cpu.make_workspace(alone.model.plan, 16, dtype), 0
    slots(2)
    while together < 5 and len(crews) < 3000:
        run = Run(sizes, dtype, "adam", rows=1600, batch=16, clip=1.0)
        run.work = work
        assert run.train(cpu) == run.steps and run.state() == alone.state()
        together += crews[-1][team.SIZE] == 2
    if together < 5:
        pytest.skip("this machine has no two threads to measure")
    cuts = work.shares[[2 + phase * (shares.MOST + 1) for phase in (shares.ROWS_PHASE, shares.PARAMS_PHASE)]]
    assert work.shares[0] == 2 and (cuts != shares.WHOLE // 2).all()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("apart", [0, 1])
@pytest.mark.parametrize("cut", [0.3, 0.49, 0.7])
@pytest.mark.parametrize(("rows", "batch"), [(105, 16), (700, 300)])  # the last, of 100 rows, is the only one divided
def test_the_bits_are_the_same_wherever_two_threads_begin(dtype, slots, rows, batch, clip, apart, cut):
    """Each with its half of a wide first layer and going on with the next batch, or with a share of everything."""
    results = []
    for n in (1, 2, 2, 2):
        slots(n)
        run = Run((520, 60, 70, 4), dtype, "adam", rows=rows, batch=batch, clip=clip)
        run.work = cpu.make_workspace(run.model.plan, batch, dtype)
        run.work.shares[0], run.work.shares[-1] = 2, apart
        for phase in range(shares.NO_PHASE):
            first = 1 + phase * (shares.MOST + 1)
            run.work.shares[first : first + 3] = 0, int(cut * shares.WHOLE), shares.WHOLE
        assert run.train(cpu) == run.steps
        results.append(run.state())
    assert len(set(results)) == 1


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(64, 60, 4), (520, 30, 4)], ids=str)
@pytest.mark.parametrize("members", [2, 3])
def test_the_bits_are_the_same_where_members_come_late(dtype, late_members, members, sizes, clip):
    """One begins alone; the others come as soon as it has, and are let in at one of its steps."""
    came = late_members(members)
    alone = Run(sizes, dtype, "adam", rows=8000, batch=16, clip=clip)
    alone.train(cpu)
    while came.count(members) < 3 and len(came) < 200:
        run = Run(sizes, dtype, "adam", rows=8000, batch=16, clip=clip)
        assert run.train(cpu, threads=members) == run.steps and run.state() == alone.state()
    if came.count(members) < 3:
        pytest.skip("this machine let no members in")


@pytest.mark.parametrize("attempt", range(12))
def test_members_that_come_late_leave_a_call_that_ends_by_time(dtype, late_members, attempt):
    """Those that were let in and those that still wait for it, at any point."""
    sizes, alone = late_members(3), Run((64, 60, 4), dtype, "adam", rows=4000, batch=16)
    alone.train(cpu)
    run, reached = Run((64, 60, 4), dtype, "adam", rows=4000, batch=16), 0
    while reached < run.steps:
        reached = run.train(cpu, first=reached, threads=3, seconds=1e-4 * attempt)
    assert run.state() == alone.state() and sizes


@pytest.mark.parametrize("step", [0, 1, 20, 50, 100, 150, 200, 300, 499])
def test_members_that_come_late_leave_a_call_whose_loss_is_not_finite(dtype, late_members, step):
    late_members(3)
    ends = []
    for threads in (1, 3):
        run = Run((64, 60, 4), dtype, "sgd", rows=8000, batch=16)
        run.rates[step] = np.inf
        assert run.train(cpu, threads=threads) == min(step + 1, run.steps)
        ends.append(run.state())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("rows", [1, 7, DEPTH, DEPTH + 1])
def test_an_update_in_the_products_store_has_the_bits_of_one_behind_it(dtype, slots, rows):
    """Clipping to a norm that no gradient has takes the update out of the weight gradient's store, and scales by 1."""
    results = []
    for n, clip in ((1, 0.0), (1, 1e30), (3, 0.0)):
        slots(n)
        run = Run((13, 70, 5), dtype, "sgd", rows=3 * rows, batch=rows, clip=clip)
        assert run.train(cpu, threads=n) == 3
        results.append(run.state())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("rule", ["momentum-decay", "adamw"])
@pytest.mark.parametrize("sizes", [(9, 14, 4), (520, 14, 4)], ids=str)
def test_cutting_the_steps_anywhere_changes_no_bit(dtype, slots, rule, sizes):
    whole = Run(sizes, dtype, rule, rows=65, batch=8, clip=1.0)
    whole.train(cpu)
    random = np.random.default_rng(0)
    for n in (1, 2, 3):
        slots(n)
        for _ in range(6):
            run = Run(sizes, dtype, rule, rows=65, batch=8, clip=1.0)
            edges = [0, *np.sort(random.integers(0, run.steps + 1, 3)).tolist(), run.steps]
            for first, last in itertools.pairwise(edges):
                assert run.train(cpu, first, last) == last
                assert run.optimizer.step[0] == last
            assert run.state() == whole.state(), edges


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("sizes", [(64, 60, 4), (520, 20, 4)], ids=str)
def test_a_call_ends_after_the_seconds_it_was_given(backend, dtype, slots, sizes):
    """After at least one step, at a step; going on from there gives the bits of one call."""
    backend = kernels.load(backend)
    whole = Run(sizes, dtype, "adam", rows=650, batch=8)
    assert whole.train(backend) == whole.steps
    for n in (1, 2, 3):
        slots(n)
        run = Run(sizes, dtype, "adam", rows=650, batch=8)
        assert run.train(backend, 0, 3, seconds=0.0) == 1
        assert run.train(backend, 1, 1, seconds=0.0) == 1
        first, calls = 1, 0
        while first < run.steps:
            reached = run.train(backend, first, seconds=0.0 if first < 5 else 1e-3)
            assert reached > first and run.optimizer.step[0] == reached
            first, calls = reached, calls + 1
        assert calls >= 5 and run.state() == whole.state()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("inputs", [9, 520])
def test_what_lay_in_the_workspace_means_nothing(dtype, slots, n, inputs):
    """A workspace for more rows, or one that another call has used, gives the same bits."""
    slots(n)
    fresh = Run((inputs, 14, 4), dtype, "adam", rows=65, batch=8)
    fresh.train(cpu)
    for room in (8, 9, 64):
        used = Run((inputs, 14, 4), dtype, "adam", rows=65, batch=8)
        used.work = make_workspace(used.model.plan, room, dtype)
        other = source(room, inputs, 4, dtype, seed=5)
        cpu.loss_and_gradient(used.model, other, np.arange(room), 1.0, used.work, np.zeros_like(used.model.params))
        used.train(cpu)
        assert used.state() == fresh.state(), room


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("inputs", [9, 520])
@np.errstate(invalid="ignore")
def test_a_step_whose_loss_is_not_finite_changes_nothing(backend, dtype, slots, inputs, clip):
    for n, value in itertools.product((1, 2, 3), (np.nan, np.inf)):
        slots(n)
        good = Run((inputs, 14, 4), dtype, "adam", rows=60, batch=8, clip=clip)
        bad = Run((inputs, 14, 4), dtype, "adam", rows=60, batch=8, clip=clip)
        bad.source.rows[bad.order[5 * 8 + 3], 2] = value
        assert good.train(kernels.load(backend), 0, 5) == 5
        assert bad.train(kernels.load(backend), 0, 8) == 5
        assert bad.optimizer.step[0] == 5 and not np.isfinite(bad.losses[5])
        assert np.isnan(bad.losses[6:]).all() and (bad.corrects[6:] == -1).all()
        bad.losses[5:], bad.corrects[5:] = good.losses[5:], good.corrects[5:]
        assert bad.state() == good.state()


def test_training_reads_its_data_and_never_writes_it(dtype, kind):
    run = Run((9, 14, 4), dtype, "adam", rows=65, batch=8, kind=kind)
    read = [*run.source, run.order, run.rates, run.model.plan, run.optimizer.settings]
    before = [np.asarray(array).tobytes() for array in read]
    run.train(cpu)
    assert [np.asarray(array).tobytes() for array in read] == before


def test_the_padding_of_the_parameters_stays_zero(dtype):
    for rule, inputs in itertools.product(RULES, (9, 520)):
        run = Run((inputs, 14, 3, 4), dtype, rule, rows=65, batch=8, clip=0.5)
        run.train(cpu)
        for flat in (run.model.params, run.optimizer.first, run.optimizer.second):
            if flat.size:
                assert not padding(run.model, flat).any(), rule


def test_bytes_are_scaled_as_floats_would_be(dtype):
    """One product and one sum an element, rounded as NumPy does: the same bits as data scaled beforehand."""
    scaled = Run((12, 8, 3), dtype, rows=50, batch=16, kind="bytes")
    ready = Run((12, 8, 3), dtype, rows=50, batch=16, kind="bytes")
    data = ready.source
    rows = data.bytes.astype(dtype) * data.factor + data.offset
    ready.source = data._replace(bytes=np.zeros((0, 12), np.uint8), rows=rows)
    assert scaled.train(cpu) == ready.train(cpu) == 4
    assert scaled.state() == ready.state()


def test_biases_decay_only_where_they_are_asked_to(dtype):
    for decays in (0.0, 1.0):
        run = Run((6, 5, 3), dtype, "sgd-decay", rows=8, batch=8)
        run.source.weights[:] = 0  # no gradient: decay alone
        run.optimizer.settings[plan.DECAY_BIAS] = decays
        before = run.model.params.copy()
        run.train(cpu)
        for layer in range(2):
            get = bias_view(run.model.plan, layer, run.model.params), bias_view(run.model.plan, layer, before)
            assert np.array_equal(*get) == (not decays)
            assert (
                np.abs(weight_view(run.model.plan, layer, run.model.params))
                < np.abs(weight_view(run.model.plan, layer, before))
            ).all()


# ---- evaluating and predicting


def test_evaluate_and_predict_any_rows_with_any_room(dtype, kind, slots):
    network, data = model((9, 14, 4), dtype), source(70, 9, 4, dtype, kind=kind)
    double, double_data = as_double(network), as_double(data)
    losses, _, logits = bounded_gradient(network.plan, Rounded(network.params, dtype), data, np.arange(70), 1.0)
    whole = np.empty((70, 4), dtype)
    cpu.predict(network, data, 0, 70, make_workspace(network.plan, 70, dtype), whole)
    wanted = np.empty((70, 4))
    reference.predict(double, double_data, 0, 70, make_workspace(network.plan, 70, "float64"), wanted)
    logits.check(whole, wanted)
    for n, room, (start, stop) in itertools.product((1, 3), (1, 7, 64), ((0, 70), (0, 0), (3, 4), (5, 69), (70, 70))):
        slots(n)
        work = make_workspace(network.plan, room, dtype)
        out = np.full((stop - start, 4), np.nan, dtype)
        assert cpu.predict(network, data, start, stop, work, out, threads=n) is None
        assert out.tobytes() == whole[start:stop].tobytes(), (n, room, start, stop)
        loss, correct = cpu.evaluate(network, data, start, stop, work, threads=n)
        exact = reference.evaluate(double, double_data, start, stop, make_workspace(network.plan, room, "float64"))
        losses[start:stop].to("float64").sum().check(loss, exact[0], f"{n, room, start, stop}")
        assert type(loss) is float and correct == exact[1] == (out.argmax(axis=1) == data.labels[start:stop]).sum()


def test_a_row_that_is_not_a_number_is_predicted_so_and_alone(dtype):
    network, data = model((9, 14, 4), dtype), source(20, 9, 4, dtype)
    data.rows[7, 3] = np.nan
    out = np.zeros((20, 4), dtype)
    cpu.predict(network, data, 0, 20, make_workspace(network.plan, 8, dtype), out)
    assert np.array_equal(np.isnan(out).all(axis=1), np.arange(20) == 7) and np.isnan(out).sum() == 4
    loss, correct = cpu.evaluate(network, data, 0, 20, make_workspace(network.plan, 8, dtype))
    assert np.isnan(loss) and correct <= 19


# ---- what a call costs


class Compilations:
    """Counts what Numba compiles while it listens."""

    def __enter__(self):
        self.recorder = event.RecordingListener()
        event.register("numba:compile", self.recorder)
        return self

    def __exit__(self, *_):
        event.unregister("numba:compile", self.recorder)

    @property
    def names(self):
        return {str(item.data.get("dispatcher")) for _, item in self.recorder.buffer}


def specialisations():
    return {key: len(entry.signatures) for key, entry in steps._made.items()}


def test_a_new_architecture_compiles_nothing(slots):
    def everything(sizes, rule, batch, kind):
        for dtype, n in itertools.product(DTYPES, (1, 2)):
            slots(n)
            run = Run(sizes, dtype, rule, rows=50, batch=batch, kind=kind, clip=1.0)
            run.train(cpu, threads=2)
            cpu.evaluate(run.model, run.source, 0, 50, run.work)
            cpu.predict(run.model, run.source, 0, 50, run.work, np.empty((50, sizes[-1]), dtype))
            grad = np.empty_like(run.model.params)
            cpu.loss_and_gradient(run.model, run.source, run.order[:batch], 1.0, run.work, grad)

    everything((8, 4, 3), "sgd", 10, "rows")
    before = specialisations()
    assert set(before.values()) == {1}
    with Compilations() as compilations:
        for i, (sizes, rule) in enumerate(itertools.product(SIZES, RULES)):
            everything(sizes, rule, (1, 7, 50)[i % 3], ("rows", "bytes")[i % 2])
    assert not compilations.names
    assert specialisations() == before


def allocations(call):
    """What Numba's runtime allocated, and handed back, in a call."""
    before = rtsys.get_allocation_stats()
    call()
    return tuple(after - earlier for after, earlier in zip(rtsys.get_allocation_stats(), before, strict=True))


@pytest.mark.parametrize("n", [1, 3])
def test_steps_allocate_nothing(dtype, slots, n):
    """A call wraps its arguments once; 500 steps take no more than one."""
    slots(n)
    enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        for rule in ("sgd", "nesterov", "adamw"):
            run = Run((20, 30, 10), dtype, rule, rows=4000, batch=8, clip=1.0)
            run.train(cpu, 0, 1)
            one = allocations(lambda run=run: run.train(cpu, 0, 1))
            many = allocations(lambda run=run: run.train(cpu, 0, 500))
            assert one == many, (rule, one, many)
            assert many[0] == many[1] and many[2] == many[3]
    finally:
        if not enabled:
            _nrt_python.memsys_disable_stats()


def test_other_python_threads_run_meanwhile(dtype):
    """The interpreter's lock is not held: else this thread would stand still during the call."""
    run = Run((784, 128, 10), dtype, "adam", rows=20_000, batch=50, kind="bytes")
    run.train(cpu, 0, 1)
    ticks, during = 0, []

    def train():
        before = ticks
        run.train(cpu)
        during.append(ticks - before)

    thread = threading.Thread(target=train)
    thread.start()
    while thread.is_alive():
        time.sleep(0.0005)
        ticks += 1
    thread.join()
    assert during[0] >= 5
