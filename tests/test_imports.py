"""Who may import whom: read off the import statements, and off what a fresh process has loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlpkernels

PACKAGE = Path(mlpkernels.__file__).parent
CLI = PACKAGE.parent / "cli"

# From the top down: a room may import those below it, and within it modules may import one another without a circle.
ROOMS = {
    "cli": ["mlpkernels_cli"],
    "experiments": ["experiments", "bench"],
    "plots": [
        "plots",
        "gallery",
        "data_figures",
        "table_figures",
        "tiles",
        "figure_inputs",
        "drawing",
        "sweep_plots",
        "sweep_heat",
        "sweep_scale",
    ],
    "training": ["training", "run", "sweep", "sweep_results", "sklearn"],
    "exchange": ["export", "foreign"],
    "network": ["network", "checkpoint", "datasets", "state"],
    "layers": [
        "layers",
        "initial",
        "tensors",
        "checks",
        "optimizers",
        "metrics",
        "scaling",
        "schedules",
        "arrays",
        "seeds",
        "pace",
        "workspaces",
        "compiled",
        "capi",
        "losses",
    ],
    "kernels": ["kernels"],
    "ground": ["errors", "files", "affinity"],
}
LEVEL = {module: level for level, modules in enumerate(ROOMS.values()) for module in modules}
OUTSIDE = {"cli", "mlpkernels_cli", "click", "rich", "tomli_w"}  # the command line's alone


def modules(folder, package):
    """{dotted name: path} of every module below a folder."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


LIBRARY = modules(PACKAGE, "mlpkernels")


def checking(node):
    """Whether this is `if TYPE_CHECKING:`, which imports nothing."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree, inside=True):
    """Every import statement, those in functions too if wanted, without those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not checking(node) and (inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            yield from statements(node, inside)


def imported(name, path, known, inside=True):
    """The modules that a module imports: full dotted names, down to modules of ours where they are ours."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), inside):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in known else base


def room(name):
    """The module just below the package: the unit that has a place in ROOMS."""
    return name.split(".")[1] if "." in name else None


@pytest.fixture(scope="module")
def graph():
    """{module of the library: the modules it imports, anywhere in it}"""
    return {name: set(imported(name, path, LIBRARY)) for name, path in LIBRARY.items()}


def test_every_module_has_its_room():
    found = {room(name) for name in LIBRARY} - {None}
    assert found == set(LEVEL) - {"mlpkernels_cli"}, "tests/test_imports.py: ROOMS says where each module belongs"


def test_imports_point_down(graph):
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if room(name) and other.startswith("mlpkernels.") and LEVEL[room(other)] < LEVEL[room(name)]
    ]
    assert not wrong


def test_no_module_needs_the_package_that_holds_it(graph):
    """`from mlpkernels import x` within it would look the name up in the list of public names."""
    assert [name for name, others in graph.items() if "mlpkernels" in others] == []


def test_modules_import_one_another_in_no_circle():
    """At import time, that is: between statements outside of functions."""
    below = {
        name: {other for other in imported(name, path, LIBRARY, inside=False) if other in LIBRARY}
        for name, path in LIBRARY.items()
    }
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for other in sorted(below[name]):
                visit(other)
            path.pop()
            done.add(name)

    for name in below:
        visit(name)


def test_the_library_knows_nothing_of_the_command_line(graph):
    wrong = {name: bad for name, others in graph.items() if (bad := {o.split(".")[0] for o in others} & OUTSIDE)}
    assert not wrong


def test_backends_never_import_one_another(graph):
    backends = ["reference", "cpu", "cuda"]
    for name, others in graph.items():
        for ours in backends:
            if name.startswith(f"mlpkernels.kernels.{ours}"):
                strange = [f"mlpkernels.kernels.{other}" for other in backends if other != ours]
                assert not [other for other in others if other.startswith(tuple(strange))], name


def test_only_the_compiled_backends_import_numba(graph):
    cuda = [f"mlpkernels.kernels.cuda.{name}" for name in ("driver", "residency", "simulator", "vectors")]
    for name, others in graph.items():
        if {other.split(".")[0] for other in others} & {"numba", "llvmlite", "numba_cuda_mlir"}:
            assert name.startswith("mlpkernels.kernels.cpu") or name in cuda, name


def test_matplotlib_is_imported_inside_functions():
    for name, path in LIBRARY.items():
        outside = {other.split(".")[0] for other in imported(name, path, LIBRARY, inside=False)}
        assert "matplotlib" not in outside, name


def test_the_command_line_uses_what_the_library_has():
    known = {**LIBRARY, **modules(CLI, "mlpkernels_cli")}
    for name, path in modules(CLI, "mlpkernels_cli").items():
        for other in imported(name, path, known):
            if other.split(".")[0] in ("mlpkernels", "mlpkernels_cli"):
                assert other in known, f"{name} imports {other}"


# ---- what is loaded


def loaded(code):
    """The top-level packages that a fresh process has loaded after some code."""
    script = f"{code}\nimport sys\nprint('LOADED', *{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


HELP = """
import sys
sys.argv = ["mlpk", *{arguments!r}]
try:
    from mlpkernels_cli.main import main
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""


def test_importing_the_library_is_light():
    assert not loaded("import mlpkernels") & {"numba", "llvmlite", "matplotlib", "PIL", "scipy", "sklearn", *OUTSIDE}


def test_scikit_learn_is_imported_by_its_room_alone():
    for name, path in LIBRARY.items():
        outside = {other.split(".")[0] for other in imported(name, path, LIBRARY, inside=False)}
        assert "sklearn" not in outside or name.startswith("mlpkernels.sklearn"), name


def test_defining_a_network_needs_no_compiler():
    code = "from mlpkernels import *\nNetwork([Dense(3, 'relu'), Dense(2)], 4).summary()"
    assert not loaded(code) & {"numba", "llvmlite", "matplotlib", *OUTSIDE}


def test_help_imports_neither_numba_nor_matplotlib():
    for arguments in ([], ["train"], ["plot"], ["doctor"], ["warmup"]):
        found = loaded(HELP.format(arguments=[*arguments, "--help"]))
        assert "click" in found and not found & {"numba", "llvmlite", "matplotlib", "scipy"}, arguments


def test_python_m_runs_the_command_line():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlpkernels_cli", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "train" in done.stdout
    names = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in names and not names & {"numba", "matplotlib"}
