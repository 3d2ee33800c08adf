"""Schedules: every step's rate against the formula and, where installed, against PyTorch."""

import math

import numpy as np
import pytest

from mlpkernels.schedules import Constant, Cosine, OneCycle, Step, schedule


def all_rates(kind, base, steps, epochs):
    rates = [kind.rates(base, epoch, steps, epochs) for epoch in range(epochs)]
    assert all(rate.shape == (steps,) and rate.dtype == np.float64 for rate in rates)
    return np.concatenate(rates)


def test_constant_and_step():
    assert all_rates(Constant(), 0.3, 4, 2).tolist() == [0.3] * 8
    assert all_rates(Step(2, 0.5), 1.0, 2, 5).tolist() == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine_with_warmup():
    rates = all_rates(Cosine(warmup=1, final=0.1), 2.0, 4, 3)
    assert rates[:4].tolist() == [0.5, 1, 1.5, 2]
    wanted = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2) for t in range(8)]
    assert rates[4:] == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match="warmup=3: fewer than the 3 epochs"):
        Cosine(warmup=3).rates(1.0, 0, 4, 3)


def test_one_cycle_rises_and_falls():
    rates = all_rates(OneCycle(), 1.0, 10, 10)
    assert rates[0] == pytest.approx(1 / 25) and rates[-1] == pytest.approx(1 / 25 / 1e4)
    top = int(rates.argmax())
    assert top == 29 and rates[top] == pytest.approx(1)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    for fraction in (0.0, 1.0):
        assert np.isfinite(all_rates(OneCycle(fraction), 1.0, 3, 2)).all()
    assert np.isfinite(all_rates(OneCycle(), 1.0, 1, 1)).all()


def test_against_torch():
    torch = pytest.importorskip("torch")

    def torch_rates(make, steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
        scheduler = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step() if len(rates) < steps else None
        return rates

    schedulers = torch.optim.lr_scheduler
    for fraction, epochs, steps in [(0.3, 5, 7), (0.0, 3, 11), (0.01, 3, 11), (0.3, 1, 2), (0.3, 3, 1), (1.0, 2, 5)]:
        total = epochs * steps
        one = torch_rates(
            lambda o: schedulers.OneCycleLR(o, 0.2, total_steps=total, pct_start=fraction, cycle_momentum=False),  # noqa: B023
            total,
        )
        assert all_rates(OneCycle(fraction), 0.2, steps, epochs) == pytest.approx(one, rel=1e-9), (fraction, total)
    cosine = torch_rates(lambda o: schedulers.CosineAnnealingLR(o, T_max=35), 35)
    assert all_rates(Cosine(), 0.2, 7, 5) == pytest.approx(cosine, rel=1e-9)


def test_which_depend_on_epochs():
    assert not Constant().depends_on_epochs and not Step(1).depends_on_epochs
    assert Cosine().depends_on_epochs and OneCycle().depends_on_epochs


def test_from_text():
    assert schedule("constant") == Constant()
    assert schedule("step:10:0.5") == Step(10, 0.5) == schedule("step", every=10, factor=0.5)
    assert schedule("cosine") == Cosine() and schedule("cosine:2:0.01") == Cosine(2, 0.01)
    assert schedule("one-cycle:0.25") == OneCycle(0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear", "'linear': one of constant, step, cosine, one-cycle"),
        ("step", "written step:every:factor"),
        ("step:x", "written step:every:factor"),
        ("step:0", "every=0: a number of epochs from 1"),
        ("step:1.5", r"every=1\.5"),
        ("step:10:nan", "factor=nan: a number from 0 to 1"),
        ("step:1:2:3", "written step:every:factor"),
        ("constant:1", "written constant"),
        ("cosine:-1", "warmup=-1"),
        ("cosine:0:2", "final=2: a number from 0 to 1"),
        ("one-cycle:7", "warmup_fraction=7"),
    ],
)
def test_text_is_refused_with_how_it_is_written(text, words):
    with pytest.raises(ValueError, match=words):
        schedule(text)
