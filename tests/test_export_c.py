"""Networks as C99: strict compilers accept the source, its own golden test passes, and it predicts what we predict."""

import platform
import re
import subprocess
import threading

import numpy as np
import pytest
import stacks
from exported_c import COMPILERS, Library, compiled, golden_run, needs_compiler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network, Scaling
from mlpkernels.export import c_source, write_c
from mlpkernels.export.c_text import KEYWORDS
from mlpkernels.export.golden import golden, samples

X86 = platform.machine() in ("x86_64", "AMD64")  # where every compiler knows -march=native, with fused products
NAMES = ['say "hi"', "back\\slash", "??/ trigraph ??=", "é, 数", "line\nend\ttab", "*/ $x 100 %s", "\x7f12", ""]
SCALINGS = {
    "none": lambda n: None,
    "bytes": lambda n: Scaling("unit", 1 / 255, 0.0),
    "symmetric": lambda n: Scaling("symmetric", 2 / 16, -1.0),
    "columns": lambda n: Scaling("standard", 1 / np.linspace(0.1, 30, n), -np.linspace(-1e4, 1e4, n)),
    "constant column": lambda n: Scaling("standard", np.r_[0.0, np.full(n - 1, 2.0)], np.r_[0.0, np.full(n - 1, -0.3)]),
}


def agrees(found, wanted, network):
    tolerance = golden(network).tolerance
    assert np.all(np.abs(found - wanted) <= tolerance * (1 + np.abs(wanted))), np.abs(found - wanted).max()


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", stacks.STACKS)
def test_the_golden_test_of_every_kind_of_layer_passes(name, dtype, tmp_path):
    scaling = list(SCALINGS.values())[len(name) % len(SCALINGS)](int(np.prod(stacks.STACKS[name][1])))
    write_c(stacks.network(name, dtype, scaling=scaling), tmp_path, "net")
    for compiler in COMPILERS:
        done = golden_run(tmp_path, "net", compiler=compiler)
        assert done.returncode == 0 and re.fullmatch(r"net: (\d) of \1 golden vectors agree\n", done.stdout), done
        assert done.stderr == ""


@needs_compiler
@pytest.mark.parametrize("flags", ["-O0", "-Os", "-O2", "-O3", *(["-O3 -march=native"] if X86 else [])])
def test_warnings_and_results_do_not_depend_on_optimisation(flags, tmp_path):
    write_c(stacks.network("all", "float32", scaling=Scaling("unit", 1 / 255, 0.0)), tmp_path, "net")
    write_c(stacks.made([Dense(64, "relu"), Dense(5)], 32), tmp_path, "flat")
    for name in ("net", "flat"):
        assert golden_run(tmp_path, name, *flags.split()).returncode == 0


@needs_compiler
def test_a_changed_weight_fails_the_golden_test(tmp_path):
    write_c(stacks.made([Dense(4, "relu"), Dense(3)], 5, seed=1), tmp_path, "net")
    source = (tmp_path / "net.c").read_text()
    (tmp_path / "net.c").write_text(re.sub(r"(weights2\[12\] = \{\n    )([^,]+),", r"\g<1>7.5f,", source, count=1))
    done = golden_run(tmp_path, "net")
    assert done.returncode == 1 and "golden vector 1 of 8" in done.stderr
    (tmp_path / "net.c").write_text(re.sub(r"(weights1\[20\] = \{\n    )([^,]+),", r"\g<1>NAN,", source, count=1))
    assert golden_run(tmp_path, "net").returncode == 1


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "outputs"), [("binary", 1), ("binary", 4), ("squared-error", 1), ("poisson", 3)])
def test_every_loss_and_activation(loss, outputs, dtype, tmp_path):
    layers = [Dense(6, "tanh"), Dense(9, "logistic"), BatchNorm("tanh"), Dense(outputs)]
    network = stacks.made(layers, 5, loss=loss, dtype=dtype, init="pytorch", scaling=Scaling("symmetric", 0.5, -1.0))
    library = Library(network, tmp_path)
    assert golden_run(tmp_path, "net").returncode == 0
    x = samples(network, 20, seed=3)
    wanted = network.predict(x, backend="reference")
    if loss != "binary":
        agrees(library.rows("predict", x, outputs), wanted, network)
        assert not hasattr(library.functions, "net_probabilities") and "CLASSES" not in library.sizes
        return
    agrees(library.rows("logits", x, outputs), network.predict_logits(x, backend="reference"), network)
    probabilities = network.predict_proba(x, backend="reference")
    agrees(library.rows("probabilities", x, probabilities.shape[1]), probabilities, network)
    sure = np.abs(probabilities - 0.5).min(axis=1) > 1e-4
    found = (
        library.rows("predict", x, outputs, np.uint8) if outputs > 1 else [library.call("predict", row) for row in x]
    )
    assert sure.any() and np.array_equal(np.array(found)[sure], wanted[sure])


