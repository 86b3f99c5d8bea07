"""The README tells the truth: its tables are the registries, CI runs its test.

Its code runs in tests/docs/test_code_blocks.py.
"""

import re
from pathlib import Path

import pytest

from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.scores import scores

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_number_of_metrics():
    (counts,) = re.findall(r"asks (\d+) metrics under (\d+) names", README)
    classes = {entry.card.metric for entry in metrics.values()}
    assert counts == (str(len(classes)), str(len(metrics)))


def test_the_table_of_methods_is_the_registry():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \+ (\d+) \|", README, re.MULTILINE)
    assert [row[0] for row in rows] == list(methods)
    for name, forward, backward in rows:
        assert (int(forward), int(backward)) == methods[name]().passes


@pytest.mark.parametrize(("heading", "registry"), [("Baselines", baselines), ("Scores", scores)])
def test_the_lists_of_names_are_the_registries(heading, registry):
    (sentence,) = re.findall(rf"{heading}: ((?:`\w+`,?\s+)+`\w+`)\.", README)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(registry)


def test_pictures_and_pages_it_points_to_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_command_of_the_readme():
    command = next(line for line in README.splitlines() if "python -m pytest" in line)
    assert (
        command
        == ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest -n 2 --dist loadfile"
    )
    run = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "grep -m1 'python -m pytest' README.md" in run
    assert "rm -rf .venv" not in run
