"""Texts: where tokens are, how they are shown, and what is refused."""

import math
import re

import pytest
import torch
import transformers
from rich.console import Console
from torch import nn

import unilens
from unilens.attribution import Attribution
from unilens.errors import UnilensError, UnknownNameError
from unilens.methods import methods
from unilens.text import (
    TextAttribution,
    TextClassifier,
    Tokens,
    explain_text,
    load_text_classifier,
    text_baselines,
    text_methods,
)
from unilens.text.render import page, rich_text

from ..text_models import tiny_bert, tiny_gpt2, tiny_tokenizer

TEXT = "The film was not  very funny,\nand <b>dull</b> & 😀é!"


@pytest.fixture
def classifier():
    return TextClassifier(tiny_bert(), tiny_tokenizer())


def made(text, names, offsets, word_of, values, label="good"):
    """An explanation with these values per token, each spread unevenly over an embedding."""
    spread = torch.tensor([[0.25], [0.75]]).double() * torch.tensor(values).double()
    one = torch.zeros(1, dtype=torch.long)
    attribution = Attribution(spread.unsqueeze(0), one, torch.ones(1), torch.ones(1, 2))
    return TextAttribution(Tokens(text, names, offsets, word_of), label, attribution)


UNFUNNY = ("an unfunny  plot", ("an", "un", "##fun", "##ny", "plot"),
           ((0, 2), (3, 5), (5, 8), (8, 10), (12, 16)), (0, 1, 1, 1, 2))  # fmt: skip
VALUES = [0.5, -1.0, -0.5, 0.25, 0.0]


def test_values_by_token_and_by_word():
    explanation = made(*UNFUNNY, VALUES)
    assert explanation.token_values.tolist() == VALUES
    assert explanation.tokens.words == ("an", "unfunny", "plot")
    assert explanation.word_values.tolist() == [0.5, -1.25, 0.0]
    assert math.isnan(explanation.completeness_gap)


def test_repr_names_method_label_and_verdict():
    explanation = made(*UNFUNNY, VALUES)
    first, second = repr(explanation).splitlines()
    assert first == ("TextAttribution (good) by an unnamed method: 1 input of 5 tokens, target 0")
    assert second == f"  {explanation.attribution.verdicts[0]}"


def test_pieces_are_the_text():
    explanation = made(*UNFUNNY, VALUES)
    assert explanation.pieces() == [
        ("an", 0.5), (" ", None), ("unfunny", -1.25), ("  ", None), ("plot", 0.0),
    ]  # fmt: skip
    assert explanation.pieces("token")[2:5] == [("un", -1.0), ("fun", -0.5), ("ny", 0.25)]
    with pytest.raises(UnilensError, match="expected by to be word or token, got 'letter'"):
        explanation.pieces("letter")


def test_tokens_that_share_characters_are_one_piece():
    offsets = ((0, 1), (1, 2), (1, 2), (2, 3))
    names, values = ("a", "x", "y", "b"), [1.0, 2.0, 3.0, 4.0]
    explanation = made("a😀b", names, offsets, (0, 0, 0, 0), values)
    assert explanation.pieces("token") == [("a", 1.0), ("😀", 5.0), ("b", 4.0)]
    assert explanation.pieces("word") == [("a😀b", 10.0)]


def test_offsets_lead_back_to_the_text(classifier):
    encoded = classifier.encode(TEXT)
    tokens = encoded.tokens
    spans = [TEXT[start:end] for start, end in tokens.offsets]
    for name, span in zip(tokens.names, spans, strict=True):
        assert name == "[UNK]" or name.removeprefix("##") == span.casefold()
    assert "funny" in tokens.words
    assert "dull" in tokens.words
    assert encoded.embeddings.shape == (1, 16, len(spans))
    for by in ("word", "token"):
        pieces = explain_text(classifier, TEXT, "gradient").pieces(by)
        assert "".join(piece for piece, _ in pieces) == TEXT


