"""Matches of images and texts: both sides' methods, how they are shown, what is refused."""

import dataclasses
import re
from types import SimpleNamespace

import numpy
import pytest
import torch
import transformers

from unilens.errors import UnilensError, UnknownNameError
from unilens.methods import methods
from unilens.text import (
    ImageTextModel,
    explain_match,
    load_image_text_model,
    match_html,
    text_methods,
)

from ..match_models import (
    clip,
    clip_processor,
    clip_tokenizer,
    photograph,
    siglip,
    siglip_processor,
    tiny_clip,
)
from ..text_models import tiny_bert

TEXT, OTHER = "a dog, <b> cat", "a cot"
FOR_BOTH_SIDES = {
    "uni_blur", "uni", "uni_paper", "ig", "blur_ig", "guided_ig", "sig", "idgi", "idg", "gradient",
    "input_x_gradient", "smoothgrad", "vargrad", "squaregrad", "balanced", "gradcam", "occlusion",
    "rollout", "gradient_rollout", "legrad", "rise", "shapley", "sobol", "random", "edges",
}  # fmt: skip
"""All others need classes, references, or networks of ReLUs, and say so."""


@pytest.fixture(scope="module")
def model():
    return clip()


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", methods)
def test_match_by_every_method(model, name):
    before = state(model.network)
    few = {"n_steps": 2, "n_samples": 2, "n_masks": 20, "designs": 1, "n_permutations": 4}
    settings = {key: few[key] for key in few if key in methods[name].settings_with({})}
    try:
        found = explain_match(model, photograph(), TEXT, name, **settings)
    except UnilensError:
        assert name not in FOR_BOTH_SIDES
    else:
        assert found.image.provenance["method"] == name
        side = name if name in text_methods else "ig"
        assert found.text.attribution.provenance["method"] == side
        for values in (found.image.values, found.text.attribution.values):
            assert bool(values.isfinite().all())
            assert float(values.abs().sum()) > 0
    after = model.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_match_by_default(model):
    found = explain_match(model, photograph(), TEXT)
    assert found.image.provenance["default"] == "uni_blur, the default for images"
    assert "the default for texts" in found.text.attribution.provenance["default"]
    assert found.other is None
    assert found.texts == (found.text,)


@pytest.mark.slow
def test_match_of_a_text_of_one_token_begins_at_other_tokens(model):
    found = explain_match(model, photograph(), "dog").text
    assert "other tokens" in found.attribution.provenance["default"]
    assert found.attribution.baseline is not None
    assert not torch.equal(found.attribution.baseline, found.attribution.baseline * 0)


def test_match_settings_go_to_the_sides_that_have_them(model):
    found = explain_match(
        model, photograph(), TEXT, "occlusion", text_method="ig", window=16, n_steps=3,
        text_settings={"baseline": "pad"},
    )  # fmt: skip
    assert found.image.provenance["settings"]["window"] == 16
    text = found.text.attribution.provenance["settings"]
    assert text["n_steps"] == 3
    assert text["baseline"]["token"] == "pad"
    assert found.text.attribution.provenance["method"] == "ig"


def test_match_from_a_baseline_without_a_method(model):
    found = explain_match(model, photograph(), TEXT, baseline="blur", n_steps=2)
    assert found.image.provenance["method"] == found.text.attribution.provenance["method"] == "ig"


def test_match_by_balanced_gradients(model):
    plain, balanced = (
        explain_match(model, photograph(), TEXT, "input_x_gradient", balanced=setting)
        for setting in (False, True)
    )
    assert not torch.allclose(plain.image.values, balanced.image.values)
    assert not torch.allclose(plain.text.token_values, balanced.text.token_values)


@pytest.mark.slow
def test_match_against_swapped_texts_changes_sign(model):
    found = explain_match(model, photograph(), TEXT, "gradient", against=OTHER)
    swapped = explain_match(model, photograph(), OTHER, "gradient", against=TEXT)
    assert found.score == pytest.approx(-swapped.score)
    assert torch.allclose(found.image.values, -swapped.image.values)
    assert torch.allclose(found.text.token_values, -swapped.other.token_values)
    assert found.other.tokens.text == OTHER


@pytest.mark.slow
def test_match_as_html_is_escaped(model):
    found = explain_match(model, photograph(), TEXT, "input_x_gradient", against=OTHER)
    shown = found._repr_html_()
    assert shown == match_html(found)
    assert shown.count('">&lt;</span>') == 1
    noted = dataclasses.replace(found, notes=("<i>",))
    assert "&lt;i&gt;" in match_html(noted)
    assert len(re.findall(r'src="data:image/png;base64,', shown)) == 2
    values = re.findall(r'<span style="[^"]+" title="([^"]+)">', shown)
    expected = [*found.text.word_values, *found.other.word_values]
    assert values == [f"{value:+.3g}" for value in expected]
    assert f"score {found.score:+.3f}" in shown
    assert "purple against the first text" in shown
    assert "own logit is" in shown


