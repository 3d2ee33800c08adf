"""The compile cache: shared by processes, off where it should be or must be, and whole again after damage."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

import mlpkernels
from mlpkernels.kernels.cpu import cache, steps

# Entry points that compile in a second.
CHEAP = ("column_sum", "fma_peak")

# Compiles, runs and reports: the hits and misses of each entry point that was asked for.
SCRIPT = """
import sys
import numpy as np
from mlpkernels.kernels.cpu import steps
names, dtypes = sys.argv[1].split(","), sys.argv[2].split(",")
for dtype in dtypes:
    for name in names:
        entry = steps.get(name, dtype)
        print(name, dtype, sum(entry.stats.cache_hits.values()), sum(entry.stats.cache_misses.values()))
    if "column_sum" in names:
        out = np.zeros(3, dtype)
        steps.get("column_sum", dtype)(np.arange(12, dtype=dtype), out)
        assert out.tolist() == [18, 22, 26]
"""


def start(names, dtypes, root=None, **environment):
    """A process that gets these entry points; variables set to None are taken away."""
    given = {**os.environ, **environment}
    if root is not None:
        given["PYTHONPATH"] = str(root)
    # Not the project's folder: from there Python would take the sources before what is installed, another cache.
    folder = root or tempfile.gettempdir()
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, ",".join(names), ",".join(dtypes)], text=True, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={k: v for k, v in given.items() if v is not None},
    )  # fmt: skip


def finished(process):
    """{(entry point, dtype): (hits, misses)}"""
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert not err
    return {tuple(line.split()[:2]): tuple(map(int, line.split()[2:])) for line in out.splitlines()}


def run(*arguments, **environment):
    return finished(start(*arguments, **environment))


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


# ---- between processes


def test_a_second_process_compiles_nothing(tmp_path):
    first = run(CHEAP, ["float32"], NUMBA_CACHE_DIR=str(tmp_path))
    assert set(first.values()) == {(0, 1)}
    stored = files(tmp_path)
    second = run(CHEAP, ["float32"], NUMBA_CACHE_DIR=str(tmp_path))
    assert set(second.values()) == {(1, 0)}
    assert files(tmp_path) == stored


@pytest.mark.skipif(not cache.wanted(), reason="MLPK_CACHE=0 turns the cache off")
def test_every_entry_point_comes_out_of_the_cache():
    """What this process compiled or loaded, another finds: no closure holds what no key can name."""
    for dtype in ("float32", "float64"):
        for name in steps.names():
            steps.get(name, dtype)
    found = run(steps.names(), ["float32", "float64"])
    assert len(found) == 2 * len(steps.names())
    assert {key for key, counts in found.items() if counts != (1, 0)} == set()


def test_two_processes_compile_at_the_same_time(tmp_path):
    """The same entry points in opposite orders: both work, and so does what they leave behind."""
    both = [
        start(names, dtypes, NUMBA_CACHE_DIR=str(tmp_path))
        for names, dtypes in ((CHEAP, ["float32", "float64"]), (CHEAP[::-1], ["float64", "float32"]))
    ]
    counts = [finished(process) for process in both]
    for key in counts[0]:
        assert sorted(one[key] for one in counts) in ([(0, 1), (1, 0)], [(0, 1), (0, 1)]), key
    after = run(CHEAP, ["float32", "float64"], NUMBA_CACHE_DIR=str(tmp_path))
    assert set(after.values()) == {(1, 0)}
    assert len([name for name in files(tmp_path) if name.endswith(".nbc")]) == 4


def test_a_change_in_any_kernel_file_is_another_key(tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(Path(mlpkernels.__file__).parent, tree / "mlpkernels", ignore=shutil.ignore_patterns("__pycache__"))
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run(["fma_peak"], ["float32"], tree, **places)["fma_peak", "float32"] == (0, 1)
    assert run(["fma_peak"], ["float32"], tree, **places)["fma_peak", "float32"] == (1, 0)
    for changed in ("kernels/cpu/simd.py", "kernels/plan.py"):
        with open(tree / "mlpkernels" / changed, "a") as file:
            file.write("# changed\n")
        assert run(["fma_peak"], ["float32"], tree, **places)["fma_peak", "float32"] == (0, 1), changed


# ---- off


def test_mlpk_cache_0_writes_nothing(tmp_path):
    found = run(["fma_peak"], ["float32"], NUMBA_CACHE_DIR=str(tmp_path), MLPK_CACHE="0")
    assert found["fma_peak", "float32"][0] == 0 and files(tmp_path) == []


def test_compiling_that_was_turned_off_is_named():
    code = "import numpy as np\nfrom mlpkernels import Dense, Network\nNetwork([Dense(2)], 3).predict(np.zeros((1, 3)))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("mlpkernels.errors.UnavailableError: NUMBA_DISABLE_JIT is set: ")
    command = [sys.executable, "-m", "mlpkernels_cli", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "off, since NUMBA_DISABLE_JIT is set" in done.stdout


def test_other_values_of_mlpk_cache_leave_it_on(monkeypatch):
    for value, wanted in (("0", False), ("1", True), ("", True)):
        monkeypatch.setenv("MLPK_CACHE", value)
        assert cache.wanted() == wanted
    monkeypatch.delenv("MLPK_CACHE")
    assert cache.wanted()


def test_no_writable_place_is_no_failure(tmp_path):
    """A file where each folder of caches would be: not even root can write below it."""
    tree, blocked = tmp_path / "tree", tmp_path / "a file"
    shutil.copytree(Path(mlpkernels.__file__).parent, tree / "mlpkernels", ignore=shutil.ignore_patterns("__pycache__"))
    blocked.write_text("")
    (tree / "mlpkernels" / "kernels" / "cpu" / "__pycache__").write_text("")
    below = {name: str(blocked / "below") for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE")}
    before = files(tmp_path)
    for place in (None, str(blocked / "below")):
        found = run(["column_sum"], ["float32"], tree, NUMBA_CACHE_DIR=place, PYTHONDONTWRITEBYTECODE="1", **below)
        assert found["column_sum", "float32"][0] == 0
        assert files(tmp_path) == before


# ---- damage


def make(bonus):
    """A function to compile whose closure holds a string, as the entry points do."""

    def add(x):
        bonus  # noqa: B018
        return x + 1

    return add


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    monkeypatch.delenv("MLPK_CACHE", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # Numba reads its settings again when a variable has changed
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def compiled(bonus="a"):
    """(hits, misses, result) of compiling afresh."""
    function = cache.compiled(make(bonus), types.int64(types.int64))
    stats = function.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), function(1)


def test_the_key_holds_the_closures_string(place):
    assert [compiled("a"), compiled("a"), compiled("b"), compiled("a")] == [(0, 1, 2), (1, 0, 2), (0, 1, 2), (1, 0, 2)]


def damaged(content):
    """A file cut anywhere, emptied, zeroed, or replaced."""
    for part in range(0, 20):
        yield content[: len(content) * part // 20]
    for tail in (1, 2, 10, 100):
        yield content[:-tail]
    yield bytes(len(content))
    yield content.replace(b"numba", b"nimba")
    yield b"not a pickle at all"


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_file_is_replaced(place, kind):
    compiled()
    (path,) = place.rglob(f"*.{kind}")
    whole = path.read_bytes()
    for content in damaged(whole):
        path.write_bytes(content)
        assert compiled() == (0, 1, 2), len(content)
        assert compiled() == (1, 0, 2), len(content)


def test_a_missing_file_is_replaced(place):
    for kind in ("nbi", "nbc"):
        compiled()
        for path in place.rglob(f"*.{kind}"):
            path.unlink()
        assert compiled() == (0, 1, 2)
        assert compiled() == (1, 0, 2)


def test_a_disk_that_fills_up_is_no_failure(place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", full)
        assert compiled()[2] == 2
    assert compiled()[1:] == (1, 2)
    assert compiled() == (1, 0, 2)


def test_other_types_are_an_error_and_not_a_minute_of_compiling(place):
    function = cache.compiled(make("a"), types.int64(types.int64))
    with pytest.raises(TypeError):
        function(np.ones(3))
    assert len(function.signatures) == 1


# ---- pruning


def of_digest(digest, monkeypatch, bonus="a"):
    """(hits, misses, result) of compiling as kernel files with another digest would."""
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_own_digest", lambda: digest)
        return compiled(bonus)


def aged(place, days, start=""):
    """Make the cached files whose names hold `start` so many days old; their names."""
    old = time.time() - days * 24 * 3600
    paths = [path for path in place.rglob("*.nb*") if start in path.name]
    for path in paths:
        os.utime(path, (old, old))
    return sorted(path.name for path in paths)


def test_files_carry_the_digest(place):
    compiled()
    names = [name for name in files(place) if ".nb" in name]
    assert len(names) == 2 and all(name.startswith(f"test_cache.{cache.digest()}.make.") for name in names)


def test_files_of_another_digest_go_after_a_week(place, monkeypatch):
    assert of_digest("0" * 16, monkeypatch)[:2] == (0, 1)
    others = aged(place, 8)
    assert of_digest("1" * 16, monkeypatch)[:2] == (0, 1)
    assert len(others) == 2 and not set(others) & set(files(place))
    young = aged(place, 6, "1" * 16)
    assert compiled()[:2] == (0, 1)
    assert len(young) == 2 and set(young) <= set(files(place))
    assert of_digest("1" * 16, monkeypatch)[:2] == (1, 0)


def test_files_of_this_digest_stay(place):
    compiled("a")
    own = aged(place, 400)
    compiled("b")
    assert set(own) <= set(files(place)) and compiled("a")[:2] == (1, 0)


def test_only_what_is_compiled_anew_looks_for_old_files(place, monkeypatch):
    compiled()
    of_digest("0" * 16, monkeypatch)
    others = aged(place, 8, "0" * 16)
    assert compiled()[:2] == (1, 0)
    assert set(others) <= set(files(place))


def test_only_cached_files_of_the_module_go(place):
    compiled()
    folder = next(place.rglob("*.nbi")).parent
    gone = ["test_cache.make.locals.add-9.py311.nbi", "test_cache.make.locals.add-9.py311.1.nbc",
            "test_cache.make.locals.add-9.py311.2.nbc.tmp.0123456789abcdef"]  # fmt: skip
    kept = ["test_cache.cpython-311.pyc", "test_caches.make.py311.nbi", "other.py311.1.nbc", "test_cache.nbi.txt.gz"]
    for name in (*gone, *kept):
        (folder / name).write_text("")
        os.utime(folder / name, (0, 0))
    (folder / "test_cache.0.nbc").mkdir()
    os.utime(folder / "test_cache.0.nbc", (0, 0))
    assert compiled("b")[:2] == (0, 1)
    left = files(folder)
    assert not set(gone) & set(left) and set(kept) <= set(left) and "mlpkernels.lock" in left
    assert (folder / "test_cache.0.nbc").is_dir()


def test_files_that_cannot_be_removed_are_no_failure(place, monkeypatch):
    of_digest("0" * 16, monkeypatch)
    others = aged(place, 8)

    def held(*_, **__):
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(Path, "unlink", held)
    assert compiled() == (0, 1, 2) and set(others) <= set(files(place))
    assert compiled() == (1, 0, 2)


def test_a_process_whose_files_are_pruned_compiles_again(place, monkeypatch):
    """Also between its look at the index and its reading of the file that this lists."""
    of_digest("0" * 16, monkeypatch)
    aged(place, 8)
    load = numba.core.caching.IndexDataCacheFile._load_index
    pruned = []

    def load_and_lose(cached):
        found = load(cached)
        if not pruned:
            with monkeypatch.context() as other:  # another process, whose kernel files have another digest
                other.setattr(cache, "_own_digest", lambda: "1" * 16)
                cache._prune(Path(cached._cache_path), "test_cache")
            pruned.append(files(place))
        return found

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_load_index", load_and_lose)
    assert of_digest("0" * 16, monkeypatch) == (0, 1, 2)
    assert pruned == [["mlpkernels.lock"]]
    assert of_digest("0" * 16, monkeypatch) == (1, 0, 2)


def test_pruning_beside_processes_that_load_and_compile(tmp_path):
    """Everything of another digest is removed at once, again and again, under a process that works with it."""
    script = (
        "import sys, numba, test_cache\n"
        "from mlpkernels.kernels.cpu import cache\n"
        "cache._own_digest, cache._KEPT = (lambda: sys.argv[1] * 16), -1.0\n"
        "for round in range(12):\n"
        "    assert test_cache.compiled('ab'[round % 2])[2] == 2\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths, "MLPK_CACHE": "1"}
    working = [
        subprocess.Popen([sys.executable, "-c", script, digest], env=environment, stderr=subprocess.PIPE, text=True)
        for digest in "01"
    ]
    for process in working:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0 and not err, err
