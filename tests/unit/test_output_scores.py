"""Scores of whatever a model returns: their settings, their inputs, and models of known truth."""

import gc
import pickle
import weakref
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import unilens
from unilens import scores
from unilens._engine import plan_cache
from unilens._engine.evaluator import Evaluator
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.methods.smoothing import Smoothed
from unilens.path_attribution import PathAttribution
from unilens.scores.detection import overlap

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
    assert method(segmenter(), IMAGES).provenance["score"]["type"] == "Segmentation"


def test_a_method_around_another_takes_the_others_score():
    score = scores.segmentation(1)
    method = Smoothed(methods["gradient"](score=score), n_samples=3)
    by_name = unilens.explain(segmenter(), IMAGES, "smoothgrad", score=score, n_samples=3)
    found = method(segmenter(), IMAGES)
    assert torch.equal(found.values, by_name.values)
    assert torch.equal(found.score, by_name.outputs[:, 1])


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


def test_what_an_evaluators_own_outputs_are_is_not_what_a_score_is():
    evaluator = Evaluator(perceptron(), outputs="multi_label")
    found = unilens.explain(evaluator, ROWS, "uni", score=scores.regression(1))
    expected = unilens.explain(perceptron(), ROWS, "uni", score=scores.regression(1))
    assert found.provenance["outputs"] == {"kind": "regression", "source": "score"}
    assert torch.equal(found.values, expected.values)
    assert evaluator.output_spec.kind == "multi_label"


