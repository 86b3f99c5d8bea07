"""The panels beside the maps without a browser, on a model of a few weights."""

import dataclasses
import html
import re
from types import SimpleNamespace

import numpy
import pytest
import torch

pytest.importorskip("gradio")

import unilens
from unilens.app import panels, second_opinion
from unilens.app.jobs import Job
from unilens.app.panel_render import contrast_html, opinion_html, spotlight
from unilens.app.photograph import read_photograph, sample_photograph
from unilens.app.service import ExplainService
from unilens.errors import UnilensError
from unilens.metrics.agreement import Agreement, agreement
from unilens.models import samples
from unilens.scores import margin

from .test_parts import EVIL, Images, requested, small_classifier


@pytest.fixture
def labels():
    return ("cat", "dog", "bird")


@pytest.fixture
def classifier(labels):
    return small_classifier(labels)


@pytest.fixture
def service(classifier, monkeypatch):
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    return ExplainService(["small"])


@pytest.fixture
def photograph():
    return sample_photograph("chelsea")


def pixels_of(classifier):
    return classifier.preprocess(samples["chelsea"]())[None]


# why A, not B


def test_a_contrast_is_the_map_of_the_margin(service, classifier, photograph):
    plain = service.explain(photograph, requested("ig", target=2), Job())
    found = service.explain(photograph, requested("ig", target=2), Job(), against=0)
    expected = unilens.explain(classifier, pixels_of(classifier), "ig", 2, score=margin(against=0))
    assert torch.equal(found.attributions["ig"].values, expected.values)
    assert not torch.equal(found.attributions["ig"].values, plain.attributions["ig"].values)
    again = service.explain(photograph, requested("ig", target=2), Job(), against=1)
    assert not torch.equal(found.attributions["ig"].values, again.attributions["ig"].values)


def test_a_contrast_with_itself_is_refused_in_one_line(service, photograph):
    with pytest.raises(UnilensError, match="expected against to be a class from 0 to 2 other than"):
        service.explain(photograph, requested("ig", target=1), Job(), against=1)


def test_the_sentence_of_a_contrast_has_the_margin_and_both_sides(service, classifier, photograph):
    found = service.explain(photograph, requested("ig", target=0), Job(), against=2)
    text = html.unescape(re.sub("<[^>]+>", "", contrast_html(found)))
    with torch.no_grad():
        ends = classifier(torch.cat([pixels_of(classifier), torch.zeros(1, 3, 16, 16)])).double()
    now, start = (ends[:, 0] - ends[:, 2]).tolist()
    side = {True: "ahead of", False: "behind"}
    assert "Why “cat”, not “bird”?" in text
    assert f"“cat” is {side[now >= 0]} “bird” by {abs(now):.3g}" in text
    assert f"and {side[start >= 0].split()[0]} by {abs(start):.3g} at the baseline" in text
    sums = re.findall(r"\(([+−][\d.e-]+)\)", text)
    gains, losses = (float(number.replace("−", "-")) for number in sums)
    assert gains >= 0 >= losses
    gap = float(found.attributions["ig"].completeness_gap[0])
    assert gains + losses == pytest.approx(now - start - gap, abs=0.011)


@pytest.mark.parametrize(("sign", "silent", "name"), [(1, "purple", "dog"), (-1, "orange", "cat")])
def test_a_contrast_of_one_colour_says_that_the_other_is_absent(
    service, photograph, sign, silent, name
):
    found = service.explain(photograph, requested("ig", target=0), Job(), against=1)
    own = found.attributions["ig"]
    one_sided = dataclasses.replace(own, values=sign * own.values.abs())
    found = dataclasses.replace(found, attributions={"ig": one_sided})
    text = html.unescape(re.sub("<[^>]+>", "", contrast_html(found)))
    assert f"nothing in {silent} speaks for “{name}”" in text
    assert len(re.findall(r"speaks for", text)) == 2
    assert "nowhere" not in text


@pytest.mark.parametrize(
    "data",
    [
        *(None, [1, 2], {}, {"classes": None}, {"classes": [1]}, {"classes": [1, 2, 3]}),
        *({"classes": [1, "2"]}, {"classes": [1.0, 2]}, {"classes": [True, 2]}),
        *({"classes": [-1, 2]}, {"classes": {"0": 1, "1": 2}}),
    ],
)
def test_other_than_two_classes_is_refused(data):
    with pytest.raises(UnilensError, match="expected two classes among the predictions"):
        panels._classes(SimpleNamespace(_data=data))


def test_two_classes_keep_their_order():
    assert panels._classes(SimpleNamespace(_data={"classes": [5, 2]})) == (5, 2)


# second opinion