def test_html_shows_the_text_escaped_with_its_values_in_colour():
    offsets = ((0, 1), (2, 3), (3, 4), (4, 5))
    values = [1.0, -1.0, 0.0, 0.5]
    explanation = made("a <b>", ("a", "<", "b", ">"), offsets, (0, 1, 2, 3), values, label="<i>")
    html = explanation._repr_html_()
    spans = re.findall(
        r'<span style="background:([^;"]+);[^>]*title="([^"]+)">([^<]*)</span>', html
    )
    colours = {piece: colour for colour, _, piece in spans}
    assert [(value, piece) for _, value, piece in spans] == [
        ("+1", "a"), ("-1", "&lt;"), ("+0", "b"), ("+0.5", "&gt;"),
    ]  # fmt: skip
    red, green, blue = map(int, re.findall(r"\d+", colours["a"]))
    assert red > green > blue  # orange
    red, green, blue = map(int, re.findall(r"\d+", colours["&lt;"]))
    assert blue > red > green  # purple
    assert colours["b"] == "rgb(255, 255, 255)"
    assert "&lt;i&gt; (class 0)" in html
    assert "<i>" not in html
    assert "<b> " not in html
    whole = page({"<u>": explanation}, "why <q>?")
    assert "<u>" not in whole
    assert "<q>" not in whole
    assert "<b>&lt;u&gt;</b>" in whole


def test_the_terminal_shows_the_text_and_takes_no_commands_from_it():
    text = "[red]a[/] \x1b[2J\x07 b"
    explanation = made(text, ("a", "b"), ((5, 6), (16, 17)), (0, 1), [1.0, -2.0])
    shown = rich_text(explanation)
    assert shown.plain == "[red]a[/] \ufffd[2J\ufffd b"
    console = Console(force_terminal=True, color_system="truecolor", width=200)
    with console.capture() as captured:
        console.print(explanation)
    printed = captured.get()
    assert "\x1b[2J" not in printed
    assert "\x07" not in printed
    assert "[red]" in re.sub(r"\x1b\[[0-9;]*m", "", printed)
    (full,) = (span.style for span in shown.spans if shown.plain[span.start : span.end] == "b")
    red, green, blue = (int(str(full)[-6:][i : i + 2], 16) for i in (0, 2, 4))
    assert blue > red > green  # the larger value, against: full purple


def state(network):
    return (
        {name: value.clone() for name, value in network.state_dict().items()},
        [value.requires_grad for value in network.parameters()],
        [value.grad for value in network.parameters()],
        [(part.training, len(part._forward_hooks)) for part in network.modules()],
        [sorted(vars(part)) for part in network.modules()],
    )


def same(before, after):
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())


FAST = {
    "n_steps": 3, "n_samples": 2, "n_masks": 9, "designs": 2, "cells": 2, "classes": 2,
    "iterations": 2,
}  # fmt: skip
REFUSED = {
    "neutral": "expected a model that is a chain of Linear",
    "expected_gradients": "references=",
    "ig2": "references=",
    "deeplift": "deeplift has no rule for",
    "deeplift_shap": "references=",
    "guided_backprop": "needs ReLU activations",
    "deconvolution": "needs ReLU activations",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", text_methods)
def test_every_method_explains_a_text_or_says_why_not(name, classifier):
    before = state(classifier.network)
    known = text_methods[name].settings
    settings = {key: value for key, value in FAST.items() if key in known}
    if name in REFUSED:
        with pytest.raises(UnilensError, match=REFUSED[name]) as raised:
            explain_text(classifier, TEXT, name, **settings)
        assert "\n" not in str(raised.value)
    else:
        explanation = explain_text(classifier, TEXT, name, **settings)
        assert explanation.token_values.isfinite().all()
        assert float(explanation.token_values.abs().max()) > 0
        assert explanation.attribution.provenance["method"] == name
    same(before, state(classifier.network))


def test_methods_and_baselines_are_the_registered_ones_and_three_more():
    assert set(methods) - set(text_methods) == {"gradcam", "guided_gradcam", "edges"}
    assert set(text_methods) < set(methods)
    assert set(text_baselines) - set(unilens.baselines()) == {"pad", "mask", "zero"}
    assert set(unilens.baselines()) < set(text_baselines)


def test_zero_is_black(classifier):
    black = explain_text(classifier, TEXT, "ig", baseline="black", n_steps=3).attribution
    zero = explain_text(classifier, TEXT, "ig", baseline="zero", n_steps=3).attribution
    assert torch.equal(black.values, zero.values)
    assert not zero.baseline.any()


def test_units_that_are_given_count(classifier):
    attribution = explain_text(classifier, TEXT, "uni", units=2.0, budget=0.5).attribution
    assert float(attribution.diagnostics["proximity"]) == pytest.approx(1.0)


def test_a_target_by_its_label_and_the_label_of_the_result(classifier):
    explanation = explain_text(classifier, TEXT, "gradient", "label_2")
    assert (int(explanation.attribution.target), explanation.label) == (2, "LABEL_2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text with words, got ''; write some"),
        (" \n", "expected a text with words"),
        ("very " * 40, r"at most 24 tokens, got 42 \(with 2 that the tokenizer adds\); shorten"),
        (b"film", "expected a text, one at a time, got bytes"),
        (["film"], "expected a text, one at a time, got list"),
        ("film \udcff", "expected a text in Unicode"),
    ],
)
def test_texts_that_cannot_be_explained(text, message, classifier):
    with pytest.raises(UnilensError, match=message) as raised:
        explain_text(classifier, text)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_sums_that_are_rounding_errors_are_noted(classifier):
    cancelled = explain_text(classifier, "the film was fun", "gradient")
    sizes = cancelled.attribution.values.abs().sum(1)
    assert float(cancelled.token_values.abs().max()) < 1e-12 * float(sizes.max())
    assert "the words' values by gradient are rounding errors" in cancelled.notes[-1]
    for method in ("input_x_gradient", "ig", "random", "occlusion"):
        assert explain_text(classifier, "the film was fun", method).notes == ()


