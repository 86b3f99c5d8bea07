"""The glossary fits on a page, names what the code has, and is linked where authors look."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", GLOSSARY, re.MULTILINE)[1:]


def test_glossary_fits_on_one_page():
    assert len(ROWS) >= 30
    assert len(GLOSSARY.splitlines()) <= 60


def test_glossary_defines_each_word_once():
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(words) == len(set(words))


def test_glossary_names_exist_in_the_code():
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = [name for row in ROWS for name in re.findall(r"`(\w+)`", row[2])]
    assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_glossary_is_linked_from_navigation_contributing_and_extending():
    for page, link in (
        ("mkdocs.yml", "Glossary: glossary.md"),
        ("CONTRIBUTING.md", "(docs/glossary.md)"),
        ("docs/extending.md", "(glossary.md)"),
    ):
        assert link in (ROOT / page).read_text(encoding="utf-8"), page
