"""The CUDA backend without a GPU: its suite under the simulator, its kernels through ptxas, and what is missing named.

Each in a process of its own: the simulator and either package replace one another.
"""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_ptx import ptxas
from exported_c import COMPILERS

HERE = Path(__file__).parent
PACKAGES = {"numba-cuda-mlir": "numba_cuda_mlir", "numba-cuda": "numba_cuda"}


def python(*arguments, timeout=1200, **environment):
    """(exit status, standard output, standard error) of a Python of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_ENABLE", "MLPK_CUDA"))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=HERE.parent, env={**kept, **environment}, capture_output=True, text=True,
        timeout=timeout,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "file", ["test_cuda_ops.py", "test_cuda_verbs.py", "test_cuda_arrays.py", "test_cuda_device.py"]
)
def test_the_suite_under_the_simulator(file):
    status, told, _ = python(
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(HERE / file),
        NUMBA_ENABLE_CUDASIM="1",
    )
    assert status == 0, told[-4000:]
    assert " passed" in told and " skipped" not in told


# ---- compiled, not run


# What each package compiles, in a process of its own that takes a minute or two.
COMPILED = {"numba-cuda": ("9.0", "8.0:float32", "10.0:float32"), "numba-cuda-mlir": ("9.0:float32",)}

# The kernels that promise to spill nothing: all but those that run many steps of networks with images or of float64,
# which keep some of what lies outside their inner loops in memory.
WHOLE = ("product_", "phase_16x16 float32", "phase_128x128 float32", "steps_16x16 float32")


@pytest.mark.parametrize("package", COMPILED)
def test_every_kernel_compiles_and_keeps_its_registers(package):
    """Prints the table, which pytest shows with -rP."""
    if importlib.util.find_spec(PACKAGES[package]) is None:
        pytest.skip(f"{package} is not installed: pip install '{package}[cu13]'")
    if ptxas() is None:
        pytest.skip("ptxas is not there: it comes with numba-cuda-mlir[cu13], or with a CUDA toolkit")
    status, told, error = python(str(HERE / "cuda_ptx.py"), *COMPILED[package], MLPK_CUDA_PACKAGE=package)
    assert status == 0, error[-4000:]
    tables = json.loads(told)
    assert [*tables] == [wanted.partition(":")[0] for wanted in COMPILED[package]]
    for capability, table in tables.items():
        print(f"\n{package}, compute capability {capability}: registers of a thread, shared and spilled bytes")
        for name, figures in table.items():
            spilled = figures["spill_stores"] + figures["spill_loads"]
            print(f"  {name:48} {figures['registers']:4} {figures['shared']:6} {spilled:5}")
    for name, figures in (item for table in tables.values() for item in table.items()):
        assert figures["registers"] <= 255 and figures["shared"] <= 48 * 1024, name
        if name.startswith(WHOLE) or not name.startswith(("phase_", "steps_")):
            assert figures["spill_stores"] == figures["spill_loads"] == 0, name
            # numba-cuda-mlir leaves stores to the accumulators' places that nothing reads, before and behind the loops
            assert figures["stack"] <= (256 if package == "numba-cuda-mlir" and name.startswith("phase_") else 0), name
    for table in tables.values():
        products = [figures for name, figures in table.items() if name.startswith("product_")]
        assert len(products) >= 6 and all(figures["vector_loads"] >= 2 for figures in products)
        assert not any(figures["global_vector_loads"] for figures in products)
        assert any(name.startswith(WHOLE[-1]) for name in table)


FORKED = """
import os, signal, sys
import numpy as np
from mlpkernels.kernels.cuda.residency import checksum
data = np.arange(400_000.0)
before = checksum(data)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(checksum(data) != before)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_checksum_outlives_a_fork():
    """Its threads do not: a child that waited for them would wait for ever."""
    status, _, error = python("-W", "ignore", "-c", FORKED, NUMBA_ENABLE_CUDASIM="1")
    assert status == 0, error


