"""Scores of whatever a model returns: their settings, their inputs, and models of known truth."""

import pickle
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import unilens
from unilens import scores
from unilens._engine.evaluator import Evaluator
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.path_attribution import PathAttribution

torch.manual_seed(0)
IMAGES = torch.rand(3, 3, 12, 12, dtype=torch.float64)
ROWS = torch.rand(4, 6, dtype=torch.float64)


class Segmenter(nn.Module):
    def __init__(self, wrap=lambda logits: logits):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 4, 3, padding=1)
        )
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(self.layers(images))


@dataclass
class Output:
    name: str
    logits: torch.Tensor


Pair = namedtuple("Pair", "features logits")
WRAPS = {
    "tensor": lambda logits: logits,
    "dictionary": lambda logits: {"aux": logits * 0, "out": logits},
    "data class": lambda logits: Output("segments", logits),
    "named tuple": lambda logits: Pair(logits.mean((2, 3)), logits),
    "list": lambda logits: [logits.mean((2, 3)), logits],
}


def segmenter(wrap="tensor"):
    torch.manual_seed(1)
    return Segmenter(WRAPS[wrap]).double().eval()


def perceptron():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


@pytest.mark.parametrize("wrap", WRAPS)
def test_outputs_of_all_kinds_are_read(wrap):
    score = scores.segmentation(1)
    expected = unilens.explain(segmenter(), IMAGES, "gradient", score=score)
    found = unilens.explain(segmenter(wrap), IMAGES, "gradient", score=score)
    assert torch.equal(found.values, expected.values)


@pytest.mark.parametrize("method", ["uni", "uni_blur", "ig", "smoothgrad", "rise", "gradcam"])
def test_an_input_alone_has_the_map_that_it_has_in_a_batch(method):
    whole = unilens.explain(segmenter(), IMAGES, method, score=scores.segmentation(1))
    alone = unilens.explain(segmenter(), IMAGES[1:2], method, score=scores.segmentation(1))
    assert torch.equal(whole.values[1], alone.values[0])
    assert torch.equal(whole.outputs[1], alone.outputs[0])
    assert whole.target.tolist() == [1, 1, 1]


def test_a_method_of_ones_own_takes_the_score():
    by_name = unilens.explain(segmenter(), IMAGES, "ig", score=scores.segmentation(1))
    method = PathAttribution(score=scores.segmentation(1))
    assert torch.equal(method(segmenter(), IMAGES).values, by_name.values)
    inner = methods["gradient"](score=scores.segmentation(1))
    smooth = methods["smoothgrad"](n_samples=3, inner="gradient")
    assert smooth is not None
    assert inner(segmenter(), IMAGES).provenance["score"]["type"] == "Segmentation"


def test_the_confidence_is_that_of_the_regions_class():
    mask = torch.zeros(12, 12)
    mask[2:5, 3:9] = 1
    model = segmenter()
    found = unilens.explain(model, IMAGES, "ig", score=scores.segmentation(2, mask))
    logits = model(IMAGES).detach()[:, :, mask.bool()].mean(2)
    assert torch.allclose(found.outputs, logits)
    assert torch.allclose(found.confidence, logits.softmax(1)[:, 2])


def test_a_larger_mask_is_averaged():
    small = torch.rand(12, 12, dtype=torch.float64)
    large = small.repeat_interleave(2, 0).repeat_interleave(2, 1)
    outputs = segmenter()(IMAGES)
    expected = scores.segmentation(1, small)(outputs)
    assert torch.allclose(scores.segmentation(1, large)(outputs), expected)


