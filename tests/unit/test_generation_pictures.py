"""The matrix of a generated text in HTML and in the terminal."""

import dataclasses
import html.parser
import io
import re

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from unilens import UnilensError
from unilens.diagnostics import WARNINGS
from unilens.text import Tokens
from unilens.text.generation import render
from unilens.text.generation.terminal import rich_matrix

from ..generated_text import PROMPT, hostile, large, made

WARNING = next(iter(WARNINGS))


class Read(html.parser.HTMLParser):
    """What a page shows: its two texts, the rows of its table, and its tags."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.rows, self.tags, self.names, self._open = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self._open.append((tag, attributes))
        if tag == "div" and not attributes:
            self.texts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([attributes.get("title"), "", attributes.get("class", "")])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tags = [tag for tag, _ in self._open]
        if not tags or tags[-1] in ("style", "script"):
            return
        if tags[-1] in ("td", "th"):
            self.rows[-1][-1][1] += data
        elif "data-name" in self._open[-1][1]:
            self.names.append(data)
        elif ("div", {}) in self._open:
            self.texts[-1] += data


def shown(page):
    return Read(page).texts


@pytest.mark.parametrize("by", ["token", "word", "sentence"])
def test_html_shows_both_texts_and_names_of_special_tokens(by):
    attribution = made()
    page = render.html(attribution, by)
    read = Read(page)
    assert shown(page) == [PROMPT, attribution.continuation.text]
    assert read.names == ["[CLS]", "[SEP]"]
    assert f"7 generated tokens, 17 of the prompt, by {by}" in page


def test_facts_count_one_token_as_one():
    assert render.facts(large(1, 3), "token").startswith("1 generated token, 3 of the prompt")


def test_space_before_a_token_is_not_coloured():
    tokens = Tokens(" a  b\n", ("Ġa", "ĠĠb", "Ċ"), ((0, 2), (2, 5), (5, 6)), (0, 1, 2))
    attribution = dataclasses.replace(large(3, 3), prompt=tokens)
    page = render.html(attribution)
    assert re.findall(r">([^<]*)<span data-column=\"[01]\"[^>]*>([^<]*)<", page) == [
        (" ", "a"), ("  ", "b"),
    ]  # fmt: skip
    assert shown(page)[0] == tokens.text


@pytest.mark.parametrize(("by", "spans"), [("token", ()), ("word", ["in France"])])
def test_table_has_the_numbers_of_the_matrix(by, spans):
    attribution = made()
    matrix = attribution.by(by, spans=spans)
    heads, *rows = Read(render.html(attribution, by, spans)).rows
    columns = matrix.defined_columns
    assert [title for title, _, _ in heads[1:]] == [matrix.columns.labels[i] for i in columns]
    generated = [kind == "g" for _, _, kind in heads[1:]]
    assert generated == [column >= matrix.n_prompt for column in columns]
    assert rows[0][0][0] == "No (not Yes)"
    expected = [
        ["" if value != value else f"{value:+z.2f}" for value in row]
        for row in matrix.values[:, columns].tolist()
    ]
    assert [[text.strip() for _, text, _ in row[1:]] for row in rows] == expected
    largest = matrix.values.nan_to_num().abs().argmax().item()
    row, column = divmod(largest, matrix.values.shape[1])
    sign = "p" if matrix.values[row, column] > 0 else "n"
    assert rows[row][1 + columns.index(column)][2] == f"{sign}20"


def test_rows_that_are_not_explained_are_left_out():
    page = render.html(made(targets=[1, 3]))
    _, *rows = Read(page).rows
    assert [row[0][0] for row in rows] == [",", "happy (not sad)"]
    assert "2 of 7 generated tokens" in page
    chosen = [attributes for tag, attributes in Read(page).tags if "aria-pressed" in attributes]
    assert [attributes["data-row"] for attributes in chosen] == ["1", "3"]
    assert [attributes["aria-pressed"] for attributes in chosen] == ["true", "false"]


def test_values_behind_the_text_are_those_of_the_matrix():
    attribution = made()
    ((_, root),) = [tag for tag in Read(render.html(attribution)).tags if "data-rows" in tag[1]]
    values = attribution.values.nan_to_num()
    scales = [float(scale) for scale in root["data-scales"].split(",")]
    for row, scale, expected in zip(root["data-rows"].split(";"), scales, values, strict=True):
        got = torch.tensor([float(value or 0) for value in row.split(",")]).double() * scale / 999
        assert scale == pytest.approx(float(expected.abs().max()), rel=5e-3)
        torch.testing.assert_close(got, expected[: len(got)], rtol=0, atol=0.005 * scale)


def test_html_escapes_and_loads_nothing():
    page = render.html(hostile())
    read = Read(page)
    assert page.count("<script>") == 1
    assert "<scrip" not in page.replace("<script>", "")
    assert "<i>" not in page
    assert "<note>" not in page
    assert "<b><b>" not in page
    assert not re.search(r"https?:|src=|url\(|@import", page)
    assert not [name for _, attributes in read.tags for name in attributes if name[:2] == "on"]
    shown_text = re.sub("[\x1b\u202e]", "\ufffd", hostile().prompt.text)
    assert shown_text.count("\ufffd") == 2
    assert shown(page) == 2 * [shown_text]


@pytest.mark.slow
def test_html_is_bounded_in_size():
    page = render.html(large(64, 512))
    assert len(page) < 1_000_000
    assert len(Read(page).rows) == 65
    without = render.html(large(128, 512))
    assert Read(without).rows == []
    assert "cells are too many for a table" in without
    assert len(without) < 500_000
    assert len(render.html(large(100, 4096))) < 2_000_000  # 0.4 million values


def test_the_strongest_values_stay_behind_a_text_that_is_too_long(monkeypatch):
    monkeypatch.setattr(render, "_MAX_CLICKS", 30)
    ((_, root),) = [tag for tag in Read(render.html(large(3, 50))).tags if "data-rows" in tag[1]]
    values = large(3, 50).values.nan_to_num().abs()
    for row, expected in zip(root["data-rows"].split(";"), values, strict=True):
        kept = {i for i, value in enumerate(row.split(",")) if value}
        strongest = set(expected.topk(10).indices.tolist())
        assert kept <= strongest
        assert int(expected.argmax()) in kept


def printed(attribution, width, by="token", spans=()):
    out = io.StringIO()
    Console(file=out, width=width).print(rich_matrix(attribution, by, spans))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [12, 30, 80, 300])
@pytest.mark.parametrize("attribution", [made(), hostile(), large(9, 100)])
def test_no_line_is_wider_than_the_terminal(attribution, width):
    lines = printed(attribution, width)
    assert max(map(cell_len, lines)) <= width
    assert not re.search(r"[\x00-\x1f\x7f\u202e]", "".join(lines))


def test_wide_terminal_has_the_whole_matrix():
    matrix = made().by("word")
    lines = printed(made(), 300, "word")
    gap = float(made().completeness_gap.abs().max())
    facts = "ig: 7 generated tokens, 17 of the prompt, by word"
    assert lines[0] == f"{facts}; completeness gaps up to {gap:.2g}"
    assert lines[1].split() == [
        "score",
        *(matrix.columns.labels[i] for i in matrix.defined_columns),
    ]
    for line, score, row in zip(lines[2:9], matrix.score, matrix.values, strict=True):
        expected = [f"{value:+z.2f}" for value in [float(score), *row.tolist()] if value == value]
        assert line.split()[-len(expected) :] == expected


def test_narrow_terminal_has_the_strongest_columns_and_the_sum_of_others():
    attribution = large(5, 40)
    lines = printed(attribution, 80)
    heads = lines[1].split()
    assert (heads[0], heads[-1]) == ("score", "others")
    labels = attribution.by("token").columns.labels
    strength = attribution.values.nan_to_num().abs().amax(0)
    strongest = strength.argsort(descending=True)[: len(heads) - 2].sort().values.tolist()
    assert len(heads) > 6
    assert heads[1:-1] == [labels[column] for column in strongest]
    for line, row in zip(lines[2:7], attribution.values, strict=True):
        numbers = line.split()[2:]
        expected = [f"{value:+z.2f}" for value in row[strongest].tolist() if value == value]
        assert numbers[:-1] == expected
        assert float(numbers[-1]) == pytest.approx(
            float(row.nansum() - row[strongest].nansum()), abs=0.006
        )
    assert f"The {len(heads) - 2} strongest of 44 columns" in " ".join(lines[7:])


def test_small_values_keep_their_digits():
    attribution = made()
    attribution.values.mul_(1e-6)
    assert re.search(r"-3\.1e-06", "\n".join(printed(attribution, 300)))


def test_rich_and_notebooks_ask_the_attribution():
    out = io.StringIO()
    Console(file=out, width=80).print(made())
    assert out.getvalue().splitlines() == printed(made(), 80)
    assert made()._repr_html_() == render.html(made())


def test_warnings_and_notes_are_below_the_matrix():
    warned = {"engine": {"warnings": {"0": [WARNING], "3": [WARNING]}}}
    attribution = dataclasses.replace(made(), provenance=warned, notes=("a remark",))
    page = render.html(attribution)
    assert f"[{WARNING}] (No, happy)" in page
    assert '<p style="margin:.3em 0;color:#555">a remark</p>' in page


def test_nothing_explained_is_drawn_without_a_matrix():
    attribution = made(targets=[])
    assert "0 of 7 generated tokens" in render.html(attribution)
    assert "0 of 7 generated tokens" in printed(attribution, 80)[0]


def test_an_unknown_unit_is_refused_by_pictures():
    with pytest.raises(UnilensError, match="expected by to be token"):
        render.html(made(), "letter")
