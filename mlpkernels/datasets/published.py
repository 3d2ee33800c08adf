"""MNIST, Fashion-MNIST and KMNIST: where they may lie, where they are published, how they are told apart."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError, UnavailableError
from . import idx
from .bounded import is_gzip
from .download import OnDownload, fetch
from .part import Dataset

FILES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "t10k-images": "t10k-images-idx3-ubyte",
    "t10k-labels": "t10k-labels-idx1-ubyte",
}
_SHAPES: dict[str, tuple[int, ...]] = {
    "train-images": (60000, 28, 28),
    "train-labels": (60000,),
    "t10k-images": (10000, 28, 28),
    "t10k-labels": (10000,),
}


@dataclass(frozen=True)
class Published:
    """A published data set: its name for people, its mirrors, sha256 of the .gz files and of their content.

    packed and plain are by role; plain is empty where nobody has published the content's checksums.
    """

    title: str
    mirrors: tuple[str, ...]
    packed: dict[str, str]
    plain: dict[str, str]


KNOWN = {
    "mnist": Published(
        "MNIST",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            "train-images": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        {
            "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": Published(
        "Fashion-MNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        {
            "train-images": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        {},
    ),
    "kmnist": Published(
        "KMNIST",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        {
            "train-images": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        {},
    ),
}


class ForeignError(DataError):
    """The files found are those of another published data set."""


def cache_folder() -> Path:
    """The user's cache folder of this library, with a folder a data set; it need not exist."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "mlpkernels"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "mlpkernels"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlpkernels"
    return Path.home() / ".cache" / "mlpkernels"


def load_published(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    on_download: OnDownload | None = None,
) -> Dataset:
    """mnist, fashion-mnist or kmnist from data_dir, MLPK_DATA_DIR or the cache folder, else downloaded there.

    A note says so where data_dir is given and it was found elsewhere.
    Raises DataError for files that are damaged or another data set's, UnavailableError where there are none
    and they cannot be downloaded, saying where it looked and what to type.
    """
    looked: list[str] = []
    for title, base in _places(data_dir):
        if base is None:
            looked.append(f"{title} (not set)")
            continue
        for folder in (base / name, base):
            files = idx.find(folder)
            if len(files) == len(FILES):
                try:
                    dataset = _load(name, files)
                    return dataset if title == "--data-dir" or data_dir is None else _elsewhere(dataset, looked[0])
                except ForeignError as error:
                    # a folder given for this call is not passed over; one that is always set may be
                    if title == "--data-dir":
                        raise
                    looked.append(f"{title} ({error})")
                    break
            if files:
                missing = ", ".join(FILES[role] for role in FILES if role not in files)
                looked.append(f"{folder} (without {missing})")
                break
        else:
            looked.append(f"{title} ({base})")
    dataset = _load(name, _downloaded(name, looked, offline, on_download))
    return dataset if data_dir is None else _elsewhere(dataset, looked[0])


def _elsewhere(dataset: Dataset, looked: str) -> Dataset:
    """The data set with a note that it was not in the folder given for this call: where that was looked for."""
    return replace(dataset, notes=(f"not in {looked}: took {dataset.source}", *dataset.notes))


def _places(data_dir: str | os.PathLike[str] | None) -> list[tuple[str, Path | None]]:
    environment = os.environ.get("MLPK_DATA_DIR")
    return [
        ("--data-dir", None if data_dir is None else Path(data_dir).expanduser()),
        ("MLPK_DATA_DIR", Path(environment).expanduser() if environment else None),
        ("the cache", cache_folder()),
    ]


def _load(name: str, files: dict[str, Path]) -> Dataset:
    """Read the four files and check that they are this data set's, by either kind of checksum."""
    unchecked = [role for role in FILES if not _packed_matches(name, role, files[role])]
    known = KNOWN[name]
    shapes = {role: _SHAPES[role] for role in FILES}
    arrays, dataset = idx.load_pairs({role: files[role] for role in FILES}, name, shapes)
    unknown = False
    for role in unchecked:
        digest = idx.content_sha256(arrays[role])
        owner = next((other for other in KNOWN if KNOWN[other].plain.get(role) == digest), None)
        if owner is not None and owner != name:
            raise _foreign(files[role], owner, name)
        if owner is None and known.plain:
            raise DataError(
                f"{files[role]}: not {known.title}'s: the sha256 of its content is {digest[:12]}..., "
                f"wanted {known.plain[role][:12]}...; give your own files by their folder, not as {name}"
            )
        unknown |= owner is None
    folder = files["train-images"].parent
    notes: tuple[str, ...] = ()
    if unknown:
        notes = (f"{known.title} in {folder}: the checksum of these files is not known, their structure is right",)
    return replace(dataset, source=f"{known.title} in {folder}", notes=notes)


def _packed_matches(name: str, role: str, path: Path) -> bool:
    """Whether this is the .gz file as published; raises ForeignError where another data set published it."""
    if not path.stat().st_size or not is_gzip(path):
        return False
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    owner = next((other for other in KNOWN if KNOWN[other].packed[role] == digest), None)
    if owner is not None and owner != name:
        raise _foreign(path, owner, name)
    return owner == name


def _foreign(path: Path, owner: str, name: str) -> ForeignError:
    return ForeignError(
        f"{path} holds {KNOWN[owner].title}, not {KNOWN[name].title}: ask for {owner}, or put "
        f"{KNOWN[name].title} into a folder {name} beside it"
    )


def _downloaded(name: str, looked: list[str], offline: bool, on_download: OnDownload | None) -> dict[str, Path]:
    """The four files in the cache folder, fetched where they are not there yet."""
    known = KNOWN[name]
    folder = cache_folder() / name
    what_to_type = (
        f"point --data-dir or MLPK_DATA_DIR at a folder with {FILES['train-images']}[.gz] and its three "
        "companions, or use digits, which needs no network"
    )
    if offline:
        raise UnavailableError(
            f"{name}: not found; looked in {', '.join(looked)}; --offline forbids downloading it: "
            f"leave that out, {what_to_type}"
        )
    try:
        files = idx.find(folder)
        for role, file in FILES.items():
            if role not in files:
                files[role] = fetch(f"{file}.gz", known.mirrors, known.packed[role], folder, on_download)
    except UnavailableError as error:
        raise UnavailableError(f"{name}: not found; looked in {', '.join(looked)}; {error}; {what_to_type}") from None
    except OSError as error:
        raise UnavailableError(
            f"{name}: cannot be kept in {folder}: {error.strerror or error}; set XDG_CACHE_HOME to a "
            f"writable folder, or {what_to_type}"
        ) from None
    return files
