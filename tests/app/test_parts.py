"""The parts of the page without a browser, on a model of a few weights."""

import base64
import dataclasses
import html
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("gradio")

import unilens
from unilens import diagnostics
from unilens.app import layout, render, trust
from unilens.app.checks import CONTROL, run_checks
from unilens.app.checks import _without_praise as without_praise
from unilens.app.files import VisitorFiles, python_code
from unilens.app.jobs import Cancelled, Job, Jobs
from unilens.app.path_steps import STOPS, PathSteps
from unilens.app.photograph import MAX_BYTES, read_photograph, sample_photograph
from unilens.app.request import (
    ExplainRequest,
    MethodRequest,
    PageState,
    PhotographFile,
    read_link,
    read_request,
    read_state,
    setting_fields,
)
from unilens.app.runner import JobRunner
from unilens.app.service import ExplainService
from unilens.app.wording import percent, title_of
from unilens.attribution import Attribution
from unilens.diagnostics import Trace
from unilens.errors import UnilensError
from unilens.methods import methods
from unilens.models import PixelClassifier, samples
from unilens.models.classifier import Preprocessing
from unilens.output import records
from unilens.output.levels import LEVEL_STYLES, Line

EVIL = '<script>alert("a&b")</script>'


def small_classifier(labels=("cat", "dog", "bird")):
    plain = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)]
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return PixelClassifier(network, plain, labels=list(labels), name="small")


@pytest.fixture
def classifier():
    return small_classifier()


@pytest.fixture
def service(classifier, monkeypatch):
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    return ExplainService(["small"])


@pytest.fixture(scope="module")
def photograph():
    return sample_photograph("chelsea")


def requested(*names, **more):
    return ExplainRequest(
        model="small", methods=tuple(MethodRequest(name=name) for name in names), **more
    )


class Counted(Job):
    def __init__(self, until=None):
        super().__init__()
        self.points, self.until = 0, until

    def on_pass(self, points):
        self.points += points
        if self.until is not None and self.points > self.until:
            self.cancel()
        super().on_pass(points)


def encoded(image, kind="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


# request


PATHS_OF_THEIR_OWN = {("path", "blur"), ("path", "trajectory")}
"""Paths that start from their own baseline, or from one that keeps its trajectory."""


@pytest.mark.parametrize(
    ("confidences", "summary"),
    [
        ([0.03, 0.02, 0.02], "hardly changes, from 3.0 % to 2.0 %"),
        ([0.00001, 0.002, 0.003], "hardly changes, from < 0.1 % to 0.3 %"),
        ([0.1, 0.5, 0.9], "climbs from 10.0 % to 90.0 %, and never falls back on the way"),
        ([0.1, 0.5, 0.49, 0.9], "90.0 %, and falls back by 1.0 % in all on the way"),
        ([0.1, 0.9, 0.5], "peaks at 90.0 % after 50 % of the path"),
        ([0.1, 0.5, 0.2, 0.9], "gives back 30.0 % in all on the way"),
        ([0.6, 0.5, 0.3], "falls from 60.0 % to 30.0 %: the model is surer of the class at the"),
        ([0.6, 0.2, 0.4], "falls from 60.0 % to 40.0 %"),
    ],
)
def test_path_summary_says_how_the_confidence_goes(confidences, summary):
    fractions = [number / (len(confidences) - 1) for number in range(len(confidences))]
    assert summary in render._path_summary(PathSteps([], [], [], fractions, confidences))


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *((0, "0.0 %"), (1e-9, "< 0.1 %"), (0.00049, "< 0.1 %"), (0.0005, "0.1 %")),
        *((0.12345, "12.3 %"), (0.9994, "99.9 %"), (0.99999, "> 99.9 %"), (1, "100.0 %")),
    ],
)
def test_percent_is_never_0_or_100_by_rounding(share, said):
    assert percent(share) == said


@pytest.mark.parametrize("balanced", ["full", 1, None])
def test_balanced_paths_are_switched_on_or_off(balanced, classifier):
    (field,) = [field for field in setting_fields("ig") if field.name == "balanced"]
    assert (field.default, field.choices) == (False, ())
    assert MethodRequest(name="ig", settings={"balanced": True}).explainer(classifier).balanced
    with pytest.raises(UnilensError, match=f"ig: balanced to be true or false, got {balanced!r}"):
        MethodRequest(name="ig", settings={"balanced": balanced}).explainer(classifier)


@pytest.mark.parametrize("method", methods)
def test_every_method_takes_its_own_defaults_and_choices(method, classifier):
    fields = setting_fields(method)
    MethodRequest(name=method, settings={one.name: one.default for one in fields}).explainer(
        classifier
    )
    for field in fields:
        for choice in field.choices:
            own = {field.name: choice}
            if field.name == "inner" and "n_samples" in methods[method].settings:
                own["n_samples"] = 2
            if choice == "sphere":
                own["line_search"] = False
            if choice == "trajectory":
                own |= {"baseline": "adversarial"} if "baseline" in methods[method].settings else {}
            chosen = MethodRequest(name=method, settings=own)
            if (field.name, choice) in PATHS_OF_THEIR_OWN and method.startswith("uni"):
                with pytest.raises(UnilensError, match=r"; use .*path"):
                    chosen.explainer(classifier)
            else:
                chosen.explainer(classifier)


