"""docs/warnings.md: its list of warnings, and its tables from the kept rows."""

import sys
from pathlib import Path

from unilens.diagnostics import LEVELS, WARNINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "warnings.md").read_text(encoding="utf-8")


def listed():
    for level in reversed(LEVELS):
        for name, rule in WARNINGS.items():
            if rule.level == level:
                yield f"| {level} | `{name}` | {rule.meaning} | {rule.remedy} |"


def test_page_lists_every_warning():
    assert "\n".join(listed()) in PAGE


def test_tables_are_those_of_the_kept_rows():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import calibration

    rows = calibration.read(ROOT / "benchmarks" / "results" / "calibration")
    assert "\n".join(calibration.report(rows)).strip() in PAGE
