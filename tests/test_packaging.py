"""What is built from the tree holds every module, the type marker and the bundled data."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = ["mlpkernels/py.typed", "mlpkernels/datasets/digits.npz", "mlpkernels/datasets/digits.txt"]


def modules():
    """Every module of the tree, by its path once installed."""
    pairs = [(ROOT / "mlpkernels", "mlpkernels"), (ROOT / "cli", "mlpkernels_cli")]
    return {f"{name}/{path.relative_to(folder).as_posix()}" for folder, name in pairs for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """(wheel, sdist), built from a copy of the tree: the sdist first and the wheel from it, as for a release."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("these tests run on an installed package without its tree")
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package `build` is not installed: pip install build")
    tree, out = tmp_path_factory.mktemp("tree") / "tree", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    options = ["--no-isolation"] if has_setuptools() else []
    done = subprocess.run(
        [sys.executable, "-m", "build", *options, "--outdir", out, tree], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def has_setuptools():
    """Whether the setuptools that the project asks for is here; otherwise `build` fetches it."""
    if importlib.util.find_spec("setuptools") is None:
        return False
    import setuptools

    return int(setuptools.__version__.split(".")[0]) >= 77


def test_the_wheel_holds_every_module_and_the_data(archives):
    names = set(zipfile.ZipFile(archives[0]).namelist())
    assert modules() - names == set()
    assert set(NEEDED) - names == set()


def test_the_wheel_holds_nothing_else(archives):
    for name in zipfile.ZipFile(archives[0]).namelist():
        assert name.split("/")[0] in ("mlpkernels", "mlpkernels_cli") or ".dist-info/" in name, name
        assert "__pycache__" not in name and not name.startswith("tests")


def test_the_wheels_metadata(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        (scripts,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        fields = Parser().parsestr(wheel.read(metadata).decode())
        assert "mlpk = mlpkernels_cli.main:main" in wheel.read(scripts).decode()
    from mlpkernels import __version__

    assert fields["Name"] == "mlpkernels" and fields["Version"] == __version__
    assert fields["License-Expression"] == "BSD-3-Clause" and fields["Requires-Python"] == ">=3.11"
    assert any(name.endswith("/LICENSE") for name in names)
    assert len(fields.get_payload()) > 500, "the README is the long description"


def test_the_source_distribution_builds_the_same(archives):
    """The wheel was made from it, so it holds what that needs; it should hold what the tests need, too."""
    with tarfile.open(archives[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", *NEEDED} <= names
    assert {name.replace("mlpkernels_cli/", "cli/") for name in modules()} <= names


def test_what_was_built_runs(archives, tmp_path):
    """Unpacked into an empty folder, with the tree out of sight."""
    zipfile.ZipFile(archives[0]).extractall(tmp_path)
    code = "import mlpkernels, mlpkernels_cli.main; from mlpkernels import datasets; "
    code += "print(mlpkernels.__file__, len(datasets.load().train))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, rows = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path) and int(rows) > 1000