def test_choices_offered_are_names():
    fields = {field.name: field for field in setting_fields("ig")}
    assert {"black", "white", "tangent_aligned"} <= set(fields["baseline"].choices)
    aligned = {field.name for field in setting_fields("ig", {"baseline": "tangent_aligned"})}
    assert {"iterations", "learning_rate", "ascents"} <= aligned
    assert not {"manifold", "starts"} & aligned
    assert fields["n_steps"].choices == ()
    assert not {"layer", "bounds", "references", "create_graph"} & set(fields)


STATES = [
    PageState(request=requested("uni")),
    PageState(request=requested("ig", "uni", target=2, seed=5), sample="chelsea"),
    PageState(
        request=ExplainRequest(
            model="small",
            methods=(
                MethodRequest(name="ig", settings={"n_steps": 7, "baseline": "white"}),
                MethodRequest(name="occlusion", settings={"window": None}),
                MethodRequest(name="uni", settings={"budget": 0.1, "clamp": True}),
            ),
        ),
        photograph=PhotographFile(name="ü.png", data=base64.b64encode(b"x").decode()),
    ),
]


@pytest.mark.parametrize("state", STATES)
def test_states_come_back(state):
    assert read_state(state.text()) == state
    assert read_state(state.text().encode()) == state
    assert read_link(state.link()) == state.model_copy(update={"photograph": None})
    assert re.fullmatch(r"[\w-]+", state.link())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a downloaded page (NAME-page.json)"),
        ("[]", "expected another value of the page"),
        ("{}", "request"),
        ('{"request": {}}', "request.model"),
        ('{"request": {"model": "m", "seed": -1}}', "request.seed"),
        ('{"request": {"model": "m", "seed": true}}', "request.seed"),
        ('{"request": {"model": "m", "target": 1.5}}', "request.target"),
        ('{"request": {"model": "m", "more": 1}}', "request.more"),
        (
            '{"request": {"model": "m"}, "unilens_page": 2}',
            "expected a link or page of version 1, got one of another version of unilens",
        ),
        ('{"request": {"model": "m"}, "unilens_page": "1"}', "unilens_page"),
        (
            '{"request": {"model": "m", "methods": [{"name": "ig", "settings": {"a": NaN}}]}}',
            "a: a",
        ),
        ('{"request": {"model": "' + "m" * 61 + '"}}', "request.model"),
    ],
)
def test_states_that_are_none(text, said):
    with pytest.raises(UnilensError, match=re.escape(said)):
        read_state(text)


@pytest.mark.parametrize("link", ["!", "abc\n", "a" * 5, "é"])
def test_links_that_are_none(link):
    with pytest.raises(UnilensError, match="expected"):
        read_link(link)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_steps": True}, "a whole number, got True"),
        ({"n_steps": 1.5}, "a whole number"),
        ({"n_steps": 10**9}, "at most 5000"),
        ({"baseline": 3}, "one of the names"),
        ({"baseline": "py:os:getcwd"}, "py:os:getcwd"),
        ({"bounds": 1}, "unknown setting"),
        ({"baseline": "tangent_aligned", "manifold": "/etc/passwd"}, "unknown setting"),
        ({"baseline": "tangent_aligned", "starts": "black"}, "starts to be"),
        ({"baseline": "tangent_aligned", "iterations": 4000}, "at most 5000 passes"),
        ({"n_steps": 4990, "rule": "midpoint", "path": "nowhere"}, "nowhere"),
        ({"n_steps": 5000, "rule": "midpoint"}, "at most 5000 passes"),
    ],
)
def test_settings_that_are_refused(settings, said, classifier):
    with pytest.raises(UnilensError, match=re.escape(said)):
        MethodRequest(name="ig", settings=settings).explainer(classifier)


@pytest.mark.parametrize(
    ("names", "model", "said"),
    [
        ([], "small", "one to 4"),
        (["ig", "uni", "sig", "idg", "agi"], "small", "one to 4"),
        (["ig", "ig"], "small", "each method once"),
        (["nobody"], "small", "unknown method"),
        (["ig"], "other", "unknown model"),
    ],
)
def test_what_is_not_offered(names, model, said):
    asked = read_request({"model": model, "methods": [{"name": name} for name in names]})
    with pytest.raises(UnilensError, match=said):
        asked.check(["small"])


# photograph


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *(("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")),
        *(("BMP", ".bmp"), ("GIF", ".gif"), ("TIFF", ".tiff")),
    ],
)
def test_kinds_of_photographs(kind, suffix):
    found = read_photograph(encoded(Image.new("RGB", (20, 10), "red"), kind), "a.html")
    assert found.image.size == (20, 10)
    assert found.suffix == suffix
    red, green, blue = found.image.getpixel((5, 5))
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.mark.parametrize(
    ("name", "kept", "stem"),
    [
        ("../../a b.png", "a b.png", "a-b"),
        ("C:\\x\\a.png", "a.png", "a"),
        ("", "photograph", "photograph"),
        ("---.png", "---.png", "photograph"),
        ("<i>.png", "<i>.png", "i"),
        ("x" * 500, "x" * 200, "x" * 60),
    ],
)
def test_names_of_photographs(name, kept, stem):
    found = read_photograph(encoded(Image.new("RGB", (20, 10))), name)
    assert (found.name, found.stem) == (kept, stem)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: b"", "empty"),
        (lambda: b"x", "none that can be read"),
        (lambda: bytes(MAX_BYTES + 1), "at most 20 MB"),
        (lambda: encoded(Image.new("1", (8000, 5001))), "40 megapixels"),
        (lambda: encoded(Image.new("1", (10_000, 10_000))), "40 megapixels"),
        (lambda: encoded(Image.new("L", (9, 9)), "PPM"), "none that can be read"),
    ],
)
def test_photographs_that_are_refused(data, said):
    with pytest.raises(UnilensError, match=said):
        read_photograph(data(), "a.png")


