"""Downloads against a server of our own: mirrors, checksums, and nothing half-written."""

import hashlib

import pytest
from dataset_files import mirrors

from mlpkernels.datasets import download
from mlpkernels.errors import UnavailableError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with mirrors({"file.gz": CONTENT}) as http:
        yield http


def fetch(server, ways, folder, **settings):
    addresses = [f"{server.address}/{way}/" for way in ways]
    return download.fetch("file.gz", addresses, SHA256, folder, **settings)


@pytest.mark.parametrize("way", ["good", "unsized", "moved"])
def test_a_good_mirror(server, tmp_path, way):
    calls = []
    path = fetch(server, [way], tmp_path / "new" / "folder", on_download=lambda *call: calls.append(call))
    assert path == tmp_path / "new" / "folder" / "file.gz" and path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file.gz"]
    total = None if way == "unsized" else len(CONTENT)
    assert calls[-1] == ("file.gz", len(CONTENT), total)
    done = [call[1] for call in calls]
    assert done == sorted(done) and len(done) > 1


@pytest.mark.parametrize(
    ("way", "answer"),
    [("missing", "HTTP 404"), ("wrong", "wrong checksum"), ("short", "ended after 128,000 of 256,000 bytes")],
)
def test_the_next_mirror_is_tried(server, tmp_path, way, answer):
    assert fetch(server, [way, "good"], tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"/{way}/file.gz", "/good/file.gz"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.gz"]
    (tmp_path / "file.gz").unlink()
    with pytest.raises(UnavailableError, match=answer) as caught:
        fetch(server, [way, "missing"], tmp_path)
    assert "HTTP 404" in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_falls_silent_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    assert fetch(server, ["stuck", "good"], tmp_path).read_bytes() == CONTENT


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnavailableError, match="refused"):
        download.fetch("file.gz", ["http://127.0.0.1:9/"], SHA256, tmp_path)


def test_endless_answers_are_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_LARGEST", 100_000)
    with pytest.raises(UnavailableError, match="more than 100,000 bytes"):
        fetch(server, ["unsized"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupting_leaves_nothing(server, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, ["good"], tmp_path, on_download=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_not_the_mirrors_fault(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        fetch(server, ["good"], tmp_path / "file" / "below")
    assert server.asked == []
