"""Who may import whom: the layers of the package, read from its source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import polybeast_moe

PACKAGE = Path(polybeast_moe.__file__).parent
ROOT = PACKAGE.parent

# From the top down. A module imports from its own layer or from those below.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"doctor", "trainer", "follower", "telemetry", "resuming", "scaling", "evaluation", "run_directory"},
    {"runtime", "learning", "snapshots", "monitoring", "control"},
    {"models"},
    {"ops", "graph", "envs"},
    {"config", "config_files", "errors", "files", "import_paths", "yaml_text", "_C", ""},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
PURE = (
    "models",
    "ops",
    "scaling",
    "envs.scenes",
    "evaluation.score",
    "evaluation.specialisation",
    "evaluation.statistics",
    "graph.coverage",
    "graph.schema",
    "learning.guards",
    "learning.holds",
    "learning.losses",
    "learning.objective",
    "learning.live_changes",
    "learning.phases",
    "learning.schedules",
    "learning.temperature",
    "learning.usage",
)
IMPURE = {"subprocess", "multiprocessing", "threading", "signal", "socket", "time", "datetime", "random", "tempfile"}
IMPURE |= {"shutil", "pathlib", "io", "psutil", "logging", "fcntl", "mmap"}


def modules() -> dict[str, Path]:
    """Names without the package's own, `""` for the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, types_too: bool = True) -> Iterator[str]:
    """Every module imported anywhere in `tree`, in full; `from a import b` gives `a.b`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif types_too or not (isinstance(node, ast.If) and is_for_types(node.test)):
            yield from imports(node, types_too)


def summary(path: Path) -> str:
    """What a module says of itself."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def ours(name: str, types_too: bool = True) -> set[str]:
    """The package's modules that module `name` imports."""
    found = set()
    for imported in imports(ast.parse(MODULES[name].read_text()), types_too):
        if imported == "polybeast_moe" or imported.startswith("polybeast_moe."):
            inner = imported.removeprefix("polybeast_moe").removeprefix(".")
            while inner not in MODULES and inner != "_C" and "." in inner:
                inner = inner.rpartition(".")[0]
            found.add(inner if inner in MODULES or inner == "_C" else "")
    return found - {name}


def part(name: str) -> str:
    return name.partition(".")[0]


def is_pure(name: str) -> bool:
    return any(name == pure or name.startswith(f"{pure}.") for pure in PURE)


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    assert {part(name) for name in MODULES} | {"_C"} == set(RANK)


def test_whoever_says_to_be_pure_is_held_to_it() -> None:
    says = {name for name, path in MODULES.items() if re.search(r"\b[Pp]ure\b", summary(path))}
    assert {name for name in says if not is_pure(name)} == set()
    assert {pure for pure in PURE if pure not in MODULES} == set()


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downward(name: str) -> None:
    for imported in ours(name):
        assert RANK[part(imported)] >= RANK[part(name)], f"{name or 'the package'} imports {imported}"


def test_contributing_draws_these_layers() -> None:
    drawn = re.search(r"```\n(__main__\n.+?)\n```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert drawn is not None
    names = drawn[1].replace("the package itself", "")
    assert tuple(set(layer.split(", ")) for layer in names.split("\n")) == LAYERS


def test_no_module_imports_itself_over_others() -> None:
    try:
        TopologicalSorter({name: ours(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_part_imports_itself_over_others() -> None:
    parts: dict[str, set[str]] = {}
    for name in MODULES:
        parts.setdefault(part(name), set()).update(part(imported) for imported in ours(name, types_too=False))
    try:
        TopologicalSorter({name: imported - {name} for name, imported in parts.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", [name for name in MODULES if is_pure(name)])
def test_pure_modules_know_no_processes_files_or_clocks(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    assert not {part(imported) for imported in imports(tree)} & IMPURE
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("module", ["polybeast_moe", "polybeast_moe.cli", "polybeast_moe.snapshots"])
def test_importing_costs_no_heavy_library(module: str) -> None:
    heavy = "torch", "nle", "numba", "matplotlib", "tensorboard", "rich"
    script = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_only_the_command_line_and_child_processes_read_arguments() -> None:
    readers = {name for name, path in MODULES.items() if re.search(r"\bargv\b|argparse", path.read_text())}
    assert readers <= {"cli", "runtime.policy_worker", "evaluation.held_out"}


def test_only_the_distributed_learner_reads_the_launchers_variables() -> None:
    variables = re.compile(r"[\"'](RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR)[\"']")
    readers = {name for name, path in MODULES.items() if variables.search(path.read_text())}
    assert readers <= {"learning.distributed"}


def test_only_the_bindings_know_python() -> None:
    sources = [*(ROOT / "csrc").rglob("*.cc"), *(ROOT / "csrc").rglob("*.h")]
    assert len(sources) > 10
    users = {path.name for path in sources if re.search(r"#include\s*[<\"](pybind11|Python\.h)", path.read_text())}
    assert users == {path.name for path in (ROOT / "csrc").glob("bindings*.cc")}


def test_native_headers_point_downward() -> None:
    """actor, envs -> shm -> nethack; the game itself knows nothing of rollouts or environments."""
    rank = {"actor": 0, "envs": 0, "shm": 1, "nethack": 2}
    for path in [*(ROOT / "csrc").rglob("*.cc"), *(ROOT / "csrc").rglob("*.h")]:
        folder = path.parent.name
        for included in re.findall(r'#include "(\w+)/', path.read_text()):
            if folder in rank:
                assert rank[included] >= rank[folder], f"{path} includes {included}"