def test_default_method_is_ig_from_the_mean_embedding(classifier):
    explanation = explain_text(classifier, TEXT, n_steps=4)
    expected = explain_text(classifier, TEXT, "ig", baseline="image_mean", n_steps=4)
    assert torch.equal(explanation.word_values, expected.word_values)
    assert "the default for texts" in explanation.attribution.provenance["default"]
    assert "default" not in expected.attribution.provenance


@pytest.mark.slow
@pytest.mark.parametrize("text", ["good", "good good good"])
def test_a_text_of_one_word_is_compared_with_other_tokens(classifier, text):
    explanation = explain_text(classifier, text)
    expected = explain_text(classifier, text, "ig", baseline="mask")
    assert torch.equal(explanation.word_values, expected.word_values)
    assert explanation.word_values.abs().max() > 0


@pytest.mark.parametrize("method", ["ig", "uni"])
def test_the_strongest_words_sign_is_compared_with_a_pass_without_it(classifier, method):
    settings = {"baseline": "pad"} if method == "ig" else {}
    explanation = explain_text(classifier, TEXT, method, score="logit", **settings)
    encoded, values = classifier.encode(TEXT), explanation.word_values
    target, strongest = int(explanation.attribution.target), int(values.abs().argmax())
    words = torch.tensor(encoded.tokens.word_of)
    token = "pad" if method == "ig" else "mask"
    other = encoded.model.replacement(token).view(1, -1, 1)
    without = torch.where(words == strongest, other, encoded.embeddings)
    fall = encoded.model(encoded.embeddings)[0, target] - encoded.model(without)[0, target]
    agrees = float(fall.sign() == values[strongest].sign())
    assert float(explanation.attribution.diagnostics["sign_agreement"]) == agrees


def test_wrong_names_are_told_with_the_right_ones(classifier):
    with pytest.raises(UnknownNameError, match="unknown baseline 'masks'; did you mean mask"):
        explain_text(classifier, TEXT, "ig", baseline="masks")
    with pytest.raises(UnknownNameError, match="unknown setting of ig 'steps'"):
        explain_text(classifier, TEXT, steps=3)
    with pytest.raises(UnilensError, match="unknown label 'LABEL_7'"):
        explain_text(classifier, TEXT, target="LABEL_7")


def test_a_tokenizer_without_the_token_of_the_baseline():
    classifier = TextClassifier(tiny_gpt2(), tiny_tokenizer(special=False))
    with pytest.raises(UnilensError, match="a tokenizer with a mask token, got one without; use"):
        explain_text(classifier, "The film", "ig", baseline="mask")
    assert explain_text(classifier, "The film", "ig", baseline="zero").tokens.words == (
        "The",
        "film",
    )


