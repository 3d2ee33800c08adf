"""How every function here is compiled: without the GIL, without bounds checks, division as NumPy does it.

No fastmath: it would let the compiler assume that there is no NaN and reorder sums that reach a parameter.
error_model="numpy" leaves out division checks, without which a loop that divides does not vectorise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


class _Part(JITCodeLibrary):
    """The code of a function that compiled code alone calls, as it was lowered: no machine code is made of it.

    Numba optimises and translates every function by itself, with all that it calls, once more in each of its callers.
    What runs is the copy in the outermost one, an entry point, in which the optimiser sees all of it at once. Without
    the others image_layers takes 0.7 of the time to compile, convolve 0.6, params_phase 0.8; the code is as fast.
    """

    @property
    def codegen(self) -> Any:
        return _NoPlace(super().codegen)

    def _optimize_functions(self, ll_module: Any) -> None:
        pass

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0  # it is nowhere


class _NoPlace:
    """A code generator in which a function's environment, for what it asks of Python, has no place."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, env_name: str, env: Any) -> None:
        pass


class _PartCompiler(Compiler):
    def compile_extra(self, func: Callable[..., Any]) -> Any:
        self.state.library = _Part(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


# For what compiled code alone calls. Called from Python, such a function ends the process.
_PART: dict[str, Any] = {"pipeline_class": _PartCompiler, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner: Any = njit(**OPTIONS | _PART)

# A literal argument is a type of its own, and with it another copy of the callee to compile: numbers that are passed on
# have a type. It took all tiles of images twice, 8 of 24 s.
ZERO, ONE = np.int64(0), np.int64(1)

# For what is called in one place, in every step: a call passes each array as seven arguments, 0.1 µs for a few of them.
inlined: Any = njit(inline="always", **OPTIONS)
