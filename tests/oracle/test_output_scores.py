"""Scores of whatever a model returns, against modules wrapped by hand, captum and slow replicas."""

import warnings

import captum.attr
import pytest
import torch
import torchvision
import transformers
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate

import unilens
from unilens import scores

N_STEPS = 6


class ByHand(nn.Module):
    """A model and a score of its outputs, as users wrap them."""

    def __init__(self, model, score):
        super().__init__()
        self.model, self.score = model, score

    def forward(self, inputs):
        return self.score(self.model(inputs))


def seeded(build):
    """Build a network whose weights are twice as large as drawn, so that its score varies."""
    torch.manual_seed(0)
    model = build().double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.mul_(2)
    return model


class Forecaster(nn.Module):
    """A linear forecast (B, 4, 2) of series (B, 2, 10)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, 8))

    def forward(self, series):
        return self.layers(series).unflatten(1, (4, 2))


def perceptron():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def lraspp():
    return torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )


def deeplab():
    return torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )


def faster_rcnn():
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=3,
        min_size=64,
        max_size=64,
        box_score_thresh=0.0,
        box_detections_per_img=10,
        rpn_post_nms_top_n_test=20,
    )


def retina_net():
    backbone = torchvision.models.detection.backbone_utils.mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=True, trainable_layers=6
    )
    sizes = torchvision.models.detection.anchor_utils.AnchorGenerator(
        ((16,), (32,), (64,)), ((1.0,),) * 3
    )
    return torchvision.models.detection.RetinaNet(
        backbone,
        num_classes=3,
        anchor_generator=sizes,
        min_size=64,
        max_size=64,
        score_thresh=0.0,
        detections_per_img=10,
    )


def detr():
    backbone = {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage4"],
    }
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        backbone=None,
        use_pretrained_backbone=False,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_labels=4,
    )
    return transformers.DetrForObjectDetection(config)


def clip():
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=6,
    )
    return transformers.CLIPVisionModelWithProjection(config)


def dino():
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    return transformers.Dinov2Model(config)


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PHOTOGRAPHS = interpolate(IMAGES[:1], (64, 64), mode="bilinear")
ROWS = torch.rand(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
SERIES = torch.rand(3, 2, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
MASK = torch.zeros(32, 32, dtype=torch.bool)
MASK[8:20, 4:30] = True
BOX = torch.tensor([4.0, 6.0, 40.0, 50.0], dtype=torch.float64)
ANCHOR = torch.linspace(-1, 1, 16, dtype=torch.float64)


def intersection_over_union(boxes, box):
    return torchvision.ops.box_iou(boxes, box[None])[:, 0]


def best_of_labels(target):
    """D-RISE by hand, for what torchvision's detectors return."""

    def score(outputs):
        values = []
        for image in outputs:
            each = [
                intersection_over_union(image["boxes"][i : i + 1], BOX)[0] * image["scores"][i]
                for i in range(len(image["boxes"]))
                if int(image["labels"][i]) == target
            ]
            values.append(torch.stack(each).max())
        return torch.stack(values)

    return score


