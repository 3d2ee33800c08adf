"""The benchmarks' own arithmetic: cases, the comparison of answers, ratios, and the README's figures from JSON."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def folder():
    """The benchmarks' folder on the path, as where they run; without it these tests have nothing to test."""
    if not FOLDER.is_dir():
        pytest.skip("these tests need the tree: an installed package has no benchmarks")
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def run(system, threads, seconds, rows=60):
    apart = {"loss": 1e-7, "parameters": 1e-4}
    return {
        "system": system, "threads": threads, "rows": rows, "seconds": seconds, "processor_seconds": seconds,
        "losses": [2.0] * len(seconds), "apart": apart,
    }  # fmt: skip


RESULTS = {
    "date": "2026-01-02 03:04",
    "machine": {"cpu": "A processor", "features": ["avx2", "fma"], "cores": 2, "fma_gflops_float32": 123.4},
    "python": "3.12.1",
    "versions": {"numpy": "2.9", "jax": "not installed"},
    "quick": False,
    "threads": [1, 2],
    "turns": 3,
    "load": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
    "kernels": ["abc", "abc"],
    "training": [
        {
            "name": "sgd-64", "case": "small SGD 64", "flops": 1000, "rows": 60, "images": "MNIST",
            "runs": [
                run("mlpkernels", 1, [1.0, 1.0, 1.0]), run("mlpkernels", 2, [3.0, 3.0, 3.0]),
                run("mlpkernels, layer 1 dense", 1, [2.0, 2.0, 2.0]), run("PyTorch, eager", 1, [6.0, 4.0, 8.0]),
                run("PyTorch, eager", 2, [1.0, 1.0]), run("scikit-learn", 1, [0.5, 0.5, 0.5]),
            ],
        },
        {
            "name": "cnn", "case": "conv Adam 64", "flops": 1000, "rows": 60, "images": "MNIST",
            "runs": [run("mlpkernels", 1, [1.0, 1.0, 1.0]), run("PyTorch, eager", 1, [9.0, 9.0, 9.0], rows=15)],
        },
    ],
    "inference": [
        {"system": "mlpkernels", "threads": 1, "one": [1e-5, 2e-5, 3e-5], "many": [0.01, 0.01, 0.01]},
        {"system": "mlpkernels, inside @njit", "threads": 1, "one": [4e-6, 4e-6, 4e-6]},
        {"system": "reading the weights once", "threads": 1, "one": [2e-6, 2e-6, 2e-6]},
        {"system": "PyTorch, eager", "threads": 1, "one": [1e-4, 1e-4, 1e-4], "many": [0.02, 0.02, 0.02]},
        {"system": "PyTorch, eager by 1,000", "threads": 1, "many": [0.005, 0.005, 0.005]},
    ],
    "products": {
        "libraries": [{"internal_api": "openblas", "version": "0.3.31", "architecture": "Zen"}],
        "shapes": [
            {
                "kind": kind, "batch": 8, "inputs": 784, "outputs": 64, "threads": threads, "flops": 10,
                "seconds": {"mlpkernels": [1.0, 1.0], "OpenBLAS": [ratio, ratio]},
            }
            for kind, ratio in (("x @ w", 4.0), ("x.T @ delta", 1.0))
            for threads in (1, 2)
        ],
    },
    "start": {
        "cold": {"seconds": 12.34, "noticed": 1.23, "notice": "compiling the kernels"},
        "colds": {"1": [19.0, 17.0, 18.0], "2": [12.34, 12.0, 13.0]},
        "seconds": {
            "empty": [0.05, 0.04, 0.06], "help": [0.06, 0.07, 0.05], "train_help": [0.08, 0.08, 0.08],
            "bare": [1.0, 0.5, 1.0], "warm": [1.25, 1.0, 2.0],
        },
    },
    "memory": {
        "imports_megabytes": 100.0, "epoch_megabytes": 200.0, "fit_seconds": [0.1, 0.2], "data": "MNIST",
        "pytorch_megabytes": {"floats": 500.0},
    },
}  # fmt: skip


