"""The micro-kernels compiled for another processor than this one: `python cross_compiled.py TARGET`.

Prints the assembly of every tile at every size as JSON, {"kernel.dtype.ROWSxCOLUMNS": lines}, and of kernels that have
one size {"kernel.dtype.0x0": lines}. A process of its own,
since modules choose their tile sizes by the processor when they are imported.
"""

import itertools
import json
import re
import sys
from typing import NamedTuple


class Target(NamedTuple):
    """A processor: LLVM's triple and name for it, the features that decide the tiles, and the vector in bytes."""

    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bytes: int


_LINUX = "x86_64-unknown-linux-gnu"
_AVX512 = ("avx512f", "avx512vl", "avx2", "fma")
TARGETS = {
    "AVX-512, Sapphire Rapids": Target(_LINUX, "sapphirerapids", _AVX512, 64),
    "AVX-512, Zen 4": Target(_LINUX, "znver4", _AVX512, 64),
    "AVX2, Haswell": Target(_LINUX, "haswell", ("avx2", "fma"), 32),
    "AVX2, Zen 3": Target(_LINUX, "znver3", ("avx2", "fma"), 32),
    "NEON, Neoverse N1": Target("aarch64-unknown-linux-gnu", "neoverse-n1", ("neon",), 16),
    "NEON, Apple M1": Target("arm64-apple-darwin", "apple-m1", ("neon",), 16),
}
# Every intrinsic that multiplies in a loop, by its module in kernels/cpu.
KERNELS = {
    "simd": ["tile"],
    "sparse_tiles": ["lit_rows", "lit_columns"],
    "conv_tiles": ["window_tile", "gradient_tile"],
    "single_tiles": ["row_tile", "lit_row_tile", "pixels_tile"],
}
# What the softmax cross-entropy consists of, in the order in which it runs.
LOSS = ["samples", "rows_to_lanes", "largest", "exponentials", "finish", "gradients", "lanes_to_rows"]
ONE_SIZE = {"loss_tiles": LOSS, "peak_tiles": ["squeeze"]}


class _Context:
    """What the emitters ask of Numba's context."""

    @staticmethod
    def get_dummy_value():
        return None


def _compile(target: Target) -> dict[str, list[str]]:
    import importlib

    import llvmlite.binding as llvm
    from llvmlite import ir
    from numba import types

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_host_cpu_features = lambda: llvm.FeatureMap(dict.fromkeys(target.features, True))
    llvm.get_default_triple = lambda: target.triple
    kinds = {
        types.intp: ir.IntType(64), types.int64: ir.IntType(64), types.boolean: ir.IntType(1),
        types.uint8: ir.IntType(8), types.int32: ir.IntType(32), types.float32: ir.FloatType(),
        types.float64: ir.DoubleType(),
    }  # fmt: skip

    def lowered(kind):
        return kinds[kind.dtype].as_pointer() if isinstance(kind, types.CPointer) else kinds[kind]

    simd = importlib.import_module("mlpkernels.kernels.cpu.simd")
    assert simd.FUSED and target.vector_bytes == simd.VECTOR_BYTES
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, opt=3, reloc="pic")
    found = {}
    for module, names in KERNELS.items():
        tiles = importlib.import_module(f"mlpkernels.kernels.cpu.{module}")
        for name in names:
            for dtype in (types.float32, types.float64):
                made = ir.Module()
                made.triple, made.data_layout = target.triple, str(machine.target_data)
                signature, codegen = _intrinsic(getattr(tiles, name), dtype)
                arguments = [lowered(kind) for kind in signature.args]
                kind = ir.FunctionType(ir.VoidType(), arguments)
                for rows, columns in _sizes(tiles, codegen, signature, kind):
                    one = ir.Function(made, kind, f"{name}.{dtype}.{rows}x{columns}")
                    _emit(tiles, codegen, signature, one, (rows, columns))
                found |= _functions(_optimised(llvm, made, machine))
    made = ir.Module()
    made.triple, made.data_layout = target.triple, str(machine.target_data)
    for module, names in ONE_SIZE.items():
        tiles = importlib.import_module(f"mlpkernels.kernels.cpu.{module}")
        for name, dtype in itertools.product(names, (types.float32, types.float64)):
            signature, codegen = _intrinsic(getattr(tiles, name), dtype)
            kind = ir.FunctionType(ir.VoidType(), [lowered(kind) for kind in signature.args])
            function = ir.Function(made, kind, f"{name}.{dtype}.0x0")
            builder = ir.IRBuilder(function.append_basic_block())
            codegen(_Context, builder, signature, function.args)
            builder.ret_void()
    return found | _functions(_optimised(llvm, made, machine))


def _intrinsic(intrinsic, dtype):
    """(signature, codegen) of an intrinsic whose arrays have that type."""
    import inspect

    from numba import types

    words = inspect.signature(intrinsic._defn).parameters
    return intrinsic._defn(None, *[types.CPointer(dtype)] * (len(words) - 1))


def _sizes(tiles, codegen, signature, kind):
    """The sizes among which the intrinsic chooses."""
    from llvmlite import ir

    sizes = []
    plain, tiles.switch = tiles.switch, lambda builder, rows, columns, these, emit: sizes.extend(these)
    builder = ir.IRBuilder(ir.Function(ir.Module(), kind, "unused").append_basic_block())
    codegen(_Context, builder, signature, builder.function.args)
    tiles.switch = plain
    return sizes


def _emit(tiles, codegen, signature, function, size):
    """The tile of one size alone as a function."""
    from llvmlite import ir

    plain, tiles.switch = tiles.switch, lambda builder, rows, columns, these, emit: emit(*size)
    builder = ir.IRBuilder(function.append_basic_block())
    codegen(_Context, builder, signature, function.args)
    builder.ret_void()
    tiles.switch = plain


def _optimised(llvm, made, machine) -> str:
    """The assembly after LLVM's passes at the level that Numba has them run at."""
    module = llvm.parse_assembly(str(made))
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module)


def _functions(assembly: str) -> dict[str, list[str]]:
    """{name: lines} of the functions; a leading underscore is Apple's."""
    found, lines = {}, []
    for line in assembly.splitlines():
        if match := re.match(r'"?_?(\w+\.\w+\.\d+x\d+)"?:', line):
            lines = found.setdefault(match[1], [])
        lines.append(line.strip())
    return found


if __name__ == "__main__":
    print(json.dumps(_compile(TARGETS[sys.argv[1]])))