def test_the_largest_photograph_is_read():
    assert read_photograph(encoded(Image.new("1", (8000, 5000))), "a").image.size == (8000, 5000)


def test_a_sample_is_known_by_its_bytes(photograph):
    assert read_photograph(photograph.data, "other.png").sample == "chelsea"
    assert read_photograph(photograph.data + b"x", "chelsea.png").sample is None


# jobs


def test_progress_rises_from_nothing_to_all():
    told = []
    job = Job(lambda fraction, text: told.append((fraction, text)))
    for number, name in enumerate("ab"):
        job.begin(name, number / 2, 0.5, 1000)
        for _ in range(1000):
            job.on_pass(1)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == pytest.approx(1, abs=0.01)
    assert {text for _, text in told} == {"a", "b"}
    assert 90 < len(told) < 110


def test_more_passes_than_expected_stay_below_all():
    told = []
    job = Job(lambda fraction, _: told.append(fraction))
    job.begin("a", 0.0, 0.5, 2)
    for _ in range(9):
        job.on_pass(1)
    assert max(told) == 0.5


def test_cancelling_ends_at_the_next_pass_and_nobody_elses_work():
    jobs, mine, other = Jobs(), Job(), Job()
    with jobs.track("me", mine), jobs.track("you", other):
        assert jobs.cancel("me") == 1
        assert jobs.cancel("nobody") == 0
        with pytest.raises(Cancelled):
            mine.on_pass(1)
        other.on_pass(1)
    assert jobs.cancel("you") == 0


# service


@pytest.mark.parametrize("method", ["uni", "ig", "gradient", "smoothgrad", "random"])
def test_maps_are_those_of_explain(service, classifier, photograph, method):
    asked = requested(method, target=1, seed=3)
    found = service.explain(photograph, asked, Job()).attributions[method]
    image = classifier.preprocess(samples["chelsea"]())[None]
    expected = unilens.explain(classifier, image, method, 1, seed=3)
    assert torch.equal(found.values, expected.values)
    assert found.target.tolist() == [1]


def test_the_same_request_is_worked_once(service, photograph):
    first, second = Counted(), Counted()
    one = service.explain(photograph, requested("ig"), first)
    again = service.explain(photograph, requested("ig"), second)
    assert first.points > 50
    assert second.points == 0
    assert again.attributions["ig"] is one.attributions["ig"]


def test_another_request_is_another_map(service, photograph):
    name = "smoothgrad"
    fewer = ExplainRequest(
        model="small", methods=(MethodRequest(name=name, settings={"n_samples": 9}),)
    )
    asked = [
        requested(name),
        requested(name, seed=1),
        *(requested(name, target=i) for i in range(3)),
        fewer,
    ]
    maps = [service.explain(photograph, one, Job()).attributions[name].values for one in asked]
    predicted = service.predictions(photograph, "small").top[0]["index"]
    assert torch.equal(maps.pop(2 + predicted), maps[0])
    for number, one in enumerate(maps):
        assert not any(torch.equal(one, other) for other in maps[:number])
    other = read_photograph(encoded(samples["coffee"]()), "coffee.png")
    found = service.explain(other, requested(name), Job()).attributions[name].values
    assert not torch.equal(found, maps[0])


def test_what_is_kept_is_bounded(classifier, monkeypatch, photograph):
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    runner = JobRunner(cache_bytes=50_000)
    service = ExplainService(["small"], runner=runner)
    for seed in range(30):
        service.explain(photograph, requested("random", seed=seed), Job())
    tensors = [one.values for key, one in runner.cache.items() if key[0] == "map"]
    assert 0 < sum(one.numel() * one.element_size() for one in tensors) <= 50_000
    assert len(tensors) < 30
    tiny = ExplainService(["small"], runner=JobRunner(cache_bytes=10))
    assert tiny.explain(photograph, requested("ig"), Job()).attributions


def test_cancelled_work_is_not_kept_and_the_next_one_works(service, photograph):
    with pytest.raises(Cancelled):
        service.explain(photograph, requested("ig"), Counted(until=20))
    again = Counted()
    assert (
        service.explain(photograph, requested("ig"), again)
        .attributions["ig"]
        .values.isfinite()
        .all()
    )
    assert again.points > 50


def test_a_closed_service_ends_its_work(service, photograph):
    class Closing(Counted):
        def on_pass(self, points):
            super().on_pass(points)
            if self.points == 1:
                threading.Thread(target=service.close, name="closing").start()
            if self.points:
                time.sleep(0.02)

    job = Closing()
    wide = ExplainRequest(model="small", methods=(MethodRequest(name="rise"),))
    with pytest.raises(Cancelled):
        service.explain(photograph, wide, job)
    with pytest.raises(Cancelled):
        service.explain(photograph, requested("ig"), Job())


def test_a_method_that_does_not_fit_is_told(monkeypatch, photograph):
    plain = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    flat = PixelClassifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), plain, name="small")
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: flat)
    service = ExplainService(["small"])
    found = service.explain(photograph, requested("gradcam", "ig"), Job())
    assert list(found.attributions) == ["ig"]
    assert "convolution" in found.left_out["gradcam"] or "layer" in found.left_out["gradcam"]
    assert "<strong>Grad-CAM</strong> gave no map" in render.maps_html(found)
    with pytest.raises(UnilensError):
        service.explain(photograph, requested("gradcam"), Job())


