"""Files that are either whole or not there: atomic writing, and safetensors with checked content."""

import contextlib
import errno
import json
import os
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .errors import ModelFileError

FORMAT_VERSION = 2  # the newest that is read; 2 has losses other than cross-entropy, which readers of 1 would overlook
Tensors = dict[str, np.ndarray]


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that, whatever happens, the old one or the whole new one is there and nothing else.

    Goes through a temporary file in the same folder. OSError names the path and the reason: no such folder,
    no permission, disk full.
    """
    target = Path(os.path.realpath(path))  # through a link, which replacing would cut
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
    try:
        _check_ordinary(target)
        # os.open and not tempfile: the umask decides on the permissions, as for any new file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise
    _sync_folder(target.parent)


def _check_ordinary(target: Path) -> None:
    """Refuse what os.replace would destroy or not replace: a device, a folder."""
    with contextlib.suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is no ordinary file")


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> OSError:
    reason = error.strerror or str(error)
    advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "allow it"
    text = f"cannot write {os.fspath(path)}: {reason}; nothing was changed: {advice} or choose another place"
    named = type(error)(text)  # a text alone prints without "[Errno 28]"
    named.errno = error.errno
    return named


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system lets folders be synchronised."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], version: int = 1
) -> None:
    """Write C-contiguous arrays and texts as a safetensors file, atomically, with a checksum over both.

    version: the oldest format that has all that is in it, so that old readers read what they can and refuse the rest.
    """
    import safetensors.numpy

    texts = {**metadata, "format_version": str(version)}
    texts["checksum"] = _checksum(tensors, texts)
    write_atomic(path, _in_order(safetensors.numpy.save(dict(tensors), texts)))


def _in_order(content: bytes) -> bytes:
    """The same file with its header's texts sorted: safetensors writes them in another order in each process."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_tensors(path: str | os.PathLike[str], kind: str) -> tuple[Tensors, dict[str, str]]:
    """The arrays and texts of a file that `write_tensors` wrote with metadata["kind"] == kind.

    FileNotFoundError where there is none; ModelFileError says what is wrong with what is there: truncated,
    corrupted, of another program, of another kind or a newer version.
    """
    import safetensors

    path = os.fspath(path)
    check_is_file(path, f"a {kind} file (.safetensors) that training wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            _check_metadata(path, metadata, kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{path} is truncated, corrupted or no safetensors file ({error}); {_REMEDY}") from None
    except (KeyError, AttributeError, TypeError) as error:  # a dtype that NumPy lacks
        raise ModelFileError(f"{path} holds a tensor of an unknown type ({error}); {_REMEDY}") from None
    if metadata.get("checksum") != _checksum(tensors, metadata):
        raise ModelFileError(f"{path} is corrupted: its checksum does not fit its content; {_REMEDY}")
    return tensors, metadata


def check_is_file(path: str, wanted: str) -> None:
    """FileNotFoundError where nothing is there, ModelFileError for a folder or a device; both say what was wanted."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file; {wanted} was wanted")
    if not os.path.isfile(path):
        kind = "folder" if os.path.isdir(path) else "device"
        raise ModelFileError(f"{path} is a {kind}; {wanted} was wanted")


_REMEDY = "copy it again from where it came from, or train again"


def _check_metadata(path: str, metadata: dict[str, str], kind: str) -> None:
    try:
        version = int(metadata["format_version"])
    except (KeyError, ValueError):
        raise ModelFileError(
            f"{path} was not written by mlpkernels: its metadata lacks format_version; to use another "
            "program's tensors, build the network and call load_state_dict"
        ) from None
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format {version}, this mlpkernels reads up to {FORMAT_VERSION}: "
            "pip install --upgrade mlpkernels"
        )
    found = metadata.get("kind")
    if found != kind:
        raise ModelFileError(f"{path} holds a {found}; a {kind} was wanted{_OTHER.get(str(found), '')}")


_OTHER = {"checkpoint": ": read it with load_checkpoint", "model": ": read it with Network.load"}


def _checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """CRC-32 over names, types, shapes, values and texts: safetensors itself notices no changed byte."""
    crc = 0
    for name in sorted(tensors):
        array = tensors[name]
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    for name in sorted(metadata):
        if name != "checksum":
            crc = zlib.crc32(f"{name}={metadata[name]}".encode(), crc)
    return f"crc32:{crc:08x}"
