"""The rules of the source tree that a reader relies on: floors, sizes, names and what no file may do."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medmtl"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A floor of packages only: they do not see each other. A floor with single modules: each may import those to its left.
FLOORS = (
    ("errors", "spelling", "registry", "validation", "files", "folder_lock", "disk", "rng", "progress", "launched",
     "distributed", "freed_memory"),
    ("data", "losses", "metrics"),
    ("networks",),
    ("tasks", "sharing", "weighting"),
    ("sections", "cohort_list", "combinations", "nnunet", "config", "device", "planning", "model"),
    ("checking", "build", "checkpoint", "run_log", "run_place", "run_folder", "run_cohort"),
    ("inference",),
    ("evaluation",),
    ("training",),
    ("studies",),
    ("catalogue", "loaded", "api"),
    ("arguments", "console", "ending", "commands", "cli", "__init__", "__main__"),
)  # fmt: skip
FLOOR = {
    name: (floor, place if any((PACKAGE / f"{other}.py").is_file() for other in names) else 0)
    for floor, names in enumerate(FLOORS)
    for place, name in enumerate(names)
}

MAX_FILE = 400
MAX_FUNCTION = 50
VAGUE = {"base_utils", "common", "helper", "helpers", "misc", "tools", "util", "utils"}
# what would run code from a file, reach the network, or end the caller's program
FORBIDDEN_PACKAGES = {
    "cloudpickle", "dill", "ftplib", "http", "joblib", "marshal", "pickle", "requests", "runpy", "shelve", "smtplib",
    "tarfile", "zipfile",
}  # fmt: skip
FORBIDDEN_MODULES = {"importlib", "importlib.util", "urllib.request"}
FORBIDDEN_CALLS = {
    "__import__", "breakpoint", "compile", "eval", "exec", "exit", "input", "os._exit", "os.popen", "os.system",
    "print", "quit", "sys.exit", "torch.hub.load", "torch.load", "torch.save",
}  # fmt: skip
# entries that may stand for a reason, each with it
ALLOWED = {
    ("__init__.py", "importlib"): "lazy attributes, so that --help needs no torch",
    ("signals.py", "os._exit"): "a second Ctrl-C must end a program whose threads hang",
    ("__main__.py", "sys.exit"): "the program's exit code",
}
# files, and files of folders, that import where used: the program answers --help in 0.5 s, and extras may be absent
LAZY = {"__init__.py", "__main__.py", "commands"}
OPTIONAL = {"SimpleITK", "highdicom", "pydicom"}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit(module: str) -> str:
    """``tasks`` for ``medmtl.tasks.base``, ``__init__`` for ``medmtl`` itself."""
    return module.partition(".")[2].partition(".")[0] or "__init__"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Modules imported; ``from medmtl import x`` counts as ``medmtl.x``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "medmtl" or (ROOT / node.module.replace(".", "/")).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def walk_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, which only the type checker sees."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from walk_at_run_time(child)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, less the docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_a_module_imports_only_from_lower_floors_or_its_own_package(path: Path) -> None:
    own = unit(module_name(path))
    assert own in FLOOR, f"{own} has no floor; give it one here and in docs/architecture.md"
    for name in imports(walk_at_run_time(ast.parse(path.read_text()))):
        if name.partition(".")[0] == "medmtl" and unit(name) not in (own, "__version__"):
            assert FLOOR[unit(name)] < FLOOR[own], f"{short(path)} imports {name}, which is not below it"


def test_no_modules_import_each_other() -> None:
    known = {module_name(path): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        named = set(imports(walk_at_run_time(ast.parse(path.read_text()))))
        # a name of a module stands for the module
        graph[module] = {n if n in known else n.rpartition(".")[0] for n in named} & known.keys() - {module}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=short)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines < MAX_FILE
    lengths = {function.name: code_lines(function) for function in functions(ast.parse(text))}
    assert {name: length for name, length in lengths.items() if length >= MAX_FUNCTION} == {}


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_a_file_is_named_after_its_concept(path: Path) -> None:
    assert path.stem not in VAGUE
    assert path.parent.name not in VAGUE


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_nothing_runs_code_from_data_prints_or_exits(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {name for name in imports(ast.walk(tree)) if not name.startswith("medmtl")}
    found = {name for name in imported if name in FORBIDDEN_MODULES or name.partition(".")[0] in FORBIDDEN_PACKAGES}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found |= calls & FORBIDDEN_CALLS
    assert {name for name in found if (path.name, name) not in ALLOWED} == set()


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_imports_stand_at_the_top(path: Path) -> None:
    if LAZY & {path.name, path.parent.name}:
        return
    inside = {name.partition(".")[0] for f in functions(ast.parse(path.read_text())) for name in imports(ast.walk(f))}
    assert inside <= OPTIONAL


def test_the_top_level_of_the_package_is_the_list_of_floors() -> None:
    present = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert present <= FLOOR.keys()
    assert (PACKAGE / "py.typed").is_file()
