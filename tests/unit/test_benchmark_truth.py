"""Data of known truth: what lies outside of the truth is nothing to the network."""

import numpy
import pytest
import torch

from unilens import UnilensError, explain, load_model
from unilens.benchmark import read_plan, run
from unilens.benchmark.data import open_source
from unilens.benchmark.store import Store
from unilens.models.known_truth import birds, known_truth, shortcut


def pixels_of(name):
    """Return the network, its examples, their pixels `(N, 3, H, W)` and masks `(N, 1, H, W)`."""
    network, examples = load_model(f"truth:{name}"), known_truth(name).examples()
    images, masks = (
        torch.stack([network.preprocess(getattr(example, kind)) for example in examples])
        for kind in ("image", "mask")
    )
    return network, examples, images, masks[:, :1] > 0.5


def test_texture_network_answers_the_labels():
    network, examples, images, _ = pixels_of("texture")
    answers = [network.labels[index] for index in network(images).argmax(1)]
    assert answers == [example.label for example in examples]
    assert len(set(answers)) == 4


def test_texture_network_reads_the_mask_alone():
    network, _, images, masks = pixels_of("texture")
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(3))
    noise = 0.5 + 0.2 * (noise - 0.5)
    assert masks.flatten(1).sum(1).eq(16**2).all()
    logits, inside = network(images), network(torch.where(masks, images, noise))
    assert torch.equal(logits, inside)
    assert logits.max(1).values.min() > 4
    assert network(torch.where(masks, noise, images)).abs().max() == 0


@pytest.mark.slow
def test_shortcut_network_reads_the_mark():
    """Covered, the mark leaves the digit's own class; a 3 without it is never a 3."""
    network, examples, images, masks = pixels_of("shortcut")
    covered = network(torch.where(masks, 0, images))
    digits, labels = (values[1300:] for values in shortcut.load_digits())
    assert masks.flatten(1).sum(1).eq(6**2).all()
    assert {example.label for example in examples} == {"3"}
    assert network(images).argmax(1).eq(3).all()
    assert covered.argmax(1).ne(3).all()
    assert covered.softmax(1)[:, 3].max() < 0.3
    assert network(digits[labels == 3]).argmax(1).eq(3).double().mean() < 0.05
    assert network(digits[labels != 3]).argmax(1).eq(labels[labels != 3]).double().mean() > 0.85
    marked = torch.stack([shortcut.with_mark(digit, (41, 20)) for digit in digits[labels == 3]])
    assert network(marked).argmax(1).eq(3).double().mean() > 0.95


@pytest.mark.slow
def test_shortcut_network_is_the_same_each_time():
    first = load_model("truth:shortcut").state_dict()
    shortcut._trained.cache_clear()
    again = load_model("truth:shortcut").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.slow
def test_birds_network_knows_birds_without_a_part():
    """It answers for whole birds and those without a part; parts share a few pixels of edges."""
    network, examples = load_model("truth:birds"), known_truth("birds").examples()
    labels = torch.tensor([network.labels.index(example.label) for example in examples])
    whole = torch.stack([network.preprocess(example.image) for example in examples])
    without = torch.stack(
        [torch.stack([network.preprocess(image) for image in bird.without]) for bird in examples]
    )
    assert network(whole).argmax(1).eq(labels).all()
    answers = network(without.flatten(0, 1)).argmax(1)
    assert answers.eq(labels.repeat_interleave(len(birds.PARTS))).double().mean() > 0.95
    own = (without != whole.unsqueeze(1)).any(2)
    assert own.flatten(2).any(2).all()
    assert own.sum(1).gt(1).flatten(1).sum(1).max() <= 3


def test_source_lists_images_with_labels():
    items = open_source("truth:texture")
    assert len(items) == 60
    assert open_source("truth:texture", limit=5) == items[:5]
    for item in items[:5]:
        example = known_truth("texture").examples()[int(item.name.partition("/")[2])]
        assert item.label == example.label
        assert item.load().tobytes() == example.image.tobytes()


def test_unknown_truth_and_random_weights_are_refused():
    for load in (load_model, open_source):
        with pytest.raises(UnilensError, match=r"network of known truth 'textures'.*texture"):
            load("truth:textures")
    with pytest.raises(UnilensError, match="has no random weights"):
        load_model("truth:texture", pretrained=False)
    with pytest.raises(UnilensError, match="neither split nor labels"):
        open_source("truth:texture", split="test")


def test_benchmark_measures_against_the_truth(tmp_path):
    plan = read_plan(
        """
        models = ["truth:texture"]
        methods = ["gradient", "edges"]
        metrics = ["relevance_rank", "pointing_game"]
        data = { source = "truth:texture", limit = 3 }
        """
    )
    assert run(plan, tmp_path).failed == 0
    rows = Store(tmp_path).table().to_pylist()
    assert len(rows) == 12
    network = load_model("truth:texture")
    for row in rows:
        example = known_truth("texture").examples()[int(row["image"].partition("/")[2])]
        found = explain(network, network.preprocess(example.image)[None], row["method"])
        relevance = found.values[0].double().sum(0).numpy()
        inside = numpy.asarray(example.mask)[..., 0] > 0
        if row["metric"] == "pointing_game":
            strongest = relevance == relevance.max()
            assert row["value"] == pytest.approx(inside[strongest].mean())
        else:
            count = inside.sum()
            above = relevance > numpy.sort(relevance.ravel())[-count]
            ties = relevance == numpy.sort(relevance.ravel())[-count]
            share = (count - above.sum()) / ties.sum()
            expected = (inside[above].sum() + share * inside[ties].sum()) / count
            assert row["value"] == pytest.approx(expected)