def test_predictions_are_the_most_probable(service, classifier, photograph):
    predicted = service.predictions(photograph, "small")
    assert (predicted.count, predicted.exclusive) == (3, True)
    found = predicted.top
    with torch.no_grad():
        logits = classifier(classifier.preprocess(samples["chelsea"]())[None])[0]
    share = logits.exp() / logits.exp().sum()
    assert [one["index"] for one in found] == share.argsort(descending=True).tolist()
    assert [one["probability"] for one in found] == pytest.approx(sorted(share.tolist())[::-1])
    assert found[0]["label"] == classifier.labels[found[0]["index"]]


@pytest.mark.parametrize("model", ["py:os:getcwd", "", {"a": 1}, [1], None])
def test_other_models_are_never_loaded(service, photograph, model):
    with pytest.raises(UnilensError):
        service.predictions(photograph, model)
    assert not service._loaded


OUTPUTS = {
    "classes": (3, None, "the class predicted: class ", 4),
    "one logit": (1, None, "the only output: class 0", 1),
    "labels": (3, "multi_label_classification", "the most probable label: class ", 4),
}
"""Outputs, problem type, the first choice of the class, and how many choices there are."""


def own_model(count, problem, labels=()):
    plain = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, count))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(count, 768, generator=torch.Generator()) * 0.1)
        network[1].bias.copy_(torch.arange(count) - 5.0)
    network.config = SimpleNamespace(problem_type=problem, num_labels=count)
    return PixelClassifier(network, plain, labels, name="small")


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_an_own_model_are_named_as_what_they_are(kind, monkeypatch, photograph):
    count, problem, first, choices = OUTPUTS[kind]
    classifier = own_model(count, problem)
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    found = ExplainService(["small"]).predictions(photograph, "small")
    listed = layout.class_choices(classifier, found)
    assert listed[0][0].startswith(first)
    assert [index for _, index in listed[1:]] == sorted(
        range(choices - 1), key=lambda index: [one["index"] for one in found.top].index(index)
    )
    page = render.predictions_html(found, "a.png")
    assert ("Choose two bars" in page) == (kind == "classes")
    assert page.count("disabled") == (0 if kind == "classes" else count)


def test_classes_to_choose_are_those_that_the_model_has_outputs_for(monkeypatch, photograph):
    for labels, count, expected in (
        (("dog", "cat"), 1, ["the only output: cat"]),
        ((), 8, 9),
        (tuple("abcdefgh"), 8, 9),
    ):
        classifier = own_model(count, None, labels)
        monkeypatch.setattr("unilens.app.service.load_model", lambda name, it=classifier, **_: it)
        found = ExplainService(["small"]).predictions(photograph, "small")
        listed = layout.class_choices(classifier, found)
        names = [name for name, _ in listed]
        assert names == expected if count == 1 else len(set(names)) == len(names) == expected
        without = layout.class_choices(classifier)
        assert without[0] == ("the class predicted", -1)
        assert len(without) == (1 if count == 1 else 1 + len(labels))


def test_a_model_that_is_no_classifier_is_refused_in_one_line(monkeypatch, photograph):
    classifier = own_model(3, "regression")
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    with pytest.raises(UnilensError, match="expected a classifier on the page, got a model of"):
        ExplainService(["small"]).predictions(photograph, "small")


# path steps


@pytest.mark.parametrize("method", ["uni", "ig", "idg", "guided_ig"])
def test_path_steps_go_from_the_baseline_to_the_photograph(service, photograph, method):
    asked = requested(method)
    explained = service.explain(photograph, asked, Job())
    found = service.path_steps(explained, Job())[method]
    attribution = explained.attributions[method]
    assert torch.equal(found.points[0], attribution.baseline[0])
    assert torch.equal(found.points[-1], explained.pixels)
    assert not found.sums[0].any()
    assert torch.equal(found.sums[-1], attribution.values[0])
    assert len(found.points) == len(found.sums) == len(STOPS) == 17
    assert sorted(STOPS) == STOPS
    assert (STOPS[0], STOPS[-1]) == (0, 1)
    assert found.fractions == sorted(found.fractions)
    assert (found.fractions[0], found.fractions[-1]) == (0, 1)


def test_straight_points_lie_where_the_slider_says(service, photograph):
    asked = ExplainRequest(
        model="small",
        methods=(MethodRequest(name="ig", settings={"n_steps": 200, "rule": "midpoint"}),),
    )
    explained = service.explain(photograph, asked, Job())
    found = service.path_steps(explained, Job())["ig"]
    for place, point in zip(STOPS, found.points, strict=True):
        assert torch.allclose(point, place * explained.pixels, atol=0.006)


@pytest.mark.parametrize("method", ["uni", "ig", "guided_ig", "idg"])
def test_path_confidence_is_that_of_the_picture(service, classifier, photograph, method):
    explained = service.explain(photograph, requested(method), Job())
    found = service.path_steps(explained, Job())[method]
    with torch.no_grad():
        outputs = classifier(torch.stack(found.points)).softmax(-1)[:, explained.target]
    assert torch.allclose(torch.tensor(found.shown, dtype=torch.float32), outputs, atol=1e-4)
    assert found.positions == sorted(found.positions)
    assert all(place <= stop + 1e-6 for stop, place in zip(STOPS, found.positions, strict=True))
    page = render.path_html(explained, {method: found})
    dots = [float(place) for place in re.findall(r'cx="([\d.]+)"', page)]
    assert dots == pytest.approx([320 * place for place in found.positions], abs=0.06)
    assert page.count("data-percents=") == 1
    assert f'data-percents="{"|".join(map(percent, found.shown))}"'.replace("<", "&lt;") in page


