"""The verdict and the warnings of a map, as every output shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..attribution import Attribution
from ..diagnostics import LEVELS, WARNINGS, highest_level


class LevelStyle(NamedTuple):
    """How a level is marked, by a shape and a word as well as a colour.

    Attributes:
        symbol: before the text.
        colour: of the text on white paper.
        terminal: the same in the terminal.
    """

    symbol: str
    colour: str
    terminal: str


LEVEL_STYLES = {
    "info": LevelStyle("○", "#555555", "dim"),
    "caution": LevelStyle("▲", "#805500", "yellow"),
    "problem": LevelStyle("✖", "#b03000", "red"),
}
"""By the levels of `unilens.diagnostics`."""
_NO_LEVEL = LevelStyle("", "#111111", "")


class Line(NamedTuple):
    """A verdict or a warning, ready to be shown.

    Attributes:
        text: without the symbol; of a warning, "level: sentence remedy [name]".
        level: one of `LEVELS`; empty for a verdict without doubts.
        name: of the warning; empty for a verdict.
    """

    text: str
    level: str = ""
    name: str = ""

    @property
    def style(self) -> LevelStyle:
        """The symbol and the colours of the level."""
        return LEVEL_STYLES.get(self.level, _NO_LEVEL)

    def __str__(self) -> str:
        return f"{self.style.symbol} {self.text}".lstrip()


def verdict_line(verdict: str, warnings: list[str]) -> Line:
    """Return the verdict on a map, with the level of its warnings if it is above "info"."""
    level = highest_level(warnings) or ""
    return Line(verdict, "" if level == "info" else level)


def warning_lines(warnings: Iterable[str]) -> list[Line]:
    """Return named warnings, the highest level first."""
    ordered = sorted(warnings, key=lambda name: -LEVELS.index(WARNINGS[name].level))
    return [
        Line(f"{WARNINGS[name].level}: {WARNINGS[name]} [{name}]", WARNINGS[name].level, name)
        for name in ordered
    ]


def lines(attribution: Attribution, index: int = 0) -> list[Line]:
    """Return the verdict on one input's map, then its warnings."""
    warnings = attribution.warnings[index]
    return [verdict_line(attribution.verdicts[index], warnings), *warning_lines(warnings)]
