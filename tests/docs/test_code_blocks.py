"""Every block of code of the README and the pages runs, as it stands, or says why it does not.

A block that cannot run here has the title "Not run by the tests: REASON", which readers see too. A
block whose title is a file's name is written to that file first.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import unilens
from unilens.models import samples

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = "Not run by the tests: "
FENCE = re.compile(
    r'^```(?:(\w+)(?: title="([^"]+)")?)?[^\S\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
LEFT_OUT = {"README.md": 2, "app.md": 2, "controls.md": 1, "manifold.md": 1, "start.md": 1}
"""How many blocks of a page do not run."""
ELSEWHERE = {"README.md"}
"""Pages whose Python runs, and is asked what it has found, in tests/unit/test_readme.py."""
PLAN = """
methods = ["gradient", "random"]
metrics = ["deletion_auc"]
[data]
source = "photos"
"""


class Block(NamedTuple):
    language: str
    title: str
    code: str


def blocks_of(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(*one) for one in found]


def run_blocks(page: Path) -> list[Block]:
    return [one for one in blocks_of(page) if not one.title.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def model():
    return unilens.load_model()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with what the pages speak of: photographs, a plan, an environment."""
    (tmp_path / "photos").mkdir()
    for place in ("photo.jpg", "cat.jpg", "photos/cat.jpg"):
        samples["chelsea"]().save(tmp_path / place)
    (tmp_path / "PLAN.toml").write_text(PLAN, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(code: str) -> None:
    """Run a block of commands; the first that fails ends it."""
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def run(block: Block, names: dict[str, object], page: Path) -> None:
    if block.language == "python":
        with contextlib.redirect_stdout(None):
            exec(compile(block.code, page.name, "exec"), names)
    elif block.language in ("sh", "bash"):
        shell(block.code)
    elif block.language == "toml":  # a plan of the benchmark
        Path("page.toml").write_text(block.code, encoding="utf-8")
        shell("unilens benchmark page.toml --dry-run")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_the_other(page, model, folder):
    blocks = run_blocks(page)
    if not blocks:
        return
    images = torch.stack([model.preprocess(samples["chelsea"]())])
    names: dict[str, object] = {
        "torch": torch,
        "unilens": unilens,
        "model": model,
        "images": images,
    }
    with registries_as_they_were():
        for block in blocks:
            if re.fullmatch(r"[\w-]+\.\w+", block.title):
                (folder / block.title).write_text(block.code, encoding="utf-8")
            if block.language != "python" or page.name not in ELSEWHERE:
                run(block, names, page)


@contextlib.contextmanager
def registries_as_they_were():
    """Take away again what a page has registered."""
    from unilens.methods import methods
    from unilens.metrics import metrics

    before = [(one, dict(one._entries)) for one in (methods, metrics)]
    try:
        yield
    finally:
        for registry, entries in before:
            registry._entries = entries


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_does_not_run_is_counted_and_says_why(page):
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    assert len(re.findall(r"^ *(```|~~~)", text, re.MULTILINE)) == 2 * len(blocks)
    assert all(one.language in ("python", "sh", "bash", "toml") for one in blocks)
    left_out = [one for one in blocks if one.title.startswith(NOT_RUN)]
    assert len(left_out) == LEFT_OUT.get(page.name, 0)
    assert all(len(one.title.removeprefix(NOT_RUN)) > 20 for one in left_out)


def test_bash_is_there():
    assert shutil.which("bash")
