"""Fetch a published file from the first mirror that has it, checked and put in place in one step."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import UnavailableError

OnDownload = Callable[[str, int, int | None], object]  # file name, bytes so far, bytes in all if known

_TIMEOUT = 20.0  # seconds without a byte before the next mirror is tried
_LARGEST = 256 << 20  # bytes; the largest published file has 31 million
_BLOCK = 1 << 16


def fetch(file: str, mirrors: Sequence[str], sha256: str, folder: Path, on_download: OnDownload | None = None) -> Path:
    """Download `file` from the first mirror that gives the bytes of this checksum; its path in folder.

    The folder is made where it is missing. The file appears there complete or not at all. on_download(file,
    done, total) is called as bytes arrive. Raises UnavailableError naming what each mirror answered, OSError
    where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answers = []
    for mirror in mirrors:
        handle, temporary = tempfile.mkstemp(prefix=f".{file}-", suffix=".part", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                fault = _copy(mirror + file, file, out, sha256, on_download)
                out.flush()
                os.fsync(out.fileno())
            if fault is None:
                os.replace(temporary, folder / file)
                return folder / file
        finally:
            Path(temporary).unlink(missing_ok=True)
        answers.append(f"{mirror}{file}: {fault}")
    raise UnavailableError(f"could not be downloaded ({'; '.join(answers)})")


def _copy(address: str, file: str, out: BinaryIO, sha256: str, on_download: OnDownload | None) -> str | None:
    """Copy the answer into out; what was wrong with it, or None. Only the network's faults are caught."""
    request = urllib.request.Request(address, headers={"User-Agent": "mlpkernels"})
    digest, done = hashlib.sha256(), 0
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        return _reason(error)
    with answer:
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        while True:
            try:
                block = answer.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                return _reason(error)
            if not block:
                break
            done += len(block)
            if done > _LARGEST:
                return f"more than {_LARGEST:,} bytes"
            out.write(block)
            digest.update(block)
            if on_download is not None:
                on_download(file, done, total)
    if total is not None and done < total:
        return f"ended after {done:,} of {total:,} bytes"
    if digest.hexdigest() != sha256:
        return f"wrong checksum (sha256 {digest.hexdigest()[:12]}..., wanted {sha256[:12]}...)"
    return None


def _reason(error: Exception) -> str:
    """One line for people: the HTTP status, or why there was no answer."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
