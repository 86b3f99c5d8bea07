"""Everything that is imported is declared where it is needed, and everything declared is used."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "unilens"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
CORE = {"jinja2", "numpy", "psutil", "safetensors", "torch"}
"""What is declared of the core, by import name; torch's own needs come with it."""
WITH_AN_EXTRA = {
    "app": ("app/",),
    "compare": ("interop/captum/",),
    "benchmark": ("benchmark/",),
}
"""Modules that may import what only their extra brings, as soon as they are loaded."""
WITH_ANOTHER = {
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "gradio"),
    "huggingface_hub": "datasets",
    "joblib": "sklearn",
    "markupsafe": "jinja2",
}
"""What comes with a declared package that is its framework, and has to be of its version."""
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def distribution_name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def declared(requirements: list[str]) -> set[str]:
    return {distribution_name(one) for one in requirements} - {"unilens"}


BASE = declared(PROJECT["dependencies"])
IMPORT_NAMES: dict[str, set[str]] = {}
for _module, _distributions in metadata.packages_distributions().items():
    for _distribution in _distributions:
        IMPORT_NAMES.setdefault(_distribution.lower().replace("_", "-"), set()).add(_module)


def distributions_of(module: str) -> set[str]:
    module = WITH_ANOTHER.get(module, module)
    return {name for name, modules in IMPORT_NAMES.items() if module in modules}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield every imported top-level module that is not Python's own, and whether at once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {
        node
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            module = name.partition(".")[0]
            if module not in sys.stdlib_module_names and module != "unilens":
                yield module, node not in later


def with_extra(path: Path) -> set[str]:
    """Return what is installed when a module is loaded."""
    place = path.relative_to(SOURCE).as_posix()
    extras = [name for name, places in WITH_AN_EXTRA.items() if place.startswith(places)]
    return BASE.union(*(declared(OPTIONAL[name]) for name in extras))


def test_everything_imported_is_declared_where_it_is_needed():
    anywhere = BASE.union(*(declared(OPTIONAL[name]) for name in OPTIONAL if name != "test"))
    undeclared = [
        f"{path.relative_to(SOURCE)}: {module}"
        for path in SOURCE.rglob("*.py")
        for module, at_once in imports(path)
        if not distributions_of(module) & (with_extra(path) if at_once else anywhere)
    ]
    assert undeclared == []


@pytest.mark.parametrize("name", ["dependencies", *sorted(set(OPTIONAL) - {"all", "docs", "test"})])
def test_everything_declared_is_used(name):
    group = PROJECT["dependencies"] if name == "dependencies" else OPTIONAL[name]
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    named = {module for path in SOURCE.rglob("*.py") for module, _ in imports(path)}
    imported = named | {WITH_ANOTHER.get(module, module) for module in named}
    for distribution in declared(group):
        modules = IMPORT_NAMES.get(distribution, set())
        assert modules, f"{distribution} is not installed"
        names = {re.sub(r"(?<=lite)\d", "{number}", one) for one in modules}
        by_name = any(f'"{one}' in text for one in modules | names)  # import_module
        assert modules & imported or by_name, distribution


def blocked_by(kept: set[str]) -> str:
    """Return code that makes every declared package but those kept as good as not installed."""
    groups = [PROJECT["dependencies"], *OPTIONAL.values()]
    names = set().union(*(IMPORT_NAMES.get(one, set()) for g in groups for one in declared(g)))
    own = {"torch", "torchgen", "functorch", "numpy", "filelock", "fsspec"}  # torch's
    own.add("hypothesis")  # torch looks whether it is there
    return BLOCK.format(blocked=names - kept - own)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_the_core_works_with_its_own_dependencies_alone():
    done = python(
        blocked_by(CORE)
        + "import torch, unilens\n"
        + "model = torch.nn.Sequential(torch.nn.Linear(6, 3)).eval()\n"
        + "maps = unilens.explain(model, torch.rand(2, 6), 'uni', budget=0.5)\n"
        + "print(unilens.evaluate(model, torch.rand(2, 6), maps.values, target=0).shape)\n"
        + "assert '<div' in maps._repr_html_()"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2])"


def test_a_command_without_its_extra_says_so_in_one_line():
    extra = set().union(*(IMPORT_NAMES[one] for one in declared(OPTIONAL["benchmark"])))
    shared = {"scipy", "filelock", "fsspec", "pydantic"}  # of scikit-image, torch and typer
    code = BLOCK.format(blocked=extra - shared) + "from unilens.cli import main; main()"
    done = python(code, "query", "run", "SELECT 1", "--csv")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: unilens query needs \w+; run: pip install 'unilens\[benchmark\]'\n",
        done.stderr,
    )
    listed = python(code, "list", "samples")
    assert listed.returncode == 0, listed.stderr
    assert "chelsea" in listed.stdout


def test_importing_takes_little_longer_than_torch():
    code = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); "
        "import unilens; unilens.explain; print((time.perf_counter() - a) / (b - a))"
    )
    assert min(float(python(code).stdout) for _ in range(4)) <= 1.3


def test_the_package_says_that_it_is_typed():
    assert (SOURCE / "py.typed").exists()
    assert "Typing :: Typed" in PROJECT["classifiers"]


PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
REQUIREMENTS = {one for group in (PROJECT["dependencies"], *OPTIONAL.values()) for one in group}
REQUIREMENTS = {one for one in REQUIREMENTS if not one.startswith("unilens")}


@pytest.mark.parametrize("requirement", sorted(REQUIREMENTS))
def test_the_page_of_licences_names_every_declared_package(requirement):
    name, _, bound = requirement.partition(">=")
    line = rf"^\| `{re.escape(name)}` \| (.*) \| (.*) \| (.+) \|$"
    (row,) = re.findall(line, PAGE, re.MULTILINE)
    needed = [group for group, names in OPTIONAL.items() if requirement in names]
    assert row[0] == bound
    assert row[1].split(", ") == ["unilens"] * (requirement in PROJECT["dependencies"]) + needed
    assert row[2].strip(" .-") not in ("", "UNKNOWN")


def test_bounds_of_torch_are_those_of_the_job_that_installs_the_oldest():
    """Below 2.6 `weights_only` could be deceived (CVE-2025-32434)."""
    bounds = dict(one.split(">=") for one in PROJECT["dependencies"])
    assert tuple(map(int, bounds["torch"].split("."))) >= (2, 6)
    lines = (ROOT / ".github" / "oldest.txt").read_text().splitlines()
    assert lines == [f"{name}=={bounds[name]}.*" for name in ("torch", "torchvision")]
