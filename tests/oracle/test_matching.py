"""Why an image and a text match: against captum on scores written by hand, in float64."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch.nn.functional import cosine_similarity

from unilens.text import explain_match

from ..match_models import POSITIONS, clip, others, photograph, siglip

TEXTS = {"clip": ("a dog, a cat!", "a cot"), "siglip": ("the film was fun", "a dull plot")}
MODELS = {"clip": clip, "siglip": siglip}
STEPS = {"n_steps": 12}


@pytest.fixture(params=MODELS, scope="module")
def case(request):
    """A model, its network, processor and two texts."""
    model = MODELS[request.param]()
    return model, TEXTS[request.param]


def read(model, text):
    """Return the processor's ids, as the model's documentation calls it."""
    padding = {} if model.texts.padded is None else {"padding": "max_length"}
    return model.texts.tokenizer(text, return_tensors="pt", **padding)


def text_features(model, text):
    with torch.no_grad():
        return model.network.get_text_features(**read(model, text)).pooler_output


def image_features(model, pixels):
    normalised = (pixels - model.images.mean) / model.images.std
    return model.network.get_image_features(pixel_values=normalised).pooler_output


def cosine_of_tokens(model, text, image):
    """Return the cosine as a function of all tokens' embeddings `(B, N, E)`, and these."""
    given, towers = read(model, text), model.network.text_model
    layer = towers.get_input_embeddings()

    def cosine(embeddings):
        hook = layer.register_forward_hook(lambda *_: embeddings)
        try:
            repeated = {name: value.expand(len(embeddings), -1) for name, value in given.items()}
            return cosine_similarity(
                model.network.get_text_features(**repeated).pooler_output, image
            )
        finally:
            hook.remove()

    return cosine, layer(given["input_ids"]).detach()


@pytest.mark.slow
def test_similarity_equals_that_of_the_network(case):
    model, texts = case
    found = explain_match(model, photograph(), texts[0], "gradient", against=texts[1])
    image = image_features(model, found.pixels).detach()
    expected = [float(cosine_similarity(image, text_features(model, text))) for text in texts]
    assert found.similarities == pytest.approx(expected, abs=1e-12)
    assert found.score == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert abs(found.score) > 1e-3
    for part in (found.image, found.text.attribution, found.other.attribution):
        assert float(part.score) == pytest.approx(found.score, abs=1e-9)


def test_pixels_are_those_of_the_processor(case):
    model, texts = case
    found = explain_match(model, photograph(), texts[0], "gradient")
    expected = model.images.preprocess(photograph())
    assert torch.equal(found.pixels[0], expected.double())


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [False, True])
def test_image_ig_equals_captum(case, contrast):
    model, texts = case
    against = texts[1] if contrast else None
    found = explain_match(model, photograph(), texts[0], "ig", against=against, **STEPS)

    def score(pixels):
        image = image_features(model, pixels)
        value = cosine_similarity(image, text_features(model, texts[0]))
        return (
            value - cosine_similarity(image, text_features(model, against)) if contrast else value
        )

    expected = IntegratedGradients(score).attribute(
        found.pixels, baselines=0.0, method="gausslegendre", **STEPS
    )
    assert relative(found.image.values, expected) < 1e-6
    assert abs(float(found.image.values.sum())) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [False, True])
def test_text_ig_equals_captum(case, contrast):
    model, texts = case
    settings = {"text_settings": {"baseline": "zero"}, **STEPS}
    against = texts[1] if contrast else None
    found = explain_match(model, photograph(), texts[0], "ig", against=against, **settings)
    with torch.no_grad():
        image = image_features(model, found.pixels)
    for sign, explanation in zip((1, -1), found.texts, strict=False):
        cosine, whole = cosine_of_tokens(model, explanation.tokens.text, image)
        first = 1 if model.texts.padded is None else 0
        own = range(first, first + len(explanation.tokens.names))
        start = whole.clone()
        start[:, list(own)] = 0
        expected = IntegratedGradients(cosine).attribute(
            whole, baselines=start, method="gausslegendre", **STEPS
        )
        values = explanation.attribution.values.mT
        assert relative(values, sign * expected[:, list(own)]) < 1e-6
        assert abs(float(values.sum())) > 1e-3
        assert float(expected.sum()) == pytest.approx(float(expected[:, list(own)].sum()))


def test_text_occlusion_equals_loop(case):
    model, texts = case
    settings = {"text_settings": {"window": 1, "baseline": "zero"}, "text_method": "occlusion"}
    found = explain_match(model, photograph(), texts[0], "gradient", **settings)
    with torch.no_grad():
        image = image_features(model, found.pixels)
        cosine, whole = cosine_of_tokens(model, texts[0], image)
        drops = []
        for place in range(len(found.text.tokens.names)):
            without = whole.clone()
            without[:, place + (model.texts.padded is None)] = 0
            drops.append(float(cosine(whole) - cosine(without)))
    assert found.text.token_values.tolist() == pytest.approx(drops, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CLIPSeg", "ChineseCLIP", "AltCLIP", "Blip"])
def test_other_architectures(name):
    model = others(name)
    text = "a dog" if name == "CLIPSeg" else "the film was fun"
    found = explain_match(model, photograph(), text, "input_x_gradient")
    image = image_features(model, found.pixels).detach()
    given = {key: value for key, value in read(model, text).items() if key != "token_type_ids"}
    with torch.no_grad():
        own = model.network.get_text_features(**given).pooler_output
    assert found.score == pytest.approx(float(cosine_similarity(image, own)), abs=1e-12)
    assert float(found.text.token_values.abs().max()) > 1e-3


def test_siglip_reads_texts_padded_to_their_full_length():
    model = siglip()
    encoded, embedding = model.encode("fun")
    assert encoded.model.ids.shape == (1, POSITIONS)
    with torch.no_grad():
        (fun,) = model.texts.tokenizer("fun")["input_ids"]
        unpadded = model.network.get_text_features(torch.tensor([[fun]])).pooler_output
    assert not torch.allclose(embedding, unpadded, atol=1e-3)


def relative(ours, theirs):
    return float((ours - theirs.detach()).norm() / theirs.detach().norm())