def written(results):
    import readme

    return readme.block(results)


def test_the_ratios_are_those_of_better_settings_by_turn():
    text = written(RESULTS)
    assert (
        "| small SGD 64, zeros skipped | 6.00 (4.00…8.00) | **0.50 (0.50…0.50): slower** | 2.00 (2.00…2.00) |" in text
    )
    assert "| small SGD 64, layer 1 dense | 3.00 (2.00…4.00) | **0.25 (0.25…0.25): slower** | \u2013 |" in text
    assert "| conv Adam 64 | 9.00 (9.00…9.00) | \u2013 | \u2013 |" in text  # scikit-learn was not run
    assert "PyTorch on 15 of 60 rows of conv Adam 64" in text


def test_everything_measured_is_in_the_readme():
    text = written(RESULTS)
    for words in (
        "2026-01-02", "A processor (avx2, fma), 2 cores", "123 GFLOP/s", "Python 3.12.1, numpy 2.9.",
        "of 3 interleaved",
        "| one sample | 5.00 (3.33…10.00) |", "| 10,000 images | **0.50 (0.50…0.50): slower** |",
        "4 (4…4) µs, 2.00 (2.00…2.00) times what reading", "| **all** | 2.00 (2.00) | 2.00 (2.00) |",
        "2 training shapes",
        "openblas 0.3.31", "60 ms, 1.20 times an empty", "12.3 s; after 1.2 s it says: compiling the kernels",
        "on 1 core, in turns, median of 3: 18.0 s (17.0…19.0)", "on 2 cores, in turns, median of 3: 12.3 s",
        "1.25 s", "1.00 s; the warm training is 0.50 s above (0.25…1.00)",
        "500 MB, 2.50 times ours", "after 0.4 0.5 0.6",
    ):  # fmt: skip
        assert words in " ".join(text.split()), words
    assert "jax" not in text and "look" not in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))


def test_sections_that_were_not_run_are_left_out():
    for section in ("training", "inference", "products", "start"):
        some = {name: value for name, value in RESULTS.items() if name != section}
        assert len(written(some)) < len(written(RESULTS))
    assert "a look and no measurement" in written({**RESULTS, "quick": True})


def test_a_cold_start_that_says_nothing_is_told():
    import start_up

    silent = {**RESULTS["start"], "cold": {"seconds": 3.0, "noticed": None, "notice": None}}
    assert any("it says nothing" in figure for _, figure in start_up.figures(silent))


def test_a_source_that_changed_meanwhile_is_told():
    assert "run it again" in written({**RESULTS, "kernels": ["abc", "abd"]})


@pytest.fixture
def files(tmp_path):
    results, target = tmp_path / "results.json", tmp_path / "README.md"
    results.write_text(json.dumps(RESULTS), encoding="utf-8")
    target.write_text("before\n\n<!-- measured -->\nold\n<!-- end measured -->\n\nafter\n", encoding="utf-8")
    return results, target


def test_only_what_is_between_the_markers_is_replaced_and_twice_is_the_same(files):
    import readme

    results, target = files
    readme.main([str(results), "--readme", str(target)])
    text = target.read_text(encoding="utf-8")
    assert text.startswith("before\n\n<!-- measured -->\n\nMeasured by") and "old" not in text
    assert text.endswith("\n\n<!-- end measured -->\n\nafter\n")
    readme.main([str(results), "--readme", str(target)])
    assert target.read_text(encoding="utf-8") == text


