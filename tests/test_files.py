"""Files: whole or not there, whatever fails; and safetensors whose every damage is named."""

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from mlpkernels import files
from mlpkernels.errors import ModelFileError

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64)}


def test_written_files_are_ordinary_ones(tmp_path):
    path = tmp_path / "file.bin"
    files.write_atomic(path, b"one")
    files.write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two" and os.listdir(tmp_path) == ["file.bin"]
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    files.write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, failing, failure):
    path = tmp_path / "file.bin"
    files.write_atomic(path, b"old")

    def fail(*arguments):
        raise failure

    if failing == "write":
        real = open

        def broken(handle, mode):
            file = real(handle, mode, buffering=0)
            os.write(file.fileno(), b"half")
            file.close()
            fail()

        monkeypatch.setattr(files, "open", broken, raising=False)
    else:
        monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(type(failure)) as caught:
        files.write_atomic(path, b"new" * 1000)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file.bin"]
    if isinstance(failure, OSError):
        assert str(caught.value).startswith(f"cannot write {path}: No space left on device; nothing was changed")
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_device_is_never_replaced():
    with pytest.raises(OSError, match="cannot write /dev/full: it is no ordinary file"):
        files.write_atomic("/dev/full", b"data")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*missing/file: No such file or directory"):
        files.write_atomic(tmp_path / "missing" / "file", b"")
    with pytest.raises(OSError, match="it is a folder"):
        files.write_atomic(tmp_path, b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="cannot write"):
        files.write_atomic(tmp_path / "file" / "below", b"")


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "t.safetensors"
    files.write_tensors(path, TENSORS, {"kind": "model", "text": "ä\n"})
    tensors, metadata = files.read_tensors(path, "model")
    assert metadata["text"] == "ä\n" and metadata["format_version"] == "1"
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert np.array_equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_every_changed_byte_and_every_truncation_is_found(tmp_path):
    path = tmp_path / "t.safetensors"
    files.write_tensors(path, TENSORS, {"kind": "model"})
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        with pytest.raises(ModelFileError):
            files.read_tensors(path, "model")
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match="truncated, corrupted"):
            files.read_tensors(path, "model")


def test_what_is_no_such_file_is_named(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        files.read_tensors(path, "model")
    with pytest.raises(ModelFileError, match="is a folder; a model file"):
        files.read_tensors(tmp_path, "model")
    files.write_tensors(path, TENSORS, {"kind": "checkpoint"})
    with pytest.raises(ModelFileError, match="holds a checkpoint; a model was wanted: read it with load_checkpoint"):
        files.read_tensors(path, "model")
    files.write_tensors(path, TENSORS, {"kind": "model"}, 3)
    with pytest.raises(ModelFileError, match="has format 3, this mlpkernels reads up to 2: pip install --upgrade"):
        files.read_tensors(path, "model")


def test_files_of_other_programs_are_named(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "t.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(ModelFileError, match=r"not written by mlpkernels: .* load_state_dict"):
        files.read_tensors(path, "model")
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(ModelFileError, match="no safetensors file"):
        files.read_tensors(path, "model")


def test_equal_content_is_equal_bytes_in_every_process(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from mlpkernels.files import write_tensors\n"
        "write_tensors(sys.argv[1], {'ü': np.ones(3, 'f4'), 'a': np.zeros((2, 2))},"
        " {name: name * 3 for name in ('kind', 'b', 'd', 'c', 'ä')})"
    )
    written = set()
    for number in range(3):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        written.add(path.read_bytes())
    assert len(written) == 1
    tensors, texts = files.read_tensors(path, "kindkindkind")
    assert tensors["ü"].tolist() == [1, 1, 1] and texts["ä"] == "äää"
