"""`mlpk doctor` and `mlpk warmup`: the machine and its compile cache."""

import json
import re
import sys

import numba
import pytest
from cli_running import good
from mlpkernels_cli import doctor

from mlpkernels.affinity import cpu_count
from mlpkernels.kernels import cpu


def test_doctor_as_a_table():
    text = good("doctor", "--no-measure").stdout
    assert re.search(rf"^numba +{re.escape(numba.__version__)}$", text, re.MULTILINE)
    assert re.search(rf"^cores +{cpu_count()}$", text, re.MULTILINE)
    assert re.search(r"^threading layer +(omp|tbb|workqueue)$", text, re.MULTILINE)
    assert re.search(r"^cuda +\S", text, re.MULTILINE)
    assert "peak" not in text


def test_doctor_measures_the_machine(tmp_path):
    good("doctor", "--format", "json", "--output", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert 1 < facts["float32 multiply-add peak, GFLOP/s a core"] < 2000
    assert 0.5 < facts["memory bandwidth, GB/s of one core"] < 2000
    assert facts["compile cache"]


def test_doctor_says_that_the_cache_is_off(monkeypatch):
    monkeypatch.setenv("MLPK_CACHE", "0")
    assert "compile cache    off, by MLPK_CACHE=0" in re.sub(r"  +", "    ", good("doctor", "--no-measure").stdout)


def test_doctor_without_a_cuda_package(monkeypatch):
    """With one, and with what a driver lacks: see tests/test_cuda.py."""
    import importlib.util

    for name in [name for name in sys.modules if name.startswith("mlpkernels.kernels.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert doctor._cuda()["cuda"].startswith("no: the CUDA backend needs a package that is not installed: pip install")


@pytest.fixture
def three_kernels(monkeypatch):
    """A warm-up that has little to do: the true one is the cpu backend's own test."""
    from mlpkernels.kernels.cpu import warmup

    def quick(on_step=None):
        for name in ("gemm float32", "train float32", "run float32"):
            on_step(name, 0.25)
        return 0.75

    monkeypatch.setattr(warmup, "warmup", quick)


def test_warmup_tells_how_long_it_took(three_kernels):
    assert good("warmup").stdout.splitlines() == [
        "     0.25 s  gemm float32", "     0.25 s  train float32", "     0.25 s  run float32",
        "all kernels ready in 0.75 s",
    ]  # fmt: skip
    assert good("warmup", "--quiet").stdout == "all kernels ready in 0.75 s\n"


def test_warmup_tells_what_the_kernels_of_some_layers_are_for(monkeypatch):
    from mlpkernels_cli.warmup import _PURPOSES

    from mlpkernels.kernels.cpu import steps, warmup

    assert set(_PURPOSES) <= set(steps.names())
    monkeypatch.setattr(warmup, "warmup", lambda on_step: on_step("image_layers float64", 2.0) or 2.0)
    line = good("warmup").stdout.splitlines()[0]
    assert line.startswith("     2.00 s  image_layers float64: convolutions, max-pooling, ")


def test_the_backend_s_warmup_is_what_the_command_calls():
    import inspect

    from mlpkernels.kernels.cpu import warmup

    assert "on_step" in inspect.signature(warmup.warmup).parameters
    assert cpu.__name__ == "mlpkernels.kernels.cpu"
