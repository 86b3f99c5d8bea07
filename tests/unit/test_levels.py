"""The verdict and the warnings of a map look the same in every output."""

import html

import pytest
import torch
from rich.color import ANSI_COLOR_NAMES

from unilens.attribution import Attribution
from unilens.cli import output
from unilens.diagnostics import LEVELS, WARNINGS
from unilens.output.levels import LEVEL_STYLES, lines, verdict_line, warning_lines
from unilens.output.records import of_method
from unilens.text import TextAttribution
from unilens.text.render import html as text_html
from unilens.text.tokens import Tokens

FIRED = {
    "channels_known": 0.0,
    "completeness_gap": 9.0,
    "score_change": 1.0,
    "monotonicity": -1.0,
    "confidence_fallback": 1.0,
    "proximity": 0.0,
}
"""Diagnostics that call for warnings."""


@pytest.fixture
def poor():
    """Return a map of which several warnings hold."""
    one = torch.zeros(1, dtype=torch.long)
    plain = Attribution(torch.ones(1, 2, 1), one, torch.ones(1), torch.ones(1, 2))
    return plain.with_measured(**{name: torch.tensor([value]) for name, value in FIRED.items()})


def test_each_level_has_a_symbol_and_a_colour_of_its_own():
    assert list(LEVEL_STYLES) == list(LEVELS)
    assert len({style.symbol for style in LEVEL_STYLES.values()}) == len(LEVELS)
    assert len({style.colour for style in LEVEL_STYLES.values()}) == len(LEVELS)
    assert {style.terminal for style in LEVEL_STYLES.values()} - {"dim"} <= set(ANSI_COLOR_NAMES)


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_its_level_sentence_remedy_and_name(name):
    rule = WARNINGS[name]
    (line,) = warning_lines([name])
    assert (line.level, line.name, line.style) == (rule.level, name, LEVEL_STYLES[rule.level])
    assert line.text == f"{rule.level}: {rule.meaning} {rule.remedy} [{name}]"
    assert str(line) == f"{line.style.symbol} {line.text}"


def test_warnings_come_by_level():
    found = [LEVELS.index(line.level) for line in warning_lines(WARNINGS)]
    assert found == sorted(found, reverse=True)
    assert {line.name for line in warning_lines(WARNINGS)} == set(WARNINGS)


def test_a_verdict_has_the_highest_level_unless_it_is_only_information():
    for name, rule in WARNINGS.items():
        line = verdict_line("Usable.", [name])
        assert line.level == ("" if rule.level == "info" else rule.level)
    assert str(verdict_line("Usable.", [])) == "Usable."
    assert str(verdict_line("Do not.", list(WARNINGS))) == "✖ Do not."


def test_every_output_shows_the_same_lines(poor, capsys):
    verdict, *warnings = lines(poor)
    assert verdict.text == poor.verdicts[0]
    assert {line.name for line in warnings} == set(poor.warnings[0])
    assert len({line.level for line in warnings}) > 1
    record = of_method(poor)
    assert record["verdict"] == verdict.text
    assert record["warnings"] == poor.warnings[0]
    assert record["levels"] == {line.name: line.level for line in warnings}
    expected = [str(line) for line in (verdict, *warnings)]
    output.show_verdict(record["verdict"], record["warnings"])
    output.show_warnings(record["warnings"])
    assert capsys.readouterr().out.splitlines() == [f"    {line}" for line in expected]
    tokens = Tokens("a", ("a",), ((0, 1),), (0,))
    for page in (poor._repr_html_(), text_html(TextAttribution(tokens, "good", poor))):
        shown = html.unescape(page)
        places = [shown.index(f">{line}</p>") for line in expected]
        assert places == sorted(places)
        for line in (verdict, *warnings):
            assert f'color:{line.style.colour}">{line}</p>' in shown