def best_of_queries(target, box):
    """D-RISE by hand, for DETR's logits and boxes of centre and size."""

    def score(outputs):
        values = []
        for logits, boxes in zip(outputs.logits, outputs.pred_boxes, strict=True):
            each = []
            for query, (x, y, width, height) in zip(logits, boxes, strict=True):
                p = query.softmax(0)
                corners = torch.stack(
                    [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                )
                one_hot = torch.zeros_like(p[:-1])
                one_hot[target] = 1
                likeness = cosine_similarity(p[:-1], one_hot, dim=0) * (1 - p[-1])
                each.append(intersection_over_union(corners[None], box)[0] * likeness)
            values.append(torch.stack(each).max())
        return torch.stack(values)

    return score


CASES = {
    "deeplabv3": (
        deeplab,
        IMAGES,
        scores.segmentation(2, MASK),
        lambda outputs: outputs["out"][:, 2][:, MASK].mean(1),
    ),
    "lraspp": (
        lraspp,
        IMAGES,
        scores.segmentation(1, MASK),
        lambda outputs: outputs["out"][:, 1][:, MASK].mean(1),
    ),
    "fasterrcnn": (faster_rcnn, PHOTOGRAPHS, scores.detection(BOX, 2), best_of_labels(2)),
    "retinanet": (retina_net, PHOTOGRAPHS, scores.detection(BOX, 1), best_of_labels(1)),
    "detr": (
        detr,
        PHOTOGRAPHS,
        scores.detection(BOX / 64, 3, head="softmax"),
        best_of_queries(3, BOX / 64),
    ),
    "clip": (
        clip,
        IMAGES,
        scores.similarity(ANCHOR[:6]),
        lambda outputs: cosine_similarity(outputs.image_embeds, ANCHOR[:6], dim=-1),
    ),
    "dino": (
        dino,
        IMAGES,
        scores.similarity(ANCHOR, measure="dot"),
        lambda outputs: outputs.pooler_output @ ANCHOR,
    ),
    "regression": (perceptron, ROWS, scores.regression(1), lambda outputs: outputs[:, 1]),
    "forecast": (Forecaster, SERIES, scores.forecast(2, 1), lambda outputs: outputs[:, 2, 1]),
    "own function": (
        perceptron,
        ROWS,
        lambda outputs: outputs[:, 0] * outputs[:, 2],
        lambda outputs: outputs[:, 0] * outputs[:, 2],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ig_equals_captum_on_the_score_wrapped_by_hand(case):
    build, inputs, score, by_hand = CASES[case]
    model = seeded(build)
    found = unilens.explain(model, inputs, "ig", score=score, n_steps=N_STEPS, rule="right")
    wrapped = ByHand(model, by_hand)
    assert torch.allclose(found.score, wrapped(inputs).detach(), atol=1e-12)
    integrated = captum.attr.IntegratedGradients(wrapped)
    for row, image in enumerate(inputs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum's on gradients
            expected = integrated.attribute(
                image[None], n_steps=N_STEPS, method="riemann_right", internal_batch_size=1
            )
        scale = float(expected.abs().max())
        assert scale > 1e-7
        assert float((found.values[row] - expected[0]).abs().max()) <= 1e-6 * scale
    if callable(score) and isinstance(score, scores.OutputScore):
        assert torch.allclose(score(model(inputs)).detach(), found.score, atol=1e-12)


def test_multi_label_and_contrast_equal_captum():
    model = seeded(perceptron)
    sigmoid = unilens.explain(model, ROWS, "ig", 1, score="sigmoid", n_steps=N_STEPS, rule="right")
    contrast = unilens.explain(
        model, ROWS, "ig", 1, score=scores.margin(against=2), n_steps=N_STEPS, rule="right"
    )
    by_hand = {
        sigmoid: lambda outputs: outputs[:, 1].sigmoid(),
        contrast: lambda outputs: outputs[:, 1] - outputs[:, 2],
    }
    for found, score in by_hand.items():
        integrated = captum.attr.IntegratedGradients(ByHand(model, score))
        expected = integrated.attribute(ROWS, n_steps=N_STEPS, method="riemann_right")
        assert torch.allclose(found.values, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_masks_boxes_and_embeddings_of_each_input():
    model = seeded(lraspp)
    masks = torch.stack([MASK, MASK.roll(9, 0)])
    found = unilens.explain(model, IMAGES, "gradient", score=scores.segmentation(2, masks))
    for row in range(2):
        own = scores.segmentation(2, masks[row])
        alone = unilens.explain(model, IMAGES[row : row + 1], "gradient", score=own)
        assert torch.equal(found.values[row], alone.values[0])
        assert torch.equal(found.outputs[row], alone.outputs[0])
    anchors = torch.stack([ANCHOR, ANCHOR.flip(0) ** 2])
    embedder = seeded(dino)
    found = unilens.explain(embedder, IMAGES, "gradient", score=scores.similarity(anchors))
    for row in range(2):
        own = scores.similarity(anchors[row])
        alone = unilens.explain(embedder, IMAGES[row : row + 1], "gradient", score=own)
        assert torch.equal(found.values[row], alone.values[0])


@pytest.mark.slow
def test_the_predicted_region_is_that_of_the_input_alone():
    model = seeded(lraspp)
    with torch.no_grad():
        logits = model(IMAGES)["out"]
    target = int(logits.argmax(1).flatten().bincount().argmax())
    found = unilens.explain(model, IMAGES, "gradient", score=scores.segmentation(target))
    region = logits.argmax(1) == target
    expected = torch.stack([logits[i, target][region[i]].mean() for i in range(2)])
    assert torch.allclose(found.score, expected)
    assert torch.allclose(
        found.outputs, torch.stack([logits[i][:, region[i]].mean(1) for i in range(2)])
    )


@pytest.mark.slow
def test_uni_unlearns_the_class_of_a_region():
    model = seeded(lraspp)
    found = unilens.explain(
        model, IMAGES[:1], "uni_paper", score=scores.segmentation(2, MASK), matching_steps=0
    )
    wrapped = ByHand(model, lambda outputs: outputs["out"][:, :, MASK].mean(2))
    target = torch.tensor([2])
    gradients = torch.autograd.grad(
        cross_entropy(wrapped(IMAGES[:1]), target), list(model.parameters())
    )
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    before = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        log_probs = wrapped(IMAGES[:1]).log_softmax(1)
        for weight, gradient in zip(model.parameters(), gradients, strict=True):
            weight += gradient / norm
        unlearned = wrapped(IMAGES[:1]).log_softmax(1)
        for weight, value in zip(model.parameters(), before, strict=True):
            weight.copy_(value)
    expected = (unlearned.exp() * (unlearned - log_probs)).sum(1)
    assert torch.allclose(found.record["matching_loss"][:, 0], expected, rtol=1e-8)


FORMATS = {
    "dictionaries": lambda boxes, confidence, labels: [
        {"boxes": boxes, "conf": confidence, "cls": labels.double()}
    ],
    "objects": lambda boxes, confidence, labels: [
        type(
            "Results",
            (),
            {"boxes": type("Boxes", (), {"xyxy": boxes, "conf": confidence, "cls": labels})()},
        )()
    ],
    "end to end": lambda boxes, confidence, labels: torch.cat(
        [boxes, confidence[:, None], labels[:, None].double()], 1
    )[None],
}


@pytest.mark.parametrize("form", FORMATS)
def test_detections_in_other_formats(form):
    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(9, 2, generator=generator, dtype=torch.float64) * 20
    boxes = torch.cat([corner, corner + 30], 1)
    confidence = torch.rand(9, generator=generator, dtype=torch.float64)
    labels = torch.arange(9) % 3
    plain = [{"boxes": boxes, "scores": confidence, "labels": labels}]
    outputs = FORMATS[form](boxes, confidence, labels)
    for target in range(3):
        found = scores.detection(BOX, target)(outputs)
        assert torch.allclose(found, best_of_labels(target)(plain))


def test_detections_of_a_yolo_head():
    generator = torch.Generator().manual_seed(6)
    size = torch.rand(1, 4, 12, generator=generator, dtype=torch.float64) * 20 + 20
    classes = torch.rand(1, 3, 12, generator=generator, dtype=torch.float64)
    found = scores.detection(BOX, 1)((torch.cat([size, classes], 1), ["features"]))
    each = []
    for i in range(12):
        x, y, width, height = size[0, :, i]
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        p = classes[0, :, i]
        overlap = intersection_over_union(corners[None], BOX)[0]
        each.append(overlap * p[1] / p.norm() * p.max())
    assert torch.allclose(found, torch.stack(each).max())


@pytest.mark.slow
def test_evaluate_takes_the_score_that_the_maps_explain():
    model = seeded(lraspp)
    score = scores.segmentation(2, MASK)
    found = unilens.explain(model, IMAGES, "ig", score=score, n_steps=3)
    wrapped = ByHand(model, lambda outputs: outputs["out"][:, 2][:, MASK].mean(1)).eval()
    for metric in ("mu_fidelity", "insertion_auc", "infidelity"):
        expected = unilens.evaluate(
            wrapped, IMAGES, found.values, metric, target=0, outputs="regression"
        )
        measured = unilens.evaluate(model, IMAGES, found, metric, score=score)
        assert torch.allclose(measured, expected, rtol=1e-6)