def test_several_inputs_and_a_frozen_one():
    class Likeness(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.word = nn.Linear(6, 4), nn.Embedding(5, 4)

        def forward(self, image, ids):
            return {"image_embeds": self.image(image) + self.word(ids)}

    torch.manual_seed(3)
    model = Likeness().double().eval()
    anchors = torch.rand(4, 4, dtype=torch.float64)
    inputs = {"image": ROWS, "ids": torch.tensor([0, 1, 2, 3])}
    found = unilens.explain(model, inputs, "ig", score=scores.similarity(anchors), n_steps=100)
    expected = torch.cosine_similarity(model(**inputs)["image_embeds"], anchors).detach()
    assert torch.allclose(found.score, expected)
    assert found.completeness_gap.abs().max() < 1e-2
    assert found.target.tolist() == [0, 0, 0, 0]


def test_a_prepared_evaluator_and_its_axes_serve_the_score():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = segmenter()

        def forward(self, images):
            return {"out": self.inner(images.movedim(-1, 1))}

    mask = torch.zeros(3, 12, 12)
    mask[:, 4:9, 2:7] = 1
    score = scores.segmentation(1, mask)
    expected = unilens.explain(segmenter(), IMAGES, "uni_blur", score=score)
    evaluator = Evaluator(Last().eval(), channels="last")
    found = unilens.explain(evaluator, IMAGES.movedim(1, -1), "uni_blur", score=score)
    assert torch.allclose(found.values, expected.values.movedim(1, -1), atol=1e-12)


def test_the_model_is_left_as_it_was():
    model = segmenter()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unilens.explain(model, IMAGES, "uni", score=scores.segmentation(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model._forward_hooks


def test_a_bound_evaluator_is_pickled_with_what_its_outputs_are():
    bound = scores.bind(perceptron(), ROWS, scores.regression(1)).evaluator
    again = pickle.loads(pickle.dumps(bound))
    assert again.output_spec == bound.output_spec
    assert torch.equal(again(ROWS), bound(ROWS))


def test_metrics_refuse_maps_of_a_score_without_it():
    found = unilens.explain(perceptron(), ROWS, "ig", score=scores.regression(2))
    with pytest.raises(UnilensError, match=r"expected the score that the maps explain.*score="):
        unilens.evaluate(perceptron(), ROWS, found, "mu_fidelity")
    again = unilens.evaluate(
        perceptron(), ROWS, found, "max_sensitivity", method="ig", score=scores.regression(2)
    )
    assert again.isfinite().all()


def test_attributions_of_scores_are_kept(tmp_path):
    found = unilens.explain(segmenter(), IMAGES, "ig", score=scores.segmentation(1))
    found.save(tmp_path / "map.safetensors")
    again = unilens.Attribution.load(tmp_path / "map.safetensors")
    assert torch.equal(again.confidence, found.confidence)
    assert again.provenance["score"] == found.provenance["score"]
    assert "Segmentation" in str(again.provenance["score"])


# --- bad input ------------------------------------------------------------------------------

BAD = {
    "a target beside": (
        perceptron,
        ROWS,
        {"score": scores.regression(0), "target": 1},
        "expected no target beside a score of what the model returns, got 1",
    ),
    "outputs= beside": (
        perceptron,
        ROWS,
        {"score": scores.regression(0), "outputs": "logits"},
        "expected no outputs= beside a score of what the model returns",
    ),
    "no such column": (
        perceptron,
        ROWS,
        {"score": scores.regression(3)},
        "expected output below 3, since the model's outputs have that many, got 3",
    ),
    "no such entry": (
        perceptron,
        ROWS,
        {"score": scores.regression("depth")},
        "expected one output with 1 or 2 dimensions for regression, got",
    ),
    "rows for a segmentation": (
        perceptron,
        ROWS,
        {"score": scores.segmentation(0)},
        "expected one output with 3 or 4 or 5 dimensions for segmentation",
    ),
    "no such class of a segmentation": (
        segmenter,
        IMAGES,
        {"score": scores.segmentation(9)},
        "expected a class from 0 to 3 for segmentation, got 9",
    ),
    "masks of two of three inputs": (
        segmenter,
        IMAGES,
        {"score": scores.segmentation(0, torch.ones(2, 12, 12))},
        "one entry for each of 3 inputs, got shape (2, 12, 12)",
    ),
    "a mask of another shape": (
        segmenter,
        IMAGES,
        {"score": scores.segmentation(0, torch.ones(24, 12))},
        "expected mask of the outputs' size (12, 12), or a multiple of it, got (24, 12)",
    ),
    "an empty mask": (
        segmenter,
        IMAGES,
        {"score": scores.segmentation(0, torch.zeros(12, 12))},
        "expected mask to have a region, got one that is 0 everywhere",
    ),
    "no pixels of the class": (
        lambda: (
            Segmenter(lambda logits: logits - torch.tensor([0, 0, 0, 99.0])[:, None, None])
            .double()
            .eval()
        ),
        IMAGES,
        {"score": scores.segmentation(3)},
        "expected pixels predicted as class 3, got none in input 0; pass mask=",
    ),
    "a detector's score of a classifier": (
        perceptron,
        ROWS,
        {"score": scores.detection()},
        "expected a detector's outputs",
    ),
    "an embedding of another size": (
        perceptron,
        ROWS,
        {"score": scores.similarity(torch.ones(5))},
        "expected embedding of the model's size 3, got 5",
    ),
    "a step beyond the horizon": (
        segmenter,
        IMAGES,
        {"score": lambda outputs: scores.forecast(9)(outputs.flatten(2))},
        "expected step below 4",
    ),
    "a function that gives no rows": (
        perceptron,
        ROWS,
        {"score": lambda outputs: outputs.flatten()},
        "expected score to give values of shape",
    ),
    "a function that gives no tensor": (
        perceptron,
        ROWS,
        {"score": lambda outputs: 1.0},
        "expected score to give a tensor of values, one per input, got float",
    ),
    "a function that fails": (
        perceptron,
        ROWS,
        {"score": lambda outputs: outputs["logits"]},
        "the model could not take",
    ),
    "a name in place of a score": (
        segmenter,
        IMAGES,
        {"score": "segmentation"},
        "got 'segmentation'; write score=unilens.scores.segmentation(...)",
    ),
    "against the target": (
        perceptron,
        ROWS,
        {"score": scores.margin(against=1), "target": 1},
        "expected against to be a class from 0 to 2 other than the target, got 1",
    ),
    "against, of one output": (
        lambda: nn.Linear(6, 1).double().eval(),
        ROWS,
        {"score": scores.margin(against=1), "outputs": "logits"},
        "expected classes that exclude each other for margin(against=)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case):
    build, inputs, settings, message = BAD[case]
    with pytest.raises(UnilensError) as raised:
        unilens.explain(build(), inputs, "ig", **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


SETTINGS = {
    "a box inside out": lambda: scores.detection(torch.tensor([9.0, 0, 3, 4]), 1),
    "a box without a class": lambda: scores.detection(torch.tensor([0.0, 0, 3, 4])),
    "three numbers": lambda: scores.detection(torch.tensor([0.0, 0, 3]), 1),
    "no head": lambda: scores.detection(head="linear"),
    "no region": lambda: scores.segmentation(1, "all"),
    "a line for a mask": lambda: scores.segmentation(1, torch.ones(4)),
    "no class": lambda: scores.segmentation(-1),
    "no embedding": lambda: scores.similarity("cat"),
    "an embedding of ids": lambda: scores.similarity(torch.arange(4)),
    "no measure": lambda: scores.similarity(torch.ones(4), measure="manhattan"),
    "half an output": lambda: scores.regression(0.5),
    "half a step": lambda: scores.forecast(0.5),
    "half a class": lambda: scores.margin(against=0.5),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings_are_one_line(case):
    with pytest.raises(UnilensError, match=r"^expected [^\n]*got[^\n]*$"):
        SETTINGS[case]()


def test_more_scores_than_fit_a_batch():
    rows = torch.rand(65, 6, dtype=torch.float64)
    with pytest.raises(UnilensError, match="expected at most 64 inputs with scores of their own"):
        unilens.explain(perceptron(), rows, "ig", score=scores.similarity(torch.rand(65, 3)))


def test_models_that_need_a_score_name_it():
    boxes = nn.Module()
    boxes.forward = lambda images: [{"boxes": images, "scores": images}]
    for model, name in ((segmenter(), "segmentation"), (boxes.eval(), "detection")):
        with pytest.raises(UnilensError, match=f"unilens.scores.{name}"):
            unilens.explain(model, IMAGES, "ig")


def test_where_nothing_is_detected_the_score_is_zero():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images):
            none = images.flatten()[:0] * self.scale
            labels = torch.zeros(0, dtype=torch.long)
            return [{"boxes": none.view(0, 4), "scores": none, "labels": labels} for _ in images]

    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    found = unilens.explain(Empty().eval(), IMAGES, "gradient", score=scores.detection(box, 0))
    assert not found.score.any()
    assert not found.values.any()
    assert found.warnings == [["zero_map"]] * 3
    with pytest.raises(NotApplicableError, match="expected a detection in input 0, got none"):
        unilens.explain(Empty().eval(), IMAGES, "gradient", score=scores.detection())