def test_a_block_with_a_name_is_replaced_alone(files):
    import readme

    results, target = files
    plain = target.read_text(encoding="utf-8")
    target.write_text(f"{plain}<!-- measured AVX2 -->\nolder\n<!-- end measured AVX2 -->\n", encoding="utf-8")
    readme.main([str(results), "--readme", str(target), "--block", "AVX2"])
    text = target.read_text(encoding="utf-8")
    assert text.startswith(f"{plain}<!-- measured AVX2 -->\n\nMeasured by") and "older" not in text
    assert text.endswith("\n\n<!-- end measured AVX2 -->\n")
    with pytest.raises(SystemExit):
        readme.main([str(results), "--readme", str(target), "--block", "AVX"])
    assert target.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("text", "results", "message"),
    [
        ("no markers", None, "<!-- measured -->"),
        ("<!-- end measured --> <!-- measured -->", None, "<!-- measured -->"),
        ("<!-- measured --> <!-- measured --> <!-- end measured -->", None, "<!-- measured -->"),
        (None, "not JSON", "no JSON"),
        (None, "{}", "is missing"),
        (None, "\0missing", "No such file"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(files, capsys, text, results, message):
    import readme

    source, target = files
    if text is not None:
        target.write_text(text, encoding="utf-8")
    if results == "\0missing":
        source.unlink()
    elif results is not None:
        source.write_text(results, encoding="utf-8")
    before = target.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as leaving:
        readme.main([str(source), "--readme", str(target)])
    assert leaving.value.code == 2 and message in capsys.readouterr().err
    assert target.read_text(encoding="utf-8") == before


# ---- cases


def test_the_cases_are_those_of_the_table():
    from cases import NAMES

    cnn, table = NAMES["cnn"], NAMES["table"]
    assert cnn.images == [(1, 28, 28), (10, 12, 12), (20, 4, 4)] and cnn.sizes == (320, 50, 10)
    assert NAMES["adam-128"].flops == 507_392 and cnn.flops == 3 * 961_000 - 288_000
    assert table.sizes == (8, 128, 32, 2) and table.kind.rows == 200_000
    for case in NAMES.values():
        shapes = [weights.shape for weights, _ in case.initial()]
        assert shapes[: len(case.convolutions)] == [(10, 1, 5, 5), (20, 10, 5, 5)][: len(case.convolutions)]
        assert shapes[len(case.convolutions) :] == case.pairs
        assert all(case.initial()[0][0].ravel()[:3] == case.initial()[0][0].ravel()[:3])


@pytest.mark.parametrize(("name", "skips"), [("adam-128", True), ("sgd-8", False), ("table", False)])
def test_the_parts_of_a_step_are_all_of_it(name, skips):
    """Together they are the epoch's; multiply-adds with a zero count where they are made."""
    import data
    import parts
    from cases import NAMES

    case = NAMES[name]
    images = data.load(1000, case.data)
    seconds = parts.measure(case, images, parts.loops(), 1, skips)
    assert list(seconds) == [*parts.PARTS, "all", "two"]
    assert sum(seconds[part] for part in parts.PARTS) == pytest.approx(seconds["all"])
    assert min(seconds["all"], seconds["two"]) > 0
    waits = parts.waits(case, images, skips, 2)
    assert np.isnan(waits) or waits >= 0
    whole = case.flops * 1000 / 2
    needed = parts.multiply_adds(case, images, skips)
    assert (0.3 < needed / whole < 0.7) if skips else needed == pytest.approx(whole)


def test_parts_of_an_epoch_are_whole_batches():
    from cases import NAMES

    cnn = NAMES["cnn"]
    assert cnn.rows(60_000, "mlpkernels") == 60_000
    assert cnn.rows(60_000, "PyTorch") == 14_976 and 14_976 % cnn.batch == 0
    assert cnn.rows(70, "JAX jit + scan") == cnn.batch


def test_the_exported_network_answers_in_onnx_runtime_as_it_should():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import data
    import predictors

    images = data.load(40)
    predictor = predictors.Onnx(images, 1)
    predictor.check(images)
    answer = predictor.run("many", 1)
    assert answer.shape == (40, 10) and answer.dtype == np.float32
    with pytest.raises(AssertionError, match="answers are"):
        predictor.check(data.Images(images.x[::-1], images.y, ""))


def test_the_compiled_peer_predicts_only_where_it_is_wanted():
    from predictors import COMPILED, installed

    assert COMPILED not in installed() and set(installed()) <= set(installed(compiled=True))


def test_answers_that_differ_are_refused():
    from cases import NAMES, agree

    case = NAMES["sgd-64"]
    start = [array for layer in case.initial() for array in layer]
    moved = [array + np.float32(0.1) for array in start]
    ours = (np.array([2.0, 1.0]), moved)
    assert agree(case, "a peer", ours, (np.array([1.5]), moved)) == {"loss": 0.0, "parameters": 0.0}
    assert agree(case, "one output", ours, (np.array([2.0]), [])) == {"loss": 0.0}
    wrong = copy.deepcopy(moved)
    wrong[0] += 0.01
    for answer in (
        (np.array([2.0, 1.1]), moved),
        (np.array([2.0, 1.0]), wrong),
        (np.array([np.nan, 1.0]), moved),
        (np.array([1.5]), []),
    ):
        with pytest.raises(AssertionError, match="a peer"):
            agree(case, "a peer", ours, answer)


def test_the_data_is_what_it_says():
    import data

    plain, table = data.load(300, data.NO_ZEROS), data.load(300, data.TABLE)
    assert plain.x.dtype == np.uint8 and plain.x.min() > 0 and plain.x.shape == (300, 784)
    assert table.x.dtype == np.float32 and table.x.shape == (300, 8) and set(table.y) == {0, 1}
    assert plain.floats().max() <= 1 and table.floats() is table.x


def test_wrong_options_are_named(capsys):
    import compare

    for words, message in (
        (["--cases", "cnn,nonsense"], "'nonsense'; there are sgd-64"),
        (["--cases", "cnn", "--only", "cnn"], "one of the two"),
        (["--rounds", "0"], "--rounds 0: both must be 1 or more"),
        (["--turns", "-1"], "--turns -1, --rounds 3"),
    ):
        with pytest.raises(SystemExit):
            compare.parse(words)
        assert message in capsys.readouterr().err
    assert [case.name for case in compare.parse(["--cases", "cnn,table"]).cases] == ["cnn", "table"]
    assert [case.name for case in compare.parse(["--only", "cnn"]).cases] == ["cnn"]
    assert compare.parse(["--only", "start"]).cases == []


def test_sections_before_one_that_fails_are_written(tmp_path, monkeypatch):
    import compare

    def fails():
        raise RuntimeError("no such package")

    words = ["compare.py", "--only", "inference", "--only", "start", "--out", str(tmp_path / "f")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(compare, "compare_inference", lambda *_: {"measured": 1})
    monkeypatch.setattr(compare.report, "inference", str)
    monkeypatch.setattr(compare.start_up, "measure", fails)
    with pytest.raises(RuntimeError, match="no such package"):
        compare.main()
    found = json.loads((tmp_path / "f").read_text())
    assert found["inference"] == {"measured": 1} and len(found["load"]) == 2
    assert found["failed"] == "RuntimeError('no such package')"
    (tmp_path / "f").write_text("an hour's measurements")
    monkeypatch.setattr(sys, "argv", ["compare.py", "--only", "start", "--out", str(tmp_path / "f")])
    with pytest.raises(RuntimeError):
        compare.main()
    assert (tmp_path / "f").read_text() == "an hour's measurements"


@pytest.mark.parametrize("slots", [1, 2])
def test_the_loops_over_products_give_the_products(monkeypatch, slots):
    import products

    from mlpkernels.kernels.cpu import threads

    if threads.layer() == "none":
        pytest.skip("no threading layer")
    monkeypatch.setattr(threads, "slots", lambda *_: slots)
    loops = products.Loops("mlpkernels", slots)
    for kind in (products.FORWARD, products.PARAMS, products.INPUT):
        product = products.Product(kind, 7, 40, 10)
        call, result = loops.make(product)
        call(3)
        product.check(result)
