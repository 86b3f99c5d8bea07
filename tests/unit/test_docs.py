"""The pages name everything that is registered, and point to what exists."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

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

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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


@pytest.mark.parametrize("name", ["README.md", "llms.txt", "CONTRIBUTING.md"])
def test_links_of_the_root_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "llms.txt", "docs/index.md"])
def test_opening_counts_the_methods(name):
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    assert f"and {len(methods) - 1} other methods" in text


def test_readme_opens_with_picture_install_and_command():
    opening = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    text = "\n".join(opening)
    assert "](docs/images/coffee.jpg)" in text
    assert ".venv/bin/pip install . && .venv/bin/unilens explain --sample coffee" in text
    assert "|" not in text  # no table


def test_table_of_methods_in_the_readme_is_the_registry():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \+ (\d+) \|", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(methods)


def test_install_lines_are_true_of_a_checkout():
    texts = PAGES | {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, text in texts.items():
        assert not re.search(r"pip\s+install\s+'?unilens", text), name
        for given in re.findall(r"pip install (?:-e )?'\.\[([\w,]+)\]'", text):
            assert set(given.split(",")) <= set(extras), name


def test_page_on_citing_agrees_with_the_citation_file():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = cff["preferred-citation"]
    page = PAGES["citing.md"]
    last_names = [author["family-names"] for author in paper["authors"]]
    assert all(f"{name}, " in page for name in last_names)
    fields = re.findall(r"^  (\w+) += \{(.*)\},$", page, re.MULTILINE)
    assert ("title", paper["title"]) in fields
    assert ("year", str(paper["year"])) in fields
    assert ("eprint", paper["identifiers"][0]["value"].removeprefix("arXiv:")) in fields
    assert ("version", cff["version"]) in fields
    assert ("year", str(cff["date-released"].year)) in fields
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pyproject["version"] == cff["version"]


@pytest.mark.parametrize("page", sorted(set(PAGE_OF_FAMILY.values())))
def test_every_page_of_a_family_has_a_picture_with_words_for_it(page):
    if page != "uni.md":  # the README's picture
        (words,) = re.findall(r"!\[([^\]]+)\]\(images/", PAGES[page])
        assert len(words) > 40


def test_folders_of_contributing_exist_and_leave_none_out():
    root = ROOT
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


def test_every_promise_of_security_names_a_test_that_is_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if re.match(r"\| [A-Z]", line)]
    named = re.findall(r"\| `([\w/]+\.py)::(\w+)` \|$", text, re.MULTILINE)
    assert len(named) == len(promises) > 20
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), name
