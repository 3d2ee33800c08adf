"""Compiles every kernel of the CUDA backend to PTX without a GPU, and asks ptxas what each takes.

python cuda_ptx.py CC[:WORD] …: {CC: {kernel: figures}} of those with that word, as JSON on the standard output, for
the package MLPK_CUDA_PACKAGE. Public ops and verbs are called with what they launch recorded instead of run, so that
the types are those of real calls; the package is told the device's compute capability, since there is no device to ask.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

_FIGURES = {
    "registers": r"Used (\d+) registers",
    "stack": r"(\d+) bytes stack frame",
    "spill_stores": r"(\d+) bytes spill stores",
    "spill_loads": r"(\d+) bytes spill loads",
}


def ptxas():
    """The assembler beside the installed compiler, or the one on the path; None where there is none."""
    for folder in map(Path, sys.path):
        for found in sorted(folder.glob("nvidia/*/bin/ptxas")) + sorted(folder.glob("nvidia/*/*/bin/ptxas")):
            return str(found)
    return shutil.which("ptxas")


def pretend(driver, cc):
    """Have the package compile for compute capabilities, the first of them cc, without a device and no more than once.

    numba-cuda takes two thirds of its time before it knows the capability; numba-cuda-mlir links what it has compiled,
    which is left to ptxas here.
    """
    if driver.PACKAGE == "numba-cuda-mlir":
        from numba_cuda_mlir import tools
        from numba_cuda_mlir.numba_cuda.cudadrv.driver import _Linker

        tools._cached_cc = cc
        _Linker.complete = lambda linker: types.SimpleNamespace(code=b"")
    else:
        import numba.cuda.compiler as compiler
        import numba.cuda.dispatcher as dispatcher

        dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=cc)
        made, plain = {}, compiler._compile_pyfunc_with_fixup

        def once(function, signature, **options):
            if (function, signature) not in made:
                made[function, signature] = plain(function, signature, **options)
            return made[function, signature]

        compiler._compile_pyfunc_with_fixup = once


class HostArray(np.ndarray):
    """Stands in for a device array: kernels are never run on it."""

    def copy_to_host(self, ary=None, stream=0):
        return -np.ones_like(np.asarray(self)) if ary is None else ary

    def copy_to_device(self, ary, stream=0):
        pass


def record():
    """{name: (kernel, arguments)} of everything that ops and verbs launch."""
    from mlpkernels.kernels.cuda import driver

    launches = {}

    def launch(kernel, blocks, threads, stream, *arguments):
        name = f"{kernel.__name__} {np.dtype(_floating(arguments)).name} of {threads}"
        launches.setdefault(name, (kernel, arguments))

    driver.launch = launch
    driver._taken.ready = True
    driver.device_count = lambda: 1
    driver.cuda.get_current_device = lambda: types.SimpleNamespace(MULTIPROCESSOR_COUNT=132, COOPERATIVE_LAUNCH=1)
    driver.cuda.to_device = lambda array, stream=0: np.array(array).view(HostArray)
    driver.cuda.device_array = lambda size, dtype, stream=0: np.zeros(size, dtype).view(HostArray)
    driver.cuda.synchronize = lambda: None

    from cuda_calls import every_call

    every_call()
    return launches


def _floating(arguments):
    kinds = [a.dtype for a in arguments if isinstance(a, (np.ndarray, np.floating)) and a.dtype.kind == "f"]
    return kinds[0]


def figures(kernel, arguments, driver, cc, assembler):
    """What ptxas says of a kernel for these arguments."""
    if driver.PACKAGE == "numba-cuda-mlir":
        from numba_cuda_mlir.numba_cuda.typing.typeof import typeof
    else:
        from numba import typeof
    signature = tuple(typeof(np.asarray(a) if isinstance(a, np.ndarray) else a) for a in arguments)
    text, _ = driver.cuda.compile_ptx(kernel.py_func, signature, cc=cc)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(text)
        command = [assembler, f"-arch=sm_{cc[0]}{cc[1]}", "-c", "-v", "-o", os.devnull, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = done.stderr.rpartition("Compiling entry function")[2]
    found = {name: int(match[1]) if (match := re.search(pattern, entry)) else 0 for name, pattern in _FIGURES.items()}
    # relocatable code, which a grid barrier needs, leaves the sum of these to the linker
    found["shared"] = sum(map(int, re.findall(r"\.shared \S+ \d+ \.b8 \w+\[(\d+)\]", text)))
    found["vector_loads"] = len(re.findall(r"\bld\.shared\.v[24]\.", text))
    found["global_vector_loads"] = len(re.findall(r"\bld\.global\.v[24]\.", text))
    found["multiply_adds"] = len(re.findall(r"\bfma\.rn\.", text))
    return found


def main(*wanted):
    from mlpkernels.kernels.cuda import driver

    words = {tuple(map(int, cc.split("."))): word for cc, _, word in (text.partition(":") for text in wanted)}
    pretend(driver, next(iter(words)))
    launches, assembler = sorted(record().items()), ptxas()
    tables = {
        f"{cc[0]}.{cc[1]}": {name: figures(*what, driver, cc, assembler) for name, what in launches if word in name}
        for cc, word in words.items()
    }
    print(json.dumps(tables))


if __name__ == "__main__":
    main(*sys.argv[1:])