def test_the_model_is_left_as_it_was():
    model = segmenter()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unilens.explain(model, IMAGES, "uni", score=scores.segmentation(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model._forward_hooks


def test_a_bound_evaluator_is_pickled_with_what_its_outputs_are():
    (bound,) = scores.bind(perceptron(), ROWS, scores.regression(1))
    again = pickle.loads(pickle.dumps(bound.evaluator))
    assert again.output_spec == bound.evaluator.output_spec
    assert torch.equal(again(ROWS), bound.evaluator(ROWS))


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
        "expected output to be one of what the model returns, 0, got 'depth'",
    ),
    "rows for a segmentation": (
        perceptron,
        ROWS,
        {"score": scores.segmentation(0)},
        "expected one output with 4 or 5 dimensions for segmentation",
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
        "the score could not take what the model returns, a tensor (1, 3)",
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


def test_inputs_with_one_score_run_together():
    shared = scores.similarity(torch.rand(3))
    assert len(scores.bind(perceptron(), ROWS, shared)) == 1
    assert len(scores.bind(perceptron(), ROWS, scores.similarity(torch.rand(1, 3)))) == 1
    parts = scores.bind(perceptron(), ROWS, scores.similarity(torch.rand(4, 3)))
    assert [part.rows.tolist() for part in parts] == [[0], [1], [2], [3]]
    box = scores.detection(torch.tensor([0.0, 0.0, 4.0, 4.0]), 1)
    assert len(scores.bind(Boxes().eval(), torch.rand(5, 3, 8, 8), box)) == 1


class Boxes(nn.Module):
    """Ten boxes of each image, their edges and classes by a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 50)
        )

    def forward(self, images):
        found = []
        for values in self.layers(images).unflatten(1, (10, 5)):
            corner, size = values[:, :2].sigmoid() * 4, values[:, 2:4].sigmoid() * 4 + 1
            boxes = torch.cat([corner, corner + size], 1)
            labels = torch.arange(10) % 3
            found.append({"boxes": boxes, "labels": labels, "scores": values[:, 4].sigmoid()})
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["gradient", "uni", "uni_blur"])
def test_rounding_does_not_decide_the_slope_at_the_predicted_box(method, dtype):
    model, images = Boxes().to(dtype).eval(), torch.rand(4, 3, 8, 8).to(dtype)
    whole = unilens.explain(model, images, method, score=scores.detection())
    for row in range(4):
        alone = unilens.explain(model, images[row : row + 1], method, score=scores.detection())
        assert torch.equal(whole.values[row], alone.values[0])
    if method == "gradient":
        confidence = unilens.explain(
            model,
            images,
            "gradient",
            score=lambda outputs: torch.stack([image["scores"].max() for image in outputs]),
        )
        assert torch.allclose(whole.values, confidence.values, rtol=1e-4)


@pytest.mark.parametrize("shift", [-1e-6, 0.0, 1e-6])
def test_the_overlap_has_no_slope_at_the_box_itself(shift):
    box = torch.tensor([3.0, 4.0, 9.0, 8.0], dtype=torch.float64)
    boxes = (box + shift * torch.tensor([1.0, -1.0, -1.0, 1.0]))[None].requires_grad_()
    shared = overlap(boxes, box)
    (slope,) = torch.autograd.grad(shared.sum(), boxes)
    assert shared.tolist() == [1.0]
    assert not slope.any()


def test_the_precision_of_a_box_is_kept():
    box = torch.tensor([1 / 3, 0.0, 2 / 3, 1.0], dtype=torch.float64)
    assert torch.equal(scores.detection(box, 1).box, box)
    assert scores.detection([0, 0, 2, 1], 1).box.is_floating_point()


def test_regions_of_half_precision_do_not_overflow():
    outputs = torch.full((1, 2, 320, 320), -0.25, dtype=torch.float16)
    assert scores.segmentation(1, torch.ones(320, 320))(outputs).tolist() == [-0.25]
    box = torch.tensor([0.0, 0.0, 400.0, 400.0])
    image = {
        "boxes": box[None].half(),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.5], dtype=torch.float16),
    }
    assert scores.detection(box, 1)([image]).tolist() == [0.5]


def test_probabilities_of_a_segmenter_count_by_their_logarithms():
    mask = torch.zeros(12, 12)
    mask[3:9, 2:8] = 1
    probable = Segmenter(lambda logits: logits.softmax(1)).double().eval()
    found = unilens.explain(probable, IMAGES, "ig", score=scores.segmentation(2, mask))
    expected = probable(IMAGES).detach()[:, :, mask.bool()].log().mean(2)
    assert torch.allclose(found.outputs, expected)
    one = Segmenter(lambda logits: logits[:, :1].sigmoid()).double().eval()
    with pytest.raises(UnilensError, match="expected probabilities=True or False"):
        unilens.explain(one, IMAGES, "ig", score=scores.segmentation(0))
    found = unilens.explain(one, IMAGES, "ig", score=scores.segmentation(0, probabilities=True))
    p = one(IMAGES).detach()[:, 0]
    by_hand = [values[values > 0.5].logit().mean() for values in p]
    assert torch.allclose(found.score, torch.stack(by_hand))


def test_tensors_of_no_detector_are_refused():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(1, 4, 20, generator=generator) * 10 + 10
    coefficients = torch.randn(1, 3, 20, generator=generator)
    yolo5 = torch.rand(1, 20, 6, generator=generator)
    for outputs in (torch.cat([boxes, coefficients], 1), yolo5):
        with pytest.raises(UnilensError, match="expected a detector's outputs"):
            scores.detection(torch.tensor([0.0, 0.0, 9.0, 9.0]), 1)(outputs)


def test_a_pair_of_logits_and_boxes_is_that_of_queries():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20, 6, generator=generator)
    boxes = torch.rand(1, 20, 4, generator=generator) / 2
    score = scores.detection(torch.tensor([0.1, 0.1, 0.5, 0.6]), 2, head="softmax")
    named = score({"logits": logits, "pred_boxes": boxes})
    assert torch.equal(score((logits, boxes)), named)
    assert named > 0


def test_an_output_of_several_is_named_by_its_position():
    outputs = (torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
    assert scores.regression(0)(outputs).tolist() == [1.0, 2.0]
    assert scores.regression(1, index=1)(outputs).tolist() == [4.0, 6.0]
    with pytest.raises(UnilensError, match="expected output to be one of what the model returns"):
        scores.regression(2)(outputs)


def test_settings_made_in_inference_mode_are_taken():
    with torch.inference_mode():
        mask, anchor = torch.ones(12, 12), torch.rand(3)
        found = unilens.explain(segmenter(), IMAGES, "ig", score=scores.segmentation(1))
    again = unilens.explain(segmenter(), IMAGES, "ig", score=scores.segmentation(1))
    assert torch.equal(found.values, again.values)
    unilens.explain(segmenter(), IMAGES, "ig", score=scores.segmentation(1, mask))
    unilens.explain(perceptron(), ROWS, "ig", score=scores.similarity(anchor))


def test_a_mask_is_a_copy():
    mask = torch.ones(12, 12)
    score = scores.segmentation(1, mask)
    before = score(segmenter()(IMAGES))
    mask[:6] = 0
    assert torch.equal(score(segmenter()(IMAGES)), before)


@pytest.mark.slow
def test_scores_of_one_kind_share_the_proof_and_are_not_kept():
    model, made = segmenter(), []
    for corner in range(3):
        mask = torch.zeros(12, 12)
        mask[corner:, corner:] = 1
        made.append(weakref.ref(score := scores.segmentation(1, mask)))
        unilens.explain(model, IMAGES, "gradient", score=score)
    del score, mask
    gc.collect()
    assert [reference() for reference in made] == [None] * 3
    assert len(plan_cache._REMEMBERED[model]._plans) == 1


def test_errors_of_a_score_name_the_score():
    with pytest.raises(UnilensError, match="the score could not take what the model returns, a t"):
        unilens.explain(perceptron(), ROWS, "ig", score=lambda outputs: outputs["logits"])
    for wrong in (scores.regression, lambda: 1, lambda a, b, c: a, nn.Linear):
        with pytest.raises(UnilensError, match="expected score to be a"):
            unilens.explain(perceptron(), ROWS, "ig", score=wrong)


def test_metrics_refuse_maps_of_another_score():
    found = unilens.explain(perceptron(), ROWS, "ig", score=scores.regression(1))
    of_a_class = unilens.explain(perceptron(), ROWS, "ig")
    for maps in (found, of_a_class):
        with pytest.raises(UnilensError, match="expected maps of the score"):
            unilens.evaluate(perceptron(), ROWS, maps, score=scores.regression(0))
    with pytest.raises(UnilensError, match="expected no outputs= beside a score"):
        unilens.evaluate(
            perceptron(), ROWS, found, score=scores.regression(1), outputs="regression"
        )
    values = unilens.evaluate(perceptron(), ROWS, found.values, score=scores.regression(0))
    assert values.shape == (4,)


def test_groups_and_masks_of_each_input_follow_its_score():
    masks = torch.stack([torch.eye(12).roll(shift, 0) for shift in range(3)])
    regions = torch.stack([torch.arange(144).view(12, 12) // size for size in (12, 24, 36)])
    score = scores.segmentation(1, masks)
    given = {"score": score, "groups": regions}
    whole = unilens.explain(segmenter(), IMAGES, "ig", **given | {"groups": regions[:, None]})
    measured = unilens.evaluate(
        segmenter(), IMAGES, whole, "insertion_auc", score=score, groups=regions[:, None]
    )
    for row in range(3):
        own = scores.segmentation(1, masks[row])
        groups = regions[row]
        image = IMAGES[row : row + 1]
        alone = unilens.explain(segmenter(), image, "ig", score=own, groups=groups)
        assert torch.equal(whole.values[row], alone.values[0])
        by_itself = unilens.evaluate(
            segmenter(), image, alone, "insertion_auc", score=own, groups=groups
        )
        assert torch.equal(measured[row], by_itself[0])


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
