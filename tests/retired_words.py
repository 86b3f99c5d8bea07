"""Find retired words: `python tests/retired_words.py` prints each and fails where there is one."""

import functools
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
FOLDERS = ("src", "docs", "tests", "benchmarks")
PAGES = ("README.md", "CONTRIBUTING.md")
SUFFIXES = (".py", ".md", ".ipynb", ".html", ".js", ".css")
CODE_IN_TEXT = re.compile(r"`[^`\n]*`|\w+(?:\.\w+)+")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
Words = Mapping[str, Mapping[str, str]]


def texts(root: Path) -> Iterator[Path]:
    """Yield every file that is checked."""
    for folder in FOLDERS:
        yield from (path for path in sorted((root / folder).rglob("*")) if path.suffix in SUFFIXES)
    yield from (root / page for page in PAGES)


def retired(root: Path, words: Words) -> list[str]:
    """Return `file:line: word: what to write` for every retired word in a project's files."""
    return [
        f"{path.relative_to(root)}:{line}: {word!r} is retired, write {better!r}"
        for path in texts(root)
        if LIST.stem not in path.stem
        for line, word, better in found_in(path, path.read_text(encoding="utf-8"), words)
    ]


def found_in(path: Path, text: str, words: Words) -> Iterator[tuple[int, str, str]]:
    """Yield line, word and replacement for each retired word in the text of a file."""
    if path.suffix in (".py", ".md"):
        for line, code in python_code(text) if path.suffix == ".py" else page_code(text):
            for name, better in words["names"].items():
                if pattern_of(name).search(code):
                    yield line, name, better
    for section in ["phrases"] + ["phrases_of_pages"] * (path.suffix == ".md"):
        for phrase, better in words[section].items():
            for match in pattern_of(phrase).finditer(text):
                yield line_of(text, match.start()), phrase, better


@functools.cache
def pattern_of(word: str) -> re.Pattern[str]:
    """Return what finds a name, a function that is no method (`name(`), or a phrase."""
    if word.endswith("("):
        return re.compile(rf"(?<![\w.]){re.escape(word)}")
    if " " in word:
        spaces = re.escape(word).replace(r"\ ", r"\s+(?:# )?")
        return re.compile(rf"\b{spaces}\b", re.IGNORECASE)
    return re.compile(rf"\b{re.escape(word)}\b")


def python_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield the code of a Python file by line, and what is code in its strings and comments."""
    lines: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type in (tokenize.NAME, tokenize.OP):
            lines.setdefault(token.start[0], []).append(token.string)
        else:
            for code in CODE_IN_TEXT.finditer(token.string):
                yield token.start[0] + token.string.count("\n", 0, code.start()), code[0]
    for line, code in lines.items():
        yield line, " ".join(code).replace(" (", "(").replace(" . ", ".")


def page_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield the code of a page: what is fenced, in backticks, or a dotted name."""
    for pattern in (FENCED, CODE_IN_TEXT):
        for code in pattern.finditer(text):
            yield line_of(text, code.start()), code[0]


def line_of(text: str, place: int) -> int:
    """Return the number of the line of a place in a text."""
    return text.count("\n", 0, place) + 1


if __name__ == "__main__":
    lines = retired(ROOT, tomllib.loads(LIST.read_text(encoding="utf-8")))
    print("\n".join(lines), end="\n" * bool(lines))
    sys.exit(bool(lines))
