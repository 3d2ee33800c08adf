"""Compiling beside: several processes where a command waits, one where nobody said so; none of them is left over."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba.core.caching
import pytest
from cli_running import COMMAND
from mlpkernels_cli.progress import compiling_notice
from test_cache import CHEAP, files, run

from mlpkernels.bench import running
from mlpkernels.kernels import beside
from mlpkernels.kernels.cpu import cache, steps

KEYS = [(name, dtype) for dtype in ("float32", "float64") for name in CHEAP]
ANSWERING = "import sys\nfor line in sys.stdin: print(0.25, flush=True)"


def until(there, seconds=120.0):
    """Wait for something to be there; what it is."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


@pytest.fixture
def started(monkeypatch):
    """The processes that are started."""
    made, plain = [], subprocess.Popen

    def popen(*words, **options):
        made.append(plain(*words, **options))
        return made[-1]

    monkeypatch.setattr(beside.subprocess, "Popen", popen)
    return made


def ended(processes):
    return all(process.returncode is not None and process.stdin.closed for process in processes)


# ---- who may start processes


def test_only_a_command_that_waits_in_its_own_thread():
    seen = []
    assert beside.expected() is None
    with beside.waiting("infer"):
        other = threading.Thread(target=lambda: seen.append(beside.expected()))
        other.start()
        other.join()
        with beside.waiting():
            assert beside.expected() == ()
        assert beside.expected() == ("infer",)
    assert beside.expected() is None and seen == [None]


def test_how_many_help(monkeypatch):
    assert beside.helpers([5.0, 4.0, 3.0, 2.0], 2) == 1
    assert beside.helpers([5.0, 4.0, 3.0, 2.0], 64) == 2  # the longest takes a third of all
    assert beside.helpers([1.0] * 100, 64) == 7 and beside.helpers([1.0] * 3, 64) == 2
    assert beside.helpers([5.0, 4.0, 3.0], 1) == 0 and beside.helpers([9.0, 1.0], 8) == 0
    assert beside.helpers([9.0], 8) == 0 and beside.helpers([], 8) == 0
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert beside.helpers([5.0, 4.0, 3.0], 2) == 0
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", None)
    assert beside.helpers([5.0, 4.0, 3.0], 2) == 0


# ---- one task after the other, by whoever is free


def test_alone_the_costliest_comes_first(started):
    made, told = [], []
    beside.share({"a": 1.0, "b": 3.0, "c": 2.0}, 0, made.append, lambda *item: told.append(item))
    assert made == ["b", "c", "a"] and [item for item, _ in told] == made and not started


def test_two_make_each_once(monkeypatch, started):
    monkeypatch.setattr(beside, "_CODE", ANSWERING)
    told, made = {}, []

    def here(item):
        made.append(item)
        until(lambda: len(shared) > 0 or len(made) > 1)

    def on_done(item, seconds):
        assert threading.current_thread() is threading.main_thread() and item not in told
        told[item] = seconds

    shared = []
    monkeypatch.setattr(beside, "float", lambda text: shared.append(text) or float(text), raising=False)
    costs = {name: 1.0 for name in "abcdef"}
    beside.share(costs, 1, here, on_done)
    assert set(told) == set(costs) and len(shared) == len(costs) - len(made) > 0
    assert {told[item] for item in set(costs) - set(made)} == {0.25}
    assert len(started) == 1 and ended(started)


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "import sys; sys.stdin.readline(); raise SystemExit(3)",
        "import os, sys, signal; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGTERM)",
        "import sys; sys.stdin.readline(); print('no number', flush=True); sys.stdin.read()",
        "no Python at all",
    ],
)
def test_what_a_process_was_at_when_it_ended_is_done_here(monkeypatch, started, capfd, code):
    monkeypatch.setattr(beside, "_CODE", code)
    made = []
    beside.share({"a": 2.0, "b": 1.0, "c": 0.5}, 2, made.append)
    assert sorted(made) == ["a", "b", "c"] and len(started) == 2 and ended(started)
    assert capfd.readouterr() == ("", "")


