"""The zoo of benchmarks/zoo.py in small: a few models of each library, and its page."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

import unilens

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
FAMILIES = (
    ("timm", "mobilenetv3: lcnet"),
    ("timm", "pit: pit"),
    ("torchvision", "squeezenet"),
    ("torchvision", "shufflenet_v2"),
    ("transformers-vision", "segformer"),
    ("transformers-vision", "vit"),
    ("transformers-text", "bert"),
    ("transformers-text", "llama"),
)
# The libraries warn while they build and run their models.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def zoo():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("zoo")


def family_of(zoo, library, name):
    return next(one for one in zoo.families((library,)) if one.name == name)


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), FAMILIES)
def test_zoo_model_is_right(zoo, library, name):
    record = zoo.examine(family_of(zoo, library, name))
    assert record["status"] == zoo.RIGHT, record
    assert record["ig"] <= zoo.MAP_TOLERANCE
    assert record["outputs"] <= zoo.OUTPUT_TOLERANCE


def test_zoo_notices_a_wrong_map(zoo, monkeypatch):
    def slightly_wrong(*given, **settings):
        found = unilens.explain(*given, **settings)
        return dataclasses.replace(found, values=found.values * (1 + 1e-5))

    monkeypatch.setattr(zoo, "explain", slightly_wrong)
    record = zoo.examine(family_of(zoo, "transformers-text", "bert"))
    assert record["status"] == zoo.WRONG
    assert record["ig"] == pytest.approx(1e-5, rel=1e-3)


def test_zoo_notices_a_raw_exception_and_a_changed_model(zoo, monkeypatch):
    def careless(model, *given, **settings):
        next(model.parameters()).data.add_(1)
        raise KeyError("no such thing")

    monkeypatch.setattr(zoo, "explain", careless)
    record = zoo.examine(family_of(zoo, "transformers-text", "bert"))
    assert record["status"] == zoo.RAW
    assert any("KeyError" in note for note in record["notes"])
    assert "the model has changed" in record["notes"]


def test_zoo_stops_a_model_that_takes_too_long(zoo):
    record = zoo.examine_apart(family_of(zoo, "transformers-vision", "vit"), seconds=0.01)
    assert record["status"] == zoo.STOPPED


def test_zoo_lists_at_least_250_families_once_each(zoo):
    names = [(family.library, family.name) for family in zoo.families()]
    assert len(names) == len(set(names)) >= 250


def check_counts(zoo, text):
    """Compare the numbers at the top of a page with the rows of its tables."""
    libraries = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    told = {
        cells[0]: [int(cell) for cell in cells[1:]]
        for cells in rows(libraries[0])
        if len(cells) == len(zoo.STATUSES) + 2 and cells[0] != "library"
    }
    everything = []
    for library, table in zip(libraries[1::2], libraries[2::2], strict=True):
        if library in zoo.LIBRARIES:
            found = [cells[4] for cells in rows(table) if cells[0] != "family"]
            assert told[library] == [len(found), *map(found.count, zoo.STATUSES)]
            everything += found
    assert told["all"] == [len(everything), *map(everything.count, zoo.STATUSES)]
    assert f"{everything.count(zoo.RIGHT)} of {len(everything)} models" in " ".join(text.split())
    return len(everything)


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_zoo_page_counts_its_own_rows(zoo):
    kept = {"library": "timm", "model": "m", "versions": {"torch": "2"}, "date": "2026-01-01"}
    records = [
        kept | {"family": str(number), "status": status, "notes": ["a | b"], "seconds": 1.0}
        for number, status in enumerate([*zoo.STATUSES, zoo.RIGHT, zoo.NOT_BUILT])
    ]
    assert check_counts(zoo, zoo.page(records)) == len(zoo.STATUSES) + 1


def test_zoo_page_of_the_docs_agrees_with_its_tables(zoo):
    assert check_counts(zoo, PAGE.read_text(encoding="utf-8")) > 0