def test_a_token_says_nothing_about_a_photograph(small_net, images):
    with pytest.raises(UnilensError, match="expected a text for the baseline mask, got inputs of"):
        unilens.explain(small_net, images, "ig", baseline=text_baselines["mask"]())


class NeedsIds(transformers.BertForSequenceClassification):
    """Its logits depend on what the embeddings do not say."""

    def forward(self, input_ids=None, **more):
        outputs = super().forward(input_ids=input_ids, **more)
        if input_ids is not None:
            outputs.logits = outputs.logits + 1
        return outputs


def test_models_that_are_no_classifiers_of_texts():
    tokenizer = tiny_tokenizer()
    with pytest.raises(UnilensError, match="a sequence classifier of transformers, got Linear"):
        TextClassifier(nn.Linear(2, 2).eval(), tokenizer)
    bert = tiny_bert()
    with pytest.raises(UnilensError, match=r"takes inputs_embeds, got BertModel: .*logits"):
        TextClassifier(bert.bert, tokenizer).encode("The film")
    with pytest.raises(UnilensError, match="expected a model in eval mode"):
        TextClassifier(tiny_bert().train(), tokenizer)
    with pytest.raises(UnilensError, match=r"expected a fast tokenizer, .*, got NoneType"):
        TextClassifier(bert, None)
    needs_ids = NeedsIds(bert.config).double().eval()
    with pytest.raises(UnilensError, match="got NeedsIds, where they differ by 1; it needs the"):
        TextClassifier(needs_ids, tokenizer).encode("The film")


@pytest.mark.slow
def test_one_output_is_a_logit_unless_the_configuration_says_a_value():
    bert = tiny_bert()
    bert.classifier = nn.Linear(16, 1).double().eval()
    bert.config.num_labels = 1
    classifier = TextClassifier(bert, tiny_tokenizer())
    logit = bert(**tiny_tokenizer()("The film", return_tensors="pt")).logits[0, 0]
    explanation = explain_text(classifier, "The film", n_steps=3)
    assert torch.allclose(explanation.attribution.confidence, logit.sigmoid())
    bert.config.problem_type = "regression"
    unlearned = explain_text(classifier, "The film", "uni").attribution
    assert (
        unlearned.record["matching_loss"][0, 0] > unlearned.record["matching_loss"][0, -1]
    ).all()
    explanation = explain_text(classifier, "The film", "ig")
    assert torch.allclose(explanation.attribution.score, logit)
    assert explanation.attribution.confidence.isnan().all()
    assert abs(explanation.completeness_gap) < 1e-4


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    tiny_bert().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_a_model_from_a_folder_is_the_model(folder, classifier):
    loaded = load_text_classifier(f"hf:{folder}")
    assert not any(part.training for part in loaded.network.modules())
    explanation, expected = (explain_text(one, TEXT, n_steps=3) for one in (loaded, classifier))
    assert explanation.token_values.tolist() == pytest.approx(expected.token_values.tolist())


def test_models_that_cannot_be_loaded(folder, tmp_path, capsys):
    with pytest.raises(UnknownNameError, match="unknown kind of text model 'tim'"):
        load_text_classifier("tim:resnet18")
    with pytest.raises(UnilensError, match="to be a sequence classifier with its tokenizer, but"):
        load_text_classifier(f"hf:{tmp_path}/nowhere")
    with pytest.raises(UnilensError, match=r"py:package.module:function, but 'json' has no"):
        load_text_classifier("py:json:no")
    with pytest.raises(UnilensError, match=r"return a unilens.text.TextClassifier, got dict"):
        load_text_classifier("py:builtins:dict")
    tiny_bert().save_pretrained(tmp_path / "speechless")
    with pytest.raises(UnilensError, match="got one that knows no words"):
        load_text_classifier(f"hf:{tmp_path}/speechless")
    tiny_bert().bert.save_pretrained(folder)
    capsys.readouterr()
    with pytest.raises(
        UnilensError, match=r"has no weights for classifier.bias, classifier.weight"
    ):
        load_text_classifier(f"hf:{folder}")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
