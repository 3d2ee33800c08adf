"""Run folders: made for one writer at a time, found by name, left without half-written files."""

import datetime
import errno
import os
import re
import shutil
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlpkernels.errors import MlpkError

from .errors import OptionError, os_error_text

try:
    import fcntl
except ImportError:  # Windows: a fresh folder is still made by one process alone
    fcntl = None  # type: ignore[assignment]

PARENT = Path("runs")
_LOCK_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
CONFIG, HISTORY, MODEL, SWEEP = "config.toml", "history.csv", "model.safetensors", "sweep.toml"
CHECKPOINT, METRICS, PLOTS, LOCK = "checkpoint.safetensors", "metrics.json", "plots", ".lock"


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder."""
    return (path / CONFIG).is_file()


def is_sweep(path: Path) -> bool:
    """Whether `path` is a sweep's folder."""
    return (path / SWEEP).is_file()


def newest(parent: Path = PARENT) -> Path:
    """The run written to last, of those in `parent` that have a model. MlpkError where there is none."""
    runs = [folder for folder in parent.glob("*") if is_run(folder) and (folder / MODEL).is_file()]
    if not runs:
        raise MlpkError(f"no run in {parent}/ here: train one with mlpk train, or name a run folder")
    return max(
        runs,
        key=lambda run: (next(f for f in (run / HISTORY, run / MODEL) if f.exists()).stat().st_mtime_ns, run.name),
    )


def find(name: str) -> Path | None:
    """The run folder or model file that `name` means: a path, or a run's name in `runs/`; None if neither.

    MlpkError where there is a run folder that has lost its settings instead, or a sweep's folder.
    """
    places = (Path(name).expanduser(), PARENT / name)
    for path in places:
        if is_run(path) or (path.is_file() and path.suffix == ".safetensors"):
            return path
    for path in places:
        if (path / MODEL).is_file():
            raise MlpkError(f"{path}: a run folder without its {CONFIG}: put that back, or name {path / MODEL}")
        if (path / CHECKPOINT).is_file():
            raise MlpkError(f"{path}: a run folder without its {CONFIG}: put that back")
        if is_sweep(path):
            raise MlpkError(f"{path}: the folder of a sweep, which holds no network: mlpk plot draws it")
    return None


def model_file(run: Path) -> Path:
    """The model of a run folder, or the model file itself. MlpkError where the run has none yet."""
    path = run / MODEL if run.is_dir() else run
    if not path.is_file():
        raise MlpkError(f"{run}: no {MODEL} in it; its training has not finished an epoch")
    return path


class RunFolder:
    """A run folder that this process alone writes to, until `close`."""

    def __init__(self, path: Path, lock: int, *, fresh: bool, made: Sequence[Path] = ()) -> None:
        self.path = path
        self.fresh = fresh
        self._lock = lock
        self._made = list(made)

    @classmethod
    def create(cls, out: str, data_name: str, *, resumable: bool = True) -> "RunFolder":
        """A new run folder: `out`, which must not exist or be empty, or runs/NAME-DATE-TIME.

        resumable: whether the command could go on in a folder that it began.
        """
        return cls._create_at(Path(out), resumable) if out else cls._create_for(data_name)

    @classmethod
    def _create_at(cls, path: Path, resumable: bool) -> "RunFolder":
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())  # as it was typed, most likely
        made = make_folders(path)
        try:
            lock = _take_lock(path)
        except BaseException:
            remove_empty(made)
            raise
        if any(entry.name != LOCK for entry in path.iterdir()):
            _release(path, lock)
            remedy = ", or continue it with --resume" if resumable else ""
            raise MlpkError(f"{path}: the folder is not empty; name another with --out{remedy}")
        return cls(path, lock, fresh=True, made=made)

    @classmethod
    def _create_for(cls, data_name: str) -> "RunFolder":
        word = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data_name).stem if "/" in data_name else data_name).strip("-.")
        stem = f"{word or 'run'}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        made: list[Path] = []
        try:
            made += make_folders(PARENT)
            for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
                path = PARENT / (stem + suffix)
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                made.append(path)
                return cls(path, _take_lock(path), fresh=True, made=made)
        except OSError as error:
            remove_empty(made)
            raise MlpkError(f"{os_error_text(error)}; name a place for the run with --out") from None
        raise MlpkError(f"{PARENT / stem}: the folder and 998 like it exist; name another with --out")

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """An existing run folder, to go on in it. MlpkError if another process is writing to it."""
        return cls(path, _take_lock(path), fresh=False)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def close(self, *, keep: bool = True) -> None:
        """Let others write; with keep=False a fresh folder goes again, with the parents made for it."""
        if keep or not self.fresh:
            _release(self.path, self._lock)
            return
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        _release(self.path, self._lock)
        remove_empty(self._made)


def save_picture(figure: Any, path: Path, option: str | None) -> None:
    """Write a figure; where `option` named the folder, not over a picture that these commands have not drawn."""
    from mlpkernels.plots import drawn_here, save_figure

    if option is not None and path.exists() and not drawn_here(path):
        text = f"{path.name} in it was not drawn by this version of mlpk; move it, or name another folder"
        raise OptionError(option, str(path.parent), text)
    save_figure(figure, path)


def make_folders(path: Path) -> list[Path]:
    """Make a folder and its missing parents; returns those that were made, the outermost first."""
    made: list[Path] = []
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                try:
                    folder.mkdir()
                except FileExistsError:
                    if not folder.is_dir():
                        raise
                else:
                    made.append(folder)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that `make_folders` made, as far as nothing is in them."""
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:  # another run has moved in meanwhile: it stays
            return


def _take_lock(folder: Path) -> int:
    """Lock a folder for this process; the system lets go of it however the process ends.

    Where there are no locks, on Windows and some clusters' file systems, the file itself is the lock: whoever
    makes it holds it, and after a crash it has to be removed by hand.
    """
    path = folder / LOCK
    while True:  # until the file that was opened is the one that is there
        try:
            descriptor, made = os.open(path, _LOCK_FLAGS | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, made = os.open(path, _LOCK_FLAGS), False
            except FileNotFoundError:  # its holder has just let go
                continue
        try:
            if _locked(descriptor, made) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except FileNotFoundError:  # the holder before removed it between our open and our lock
            pass
        except _HeldError as error:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise MlpkError(f"{folder}: another mlpk command writes to it now (process {owner}){error}") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


class _HeldError(Exception):
    """Another process holds the lock; its text is what to do if that process is gone."""


def _locked(descriptor: int, made: bool) -> bool:
    """True once this process holds the lock; `made`: whether it made the file. _HeldError if another holds it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            raise _HeldError from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    if not made:
        raise _HeldError(f"; if it is gone, remove {LOCK} there")
    return True


def _release(folder: Path, lock: int) -> None:
    if fcntl is None:  # Windows does not remove what is open
        os.close(lock)
    (folder / LOCK).unlink(missing_ok=True)
    if fcntl is not None:
        os.close(lock)


def history_line(values: Iterable[Any]) -> str:
    """One line of history.csv: numbers in full precision, nothing where a column does not apply."""
    return ",".join("" if value is None else repr(value) for value in values) + "\n"


def append_line(path: Path, line: str) -> None:
    """Add one line in one write: a reader never sees half of it, and a full disk leaves none of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        data = line.encode()
        try:
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
