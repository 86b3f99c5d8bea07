import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import unilens

HEAVY = ("matplotlib", "torchvision", "timm", "PIL", "skimage", "rich", "typer", "captum")
FLOORS = (
    {"errors"},
    {"outputs"},
    {"_validation"},
    {"provenance", "registry", "_ops"},
    {"_catalogue", "_engine", "quadrature"},
    {"manifold"},
    {"diagnostics", "groups", "models", "scores"},
    {"attribution", "baselines"},
    {"multi_input", "output", "paths"},
    {"output_scores"},
    {"explainer", "weightings"},
    {"path_attribution"},
    {"methods"},
    {"interop", "metrics", "specs", "tables", "text"},
    {"app", "benchmark"},
    {"__init__"},
    {"cli"},
)
"""Packages and modules at the root, from the ground up: imports go down, or stay in one package."""
ROOT = Path(unilens.__file__).parent


def imports_of(file):
    """Yield the files inside unilens that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        if folder.with_suffix(".py").is_file():
            yield folder.with_suffix(".py")
            continue
        modules = [folder / f"{alias.name}.py" for alias in node.names]
        packages = [folder / alias.name / "__init__.py" for alias in node.names]
        found = [path for path in (*modules, *packages) if path.is_file()]
        yield from found or [folder / "__init__.py"]


def test_imports_go_one_way():
    floor_of = {name: number for number, names in enumerate(FLOORS) for name in names}
    up = []
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).with_suffix("").parts[0]
        for imported in imports_of(file):
            other = imported.relative_to(ROOT).with_suffix("").parts[0]
            if other != room and floor_of[other] >= floor_of[room]:
                up.append(f"{file.relative_to(ROOT)} imports {imported.relative_to(ROOT)}")
    assert up == []


def test_no_two_files_import_each_other():
    graph = {
        file: {other for other in imports_of(file) if other.name != "__init__.py"}
        for file in ROOT.rglob("*.py")
        if file.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_at_most_twelve_modules_at_the_root():
    assert len(list(ROOT.glob("*.py"))) <= 12


def test_the_core_loads_nothing_that_it_does_not_need():
    code = (
        "import sys, unilens, unilens.diagnostics; "
        f"came = [name for name in {HEAVY} if name in sys.modules]; "
        "sys.exit(', '.join(came) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
