"""Attributions of generated text equal plain loops over the targets, in float64."""

import numpy as np
import pytest
import torch

from tests.text_models import tiny_language_model, tiny_tokenizer
from unilens.text import generate

ARCHITECTURES = ("GPT2", "Llama", "T5", "Bart")
PROMPT = "the film was not very good , a dull plot and fun"
CONTINUATION = "very bad and dull !"
PAD = 0
TOLERANCE = {"GP": 1e-8, "Ba": 1e-8, "Ll": 1e-5, "T5": 1e-5}
"""By the first letters of the network; the norms of LLaMA and T5 compute in float32."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request):
    """A model, its ids of a prompt and of a continuation, and the embeddings of both."""
    network, tokenizer = tiny_language_model(request.param), tiny_tokenizer()
    prompt = tokenizer(PROMPT)["input_ids"]
    ids = tokenizer(CONTINUATION, add_special_tokens=False)["input_ids"]
    if request.param in ("GPT2", "Llama"):
        prompt, tokenizer = prompt[:-1], _without_end(tokenizer)
    return network, tokenizer, prompt, ids


def _without_end(tokenizer):
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    return tokenizer


def next_logits(network, prompt, embeddings):
    """The logits of the token after some embeddings `(L, E)`, called as transformers documents."""
    if not network.config.is_encoder_decoder:
        return network(inputs_embeds=embeddings[None]).logits[0, -1]
    start = torch.tensor([network.config.decoder_start_token_id])
    first = network.get_input_embeddings()(start)
    decoder = torch.cat([first, embeddings[len(prompt) :]])[None]
    given = embeddings[None, : len(prompt)]
    return network(inputs_embeds=given, decoder_inputs_embeds=decoder).logits[0, -1]


def by_hand(case, explain):
    """The values `(T, P + T)` by a function of the score and embeddings `(L, E)`."""
    network, _, prompt, ids = case
    whole = network.get_input_embeddings()(torch.tensor([*prompt, *ids])).detach()
    values = torch.full((len(ids), len(whole)), torch.nan, dtype=torch.float64)
    for number, token in enumerate(ids):
        length = len(prompt) + number

        def score(embeddings, token=token):
            return next_logits(network, prompt, embeddings).log_softmax(-1)[token]

        values[number, :length] = explain(score, whole[:length], network)
    return values


def gradient(score, embeddings):
    leaf = embeddings.clone().requires_grad_()
    return torch.autograd.grad(score(leaf), leaf)[0]


def compare(network, attribution, expected):
    assert torch.equal(attribution.values.isnan(), expected.isnan())
    error = float((attribution.values - expected).abs().nan_to_num().max())
    assert error < TOLERANCE[type(network).__name__[:2]]
    assert float(expected.nan_to_num().abs().max()) > 1e-3  # there is something to compare


def explained(case, method, **settings):
    network, tokenizer, prompt, ids = case
    attribution = generate(
        network, tokenizer, PROMPT, method, continuation=" " + CONTINUATION, **settings
    )
    assert attribution.values.shape == (len(ids), len(prompt) + len(ids))
    return attribution


@pytest.mark.slow
def test_input_x_gradient(case):
    attribution = explained(case, "input_x_gradient")
    assert attribution.provenance["engine"]["shared"]
    expected = by_hand(case, lambda score, x, _: (gradient(score, x) * x).sum(-1))
    compare(case[0], attribution, expected)
    compare(case[0], explained(case, "input_x_gradient", shared=False), expected)


def test_gradient_is_the_norm(case):
    expected = by_hand(case, lambda score, x, _: gradient(score, x).norm(dim=-1))
    compare(case[0], explained(case, "gradient"), expected)
    compare(case[0], explained(case, "gradient", shared=False), expected)


@pytest.mark.slow
def test_integrated_gradients_from_the_padding_token(case):
    nodes, weights = np.polynomial.legendre.leggauss(5)

    def integrate(score, embeddings, network):
        start = network.get_input_embeddings()(torch.tensor(PAD)).detach().expand_as(embeddings)
        total = torch.zeros_like(embeddings)
        for node, weight in zip(nodes, weights, strict=True):
            point = start + (node + 1) / 2 * (embeddings - start)
            total += weight / 2 * gradient(score, point) * (embeddings - start)
        return total.sum(-1)

    expected = by_hand(case, integrate)
    attribution = explained(case, "ig", baseline="pad", n_steps=5)
    assert attribution.provenance["engine"]["shared"]
    compare(case[0], attribution, expected)
    one_by_one = explained(case, "ig", baseline="pad", n_steps=5, shared=False)
    compare(case[0], one_by_one, expected)


def test_occlusion_by_the_padding_token(case):
    def occlude(score, embeddings, network):
        pad = network.get_input_embeddings()(torch.tensor(PAD)).detach()
        falls = []
        for source in range(len(embeddings)):
            replaced = embeddings.clone()
            replaced[source] = pad
            falls.append(score(embeddings) - score(replaced))
        return torch.stack(falls).detach()

    attribution = explained(case, "occlusion", baseline="pad")
    engine = attribution.provenance["engine"]
    assert engine["shared"]
    assert engine["cached"] == (not case[0].config.is_encoder_decoder)
    compare(case[0], attribution, by_hand(case, occlude))


def test_contrast_is_the_difference_of_two_logits(case):
    network, tokenizer, prompt, ids = case
    other = tokenizer.convert_tokens_to_ids("good")
    attribution = explained(case, "input_x_gradient", against="good", targets=[len(ids) - 1])
    whole = network.get_input_embeddings()(torch.tensor([*prompt, *ids[:-1]])).detach()

    def score(embeddings):
        logits = next_logits(network, prompt, embeddings)
        return logits[ids[-1]] - logits[other]

    expected = (gradient(score, whole) * whole).sum(-1)
    tolerance = TOLERANCE[type(network).__name__[:2]]
    torch.testing.assert_close(attribution.values[-1, :-1], expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(attribution.score[-1], score(whole).detach(), rtol=0, atol=tolerance)
    assert attribution.against[-1] == "good"
    assert attribution.values[:-1].isnan().all()