@pytest.mark.slow
def test_match_says_the_score_and_how_the_logit_follows(model):
    found = explain_match(model, photograph(), TEXT, "gradient")
    assert repr(found).startswith(f"MatchAttribution ({found.score:+.3f}) by gradient")
    (note,) = found.notes
    scale = float(model.network.logit_scale.exp().detach())
    assert note.endswith(f"the model's own logit is {scale:.3g} × it")
    network = siglip().network
    with torch.no_grad():
        network.logit_bias.fill_(-2.0)
    assert ImageTextModel(network, siglip_processor()).logit_note.endswith("× it -2")


@pytest.mark.parametrize(
    ("image", "text", "settings", "message"),
    [
        (None, "", {}, "expected a text with words, got ''"),
        (None, "  ", {}, "expected a text with words"),
        (None, ["a dog"], {}, "expected a text, one at a time, got list"),
        (None, "dog " * 20, {}, "at most 12 tokens, got 22"),
        (None, TEXT, {"against": TEXT}, "another text, got the same; leave it out"),
        (None, TEXT, {"against": TEXT.upper()}, "another text, got one with the same tokens"),
        (None, TEXT, {"against": ""}, "expected a text with words"),
        (None, TEXT, {"seed": -1}, "expected seed"),
        (None, TEXT, {"score": "logit"}, "expected no score= for a match"),
        (None, TEXT, {"text_settings": {"target": 0}}, "expected no target= for a match"),
        ("nowhere.png", TEXT, {}, "no such image: nowhere.png"),
        (7, TEXT, {}, "expected a path, an open binary file, a PIL image"),
        (numpy.zeros((5, 40, 40, 3), numpy.uint8), TEXT, {}, "several images are passed one by"),
    ],
)
def test_match_refuses(model, image, text, settings, message):
    with pytest.raises(UnilensError, match=re.escape(message)) as caught:
        explain_match(model, photograph() if image is None else image, text, "gradient", **settings)
    assert "\n" not in str(caught.value)


def test_match_refuses_unknown_names(model):
    with pytest.raises(UnknownNameError, match="unknown method 'gradcan'; did you mean gradcam"):
        explain_match(model, photograph(), TEXT, "gradcan")
    with pytest.raises(UnknownNameError, match="unknown method 'gradcam'"):
        explain_match(model, photograph(), TEXT, "ig", text_method="gradcam")
    with pytest.raises(UnknownNameError, match="setting of occlusion and ig 'stepz'"):
        explain_match(model, photograph(), TEXT, "occlusion", text_method="ig", stepz=3)
    with pytest.raises(UnilensError, match="expected an ImageTextModel, got CLIPModel"):
        explain_match(model.network, photograph(), TEXT)


def test_models_without_two_towers_are_refused():
    with pytest.raises(UnilensError, match="got BertForSequenceClassification, which has no image"):
        ImageTextModel(tiny_bert(), clip_processor())
    config = tiny_clip().config.vision_config
    vision = transformers.CLIPVisionModel(config).eval()
    vision.get_image_features = vision.forward
    with pytest.raises(UnilensError, match="has no text tower"):
        ImageTextModel(vision, clip_processor())
    with pytest.raises(UnilensError, match="in training mode"):
        ImageTextModel(tiny_clip().train(), clip_processor())


def test_processors_without_a_part_are_refused():
    with pytest.raises(UnilensError, match="got CLIPTokenizer without image_processor"):
        ImageTextModel(tiny_clip(), clip_tokenizer())
    images = clip_processor().image_processor
    with pytest.raises(UnilensError, match="without tokenizer"):
        ImageTextModel(tiny_clip(), SimpleNamespace(image_processor=images))


def test_processors_of_other_models_are_refused():
    larger = ImageTextModel(tiny_clip(), clip_processor(size=48))
    with pytest.raises(UnilensError, match="pictures of 48 x 48 pixels it does not take"):
        explain_match(larger, photograph(), TEXT)
    tokens = clip_tokenizer()
    tokens.add_tokens(["bird"])
    more = ImageTextModel(tiny_clip(), clip_processor(tokenizer=tokens))
    with pytest.raises(UnilensError, match="expected a tokenizer with the model's 66 tokens"):
        explain_match(more, photograph(), "a bird")
    ends = clip_tokenizer(eos_token="z</w>", pad_token="z</w>")
    other_end = ImageTextModel(tiny_clip(), clip_processor(tokenizer=ends))
    with pytest.raises(UnilensError, match="reads none of its tokens"):
        explain_match(other_end, photograph(), TEXT)


@pytest.mark.slow
def test_models_of_images_and_texts_are_loaded(tmp_path):
    tiny_clip().save_pretrained(tmp_path)
    clip_processor().save_pretrained(tmp_path)
    loaded = load_image_text_model(f"hf:{tmp_path}")
    found = explain_match(loaded, photograph(), TEXT, "gradient")
    expected = explain_match(clip(), photograph(), TEXT, "gradient")
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    with pytest.raises(UnilensError, match="hf:REPO or hf:FOLDER, got 'clip'"):
        load_image_text_model("clip")
    with pytest.raises(UnilensError, match="could not be loaded"):
        load_image_text_model(f"hf:{tmp_path}/nothing")
