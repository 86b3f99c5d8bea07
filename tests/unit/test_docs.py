"""The pages name everything that is registered, and point to what exists."""

import re
from pathlib import Path

import pytest

from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import (
    corruptions,
    imputers,
    infidelity_perturbations,
    metrics,
    perturbations,
    similarities,
)
from unilens.paths import paths
from unilens.weightings import weightings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
PAGE_OF_FAMILY = {
    "unlearning": "uni.md",
    "path": "paths.md",
    "gradient": "gradients.md",
    "smoothing": "gradients.md",
    "references": "gradients.md",
    "activation": "activations.md",
    "attention": "attention.md",
    "rules": "rules.md",
    "perturbation": "perturbation.md",
    "control": "controls.md",
}


@pytest.mark.parametrize("name", methods)
def test_every_method_is_on_the_page_of_its_family(name):
    page = PAGES[PAGE_OF_FAMILY[methods[name].card.family]]
    assert f"`{name}`" in page


@pytest.mark.parametrize(
    ("page", "registry"),
    [
        ("baselines.md", baselines),
        ("paths.md", paths),
        ("paths.md", weightings),
        *(
            ("metrics.md", registry)
            for registry in (
                metrics,
                imputers,
                similarities,
                perturbations,
                infidelity_perturbations,
                corruptions,
            )
        ),
    ],
)
def test_every_part_is_on_its_page(page, registry):
    missing = [name for name in registry if f"`{name}`" not in PAGES[page]]
    assert missing == []


def test_the_table_of_metrics_is_the_registry():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.*?) \| (\d+) \+ (\d+)(?:, (\d+) maps?)? \|$",
        PAGES["metrics.md"],
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == list(metrics)
    for name, family, better, bounds, needs, forward, backward, maps in rows:
        card, built = metrics[name].card, metrics[name]()
        assert (family, needs) == (card.family, ", ".join(card.needs))
        assert better == {True: "higher", False: "lower"}[card.higher_is_better]
        low, _, high = bounds.replace("−", "-").partition("…")
        assert tuple(float(end) if end.strip() else None for end in (low, high)) == card.bounds
        assert (int(forward), int(backward)) == built.passes
        assert int(maps or 0) == built.explanations


def test_every_metric_has_a_section_with_its_reference():
    sections = re.split(r"^##+ ", PAGES["metrics.md"], flags=re.MULTILINE)
    for name in metrics:
        (section,) = (part for part in sections if f"`{name}`" in part.splitlines()[0])
        assert len(section) > 150, name


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", PAGES[page])
    for target in targets:
        assert (DOCS / target).exists(), target


@pytest.mark.parametrize("page", sorted(set(PAGE_OF_FAMILY.values())))
def test_every_page_of_a_family_has_a_picture_with_words_for_it(page):
    if page != "uni.md":  # the README's picture
        (words,) = re.findall(r"!\[([^\]]+)\]\(images/", PAGES[page])
        assert len(words) > 40


def test_folders_of_contributing_exist_and_leave_none_out():
    root = DOCS.parent
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^## Where things live$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    missing = [
        name
        for name in named
        if not any((top / name).exists() for top in (root, root / "src/unilens"))
    ]
    assert missing == []
    packages = {path.parent.name for path in (root / "src/unilens").glob("*/__init__.py")}
    assert packages - named == set()