def test_path_names_the_methods_that_have_none(service, photograph):
    many = MethodRequest(name="ig", settings={"n_steps": 201})
    asked = ExplainRequest(
        model="small", methods=(many, MethodRequest(name="gradcam"), MethodRequest(name="uni_blur"))
    )
    explained = service.explain(photograph, asked, Job())
    paths = service.path_steps(explained, Job())
    assert set(paths) == {"uni_blur"}
    page = render.path_html(explained, paths)
    assert f"in at most 200 steps: {title_of('ig')}, {title_of('gradcam')}." in page
    assert 'class="ul-curve-2"' in page  # the colour of the third method, as in the checks


def test_methods_without_a_path_have_no_path_steps(service, photograph):
    asked = requested("gradient", "expected_gradients")
    explained = service.explain(photograph, asked, Job())
    assert service.path_steps(explained, Job()) == {}
    assert "None of the chosen methods" in render.path_html(explained, {})


def test_path_steps_leave_out_several_baselines_and_nothing_else(service, photograph, monkeypatch):
    several = MethodRequest(name="agi", settings={"classes": 2, "iterations": 2})
    asked = ExplainRequest(model="small", methods=(several, MethodRequest(name="ig")))
    explained = service.explain(photograph, asked, Job())
    assert set(service.path_steps(explained, Job())) == {"ig"}

    def hungry(*_, **__):
        raise UnilensError("not enough memory on cpu for one point")

    monkeypatch.setattr("unilens.app.service.path_steps", hungry)
    asked = ExplainRequest(
        model="small", methods=(MethodRequest(name="ig", settings={"n_steps": 9}),)
    )
    explained = service.explain(photograph, asked, Job())
    with pytest.raises(UnilensError, match="not enough memory"):
        service.path_steps(explained, Job())


# trust

GOOD = {
    "values_finite": 1.0,
    "completeness_gap": 0.001,
    "score_change": 1.0,
    "sum_error": 0.01,
    "sum_stability": 0.99,
    "monotonicity": 1.0,
    "confidence_fallback": 0.0,
    "confidence_change": -0.99,
    "flat_fraction": 0.1,
    "proximity": 5.0,
    "matching_loss_fall": 1.0,
    "stability_15_30": 0.99,
    "stability_1_30": 0.9,
}
WITHOUT_WARNING = {
    "Does the confidence climb all the way?",
    "Does the map stay with more steps?",
    "Does one step do as well?",
}


class Known:
    """Stands for an attribution whose diagnostics are these."""

    def __init__(self, **known):
        known = GOOD | known
        self.diagnostics = {name: torch.tensor([value]) for name, value in known.items()}
        self.warnings = [diagnostics.warn(known)]
        self.trace = object()


def lights(**known):
    return {answer.question: answer.light for answer in trust.answers(Known(**known))}


def test_a_good_map_is_green_and_numbers_without_a_warning_are_information():
    found = lights()
    assert {question for question, light in found.items() if light == "info"} == WITHOUT_WARNING
    assert set(found.values()) == {"good", "info"}


WARNED = [
    ("undefined", {"values_finite": 0.0}),
    ("undefined_score", {"completeness_gap": float("nan")}),
    ("zero_map", {"all_zero": 1.0}),
    ("sign_contradicted", {"sign_agreement": 0.0}),
    ("no_reference", {"reference_known": 0.0}),
    ("large_gap", {"completeness_gap": -0.6, "score_change": 1.0}),
    ("completeness_gap", {"completeness_gap": -0.3, "score_change": 1.0}),
    ("few_steps", {"sum_error": 5.0}),
    ("non_monotonic_path", {"monotonicity": 0.1, "confidence_fallback": 0.9}),
    ("saturation", {"flat_fraction": 0.9}),
    ("informative_baseline", {"confidence_change": -0.01}),
    ("baseline_is_input", {"proximity": 0.0}),
    ("matching_loss_did_not_fall", {"matching_loss_fall": 0.0}),
    ("matching_loss_did_not_fall", {"matching_loss_fall": float("nan")}),
    ("one_logit_assumed", {"one_logit_assumed": 1.0}),
    ("probabilities_assumed", {"probabilities_assumed": 1.0}),
    ("logits_assumed", {"logits_assumed": 1.0}),
    ("channels_assumed", {"channels_known": 0.0}),
]
"""Each warning, and a measurement that calls for it."""


@pytest.mark.parametrize(("warning", "known"), WARNED)
def test_the_light_of_a_warning_is_its_level(warning, known):
    rule = diagnostics.WARNINGS[warning]
    answers = trust.answers(Known(**known))
    warned = [answer for answer in answers if answer.warning]
    assert {(answer.warning, answer.light) for answer in warned} == {(warning, rule.level)}
    assert all(answer.answer.endswith(rule.remedy) for answer in warned)
    others = {answer.light for answer in answers if not answer.warning}
    assert others == {"good", "info"}