@pytest.mark.parametrize("package", PACKAGES)
def test_the_host_s_side_beside_a_driver_that_pretends(package, tmp_path):
    """Both packages as they are, but for the GPU: copies, streams, other libraries' arrays and the names of errors."""
    if importlib.util.find_spec(PACKAGES[package]) is None:
        pytest.skip(f"{package} is not installed: pip install '{package}[cu13]'")
    if not COMPILERS or not sys.platform.startswith("linux"):
        pytest.skip("it takes Linux and a C compiler to make that driver")
    library, source = tmp_path / "libcuda.so.1", HERE / "pretended_driver.c"
    subprocess.run([COMPILERS[0], "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    status, told, error = python(
        str(HERE / "cuda_pretended.py"), MLPK_CUDA_PACKAGE=package, LD_LIBRARY_PATH=str(tmp_path)
    )
    assert status == 0, error[-4000:]
    found = json.loads(told)
    assert found.pop("facts")["cuda"] == ["a pretended GPU"]
    launch, load, wait = (found.pop(case) for case in ("a launch", "loading", "waiting"))
    assert launch.startswith("DeviceError: launching softmax failed on the GPU: ") and "OUT_OF_RESOURCES" in launch
    assert load.startswith("DeviceError: launching activated failed on the GPU: ")
    assert wait.startswith("DeviceError: a launch failed on the GPU: ") and "ILLEGAL_ADDRESS" in wait
    room, memory = found.pop("no room to load"), found.pop("no memory")
    assert re.fullmatch(r"MemoryError: the GPU has [\d,]+ bytes free, too few for launching sgd\w*: a smaller .*", room)
    assert re.fullmatch(r"MemoryError: the GPU has [\d,]+ bytes free, 4,800 were needed: a smaller .*", memory)
    assert found == {
        "room of the device comes back": "True", "in another thread": "True", "streams": ["True"] * 4,
        "a device array is an output": "[2.0, 2.0, 2.0]", "interface": ["True"] * 3, "DLPack": "True",
        "refused": [
            "ValueError: out must be writeable: Interface on the GPU is read-only",
            "ValueError: out must be C-contiguous on the GPU: make a contiguous copy there",
            "TypeError: out must be float32 or float64, got float16",
        ],
        "behind it": "True",
    }  # fmt: skip


# ---- what is missing


WITHOUT_PACKAGES = """
import importlib.util
plain = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("numba_cuda_mlir", "numba_cuda") else plain(name, *a)
"""


def test_a_missing_package_is_named_with_what_to_install():
    code = WITHOUT_PACKAGES + "from mlpkernels import kernels\nkernels.load('cuda')"
    status, _, error = python("-c", code)
    assert status == 1
    assert "UnavailableError: the CUDA backend needs a package" in error and "mlpkernels[cuda13]" in error


def test_asking_for_the_gpu_is_one_named_line():
    status, told, error = python("-m", "mlpkernels_cli", "train", "digits", "--backend", "cuda", "--epochs", "1")
    if status == 0:
        pytest.skip("there is a GPU here")
    assert status == 1 and told == ""
    assert error.startswith("error: the CUDA backend ") and error.count("\n") == 1


def test_auto_says_what_it_took_and_why(tmp_path):
    command = ("-m", "mlpkernels_cli", "train", "digits", "--epochs", "1", "--no-plots", "--out", str(tmp_path / "run"))
    status, _, error = python(*command, "--backend", "auto")
    assert status == 0 and error.startswith("--backend auto: cpu (") and "million operations at a time" in error
    assert 'backend = "cpu"' in (tmp_path / "run" / "config.toml").read_text()


def test_a_large_network_takes_a_gpu_that_is_there():
    code = "from mlpkernels import kernels\nprint(*kernels.choose(1e12))"
    assert python("-c", code, NUMBA_ENABLE_CUDASIM="1")[1].startswith("cuda 1e+06 million operations at a time")
    without = python("-c", WITHOUT_PACKAGES + code)[1]
    assert without.startswith("cpu the CUDA backend needs a package that is not installed")


def test_a_package_that_does_not_exist_is_refused():
    code = "from mlpkernels import kernels\nkernels.load('cuda')"
    status, _, error = python("-c", code, MLPK_CUDA_PACKAGE="abacus")
    assert status == 1 and "MLPK_CUDA_PACKAGE=abacus: one of numba-cuda-mlir, numba-cuda was wanted" in error


def test_a_package_that_cannot_work_with_this_numpy_is_refused():
    """numba-cuda 0.30 is imported with NumPy 2.5 and falls over when it first compiles."""
    code = (
        "import importlib.util, numpy\nnumpy.__version__ = '2.5.2'\nimportlib.util.find_spec = lambda name, *_: True\n"
        "from mlpkernels import kernels\nkernels.load('cuda')"
    )
    status, _, error = python("-c", code, MLPK_CUDA_PACKAGE="numba-cuda")
    assert status == 1 and "UnavailableError: numba-cuda needs NumPy below 2.5.0, here is 2.5.2: pip install" in error


def test_a_gpu_that_does_not_exist_is_refused():
    code = (
        "import numpy as np\nfrom mlpkernels import kernels\n"
        "kernels.load('cuda').softmax(np.ones((1, 2)), np.ones((1, 2)))"
    )
    for number in ("1", "-1", "first"):
        status, _, error = python("-c", code, NUMBA_ENABLE_CUDASIM="1", MLPK_CUDA_DEVICE=number)
        assert status == 1 and f"MLPK_CUDA_DEVICE={number}: this machine has 1 GPU, counted from 0" in error


DRIVERS = [  # the newest CUDA release that it knows, GPUs, the toolkit's release
    (None, 0, 13, "there is no NVIDIA driver here"),
    (11040, 1, 0, "too old: it knows CUDA 11.4, 12.0 was wanted; update it\n"),
    (12080, 1, 13, "too old: it knows CUDA 12.8, 13.0 was wanted; update it, or pip install 'mlpkernels[cuda12]'"),
    (13000, 0, 13, "shows no GPU"),
]


@pytest.mark.parametrize(("version", "devices", "toolkit", "wanted"), DRIVERS)
def test_what_the_driver_lacks_is_named(version, devices, toolkit, wanted):
    """Of drivers that are made up; the package is the simulator's, so that one is there."""
    code = (
        "import sys\nfrom mlpkernels.kernels.cuda import driver\n"
        f"driver.SIMULATED = False\ndriver.driver_version = lambda: {version}\n"
        f"driver.device_count = lambda: {devices}\ndriver._toolkit = lambda: {toolkit}\n"
        "print(driver.facts()['cuda'])\ndriver.require_device()"
    )
    status, told, error = python("-c", code, NUMBA_ENABLE_CUDASIM="1")
    assert status == 1 and "UnavailableError: the CUDA backend cannot run: " in error and wanted in error
    assert wanted in told


FAULTS = {
    "to_device": ("CUDA_ERROR_OUT_OF_MEMORY", "error: not enough memory: the GPU has "),
    "synchronize": (
        "CUDA_ERROR_LAUNCH_FAILED",
        "error: a launch failed on the GPU: CudaAPIError: CUDA_ERROR_LAUNCH_FAILED",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_gpu_is_one_line_of_the_command(name, tmp_path):
    """Made up, under the simulator; what the CPU computes in the same process stays right."""
    said, wanted = FAULTS[name]
    code = f"""
import sys
import numpy as np
from mlpkernels.kernels import cpu
from mlpkernels.kernels.cuda import driver
from mlpkernels_cli.main import main

class CudaAPIError(Exception):
    pass

def fails(*_, **__):
    out = np.zeros((1, 2))
    cpu.softmax(np.zeros((1, 2)), out)
    assert (out == 0.5).all()
    raise CudaAPIError({said!r})

driver.cuda.{name} = fails
sys.argv[1:] = "train digits --backend cuda --epochs 1 --no-plots --quiet --out".split() + [{str(tmp_path / "run")!r}]
main()
"""
    status, told, error = python("-c", code, NUMBA_ENABLE_CUDASIM="1")
    assert status == 1 and told == "" and error.startswith(wanted) and error.count("\n") == 1, error
    assert not list(tmp_path.glob("run/*.safetensors"))


def test_doctor_says_what_there_is():
    status, told, _ = python(
        "-m", "mlpkernels_cli", "doctor", "--no-measure", "--format", "json", NUMBA_ENABLE_CUDASIM="1"
    )
    simulated = json.loads(told)
    assert status == 0 and simulated["cuda"] == "simulated" and simulated["cuda package"].startswith("simulator")


def test_nothing_of_it_is_imported_unless_asked_for():
    code = (
        "import sys\nimport numpy as np\nfrom mlpkernels import Dense, Network\n"
        "net = Network([Dense(2)], 3)\nnet.predict(np.ones((2, 3)), backend='reference')\n"
        "print([name for name in sys.modules if name.startswith(('cuda', 'numba', 'mlpkernels.kernels.cuda'))])"
    )
    status, told, error = python("-c", code)
    assert status == 0 and told.strip() == "[]", error


# ---- the report of a machine with a GPU


def report(*arguments):
    return python(str(HERE.parent / "benchmarks" / "gpu_report.py"), *arguments)


def test_the_report_of_a_gpu_runs_dry(tmp_path):
    if not (HERE.parent / "benchmarks").is_dir():
        pytest.skip("this test needs the tree: an installed package has no benchmarks")
    status, told, error = report("--out", str(tmp_path), "--simulate")
    assert status == 0, error[-2000:]
    found = json.loads((tmp_path / "report.json").read_text())
    text = (tmp_path / "report.md").read_text()
    assert told.split() == [str(tmp_path / "report.json"), str(tmp_path / "report.md")]
    measured = found["packages"]["simulator"]
    assert "failed" not in measured and not measured["failures"], measured
    assert measured["same bits twice"] and max(measured["parity"].values()) < 1e-5
    assert "nothing is timed" in text and "farthest from the reference" in text
    assert "answer" not in measured["epochs"][0] and "numba" in found["versions"]
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "suite-simulator.txt"}
    assert re.fullmatch(r"\d+ passed.*", measured["suite"]), measured["suite"]


def test_the_report_s_text_has_the_goals_and_what_failed():
    """Of made-up figures: 3 phases of 469 steps at 1 µs a barrier are 1.41 ms."""
    if not (HERE.parent / "benchmarks").is_dir():
        pytest.skip("this test needs the tree: an installed package has no benchmarks")
    spec = importlib.util.spec_from_file_location("gpu_text", HERE.parent / "benchmarks" / "gpu_text.py")
    gpu_text = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu_text)
    shape, goals = [4096] * 3, ("PyTorch", "PyTorch, CUDA graphs")
    epoch = {"case": "adam-128", "told": "", "phases of a step": 3, "steps": 469, "one launch": [4e-3], "phases": 0}
    found = {
        "facts": {"cuda": "a GPU"}, "suite": "9 passed", "data": "none", "failures": {"limits": "OSError: no"},
        "limits": None, "barrier": 1e-6, "parity": None, "same bits twice": None, "adam": None, "epochs": [epoch],
        "products": [{"shape": shape, "seconds": 4e-3, "flops": 3e13}],
    }  # fmt: skip
    peers = {
        goals[0]: {"epochs": {"adam-128": [0.1]}}, goals[1]: {"failed": "RuntimeError: no"},
        "cuBLAS through CuPy": {"products": [{"shape": shape, "seconds": 2e-3, "flops": 4e13}]},
    }  # fmt: skip
    report = {
        "date": "2026", "simulated": False, "python": "3", "system": "Linux", "versions": {"numba": "0.68"},
        "absent": [], "packages": {"numba-cuda": found}, "peers": peers,
    }  # fmt: skip
    text = gpu_text.markdown(report)
    cut = gpu_text.markdown({**report, "packages": {"numba-cuda": {**found, "failed": "took more than 3600 s"}}})
    assert cut == text.replace("## numba-cuda\n", "## numba-cuda\n\nFailed: took more than 3600 s\n")
    gone = gpu_text.markdown({**report, "packages": {"numba-cuda": {"failed": "exit status -11", "suite": "not run"}}})
    assert "## numba-cuda\n\nFailed: exit status -11\n" in gone and "test suite" not in gone
    for line in (
        "| an epoch of adam-128 | 5 ms or less | 4 ms; its barriers alone 1.41 ms |", "- FAILED, limits: OSError: no",
        "| times PyTorch eager | 20 or more | 25.0 |", "PyTorch, CUDA graphs failed: RuntimeError: no", "numba 0.68.",
        "| times PyTorch under CUDA graphs | 2 or more | \u2013 |", "of cuBLAS's float32 | 60% or more | 75 % |",
    ):  # fmt: skip
        assert line in text, text


@pytest.fixture
def gpu_report(monkeypatch):
    if not (HERE.parent / "benchmarks").is_dir():
        pytest.skip("this test needs the tree: an installed package has no benchmarks")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(HERE.parent / "benchmarks"))
    yield importlib.import_module("gpu_report")
    for name in set(sys.modules) - before:
        if str(HERE.parent / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_what_one_package_lacks_the_other_gives(gpu_report, tmp_path, monkeypatch):
    """The first one died half-way: its figures stay, and the peers are compared once, with the answers of both."""
    parts = ("facts", "barrier", "limits", "parity", "same bits twice", "epochs", "products", "adam")
    nothing = {**dict.fromkeys(parts), "failures": {}, "data": "none"}
    epochs = {
        name: {"case": name, "told": name, "answer": [name], "one launch": [1.0], "phases": [2.0], "steps": 1}
        for name in ("adam-128", "sgd-8")
    }  # fmt: skip
    for row in epochs.values():
        row["phases of a step"] = 3
    found = {
        "numba-cuda-mlir": {**nothing, "epochs": [epochs["adam-128"]], "failed": "exit status -11"},
        "numba-cuda": {**nothing, "epochs": [*epochs.values()]},
    }
    asked, answers = [], []

    def run(system, folder, simulate):
        asked.append(system)
        if (folder / "answers.json").exists():
            answers.append(json.loads((folder / "answers.json").read_text()))
        return dict(found.get(system, {"epochs": {"sgd-64": [1.0]}, "unchecked": ["sgd-64"]}))

    monkeypatch.setattr(gpu_report, "installed", lambda: [*found])
    monkeypatch.setattr(gpu_report, "run", run)
    monkeypatch.setattr(gpu_report, "run_suite", lambda package, folder: f"9 passed of {package}")
    monkeypatch.setattr(gpu_report.importlib.util, "find_spec", lambda name: name == "torch" or None)
    gpu_report.collect(tmp_path, False, True)
    assert asked == [*found, "PyTorch", "PyTorch, CUDA graphs"]
    assert answers == [{"adam-128": ["adam-128"], "sgd-8": ["sgd-8"]}] * 2
    report, text = (json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text())
    assert report["absent"] == ["JAX jit + scan", "cuBLAS through CuPy"]
    assert [one["suite"] for one in report["packages"].values()] == [f"9 passed of {package}" for package in found]
    assert "Failed: exit status -11" in text and text.count("| adam-128 | 1e+03 |") == 2
    assert "PyTorch: not compared with our answers, which are missing: sgd-64." in text


def test_a_package_that_crashes_is_not_the_last_word(gpu_report, monkeypatch):
    class Done:
        stdout, stderr, returncode = "", "", -11

    monkeypatch.setattr(gpu_report, "installed", lambda: ["numba-cuda-mlir", "numba-cuda"])
    monkeypatch.setattr(gpu_report.subprocess, "run", lambda *_, **__: Done)
    told = "numba-cuda-mlir: exit status -11; numba-cuda: exit status -11; --simulate tries this report without a GPU"
    assert gpu_report.refusal(False) == told
    monkeypatch.setattr(Done, "returncode", 0)
    assert gpu_report.refusal(False) is None


def test_the_report_says_why_it_cannot_run(tmp_path):
    status, told, error = report("--out", str(tmp_path / "none"))
    if status == 0:
        pytest.skip("there is a GPU here")
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1 and "--simulate" in error
    assert told == "" and not (tmp_path / "none").exists()
