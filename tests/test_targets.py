"""The micro-kernels' assembly on other processors, by cross-compiling: full-width vectors, none spilled, no calls."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cross_compiled import KERNELS, LOSS, TARGETS

# What a multiply-add writes: AT&T's last operand; of ARM the first, or Apple's way of writing it.
PRODUCTS = {
    64: r"vfmadd\d+p[sd]\s.*%zmm\d+$",
    32: r"vfmadd\d+p[sd]\s.*%ymm\d+$",
    16: r"fmla(?:\.(?:4s|2d)\s+v\d+|\s+v\d+\.(?:4s|2d)),",
}
FMA = r"(?:vfmadd|fmla)"
# Tiles that keep few sums going or none: a gradient's bias is added up, with no product in it.
WITHOUT_PRODUCT = re.compile(r"gradient_tile\.\w+\.\dx0")


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request):
    """(target, {kernel: lines of assembly}); skipped where LLVM was built without that processor."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    target = TARGETS[request.param]
    try:
        llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        pytest.skip(f"this llvmlite has no {target.triple}: {error}")
    script = Path(__file__).with_name("cross_compiled.py")
    words = [sys.executable, script, request.param]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return target, json.loads(done.stdout)


def inner_loops(lines):
    """The instructions of every loop that is one block: from a label to the jump back to it."""
    label, block = None, []
    for line in lines:
        if match := re.match(r"(\.?L\w+):", line):
            label, block = match[1], []
        elif line and line[0] not in ".#;/":
            block.append(line)
            if label and re.match(r"(?:j\w+|b\.\w+|cbn?z|tbn?z)\s", line) and line.endswith(label):
                yield list(block)


def on_stack(lines):
    """A pattern of operands that lie on the function's stack: by rsp or sp, by the frame pointer where there is one."""
    text = "\n".join(lines)
    frames = [r"\(%rsp\b", r"\[sp\b"]
    frames += [r"\(%rbp\b"] * bool(re.search(r"movq\s+%rsp, %rbp", text))
    frames += [r"\[x29\b"] * bool(re.search(r"(?:mov|add)\s+x29, sp", text))
    return re.compile("|".join(frames))


def vector_stack_accesses(loop, stack):
    """The instructions of a loop that move vectors to or from the stack: what did not fit the registers."""
    return [line for line in loop if stack.search(line) and re.search(r"%[xyz]mm|\s[qdv]\d", line)]


def test_every_kernel_was_compiled_at_every_size(compiled):
    _, found = compiled
    for name in (name for names in KERNELS.values() for name in names):
        for dtype in ("float32", "float64"):
            assert sum(each.startswith(f"{name}.{dtype}.") for each in found) >= 4


def test_the_inner_loops_are_full_vectors_of_fused_multiply_adds(compiled):
    target, found = compiled
    full = re.compile(PRODUCTS[target.vector_bytes])
    for name, lines in found.items():
        if WITHOUT_PRODUCT.fullmatch(name) or name.endswith(".0x0"):
            continue
        rows, columns = map(int, name.rpartition(".")[2].split("x"))
        sums = max(rows, 1) * columns
        products = [[line for line in loop if re.match(FMA, line)] for loop in inner_loops(lines)]
        products = [each for each in products if each]
        assert products, f"{name}: no loop multiplies"
        for each in products:
            assert len(each) % sums == 0, f"{name}: {len(each)} multiply-adds in a loop of {sums} sums"
            assert not [line for line in each if not full.match(line)], name


def test_the_loss_is_full_vectors_and_calls_nothing(compiled):
    """Its exponentials and logarithms, too: one call of the C library takes as long as all else of a row."""
    target, found = compiled
    register = {64: r"%zmm\d", 32: r"%ymm\d", 16: r"v\d+\.(?:4s|2d)|\.(?:4s|2d)\s"}[target.vector_bytes]
    for name in LOSS:
        for dtype in ("float32", "float64"):
            lines = found[f"{name}.{dtype}.0x0"]
            assert not [line for line in lines if re.match(r"(?:callq?|blr?)\s", line)], (name, dtype)
            if name in ("largest", "exponentials", "gradients"):
                loops = list(inner_loops(lines))
                assert len(loops) == 1 and re.search(register, "\n".join(loops[0])), (name, dtype, loops)


def test_a_list_without_its_zeros_does_not_go_by_the_stack(compiled):
    """Written there an element at a time and read as a vector, it took a fifth of a small network's epoch."""
    target, found = compiled
    order = {64: r"vpcompress[dq]\s", 32: r"vpermd\s|vpermps\s", 16: r"tbl(?:\.16b)?\s"}[target.vector_bytes]
    for dtype in ("float32", "float64"):
        lines = found[f"squeeze.{dtype}.0x0"]
        assert len([line for line in lines if re.match(order, line)]) == 2, (dtype, lines)
        assert not vector_stack_accesses(lines, on_stack(lines)), (dtype, lines)


def test_no_vector_is_spilled_in_the_inner_loops(compiled):
    """Nor read from there; but the exponential's constants, more than 16 registers hold, may be."""
    _, found = compiled
    found = {name: lines for name, lines in found.items() if not name.startswith("exponentials.")}
    spilled = {
        name: lines_of
        for name, lines in found.items()
        if (lines_of := [line for loop in inner_loops(lines) for line in vector_stack_accesses(loop, on_stack(lines))])
    }
    assert not spilled, {name: len(lines) for name, lines in spilled.items()}


def test_a_spill_would_be_seen():
    """The reader itself, on assembly with one."""
    x86 = [
        "tile:", "movq\t%rsp, %rbp", ".LBB0_1:", "vmovaps\t%zmm3, 64(%rsp)", "vfmadd231ps\t(%rax){1to16}, %zmm1, %zmm2",
        "jne\t.LBB0_1", "vmovaps\t%zmm3, (%rsp)",
    ]  # fmt: skip
    arm = ["tile:", ".LBB0_1:", "ldr\tq3, [sp, #16]", "fmla\tv1.4s, v2.4s, v3.s[0]", "b.ne\t.LBB0_1"]
    for lines, spill in ((x86, x86[3]), (arm, arm[2])):
        (loop,) = inner_loops(lines)
        assert vector_stack_accesses(loop, on_stack(lines)) == [spill]
    assert not vector_stack_accesses(["vmovups\t(%rbp,%rax), %zmm0"], on_stack(["vmovups\t(%rbp,%rax), %zmm0"]))
