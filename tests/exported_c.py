"""Exported C source in tests: compiled by the system's compiler, run as a program or called through ctypes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlpkernels.export import write_c

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)] or [name for name in ["cc"] if shutil.which(name)]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow", "-Wdouble-promotion"]

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler here: gcc, clang or cc")


def compiled(folder: Path, *arguments: str, compiler: str | None = None) -> str:
    """Run the compiler in a folder with all warnings as errors; returns what it said."""
    done = subprocess.run(
        [compiler or COMPILERS[0], *STRICT, *arguments, "-lm"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[:3000]
    return done.stderr


def golden_run(folder: Path, name: str, *flags: str, compiler: str | None = None) -> subprocess.CompletedProcess[str]:
    """Build and run the program that checks golden vectors."""
    compiled(folder, *flags, "-DTEST", f"{name}.c", "-o", f"{name}-test", compiler=compiler)
    return subprocess.run([folder / f"{name}-test"], capture_output=True, text=True, timeout=60)


class Library:
    """A network's exported C, called through ctypes."""

    def __init__(self, network, folder: Path, name: str = "net", flags: tuple[str, ...] = ("-O1",)) -> None:
        write_c(network, folder, name)
        compiled(folder, *flags, "-shared", "-fPIC", f"{name}.c", "-o", f"lib{name}.so")
        self.functions = ctypes.CDLL(str(folder / f"lib{name}.so"))
        self.name, self.dtype = name, network.dtype
        header = (folder / f"{name}.h").read_text()
        words = [line.split() for line in header.splitlines() if line.startswith("#define") and len(line.split()) == 3]
        self.sizes = {word.removeprefix(f"{name.upper()}_"): int(size) for _, word, size in words}
        self.scratch = np.full(self.sizes["SCRATCH"] + 1, np.nan, self.dtype)  # one more, which it must not touch

    def call(self, verb: str, x: np.ndarray, *out: np.ndarray) -> int:
        """name_verb(x, scratch, out) of one sample."""
        x = np.ascontiguousarray(x, self.dtype).reshape(-1)
        assert x.size == self.sizes["INPUTS"]
        function = getattr(self.functions, f"{self.name}_{verb}")
        result = function(*(array.ctypes.data_as(ctypes.c_void_p) for array in (x, self.scratch, *out)))
        assert np.isnan(self.scratch[-1])
        return result

    def rows(self, verb: str, x: np.ndarray, width: int, dtype=None) -> np.ndarray:
        """What the verb writes for each row (N, width)."""
        out = np.zeros((len(x), width), dtype or self.dtype)
        for row, values in zip(x, out, strict=True):
            self.call(verb, row, values)
        return out

    def classes(self) -> list[str]:
        """The class names."""
        names = (ctypes.c_char_p * self.sizes["CLASSES"]).in_dll(self.functions, f"{self.name}_classes")
        return [name.decode("utf-8", "surrogatepass") for name in names]
