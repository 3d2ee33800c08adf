"""The simulation that the README times: every system takes the carts where NumPy does."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def simulation():
    """The benchmark as a module; without it these tests have nothing to test."""
    if not FOLDER.is_dir():
        pytest.skip("these tests need the tree: an installed package has no benchmarks")
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("simulation")
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("mlpkernels inside @njit", "mlpkernels"),
        ("mlpkernels inside @njit, all threads", "mlpkernels"),
        ("mlpkernels from Python", "mlpkernels"),
        ("PyTorch from Python", "torch"),
        ("scikit-learn from Python", "sklearn"),
    ],
)
def test_the_carts_go_where_numpys_do(simulation, name, package):
    pytest.importorskip(package)
    simulation.check(name, simulation.SYSTEMS[name](), simulation.in_float64())


def test_a_system_that_goes_astray_is_found(simulation):
    with pytest.raises(AssertionError, match=r"wrong: only \d+% of the carts"):
        simulation.check("wrong", simulation.between(lambda carts: -carts[:, :2]), simulation.in_float64())


def test_every_case_is_timed(simulation, monkeypatch):
    monkeypatch.setattr(simulation, "CASES", ((1, 2), (3, 2)))
    figures = simulation.timed({"ours": simulation.inside(False)}, 2)
    assert list(figures) == ["ours"] and len(figures["ours"]) == 2 and np.min(figures["ours"]) > 0


def test_it_runs_as_a_command(simulation):
    command = [sys.executable, simulation.__file__, "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "| mlpkernels inside @njit |" in done.stdout and "1,000 carts" in done.stdout