@needs_compiler
@pytest.mark.parametrize("name", ["golden", "scratch", "forward", "mismatches", "window", "weights1", "failures"])
def test_any_name_compiles_with_its_golden_test(name, tmp_path):
    for loss, outputs in (("cross-entropy", 3), ("binary", 3), ("squared-error", 2)):
        folder = tmp_path / loss
        folder.mkdir()
        write_c(stacks.made([Conv2d(2, 3), Dense(outputs)], (1, 5, 5), loss=loss), folder, name)
        assert golden_run(folder, name).returncode == 0


@needs_compiler
def test_predictions_that_overflow_are_no_golden_vectors(tmp_path):
    network = stacks.made([Dense(1)], 2, loss="poisson")
    network.load_state_dict({"0.weight": np.float32([[60, 0]]), "0.bias": np.float32([80])})
    vectors = golden(network)
    assert 0 < len(vectors.x) < 8 and np.isfinite(vectors.answers).all()
    write_c(network, tmp_path, "net")
    assert golden_run(tmp_path, "net").returncode == 0
    network.load_state_dict({"0.weight": np.float32([[0, 0]]), "0.bias": np.float32([100])})
    with pytest.raises(ValueError, match="no prediction for 8 usual inputs is a finite float32"):
        write_c(network, tmp_path, "other")
    assert not (tmp_path / "other.c").exists()


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def networks(draw):
    """Small networks of any layers, sizes and scaling."""
    dtype = draw(st.sampled_from(["float32", "float64"]))
    layers, shape = [], (draw(st.integers(1, 9)),)
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 3)), draw(st.integers(5, 9)), draw(st.integers(5, 9)))
        for _ in range(draw(st.integers(0, 2))):
            kernel = draw(pairs)
            padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
            if draw(st.booleans()):
                relu = draw(st.sampled_from([None, "relu"]))
                layers.append(Conv2d(draw(st.integers(1, 6)), kernel, draw(pairs), padding, relu))
            else:
                layers.append(MaxPool2d(kernel, draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), padding))
            if draw(st.booleans()):
                layers.append(BatchNorm(draw(st.sampled_from([None, "relu"]))))
    for _ in range(draw(st.integers(0, 2))):
        layers.append(Dense(draw(st.integers(1, 20)), draw(st.sampled_from([None, "relu"]))))
        layers.append(draw(st.sampled_from([BatchNorm("relu"), Dropout(0.5)])))
    scaling = SCALINGS[draw(st.sampled_from(list(SCALINGS)))](int(np.prod(shape)))
    seed = draw(st.integers(0, 99))
    try:
        network = stacks.made([*layers, Dense(draw(st.integers(1, 5)))], shape, dtype=dtype, scaling=scaling, seed=seed)
    except ValueError:  # strides left less than a kernel takes
        network = stacks.made([BatchNorm(), Dense(3)], shape, dtype=dtype)
    random = np.random.default_rng(seed)
    for name, view in {**network.parameters(), **network.statistics()}.items():
        if name.endswith("running_var"):
            view[...] = random.uniform(0.3, 3, view.shape).astype(dtype)
        elif view.ndim == 1 and not name.endswith("tracked"):
            view += random.normal(0, 0.5, view.shape).astype(dtype)
    return network


@needs_compiler
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_any_small_network_predicts_what_ours_does(tmp_path_factory, network):
    library = Library(network, tmp_path_factory.mktemp("c"))
    x = samples(network, 5, seed=7)
    logits = network.predict_logits(x, backend="reference")
    agrees(library.rows("logits", x, library.sizes["OUTPUTS"]), logits, network)
    probabilities = network.predict_proba(x, backend="reference")
    agrees(library.rows("probabilities", x, library.sizes["CLASSES"]), probabilities, network)
    tolerance = 4 * golden(network).tolerance
    for row, probability in zip(x, probabilities, strict=True):
        assert probability[library.call("predict", row)] >= probability.max() - tolerance


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_class_names_of_any_text(compiler, tmp_path):
    network = stacks.made([Dense(len(NAMES))], 3, classes=NAMES)
    library = Library(network, tmp_path)
    assert library.classes() == NAMES
    assert golden_run(tmp_path, "net", compiler=compiler).returncode == 0
    assert Library(stacks.made([Dense(2)], 3, classes=[-5, 10**12]), tmp_path, "numbers").classes() == [
        "-5",
        "1000000000000",
    ]


def test_class_names_that_c_cannot_have():
    for label in ("nul\0inside", "x" * 5000):
        with pytest.raises(ValueError, match=r"C keeps names of up to 4,095 bytes without NUL"):
            c_source(stacks.made([Dense(2)], 3, classes=["a", label]))


