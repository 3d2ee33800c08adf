"""MNIST and its kin: where they are looked for, how they are told apart, what is downloaded."""

import gzip
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_files import idx_bytes, mirrors

from mlpkernels import datasets
from mlpkernels.datasets import published
from mlpkernels.errors import DataError, UnavailableError

NAMES = ("mnist", "fashion-mnist", "kmnist")


def contents(name):
    """The four plain files of a tiny stand-in for a published data set."""
    generator = np.random.default_rng(NAMES.index(name))
    made = {}
    for half, rows in (("train", 20), ("t10k", 10)):
        made[f"{half}-images"] = idx_bytes(generator.integers(0, 256, (rows, 4, 4), dtype=np.uint8))
        made[f"{half}-labels"] = idx_bytes(np.roll(np.arange(rows, dtype=np.uint8) % 10, NAMES.index(name)))
    return made


def packed(content):
    return gzip.compress(content, mtime=0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Published data sets of 20 tiny images, checksums to match, an empty cache, no mirrors."""
    known = {}
    for name in NAMES:
        files = contents(name)
        sums = {role: hashlib.sha256(content).hexdigest() for role, content in files.items()}
        known[name] = published.Published(
            published.KNOWN[name].title,
            (),
            {role: hashlib.sha256(packed(content)).hexdigest() for role, content in files.items()},
            sums if name == "mnist" else {},
        )
    shapes = {role: (20 if "train" in role else 10,) + (4, 4) * ("images" in role) for role in published.FILES}
    monkeypatch.setattr(published, "KNOWN", known)
    monkeypatch.setattr(published, "_SHAPES", shapes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MLPK_DATA_DIR", raising=False)
    return tmp_path


def put(folder, name, form="published"):
    """Write a data set's files: as published, under another gzip, or plain."""
    folder.mkdir(parents=True, exist_ok=True)
    pack = {"published": packed, "repacked": lambda c: gzip.compress(c, 1, mtime=5), "plain": bytes}[form]
    for role, content in contents(name).items():
        file = published.FILES[role] + ("" if form == "plain" else ".gz")
        (folder / file).write_bytes(pack(content))
    return folder


@pytest.mark.parametrize("form", ["published", "repacked", "plain"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nested", [False, True])
def test_all_forms_are_accepted_from_all_places(home, monkeypatch, name, form, nested):
    places = {"data_dir": home / "a", "env": home / "b", "cache": home / "cache" / "mlpkernels"}
    for where, place in places.items():
        folder = put(place / name if nested or where == "cache" else place, name, form)
        if where == "env":
            monkeypatch.setenv("MLPK_DATA_DIR", str(place))
        data = datasets.load(name, data_dir=place if where == "data_dir" else None, offline=True)
        monkeypatch.delenv("MLPK_DATA_DIR", raising=False)
        assert data.name == name and data.classes == tuple(range(10)) and data.shape == (1, 4, 4)
        assert (len(data.train), len(data.test)) == (20, 10) and str(folder) in data.source
        # only MNIST has checksums of its content; the others are taken on trust, and that is said
        known = form == "published" or name == "mnist"
        assert len(data.notes) == (0 if known else 1)
        assert known or "checksum of these files is not known" in data.notes[0]


def test_data_dir_goes_before_the_environment_and_that_before_the_cache(home, monkeypatch):
    put(home / "cache" / "mlpkernels" / "mnist", "mnist")
    monkeypatch.setenv("MLPK_DATA_DIR", str(put(home / "env", "mnist")))
    put(home / "given", "mnist")
    given = datasets.load("mnist", data_dir=home / "given", offline=True)
    assert str(home / "given") in given.source and given.notes == ()
    other = datasets.load("MNIST", data_dir=home / "nothing", offline=True)
    assert str(home / "env") in other.source
    assert other.notes == (f"not in --data-dir ({home / 'nothing'}): took MNIST in {home / 'env'}",)
    (put(home / "part", "mnist") / "t10k-labels-idx1-ubyte.gz").unlink()
    other = datasets.load("mnist", data_dir=home / "part", offline=True)
    assert other.notes == (f"not in {home / 'part'} (without t10k-labels-idx1-ubyte): took MNIST in {home / 'env'}",)
    monkeypatch.delenv("MLPK_DATA_DIR")
    cached = datasets.load("mnist", offline=True)
    assert str(home / "cache") in cached.source and cached.notes == ()


@pytest.mark.parametrize("form", ["published", "repacked", "plain"])
@pytest.mark.parametrize("wanted", ["fashion-mnist", "kmnist"])
def test_mnist_under_another_name_is_refused(home, monkeypatch, wanted, form):
    folder = put(home / "bare", "mnist", form)
    with pytest.raises(DataError, match=f"holds MNIST, not {published.KNOWN[wanted].title}"):
        datasets.load(wanted, data_dir=folder)
    monkeypatch.setenv("MLPK_DATA_DIR", str(folder))
    with pytest.raises(UnavailableError, match="holds MNIST, not"):
        datasets.load(wanted, offline=True)
    # a folder that is always set is passed over where the cache has what is asked for
    put(home / "cache" / "mlpkernels" / wanted, wanted)
    assert len(datasets.load(wanted, offline=True).train) == 20


def test_other_mix_ups_that_checksums_show(home):
    with pytest.raises(DataError, match="holds KMNIST, not MNIST"):
        datasets.load("mnist", data_dir=put(home / "k", "kmnist"))
    with pytest.raises(DataError, match="not MNIST's: the sha256 of its content"):
        datasets.load("mnist", data_dir=put(home / "p", "kmnist", "plain"))


def test_files_of_another_size_or_damaged_are_refused(home):
    folder = put(home / "a", "kmnist", "plain")
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((19, 4, 4), np.uint8)))
    with pytest.raises(DataError, match="header says 19 x 4 x 4, wanted 20 x 4 x 4"):
        datasets.load("kmnist", data_dir=folder)
    folder = put(home / "b", "mnist")
    content = (folder / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(content[:-6])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz.*truncated"):
        datasets.load("mnist", data_dir=folder)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: the file is empty"):
        datasets.load("mnist", data_dir=folder)


def test_nothing_found_says_where_it_looked_and_what_to_type(home, monkeypatch):
    put(home / "part", "mnist")
    (home / "part" / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("MLPK_DATA_DIR", str(home / "part"))
    with pytest.raises(UnavailableError) as caught:
        datasets.load("mnist", data_dir=home / "given", offline=True)
    text = str(caught.value)
    for expected in (
        str(home / "given"),
        f"{home / 'part'} (without t10k-labels-idx1-ubyte)",
        str(home / "cache"),
        "--offline",
        "--data-dir or MLPK_DATA_DIR at a folder with train-images-idx3-ubyte",
        "digits",
    ):
        assert expected in text
    assert "\n" not in text
    monkeypatch.delenv("MLPK_DATA_DIR")
    with pytest.raises(UnavailableError, match=r"MLPK_DATA_DIR \(not set\)"):
        datasets.load("mnist", offline=True)
    assert not (home / "cache").exists()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with mirrors({}) as http:
        yield http


def with_mirrors(monkeypatch, name, *addresses):
    known = published.KNOWN[name]
    changed = published.Published(known.title, addresses, known.packed, known.plain)
    monkeypatch.setitem(published.KNOWN, name, changed)


def test_downloads_go_to_the_cache_once(home, server, monkeypatch):
    with_mirrors(monkeypatch, "kmnist", f"{server.address}/missing/", f"{server.address}/good/")
    server.files = {f"{published.FILES[role]}.gz": packed(c) for role, c in contents("kmnist").items()}
    calls = []
    data = datasets.load("kmnist", on_download=lambda *call: calls.append(call))
    assert len(data.train) == 20 and data.notes == ()
    assert {call[0] for call in calls} == set(server.files)
    folder = home / "cache" / "mlpkernels" / "kmnist"
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(server.files)
    asked = len(server.asked)
    datasets.load("kmnist")
    assert len(server.asked) == asked
    # one file lost: only that one is fetched again
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    datasets.load("kmnist")
    assert server.asked[asked:] == [f"/{way}/t10k-labels-idx1-ubyte.gz" for way in ("missing", "good")]


def test_a_download_that_fails_is_named_and_leaves_nothing(home, server, monkeypatch):
    with_mirrors(monkeypatch, "mnist", f"{server.address}/wrong/")
    server.files = {f"{published.FILES[role]}.gz": packed(c) for role, c in contents("mnist").items()}
    with pytest.raises(UnavailableError, match=r"mnist: not found; looked in .*wrong checksum.*--data-dir"):
        datasets.load("mnist")
    assert list((home / "cache" / "mlpkernels" / "mnist").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(home, monkeypatch):
    (home / "cache").write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"cannot be kept in .*XDG_CACHE_HOME"):
        datasets.load("mnist")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/mlpkernels"),
        ("linux", {}, "~/.cache/mlpkernels"),
        ("darwin", {}, "~/Library/Caches/mlpkernels"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/mlpkernels"),
        ("win32", {}, "~/AppData/Local/mlpkernels"),
    ],
)
def test_cache_folders(monkeypatch, platform, environment, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert published.cache_folder() == Path(expected).expanduser()


def test_checksums_are_complete():
    for known in published.KNOWN.values():
        assert set(known.packed) == set(published.FILES) and known.mirrors
        for digest in [*known.packed.values(), *known.plain.values()]:
            assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")


@pytest.mark.skipif("MLPK_DATA_DIR" not in os.environ, reason="MLPK_DATA_DIR is not set: no MNIST to read")
def test_the_real_mnist():
    data = datasets.load("mnist", offline=True)
    assert data.train.x.shape == (60000, 784) and data.test.x.shape == (10000, 784)
    assert data.train.x.dtype == np.uint8 and data.shape == (1, 28, 28) and data.notes == ()
    assert data.train.y[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert np.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train.x.mean() / 255 == pytest.approx(0.1306604762738429)
    with pytest.raises(DataError, match="holds MNIST, not Fashion-MNIST"):
        datasets.load("fashion-mnist", data_dir=data.source.removeprefix("MNIST in "))
