"""The page of five domains says what its script finds, and leaves no domain or map out."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from unilens import Evaluator, explain

from ..table_models import cancer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "domains.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def domains():
    spec = importlib.util.spec_from_file_location("domains", DOCS / "domains.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(name):
    """Return the rows of a domain's table on the page, by method: numbers, then warnings."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (section,) = (section for section in sections if f"-{name}." in section)
    lines = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    return {method: [cell.strip() for cell in cells.split("|")] for method, cells in lines}


def number(cell):
    return float(cell.replace("−", "-")) if cell else None


def warned(cell):
    return set(re.findall(r"`(\w+)`", cell))


def test_every_domain_has_a_picture_and_every_map_a_row(domains):
    assert re.findall(r"\(images/domain-(\w+)\.png\)", PAGE) == list(domains.DOMAINS)
    for name in domains.DOMAINS:
        assert (DOCS / "images" / f"domain-{name}.png").exists()
        found = rows_of(name)
        assert {"uni_blur", "ig", "gradient", "random"} <= set(found)
        assert all(len(cells) == 6 for cells in found.values())


def test_the_numbers_of_the_table_are_those_of_the_script(domains):
    domain = domains.table()
    found = domains.maps(domain)
    said = rows_of("table")
    assert list(said) == list(found)
    for line, (name, cells) in zip(domains.rows(domain, found), said.items(), strict=True):
        measured = [cell.strip() for cell in line[2:-2].split(" | ")]
        assert measured[0] == f"`{name}`"
        for ours, theirs in zip(measured[1:6], cells[:5], strict=True):
            assert number(theirs) == pytest.approx(number(ours), abs=0.02)
        assert warned(measured[6]) == warned(cells[5])


@torch.no_grad()
def hidden(model, row, values, target):
    """Return the area under one row's deletion curve in ten steps, by the trapezium rule."""
    order = values.argsort(descending=True)
    curve = []
    for tenth in range(11):
        changed = row.clone()
        changed[order[: tenth * len(row) // 10]] = 0
        curve.append(model(changed[None]).softmax(1)[0, target].item())
    return sum((a + b) / 20 for a, b in pairwise(curve))


def test_deletion_of_the_table_written_out(domains):
    model, _, inputs, _, _ = cancer()
    rows = (inputs[:30] - model.mean) / model.std
    found = explain(Evaluator(model.model, independent=False), rows, "ig")
    areas = [
        hidden(model.model, *one) for one in zip(rows, found.values, found.target, strict=True)
    ]
    domain = domains.table()._replace(cases=[(Evaluator(model.model), rows)])
    (line,) = domains.rows(domain, {"ig": [found]})
    assert float(line.split("|")[4]) == pytest.approx(sum(areas) / len(areas), abs=0.005)
