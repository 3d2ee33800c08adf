"""Whether the tests of the CUDA backend run in this process: under the simulator, or on a GPU where that is asked for.

The simulator replaces the package for a whole process, so tests/test_cuda.py starts one of its own with
NUMBA_ENABLE_CUDASIM=1; MLPK_TEST_CUDA=gpu runs the same files on a device, at the sizes of the other backends.
"""

import os

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
ON_A_GPU = os.environ.get("MLPK_TEST_CUDA") == "gpu"

if not (SIMULATED or ON_A_GPU):
    pytest.skip("runs in a process with NUMBA_ENABLE_CUDASIM=1: see tests/test_cuda.py", allow_module_level=True)

# Numbers that overflow warn in Python; on a GPU nothing does.
quiet = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
