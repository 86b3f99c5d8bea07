"""The check of retired words finds them where they matter, and finds none in the project."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = {
    "names": {"Leg": "PathChunk", "wide(": "to_float64("},
    "phrases": {"at the most": "at most"},
    "phrases_of_pages": {"told apart": "significantly different"},
}


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check", ROOT / "tests" / "retired_words.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_project_has_no_retired_words(check):
    assert check.retired(ROOT, tomllib.loads(check.LIST.read_text(encoding="utf-8"))) == []


def test_ci_checks_retired_words():
    assert 'bin/python" tests/retired_words.py' in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.py", "class Leg:\n    pass\n", [1]),
        ("a.py", '"""The\nsum of each `Leg`."""\n', [2]),
        ("a.py", "x = 1  # paths.Leg\n", [1]),
        ("a.py", "y = wide(x)\n", [1]),
        ("a.py", "# it takes two at\n# the most\n", [1]),
        ("a.md", "```python\nfrom a import Leg\n```\n", [1]),
        ("a.md", "Two at\nthe most are told apart.\n", [1, 2]),
        ("a.py", '"""Leg work is wide (of all); they are told apart."""\n', []),
        ("a.py", "y = self.wide(x)\nLegs = 1\n", []),
        ("a.md", "Leg work.\n", []),
    ],
)
def test_retired_words_are_found_in_code_and_phrases_everywhere(check, name, text, lines):
    assert sorted({line for line, *_ in check.found_in(Path(name), text, WORDS)}) == lines