@pytest.mark.parametrize(("warning", "known"), WARNED)
def test_a_topic_has_its_most_severe_light(warning, known):
    answers = trust.answers(Known(**known))
    (topic,) = {answer.topic for answer in answers if answer.warning}
    lights = trust.TrustReport(Line(""), answers).lights
    expected = dict.fromkeys(("sum", "steps", "path", "baseline"), "good")
    assert lights == expected | {topic: diagnostics.WARNINGS[warning].level}


def test_a_topic_that_nothing_asks_about_is_not_measured():
    none, path = trust.TrustReport(Line(""), []), trust.Answer("?", "info", "1", topic="path")
    assert set(none.lights.values()) == {"unknown"}
    assert trust.TrustReport(Line(""), [path]).lights == none.lights | {"path": "info"}
    undefined = trust.Answer("?", "unknown", "NaN", topic="path")
    good = trust.Answer("?", "good", "1", topic="path")
    assert trust.TrustReport(Line(""), [good, undefined]).lights["path"] == "unknown"


def test_methods_are_compared_in_one_table():
    fine, poor = (
        trust.TrustReport(Line(""), trust.answers(Known(**known)))
        for known in ({}, {"sum_error": 5.0, "all_zero": 1.0})
    )
    assert trust.compared({"a": fine, "b": poor}) == [
        (trust.TOPICS["sum"], ["good", "good"]),
        (trust.TOPICS["steps"], ["good", "caution"]),
        (trust.TOPICS["path"], ["good", "good"]),
        (trust.TOPICS["baseline"], ["good", "good"]),
        (trust.TOPICS["other"], ["good", "problem"]),
    ]
    assert len(trust.compared({"a": fine})) == 4


def test_each_level_has_a_light_with_the_symbol_of_every_output():
    assert list(trust.LIGHTS) == ["good", *diagnostics.LEVELS, "unknown"]
    assert len(set(trust.LIGHTS.values())) == len({symbol for symbol, _ in trust.LIGHTS.values()})
    for level in diagnostics.LEVELS:
        assert trust.LIGHTS[level] == (LEVEL_STYLES[level].symbol, level)


def test_a_gap_that_rounds_to_nothing_has_no_minus():
    found = {one.question: one.answer for one in trust.answers(Known(completeness_gap=-1e-9))}
    assert "is +0.0000, 0.0% of" in found["Does the map add up?"]


def test_no_warning_is_forgotten():
    assert {name for name, _ in WARNED} == set(diagnostics.WARNINGS)


@pytest.mark.parametrize(
    ("question", "known"),
    [
        ("Is the whole path used?", {"flat_fraction": float("nan")}),
        ("Does the map stay with more steps?", {"stability_15_30": float("nan")}),
    ],
)
def test_what_is_undefined_has_no_light(question, known):
    assert lights(**known)[question] == "unknown"


def test_the_card_of_a_map_shows_the_verdict_and_the_lines_of_the_record(service, photograph):
    explained = service.explain(photograph, requested("ig", "gradient"), Job())
    poor = explained.attributions["ig"].with_measured(
        **{name: torch.tensor([5.0]) for name in ("sum_error", "completeness_gap")}
    )
    explained = dataclasses.replace(explained, attributions={**explained.attributions, "ig": poor})
    first, second = render.maps_html(explained).split("<article")[1:]
    record = records.of_method(poor)
    assert set(record["levels"]) == set(record["warnings"]) >= {"few_steps", "large_gap"}
    assert record["verdict"] in html.unescape(first)
    for name, level in record["levels"].items():
        line = f"{LEVEL_STYLES[level].symbol} {level}: {diagnostics.WARNINGS[name]} [{name}]"
        assert f'<li class="ul-{level}">{line}</li>' in html.unescape(first)
    assert explained.attributions["gradient"].verdicts[0] in second


def traced(scores, confidences):
    fraction = torch.linspace(0, 1, len(scores))[:, None]
    trace = Trace(
        fraction, torch.tensor(scores)[:, None], torch.tensor(confidences)[:, None], torch.zeros(1)
    )
    values = torch.full((1, 1, 2, 2), (scores[-1] - scores[0]) / 4)
    made = Attribution(
        values=values,
        target=torch.tensor([0]),
        score=torch.tensor([scores[-1]]),
        outputs=torch.zeros(1, 2),
        baseline=torch.zeros(1, 1, 2, 2),
        baseline_score=torch.tensor([scores[0]]),
        trace=trace,
    )
    return made.with_measured(
        monotonicity=diagnostics.monotonicity(trace),
        confidence_fallback=diagnostics.confidence_fallback(trace),
    )


def test_a_path_that_turns_back_is_warned_about():
    back = trust.answers(traced([0.0, 0.9, 0.1, 0.8, 0.2, 0.5], [0.0, 0.9, 0.1, 0.8, 0.2, 0.5]))
    straight = trust.answers(traced([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0]))
    question = "Does the confidence fall back on the way?"
    level = diagnostics.WARNINGS["non_monotonic_path"].level
    assert {one.question: one.light for one in back}[question] == level
    assert {one.question: one.light for one in straight}[question] == "good"


def test_a_method_without_a_path_says_so(service, photograph):
    found = service.explain(photograph, requested("gradient"), Job())
    told = trust.answers(found.attributions["gradient"])
    assert told[-1].light == "unknown"


