"""Texts against the model run on ids, algorithm 1 written out at the embeddings, and captum."""

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch.nn.functional import cross_entropy

from unilens.text import TextClassifier, explain_text

from ..text_models import HELD_OUT, sentiment, tiny_bert, tiny_gpt2, tiny_tokenizer

TEXT = "The film was not very funny, and unfunny!"


@pytest.fixture(scope="module")
def minilm():
    return TextClassifier(*sentiment())


@pytest.fixture
def bert():
    return TextClassifier(tiny_bert(), tiny_tokenizer())


@pytest.fixture
def gpt2():
    return TextClassifier(tiny_gpt2(), tiny_tokenizer(special=False))


def by_ids(classifier, ids):
    with torch.no_grad():
        return classifier.network(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2", "minilm"])
def test_text_outputs_equal_model_on_ids(name, request):
    classifier = request.getfixturevalue(name)
    attribution = explain_text(classifier, TEXT, "gradient").attribution
    expected = by_ids(classifier, classifier.tokenizer(TEXT)["input_ids"])
    assert attribution.outputs[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert int(attribution.target) == int(expected.argmax())


@pytest.mark.parametrize("token", ["pad", "mask"])
@pytest.mark.parametrize("name", ["bert", "minilm"])
def test_text_baselines_replace_every_token(name, token, request):
    classifier = request.getfixturevalue(name)
    explanation = explain_text(classifier, TEXT, "ig", 1, baseline=token, n_steps=2)
    ids = classifier.tokenizer(TEXT)["input_ids"]
    number = getattr(classifier.tokenizer, f"{token}_token_id")
    replaced = [ids[0], *[number] * (len(ids) - 2), ids[-1]]
    expected = by_ids(classifier, replaced).softmax(-1)[1]
    assert float(explanation.attribution.baseline_score) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("name", ["bert", "minilm"])
def test_text_ig_equals_captum(name, request):
    classifier = request.getfixturevalue(name)
    read = classifier.tokenizer(TEXT, return_tensors="pt")
    ids = read["input_ids"]
    padded = torch.full_like(ids, classifier.tokenizer.pad_token_id)
    padded[0, 0], padded[0, -1] = ids[0, 0], ids[0, -1]

    def probabilities(given):
        mask = torch.ones_like(given)
        return classifier.network(input_ids=given, attention_mask=mask).logits.softmax(-1)

    layer = classifier.network.get_input_embeddings()
    captum = LayerIntegratedGradients(probabilities, layer)
    expected = captum.attribute(ids, padded, target=0, n_steps=20, method="gausslegendre")
    explanation = explain_text(classifier, TEXT, "ig", 0, baseline="pad", n_steps=20)
    assert expected[0, 0].abs().max() == expected[0, -1].abs().max() == 0
    reference = expected[0, 1:-1].sum(-1)
    scale = float(reference.abs().max())
    assert float((explanation.token_values - reference).abs().max()) <= 1e-4 * scale


def algorithm_1(network, ids, target, unit, eta=1.0, T=10, eps=0.25, mu=0.1, B=15):
    """The paper's algorithm at the embeddings of all tokens but the first and the last.

    Distances are in `unit`: delta is the change of the embeddings divided by it.
    """
    import copy

    embed = network.get_input_embeddings()
    x = embed(ids).detach()
    inside = torch.zeros_like(x)
    inside[:, 1:-1] = 1

    def probabilities(model, at):
        return torch.softmax(model(inputs_embeds=at).logits, dim=1)

    unlearned = copy.deepcopy(network)
    cross_entropy(unlearned(inputs_embeds=x).logits, torch.tensor([target])).backward()
    norm = sum((p.grad**2).sum() for p in unlearned.parameters() if p.grad is not None) ** 0.5
    with torch.no_grad():
        for p in unlearned.parameters():
            if p.grad is not None:
                p += eta * p.grad / norm
        reference = probabilities(unlearned, x)
    delta = torch.zeros_like(x)
    for _ in range(T):
        delta.requires_grad_(True)
        reached = probabilities(network, x + unit * delta * inside)
        cost = (reference * (reference / reached).log()).sum()
        (step,) = torch.autograd.grad(cost, delta)
        delta = (delta - mu * step).detach()
        delta = eps * delta / (delta**2).sum() ** 0.5
    baseline = x + unit * delta
    total = torch.zeros_like(x)
    for k in range(1, B + 1):
        point = (baseline + k / B * (x - baseline)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(probabilities(network, point)[0, target], point)
        total += gradient
    return ((x - baseline) / B * total)[0, 1:-1].sum(-1), baseline[0, 1:-1]


def test_text_uni_paper_equals_algorithm_1(bert):
    ids = bert.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    weights = bert.network.get_input_embeddings().weight.detach()
    unit = float(weights.norm(dim=1).median())
    assert bert.typical_norm == pytest.approx(unit, rel=1e-6)
    reference, baseline = algorithm_1(bert.network, ids, 2, bert.typical_norm)
    explanation = explain_text(bert, TEXT, "uni_paper", 2)
    assert explanation.attribution.baseline[0].mT.numpy() == pytest.approx(
        baseline.numpy(), abs=1e-9
    )
    scale = float(reference.abs().max())
    assert float((explanation.token_values - reference).abs().max()) <= 1e-7 * scale
    distance = float(explanation.attribution.diagnostics["proximity"])
    assert distance == pytest.approx(0.25 * bert.typical_norm)


@pytest.mark.slow
def test_text_uni_of_encoder_is_complete_and_lowers_confidence(minilm):
    changes = []
    for text, _ in HELD_OUT[:4]:
        explanation = explain_text(minilm, text, "uni")
        attribution = explanation.attribution
        change = float(attribution.score - attribution.baseline_score)
        assert float(explanation.word_values.sum()) == pytest.approx(change, abs=0.01)
        assert float(attribution.diagnostics["monotonicity"]) > 0.95
        changes.append(float(attribution.diagnostics["confidence_change"]))
    assert max(changes) < -0.5


@pytest.mark.slow
def test_text_ig_of_encoder_finds_decisive_words(minilm):
    hits = 0
    for text, word in HELD_OUT[1:]:
        explanation = explain_text(minilm, text, "ig", baseline="zero")
        hits += explanation.tokens.words[int(explanation.word_values.argmax())] == word
    assert hits >= 7  # of 10; a word at random would be hit once
