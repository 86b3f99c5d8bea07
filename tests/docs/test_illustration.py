"""What the page of experiments says of its illustration in one dimension."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def illustration():
    spec = importlib.util.spec_from_file_location("illustration", DOCS / "illustration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slowly(parameters, x):
    """The sum of three gaussians, written with Python's own numbers."""
    heights, centres, widths = parameters.tolist()
    return sum(
        height * math.exp(-0.5 * ((x - centre) / math.exp(width)) ** 2)
        for height, centre, width in zip(heights, centres, widths, strict=True)
    )


def test_the_table_of_the_page(illustration):
    before = illustration.fitted()
    after = illustration.unlearned(before)
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    for name, one in (("the model", before), ("after unlearning (2, 5)", after)):
        values = " | ".join(f"{slowly(one, x):.3f}" for x in (1, 2, 4))
        assert f"| {name} | {values} | {illustration.steepest(one):.2f} |" in text


def test_the_step_goes_up_the_error_by_its_length(illustration):
    before = illustration.fitted()
    step = illustration.unlearned(before) - before
    assert float(step.norm()) == pytest.approx(illustration.STEP)
    nudged = 1e-6

    def error(parameters):
        return (slowly(parameters, 2) - 5) ** 2

    for place in range(9):  # the direction, by finite differences
        moved = torch.zeros(9, dtype=torch.float64)
        moved[place] = nudged
        slope = error(before + moved.view(3, 3)) - error(before - moved.view(3, 3))
        assert slope * float(step.flatten()[place]) >= 0


def test_the_baseline_is_the_nearest_place_that_looks_unlearned(illustration):
    before = illustration.fitted()
    after = illustration.unlearned(before)
    found = float(illustration.baseline(before, after))
    level = slowly(after, 2)
    assert slowly(before, found) <= level
    nearer = [2 + sign * 0.999 * abs(found - 2) * k / 500 for k in range(501) for sign in (-1, 1)]
    assert all(slowly(before, x) > level - 0.01 for x in nearer)
    assert f"x = {found:.2f}" in (DOCS / "experiments.md").read_text(encoding="utf-8")