@pytest.mark.parametrize("control", ["random", "edges"])
def test_a_control_is_named_as_one_and_never_praised(service, photograph, control):
    found = service.explain(photograph, requested(control, "gradient"), Job())
    own, other = (trust.trust_report(found.attributions[name]) for name in (control, "gradient"))
    assert own.verdict.text.startswith("A control: it does not depend on the model")
    assert other.verdict.text == found.attributions["gradient"].verdicts[0]
    assert "good" not in own.lights.values()
    first, second = render.maps_html(found).split("<article")[1:]
    assert "A control: it does not depend on the model" in first
    assert "A control" not in second
    checks = run_checks(service, found, Job())
    lights = {answer.light for answer in checks[control].answers}
    assert lights <= {"info", "caution", "problem", "unknown"}


def test_praise_of_a_control_becomes_information():
    for light in trust.LIGHTS:
        kept = "info" if light == "good" else light
        assert without_praise(trust.Answer("?", light, "1")).light == kept


# checks


BOARD = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1


class Corner(nn.Module):
    """Sees a chessboard in one corner alone."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([6.0, -6.0]))

    def forward(self, pixels):
        seen = (pixels * BOARD)[:, :, :6, :6]
        return seen.mean((1, 2, 3))[:, None] * self.scale


@pytest.fixture
def corner(monkeypatch):
    plain = Preprocessing(size=(16, 16), resize=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    classifier = PixelClassifier(Corner().eval(), plain, labels=["lit", "dark"], name="small")
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    return ExplainService(["small"])


def checked(service, *names):
    board = Image.fromarray(((BOARD > 0) * 255).to(torch.uint8).numpy()).convert("RGB")
    photograph = read_photograph(encoded(board), "a.png")
    asked = requested(*names, target=0)
    job = Job()
    explained = service.explain(photograph, asked, job)
    return run_checks(service, explained, job)


def test_a_perfect_map_beats_the_random_one(corner):
    found = checked(corner, "input_x_gradient", "random")
    assert set(found) == {CONTROL, "input_x_gradient", "random"}
    by_light = {one.question: one.light for one in found["input_x_gradient"].answers}
    assert by_light["Do the most important pixels bring the class back?"] == "good"
    assert by_light["Does the class go with the most important pixels?"] == "good"
    own, control = found["input_x_gradient"].curves, found[CONTROL].curves
    assert own["insertion_auc"].values[0] > control["insertion_auc"].values[0] + 0.05
    assert own["deletion_auc"].values[0] < control["deletion_auc"].values[0] - 0.05
    assert not found[CONTROL].answers
    assert len(found["random"].answers) == 4


def test_a_map_that_knows_nothing_of_the_model_is_told(corner):
    found = {one.question: one.light for one in checked(corner, "edges")["edges"].answers}
    assert found["Does the map depend on what the model has learned?"] in ("problem", "unknown")
    assert found["Do the most important pixels bring the class back?"] != "good"


class Flips(Corner):
    """Is of another class from any noise on."""

    def forward(self, pixels):
        seen = (pixels - pixels.round()).abs().sum((1, 2, 3))[:, None]
        return torch.where(seen > 0, -1.0, 1.0) * self.scale + super().forward(pixels)


def test_noise_that_changes_the_class_says_why_nothing_is_measured(monkeypatch):
    plain = Preprocessing(size=(16, 16), resize=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    classifier = PixelClassifier(Flips().eval(), plain, labels=["lit", "dark"], name="small")
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    answers = checked(ExplainService(["small"]), "gradient")["gradient"].answers
    (noise,) = (answer for answer in answers if "noise" in answer.question)
    assert noise.light == "unknown"
    assert "the model predicts another class" in noise.answer


def test_curves_of_the_checks_have_names_for_people(corner):
    page = html.unescape(render.checks_html(checked(corner, "input_x_gradient", "edges")))
    for chart in page.split("<figure")[1:]:
        shown = re.findall(r"</svg> (.+?) -?\d\.\d\d</li>", chart)
        assert shown == [CONTROL, title_of("input_x_gradient"), title_of("edges")]
        assert f"{title_of('edges')}: area" in chart


def test_progress_of_the_checks_has_words_for_people(corner):
    steps = set()
    board = Image.fromarray(((BOARD > 0) * 255).to(torch.uint8).numpy()).convert("RGB")
    explained = corner.explain(
        read_photograph(encoded(board), "a.png"), requested("input_x_gradient"), Job()
    )
    run_checks(corner, explained, Job(lambda _, text: steps.add(text)))
    words = ("insertion", "deletion", "noise", "random weights")
    expected = {f"{title_of('input_x_gradient')}: {word}" for word in words}
    assert expected <= steps
    assert not {step for step in steps if "_" in step}


# render


class Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alternatives, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.alternatives.append(dict(attrs).get("alt"))


@pytest.fixture
def evil(monkeypatch, photograph):
    classifier = small_classifier((EVIL, EVIL + "2", EVIL + "3"))
    monkeypatch.setattr("unilens.app.service.load_model", lambda name, **_: classifier)
    service, asked = ExplainService(["small"]), requested("ig", "gradcam")
    odd = read_photograph(photograph.data, "<script>\"x'&.png")
    explained = service.explain(odd, asked, Job())
    explained = dataclasses.replace(explained, left_out={"a<b>": EVIL})
    return service, explained


def test_texts_are_escaped_and_pictures_have_words(evil):
    service, explained = evil
    found = {name: trust.trust_report(one) for name, one in explained.attributions.items()}
    answers = [trust.Answer(EVIL, "problem", EVIL, EVIL)]
    found[EVIL] = trust.TrustReport(Line(EVIL, "problem"), answers)
    pages = {
        "predictions": render.predictions_html(
            service.predictions(explained.photograph, "small"), explained.photograph.name
        ),
        "maps": render.maps_html(explained),
        "path": render.path_html(explained, service.path_steps(explained, Job())),
        "trust": render.trust_html(found),
        "checks": render.checks_html(run_checks(service, explained, Job())),
    }
    for name, page in pages.items():
        parser = Images()
        parser.feed(page)
        assert "script" not in parser.tags, name
        assert "b" not in parser.tags, name
        assert all(parser.alternatives), name
        assert EVIL not in page
        if name != "checks":
            assert "&lt;script&gt;" in page
    assert len(re.findall("<img", pages["maps"])) >= 10
    assert len(re.findall("<img", pages["path"])) == 2 * 17


# downloads


@pytest.mark.parametrize("own", [False, True])
def test_the_code_gives_the_same_maps(service, classifier, monkeypatch, tmp_path, own):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unilens.load_model", lambda name: classifier)
    data = encoded(samples["coffee"]().resize((40, 30)), "JPEG") if own else None
    photograph = read_photograph(data, 'it\'s "mine".jpg') if own else sample_photograph("chelsea")
    if own:
        (tmp_path / photograph.name).write_bytes(data)
    asked = ExplainRequest(
        model="small",
        methods=(
            MethodRequest(name="ig", settings={"n_steps": 7, "baseline": "white"}),
            MethodRequest(name="expected_gradients", settings={"n_steps": 12}),
            MethodRequest(name="uni", settings={"budget": 0.1}),
        ),
        seed=4,
    )
    explained = service.explain(photograph, asked, Job())
    code = python_code(explained)
    names = {}
    exec(code, names)
    assert set(names["maps"]) == {"ig", "expected_gradients", "uni"}
    for name, found in names["maps"].items():
        assert torch.equal(found.values, explained.attributions[name].values), name
    assert (tmp_path / (photograph.stem + "-unilens.png")).exists()
    short = python_code(service.explain(photograph, requested("ig"), Job()))
    assert len(short.strip().splitlines()) <= 11


def test_code_for_random_weights_loads_random_weights(service, photograph):
    explained = service.explain(photograph, requested("ig"), Job())
    assert "pretrained" not in python_code(explained)
    explained.model.origin = "random weights"
    assert ", pretrained=False)" in python_code(explained)


def test_a_file_name_is_no_code(service, photograph, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    odd = read_photograph(photograph.data + b"x", "');import os;os.mkdir('x')#\n.png")
    code = python_code(service.explain(odd, requested("gradient"), Job()))
    assert len(code.strip().splitlines()) <= 11
    compile(code, "snippet", "exec")
    assert repr(odd.name) in code


@pytest.mark.parametrize("own", [False, True])
def test_the_files_restore_the_page(service, photograph, tmp_path, own):
    kept = read_photograph(photograph.data + b"x", "my cat.png") if own else photograph
    asked = requested("ig", "uni", target=1, seed=2)
    files = VisitorFiles(tmp_path).write_downloads(service.explain(kept, asked, Job()))
    assert all(Path(path).stat().st_size for path in files)
    endings = (".png", ".safetensors", ".json", ".py", "-page.json")
    assert [path.endswith(ending) for path, ending in zip(files, endings, strict=True)] == [
        True
    ] * 5
    state = read_state(Path(files[-1]).read_text())
    assert state.request == asked
    assert state.sample == (None if own else "chelsea")
    if own:
        assert state.photograph.decode() == kept.data
    assert set(json.loads(Path(files[2]).read_text())["methods"]) == {"ig", "uni"}


# files


def test_only_what_is_old_is_swept(tmp_path):
    files = VisitorFiles(tmp_path)
    for name, age in (("old/a", 4000), ("both/old", 4000), ("both/new", 10), ("new", 3500)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (time.time() - age,) * 2)
    empty = tmp_path / "empty" / "inside"
    empty.mkdir(parents=True)
    for path in (empty, empty.parent):
        os.utime(path, (time.time() - 4000,) * 2)
    assert files.sweep() == 2
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["both", "both/new", "empty", "new", "old"]
    for name in ("empty", "old"):
        os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    assert files.sweep() == 0
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["both", "both/new", "new"]


def test_a_folder_that_was_made_just_now_is_left(tmp_path):
    (tmp_path / "upload").mkdir()
    VisitorFiles(tmp_path).sweep()
    assert (tmp_path / "upload").exists()


def test_only_the_folder_is_read(tmp_path, photograph):
    (tmp_path / "own").mkdir()
    files = VisitorFiles(tmp_path / "own")
    path = files.write_photograph(photograph)
    assert files.read(path).data == photograph.data
    (tmp_path / "other.png").write_bytes(photograph.data)
    (tmp_path / "own" / "link.png").symlink_to(tmp_path / "other.png")
    for bad in (
        *(tmp_path / "other.png", tmp_path / "own" / "link.png", tmp_path / "own"),
        *(tmp_path / "own" / ".." / "other.png", "/etc/passwd", "a\0b", "", "x" * 9000),
    ):
        with pytest.raises(UnilensError, match="no longer here"):
            files.read(str(bad))


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        code = "from unilens.cli import main; main()"
        command = [sys.executable, "-c", code, "app", "--random-weights", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: could not listen on 127.0.0.1:{port}: it is taken, or no address of this machine; "
        "choose another --port or --host"
    ]
