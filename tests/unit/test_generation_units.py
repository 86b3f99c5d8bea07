"""Units of the matrix of a generated text: by token, word, sentence and span."""

import pytest
import torch

from unilens import UnilensError
from unilens.text.generation.units import units_of

from ..generated_text import made, prompt, tokens_of


def test_units_have_the_labels_of_their_text():
    assert units_of(prompt(), "token").labels[:3] == ("[CLS]", "Paris", "is")
    words = units_of(prompt(), "word").labels
    assert words[-4:] == ("The", "unfunny", "end", "[SEP]")
    assert units_of(prompt(), "sentence").labels == (
        "[CLS]", "Paris is in France.", "Is it?", "It is!", "The unfunny end", "[SEP]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "pieces", "sentences"),
    [
        ("At 3.14 now. So", ["At 3", ".", "14 now", ".", " So"], ["At 3.14 now.", "So"]),
        ("“No!” he said", ["“No", "!", "”", " he said"], ["“No!”", "he said"]),
        ("好。走！去？", ["好", "。", "走", "！", "去", "？"], ["好。", "走！", "去？"]),
        ("one\n\ntwo", ["one", "\n", "\n", "two"], ["one", "two"]),
        ("e.g. this", ["e.g", ".", " this"], ["e.g.", "this"]),
        ("\n\n", ["\n", "\n"], ["↵↵"]),
    ],
)  # fmt: skip
def test_sentences_end_at_marks_and_lines(text, pieces, sentences):
    assert list(units_of(tokens_of(text, pieces), "sentence").labels) == sentences


def slow_matrix(attribution, rows, columns):
    """Sums over members, one pair at a time; NaN where no source comes before."""
    n_prompt = len(attribution.prompt.names)
    table = []
    for row in rows:
        line = []
        for column in columns:
            pairs = [(t, s) for t in row for s in column if s < n_prompt + t]
            line.append(
                sum(float(attribution.values[t, s]) for t, s in pairs) if pairs else torch.nan
            )
        table.append(line)
    return torch.tensor(table, dtype=torch.float64)


def test_matrix_equals_the_sums_over_pairs_of_tokens():
    attribution = made()
    n_prompt = len(attribution.prompt.names)
    matrix = attribution.by("sentence")
    rows = [[0, 1, 2, 3, 4], [5, 6]]
    columns = [[0], [1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14, 15], [16]]
    columns += [[n_prompt + t for t in row] for row in rows]
    expected = slow_matrix(attribution, rows, columns)
    torch.testing.assert_close(matrix.values, expected, equal_nan=True)
    assert matrix.rows.labels == ("No, un happy .", "Yes.")
    assert matrix.values.isnan().nonzero().tolist() == [[0, 7]]
    torch.testing.assert_close(
        matrix.score, torch.stack([attribution.score[row].sum() for row in rows])
    )
    assert matrix.against == ("Yes, sad", None)


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
@pytest.mark.parametrize("spans", [(), ("France. Is", (44, 49))])
def test_units_keep_the_sums(unit, spans):
    attribution = made(1)
    matrix = attribution.by(unit, spans=spans)
    torch.testing.assert_close(matrix.values.nansum(), attribution.values.nansum())
    by_row = matrix.rows.sums(attribution.values.nansum(1))
    torch.testing.assert_close(matrix.values.nansum(1), by_row)
    torch.testing.assert_close(matrix.gap.sum(), attribution.completeness_gap.sum())
    change = matrix.rows.sums(attribution.score - attribution.baseline_score)
    torch.testing.assert_close(change - matrix.values.nansum(1), matrix.gap)


def test_tokens_are_the_matrix_itself():
    attribution = made()
    matrix = attribution.by("token")
    assert matrix.values.equal(attribution.values) or torch.allclose(
        matrix.values, attribution.values, equal_nan=True
    )
    assert matrix.n_prompt == len(attribution.prompt.names)


def test_spans_take_their_tokens_out_of_other_units():
    columns = made().by("word", spans=["in France", (43, 48)]).columns
    assert columns.labels[:5] == ("[CLS]", "Paris", "is", "in France", ".")
    assert columns.labels[11:15] == ("The", "un", "funny end", "[SEP]")


def test_a_row_with_a_token_that_is_not_explained_is_undefined():
    attribution = made(targets=[0, 1, 3, 5, 6])
    assert attribution.explained.tolist() == [True, True, False, True, False, True, True]
    words = attribution.by("word")
    undefined = [
        label
        for label, row in zip(words.rows.labels, words.values, strict=True)
        if row.isnan().all()
    ]
    assert undefined == ["un", "."]
    sentences = attribution.by("sentence").values
    assert sentences[0].isnan().all()
    assert sentences[1].isfinite().all()


def test_gap_is_undefined_without_a_baseline_or_values():
    assert made(baseline=False).completeness_gap.isnan().all()
    gap = made(targets=[0]).completeness_gap
    assert gap.isnan().tolist() == [False] + 6 * [True]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ("France", "expected spans to be a list"),
        (["Rome"], "which is there 0 times; give its"),
        (["is"], "which is there 3 times; write more of it, or give its"),
        ([""], "which is there 0 times"),
        ([(5, 3)], "within the prompt's 49 characters, got (5, 3)"),
        ([(0, 99)], "within the prompt's 49 characters"),
        ([(0, True)], "or its (start, end), got (0, True)"),
        ([7], "or its (start, end), got 7"),
        ([(5, 6)], "expected spans with tokens"),
        (["in France", "France."], "share no token"),
    ],
)
def test_spans_that_do_not_fit_are_refused(spans, message):
    with pytest.raises(UnilensError) as caught:
        made().by("word", spans=spans)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_unit_is_refused():
    with pytest.raises(UnilensError, match="expected by to be token, word, sentence, got 'letter'"):
        made().by("letter")


def test_repr_is_one_line():
    assert repr(made(targets=[1])) == (
        "GenerationAttribution by ig: 1 of 7 generated tokens, 17 prompt tokens"
    )
    assert repr(made().by("sentence")) == "UnitMatrix: 2 generated units, 8 sources (6 of prompt)"