def test_no_room_for_another_process(monkeypatch):
    def full(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(beside.subprocess, "Popen", full)
    made = []
    beside.share({"a": 1.0, "b": 2.0}, 3, made.append)
    assert made == ["b", "a"]


def test_an_error_here_ends_the_others_at_once(monkeypatch, started):
    monkeypatch.setattr(beside, "_CODE", "import time; time.sleep(600)")

    def here(item):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        beside.share({"a": 1.0, "b": 2.0, "c": 1.0}, 2, here)
    assert len(started) == 2 and ended(started)


# ---- entry points

# Prepares entry points by two processes, this one only once the other has kept something; then all are asked for.
TOGETHER = """
import sys, time
from pathlib import Path
from mlpkernels.kernels import beside
from mlpkernels.kernels.cpu import steps
folder, keys = Path(sys.argv[1]), [tuple(word.split()) for word in sys.argv[2:]]
beside.helpers, plain = (lambda costs, cores: 1), steps.get
def get(name, dtype):
    end = time.monotonic() + 120
    while not list(folder.rglob("*.nbc")):
        assert time.monotonic() < end
        time.sleep(0.01)
    return plain(name, dtype)
steps.get = get
told = []
with beside.waiting():
    steps.prepare(keys, lambda name, seconds: told.append(name))
assert sorted(told) == sorted(map(" ".join, keys)), told
for key in keys:
    entry = plain(*key)
    print(sum(entry.stats.cache_hits.values()), sum(entry.stats.cache_misses.values()))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder of this test's own, and no entry point made."""
    monkeypatch.delenv("MLPK_CACHE", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(steps, "_made", {})
    return tmp_path


def test_what_another_process_compiled_is_loaded(place):
    words = [sys.executable, "-c", TOGETHER, str(place), *map(" ".join, KEYS)]
    # Not in the project's folder: from there Python would take the sources before what is installed, another cache.
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=place)
    assert done.returncode == 0 and not done.stderr, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == len(KEYS) and set(counts) <= {(1, 0), (0, 1)} and (1, 0) in counts
    again = run(CHEAP, ["float32", "float64"])
    assert set(again.values()) == {(1, 0)}
    assert len([name for name in files(place) if name.endswith(".nbi")]) == len(KEYS)


def test_a_process_that_dies_leaves_nothing_undone(place, monkeypatch, started):
    monkeypatch.setattr(beside, "_CODE", "import sys; sys.stdin.readline(); raise SystemExit(3)")
    monkeypatch.setattr(beside, "helpers", lambda costs, cores: 1)
    with beside.waiting():
        steps.prepare(KEYS)
    assert set(steps._made) == set(KEYS) and len(started) == 1 and ended(started)
    assert set(run(CHEAP, ["float32", "float64"]).values()) == {(1, 0)}


@pytest.mark.parametrize("reason", ["nobody waits", "one core", "the cache is off", "no place for it"])
def test_this_process_alone(place, monkeypatch, started, reason):
    monkeypatch.setattr(beside, "helpers", lambda costs, cores: cores - 1)
    monkeypatch.setattr(steps.threads, "available", lambda: 1 if reason == "one core" else 4)
    monkeypatch.setattr(steps, "cpu_count", lambda: 4)
    if reason == "the cache is off":
        monkeypatch.setenv("MLPK_CACHE", "0")
    if reason == "no place for it":
        monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    if reason == "nobody waits":
        steps.prepare(KEYS[:1])
    else:
        with beside.waiting():
            steps.prepare(KEYS[:1])
    assert set(steps._made) == set(KEYS[:1]) and not started
    assert bool(files(place)) == (reason in ("nobody waits", "one core"))


def test_what_is_there_is_loaded_and_starts_nobody(place, started):
    steps.prepare(KEYS)
    steps._made.clear()
    told = []
    with beside.waiting():
        steps.prepare(KEYS, lambda name, seconds: told.append(name))
    assert told == [" ".join(key) for key in KEYS] and not started
    assert {sum(entry.stats.cache_hits.values()) for entry in steps._made.values()} == {1}
    assert {sum(entry.stats.cache_misses.values()) for entry in steps._made.values()} == {0}


def test_a_damaged_file_is_no_loss_for_what_only_loads(place):
    steps.prepare(KEYS[:1])
    function, signature, parallel = steps._asked(*KEYS[0])
    assert cache.loaded(function, signature, parallel).signatures == [signature.args]
    (path,) = place.rglob("*.nbc")
    path.write_bytes(path.read_bytes()[:1000])
    assert cache.loaded(function, signature, parallel) is None
    steps._made.clear()
    steps.prepare(KEYS[:1])
    assert cache.loaded(function, signature, parallel) is not None


def test_a_loop_brings_what_the_command_expects(monkeypatch):
    """And predicting asks for no update of parameters."""
    asked = []
    monkeypatch.setattr(steps, "prepare", lambda keys: asked.append(list(keys)))
    for loop in ("train", "infer"):
        steps.functions.cache_clear()
        with beside.waiting("infer", "softmax_rows"):
            addresses = steps.functions("float32", steps.Uses(curve=True), loop)
        assert (addresses == 0).tolist() == [number == 2 and loop == "infer" for number in range(9)]
    steps.functions.cache_clear()
    steps.functions("float32", steps.Uses(), "train")
    train, infer = asked  # and none where nobody waits
    assert {dtype for _, dtype in train} == {"float32"} and len(set(train)) == len(train)
    names = {name for name, _ in train}
    assert {"train", "params_phase", "rows_phase", "gemm", "curved_layer", "infer", "softmax_rows"} < names
    assert names - {name for name, _ in infer} == {"train", "params_phase"}


# ---- the process that helps

SERVING = [sys.executable, "-c", "from mlpkernels.kernels.cpu import helper; helper.serve()"]


def serving(**environment):
    return subprocess.Popen(
        SERVING, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_it_answers_by_seconds_and_ends_with_its_input(place):
    with serving() as process:
        for key in KEYS[:2]:
            print(*key, file=process.stdin, flush=True)
            assert float(process.stdout.readline()) > 0
        process.stdin.close()
        assert process.wait(60) == 0 and process.stdout.read() == process.stderr.read() == ""
    assert len([name for name in files(place) if name.endswith(".nbc")]) == 2


def test_it_ends_in_the_midst_of_a_function(place):
    with serving() as process:
        print("train float32", file=process.stdin, flush=True)
        process.stdin.close()
        assert process.wait(60) == 0 and process.stdout.read() == process.stderr.read() == ""
    assert not [name for name in files(place) if ".nb" in name and "train" in name]


def test_it_ends_where_nothing_is_kept():
    with serving(MLPK_CACHE="0") as process:
        assert process.communicate("column_sum float32\n", timeout=60) == ("", "") and process.returncode == 0


# ---- the command line


@pytest.mark.parametrize("ask", [lambda key: steps.get(*key), lambda key: steps.prepare([key])])
def test_who_waits_is_told_of_compiling_and_not_of_loading(place, ask):
    with beside.waiting() as compiling:
        ask(KEYS[0])
    assert compiling.is_set()
    steps._made.clear()
    with beside.waiting() as compiling:
        ask(KEYS[0])
    assert not compiling.is_set()


HOLDS = """
import fcntl, sys, time
with open(sys.argv[1], "a+") as file:
    fcntl.lockf(file, {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}[sys.argv[2]])
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock between processes")
@pytest.mark.parametrize("kind", ["ex", "sh"])
def test_who_waits_is_told_that_another_process_compiles_but_not_that_it_loads(place, kind):
    steps.prepare(KEYS[:1])
    steps._made.clear()
    (lock,) = place.rglob("mlpkernels.lock")
    words = [sys.executable, "-c", HOLDS, str(lock), kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with beside.waiting() as compiling:
            ended = threading.Timer(0.3, process.stdin.close)
            ended.start()
            steps.prepare(KEYS[:1])
        ended.join()
    assert compiling.is_set() == (kind == "ex")


def test_the_notice_is_where_processes_are_allowed():
    with compiling_notice(print, "infer"):
        assert beside.expected() == ("infer",)
    assert beside.expected() is None


@pytest.mark.parametrize("only", ["kernels", "epochs"])
def test_bench_gets_ready_what_it_calls(monkeypatch, only):
    """No more and no less: what `run` asks for is found out by running it."""
    monkeypatch.setattr(running, "_QUICK", running.Budget(1, 1e-4, 1e-3, 1e-3, 0.3))
    for asked in (running.get_ready, running.run):
        monkeypatch.setattr(steps, "_made", {})
        steps.pointer.cache_clear()
        steps.functions.cache_clear()
        asked(running.Options(quick=True, only=only))
        if asked is running.get_ready:
            ready = set(steps._made)
    assert set(steps._made) == ready


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to all processes of a console")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped_leaves_no_process(tmp_path, number, code):
    pid = tmp_path / "pid"
    waits = f"import os, sys; open({str(pid)!r}, 'w').write(f'{{os.getpid()}}.'); sys.stdin.read()"
    script = (  # a shell's background jobs ignore SIGINT, and so would what they start
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mlpkernels.kernels import beside\n"
        f"beside._CODE, beside.helpers = {waits.replace('{', '{{').replace('}', '}}')!r}, lambda costs, cores: 1\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "MLPK_CACHE": "1"}
    process = subprocess.Popen(
        [*COMMAND[:2], script + COMMAND[2], "train", "--no-plots", "--backend", "cpu", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    helping = int(until(lambda: pid.exists() and pid.read_text().endswith(".") and pid.read_text())[:-1])
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code and len(err.splitlines()) == (code > 0)
    until(lambda: not alive(helping))
    assert code < 0 or not (tmp_path / "run").exists()


def alive(pid):
    """Whether a process is there that has not ended: one whose parent was killed may wait for being counted."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