def test_a_second_opinion_compares_three_methods_and_the_edges(service, classifier, photograph):
    first = service.explain(photograph, requested("gradient", target=1, seed=4), Job())
    opinion, found = second_opinion.second_opinion(service, first, Job())
    names = ("uni_blur", "ig", "gradcam", "edges")
    expected = agreement(
        {
            name: unilens.explain(classifier, pixels_of(classifier), name, 1, seed=4)
            for name in names
        },
        controls=("edges",),
    )
    assert opinion.target == 1
    assert found.names == names
    assert torch.equal(found.consensus, expected.consensus)
    assert torch.equal(found.correlations, expected.correlations)
    text = html.unescape(re.sub("<[^>]+>", "", opinion_html(opinion, found)))
    assert (
        f"Two by two, three methods share {100 * float(expected.overlap):.0f} % of their strongest"
        in text
    )
    assert f"share {100 * float(expected.control_overlap):.0f} % with them" in text
    assert text.count("rank correlation") == 6


def opinion_of(service, photograph, **constant):
    """Return the text of a second opinion in which some maps are replaced by constant ones."""
    first = service.explain(photograph, requested("gradient", target=1), Job())
    opinion, _ = second_opinion.second_opinion(service, first, Job())
    maps = dict(opinion.attributions)
    for name in constant:
        maps[name] = dataclasses.replace(maps[name], values=torch.ones(1, 3, 16, 16))
    opinion = dataclasses.replace(opinion, attributions=maps)
    page = opinion_html(opinion, agreement(maps, controls=("edges",)))
    assert "nan" not in page
    return html.unescape(re.sub("<[^>]+>", "", page))


def test_a_constant_map_is_left_out_of_the_second_opinion_and_named(service, photograph):
    text = opinion_of(service, photograph, gradcam=1)
    assert re.search(r"Two methods share \d+ % of their strongest tenth", text)
    assert "left out: the map of Grad-CAM." in text
    assert "outlined: all 2" in text
    assert text.count("not compared") == 3
    text = opinion_of(service, photograph, gradcam=1, ig=1)
    assert "Fewer than two of the maps differ from place to place" in text
    assert "share" not in text


def test_edges_that_are_undefined_are_not_compared_with(service, photograph):
    text = opinion_of(service, photograph, edges=1)
    assert "three methods share" in text
    assert "edges, which know nothing" not in text


def test_a_second_opinion_needs_two_methods(service, photograph, monkeypatch):
    monkeypatch.setattr(second_opinion, "METHODS", ("ig",))
    first = service.explain(photograph, requested("gradient"), Job())
    with pytest.raises(UnilensError, match="expected two methods that fit the model, got 1"):
        second_opinion.second_opinion(service, first, Job())


def known(overlap, control, top=0.1):
    """Return an agreement of two methods and a control with these overlaps."""
    table = torch.tensor([[1, overlap, control], [overlap, 1, control], [control, control, 1]])
    consensus = torch.zeros(1, 2, 2)
    return Agreement(("a", "b", "c"), frozenset("c"), consensus, table[None], table[None], top)


@pytest.mark.parametrize(
    ("overlap", "control", "said"),
    [
        (0.5, 0.3, "they agree, and on more than edges"),
        (0.35, 0.3, "little more than that"),
        (0.3, 0.3, "no more than that"),
        (0.15, 0.02, "little more than that"),  # chance alone gives a tenth
        (0.08, 0.02, "no more than that"),
        (0.25, float("nan"), "they agree, and on more than chance"),
    ],
)
def test_the_conclusion_needs_a_lead_over_control_and_chance(overlap, control, said):
    assert said in second_opinion.conclusion(known(overlap, control))


def test_the_spotlight_is_bright_where_methods_agree():
    image, consensus = torch.full((3, 9, 9), 0.5), torch.zeros(9, 9)
    consensus[0], consensus[8, 8], consensus[8, 0] = 2 / 3, 1, torch.nan
    lit = spotlight(image, consensus)
    assert lit.shape == (9, 9, 3)
    assert lit[8, 8].tolist() == [0.5] * 3
    assert lit[4, 4, 0] < lit[0, 4, 0] < 0.5
    assert lit[8, 0].tolist() == lit[4, 4].tolist()
    outline = numpy.abs(lit - [0.95, 0.89, 0.26]).max(-1) < 1e-6
    around = numpy.zeros((9, 9), bool)
    around[6:, 6:] = True
    around[8, 8] = False
    assert (outline == around).all()


@pytest.mark.parametrize("labels", [(EVIL, EVIL + "2", EVIL + "3")])
def test_texts_of_the_panels_are_escaped_and_pictures_have_words(service, photograph, labels):
    odd = read_photograph(photograph.data, "<script>.png")
    first = service.explain(odd, requested("uni_blur", target=0), Job(), against=1)
    opinion, found = second_opinion.second_opinion(service, first, Job())
    for page in (contrast_html(first), opinion_html(opinion, found)):
        parser = Images()
        parser.feed(page)
        assert "script" not in parser.tags
        assert all(parser.alternatives)
        assert "&lt;script&gt;" in page