@needs_compiler
def test_the_first_of_equal_classes_is_predicted(tmp_path):
    network = stacks.made([Dense(3)], 2)
    for view in network.parameters().values():
        view[...] = 0
    library = Library(network, tmp_path)
    assert library.call("predict", np.ones(2)) == 0 == network.predict(np.ones((1, 2)), backend="reference")[0]


@needs_compiler
def test_calls_with_scratches_of_their_own_run_at_once(tmp_path):
    network = stacks.network("all", "float32")
    library = Library(network, tmp_path)
    x = samples(network, 40)
    alone = library.rows("logits", x, 3)
    found = [np.zeros_like(alone) for _ in range(4)]

    def work(k):
        mine = Library.__new__(Library)
        mine.__dict__.update(library.__dict__, scratch=library.scratch.copy())
        found[k][...] = mine.rows("logits", x, 3)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(each, alone) for each in found)


@needs_compiler
def test_it_needs_math_alone(tmp_path):
    library = Library(stacks.network("all", "float32"), tmp_path)
    source = (tmp_path / "net.c").read_text().partition("#ifdef TEST")[0]
    assert re.findall(r"#include (.*)", source) == ['"net.h"', "<math.h>", "<stddef.h>"]
    assert not re.search(r"alloc|static (?!const|void)", source)
    listed = subprocess.run(["nm", "-u", tmp_path / f"lib{library.name}.so"], capture_output=True, text=True)
    if listed.returncode == 0:
        assert {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()} <= {
            "expf", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize", "__gmon_start__",
        }  # fmt: skip


@pytest.mark.skipif("gcc" not in COMPILERS, reason="no gcc here, whose report this reads")
def test_inner_loops_are_vectorised(tmp_path):
    layers = [Conv2d(32, 3, activation="relu"), MaxPool2d(2), Dense(64, "relu"), Dense(10)]
    write_c(stacks.made(layers, (3, 12, 12)), tmp_path, "net")
    report = compiled(tmp_path, "-O3", "-fopt-info-vec", "-c", "net.c", "-o", "net.o", compiler="gcc")
    lines = (tmp_path / "net.c").read_text().splitlines()
    vectorised = {int(number) for number in re.findall(r"net.c:(\d+):.*loop vectorized", report)}
    for body in ("y[o] = y[o] + x0 * w0[o]", "y[c] = pixel[c] > y[c]", "y[i] = y[i] > 0"):
        inner = next(k for k, line in enumerate(lines) if body in line)  # the line above it, counted from 1
        assert inner in vectorised, body


# ---- names, numbers, files


@pytest.mark.parametrize("name", ["", "3d", "a-b", "a b", "_x", "é", "a" * 64, "x\n", *sorted(KEYWORDS)[::9], "main"])
def test_names_that_c_cannot_have(name):
    with pytest.raises(ValueError, match="name="):
        c_source(stacks.made([Dense(2)], 3), name)


def test_weights_read_back_exactly():
    network = stacks.made([Dense(40, "relu"), Dense(7)], 30, init="pytorch")
    source = c_source(network).source
    text = re.search(r"weights1\[1200\] = \{([^}]*)\}", source)[1]
    read = np.array([np.float32(word.strip().removesuffix("f")) for word in text.split(",")])
    assert np.array_equal(read, network.parameters()["0.weight"].reshape(-1))


def test_what_is_there_is_left_as_it_is(tmp_path):
    network = stacks.made([Dense(2)], 3)
    for there in ("net.c", "net.h"):
        folder = tmp_path / there
        folder.mkdir()
        (folder / there).write_text("mine")
        with pytest.raises(FileExistsError, match=f"{there} exists"):
            write_c(network, folder, "net")
        assert [path.name for path in folder.iterdir()] == [there] and (folder / there).read_text() == "mine"


def test_a_full_disk_leaves_neither_file(tmp_path, monkeypatch):
    from mlpkernels import files

    real = files.write_atomic

    def full(path, data):
        if str(path).endswith(".c"):
            raise OSError("disk full")
        real(path, data)

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(OSError, match="disk full"):
        write_c(stacks.made([Dense(2)], 3), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_untrained_network_is_not_exported(tmp_path):
    network = Network([Dense(4, "relu"), Dense(2)], 3, seed=5)
    network.save(tmp_path / "net.safetensors")
    for same in (network, network.copy(), Network.load(tmp_path / "net.safetensors")):
        with pytest.raises(ValueError, match="the network is untrained, its parameters are the initial values: fit it"):
            write_c(same, tmp_path, "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    network.load_state_dict(network.state_dict())
    write_c(network, tmp_path, "net")


def test_a_network_that_diverged_is_not_exported():
    network = stacks.made([Dense(4, "relu"), Dense(2)], 3)
    network.parameters()["0.weight"][1, 1] = np.nan
    with pytest.raises(ValueError, match=r"0\.weight holds a value that is not finite"):
        c_source(network)
