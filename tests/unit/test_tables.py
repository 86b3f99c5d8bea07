"""Tables of mixed scales and signals, as docs/tables.md explains them."""

import re
from pathlib import Path

import pytest
import torch

from unilens import Evaluator, explain

from ..table_models import accuracy, cancer, digits, events


@pytest.fixture(scope="module")
def table():
    return cancer()


def test_in_raw_units_a_few_small_columns_take_the_budget_and_in_standard_deviations_none_does(
    table,
):
    model, train, inputs, target, _ = table
    assert accuracy(model, inputs, target) > 0.95
    std = train.std(0)
    evaluator = Evaluator(model, independent=False)
    raw = explain(evaluator, inputs, "uni")
    found = explain(evaluator, inputs, "uni", units=std, budget=1.0, rule="midpoint")
    moved = (raw.baseline - inputs) / std
    assert float(moved.norm(dim=1).median()) > 30  # standard deviations: no such patient exists
    moved = (found.baseline - inputs) / std
    assert moved.norm(dim=1).tolist() == pytest.approx([1.0] * len(inputs), abs=1e-3)
    assert float(found.completeness_gap.abs().max()) < 0.01


def test_units_give_the_map_of_the_standardised_table(table):
    model, _, inputs, _, _ = table
    inside, mean, std = (one.double() for one in (model.model, model.mean, model.std))
    model, inputs = model.double(), inputs.double()
    found = explain(model, inputs[:8], "uni", units=std)
    expected = explain(inside, (inputs[:8] - mean) / std, "uni")
    assert torch.allclose(found.values, expected.values, atol=1e-9)
    assert float(found.values.abs().max()) > 1e-4
    model.float()


@pytest.mark.parametrize(
    ("method", "settings", "least"),
    [
        ("uni_blur", {}, 0.9),
        ("ig", {}, 0.85),
        ("ig", {"baseline": "blur", "sigma": 4.0}, 0.85),
        ("occlusion", {"window": 8, "stride": 4}, 0.9),
    ],
)
def test_maps_of_a_signal_find_the_event(method, settings, least, signal):
    evaluator, inputs, mask = signal
    size = explain(evaluator, inputs, method, 1, **settings).values[:, 0].abs()
    inside = (size * mask).sum(1) / size.sum(1)
    assert float(inside.mean()) > least  # the event is 16 of 128 samples: 0.125 by chance
    assert bool(mask.gather(1, size.argmax(1, keepdim=True)).all())


@pytest.fixture(scope="module")
def signal():
    model, inputs, target, mask = events()
    assert accuracy(model, inputs, target) > 0.97
    return Evaluator(model, independent=False), inputs[target == 1], mask[target == 1]


def test_digits_are_explained_completely():
    model, inputs, target = digits()
    assert accuracy(model, inputs, target) > 0.95
    for method in ("uni_blur", "ig"):
        gap = explain(Evaluator(model, independent=False), inputs[:20], method).completeness_gap
        assert float(gap.abs().max()) < 0.02


def test_the_code_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "units=" in b)
    names: dict[str, object] = {}
    exec(compile(block, "tables.md", "exec"), names)
    moved = (names["attribution"].baseline - names["rows"][:50]) / names["std"]
    assert moved.norm(dim=1).tolist() == pytest.approx([1.0] * 50, abs=1e-3)
